// RUN: amdnfs-opt --passes='dispatch-kv-write{num-compute-units=4 fp8=f8E4M3FNUZ}' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='dispatch-kv-write{processor=gfx1100 wave-size=32 num-compute-units=4}' %s | filecheck %s --check-prefix=WAVE32

!x = !torch.vtensor<[2,1,64],f16>
!s = !torch.vtensor<[2,1,16],f16>
!q4 = !torch.vtensor<[2,1,2,16],f16>
!k4 = !torch.vtensor<[2,1,1,16],f16>
!q = !torch.vtensor<[2,2,1,16],f16>
!t = !torch.vtensor<[2,1,16],f16>
!pool = !torch.vtensor<[?,2,16,1,16],f16>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>

// One projection made queries, keys and values: the kernel reads it as it lies, three times the same operand, and gives
// the pool, in place, and the rotated queries. Padding has no place in a page, so nothing else is written.
// CHECK-LABEL: func.func private @amdnfs.dispatch_kv_write
// CHECK-SAME:    ([[X:%[a-z0-9]+]]: tensor<2x1x64xf16>, [[Y:%[a-z0-9]+]]: tensor<2x1x64xf16>, [[Z:%[a-z0-9]+]]: tensor<2x1x64xf16>, [[COS:%[a-z0-9]+]]: tensor<2x1x16xf16>, [[SIN:%[a-z0-9]+]]: tensor<2x1x16xf16>, [[TABLE:%[a-z0-9]+]]: tensor<2x?xi32>, [[START:%[a-z0-9]+]]: tensor<2xi64>, [[VALID:%[a-z0-9]+]]: tensor<2xi64>, [[POOL:%[a-z0-9]+]]: tensor<?x2x16x1x16xf16>)
// CHECK:         [[PAGES:%[a-z0-9_]+]] = tensor.dim [[POOL]]
// CHECK:         [[R:%[a-z0-9_]+]]:2 = flow.dispatch @[[KERNEL:[a-z_0-9.]+]]::@write_heads[{{.*}}]([[X]], [[Y]], [[Z]], [[COS]], [[SIN]], [[TABLE]], [[START]], [[VALID]], [[POOL]], {{.*}}amdnfs.cost = {bytes = [640, 0], flops = [0, 0]}
// CHECK-SAME:      -> ([[POOL]]{{{.*}}}, tensor<2x2x1x16xf16>)
// CHECK-NEXT:    return [[R]]#0, [[R]]#1
// CHECK:       hal.executable.source private @[[KERNEL]] attributes
// CHECK-SAME:    entry = "write_heads"
// CHECK-SAME:    scratch_bytes = 0 : i64
// CHECK-SAME:    spills = 0 : i64
// CHECK-SAME:    op = "kv_write", tiling = "ROWS=4,waves=1,stages=1"
// CHECK:         <workgroup_size = [64 : index, 1 : index, 1 : index]>
// CHECK-LABEL: func.func @decode
// CHECK-NOT:     amdnfs.rotary
// CHECK-NOT:     aten.slice
// CHECK:         [[NEW:%[0-9]+]]:2 = call @amdnfs.dispatch_kv_write
// CHECK:         [[NEWPOOL:%[0-9]+]] = torch_c.from_builtin_tensor [[NEW]]#0
// CHECK:         [[NEWQ:%[0-9]+]] = torch_c.from_builtin_tensor [[NEW]]#1
// CHECK:         "torch.amdnfs.paged_attention"([[NEWQ]], [[NEWPOOL]],
// WAVE32-LABEL: func.func private @amdnfs.dispatch_kv_write
// WAVE32:         tiling = "ROWS=4,waves=1,stages=1"
// WAVE32:         <workgroup_size = [32 : index, 1 : index, 1 : index]>
func.func @decode(%x: !x, %cos: !t, %sin: !t, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> (!pool, !torch.vtensor<[2,1,2,16],f16>) {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %half = torch.constant.float 5.000000e-01
  %cap = torch.constant.float 0.000000e+00
  %i0 = torch.constant.int 0
  %i1 = torch.constant.int 1
  %i2 = torch.constant.int 2
  %i16 = torch.constant.int 16
  %i32 = torch.constant.int 32
  %i48 = torch.constant.int 48
  %i64 = torch.constant.int 64
  %0 = torch.aten.slice.Tensor %x, %i2, %i0, %i32, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[2,1,32],f16>
  %1 = torch.aten.slice.Tensor %x, %i2, %i32, %i48, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !s
  %2 = torch.aten.slice.Tensor %x, %i2, %i48, %i64, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !s
  %sizes = torch.prim.ListConstruct %i2, %i1, %i2, %i16 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %ones = torch.prim.ListConstruct %i2, %i1, %i1, %i16 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %3 = torch.aten.view %0, %sizes : !torch.vtensor<[2,1,32],f16>, !torch.list<int> -> !q4
  %4 = torch.aten.view %1, %ones : !s, !torch.list<int> -> !k4
  %5 = torch.aten.view %2, %ones : !s, !torch.list<int> -> !k4
  %q = torch.aten.transpose.int %3, %i1, %i2 : !q4, !torch.int, !torch.int -> !q
  %k = torch.aten.transpose.int %4, %i1, %i2 : !k4, !torch.int, !torch.int -> !k4
  %v = torch.aten.transpose.int %5, %i1, %i2 : !k4, !torch.int, !torch.int -> !k4
  %c = torch.aten.unsqueeze %cos, %i1 : !t, !torch.int -> !k4
  %s = torch.aten.unsqueeze %sin, %i1 : !t, !torch.int -> !k4
  %qr = torch.operator "torch.amdnfs.rotary"(%q, %c, %s, %false) : (!q, !k4, !k4, !torch.bool) -> !q
  %kr = torch.operator "torch.amdnfs.rotary"(%k, %c, %s, %false) : (!k4, !k4, !k4, !torch.bool) -> !k4
  %6 = torch.operator "torch.amdnfs.kv_write"(%pool, %kr, %v, %table, %start, %valid) : (!pool, !k4, !k4, !table, !count, !count) -> !pool
  %7 = torch.operator "torch.amdnfs.paged_attention"(%qr, %6, %table, %start, %valid, %none, %none, %half, %i0, %cap) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !q4
  return %6, %7 : !pool, !q4
}

// -----

!k = !torch.vtensor<[1,2,3,16],bf16>
!t = !torch.vtensor<[1,1,3,16],bf16>
!u = !torch.vtensor<[1,1,3,16],f32>
!q = !torch.vtensor<[1,2,3,16],bf16>
!y = !torch.vtensor<[1,3,2,16],bf16>
!pool = !torch.vtensor<[?,2,16,2,16],bf16>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>

// Queries that other tables rotate are not the kernel's; keys and values are. No projection is seen: they are read as
// they come.
// CHECK-LABEL: func.func private @amdnfs.dispatch_kv_write
// CHECK-SAME:    tensor<1x2x3x16xbf16>, {{%[a-z0-9]+}}: tensor<1x2x3x16xbf16>, {{%[a-z0-9]+}}: tensor<1x1x3x16xbf16>, {{%[a-z0-9]+}}: tensor<1x1x3x16xbf16>, {{%[a-z0-9]+}}: tensor<1x?xi32>
// CHECK:         {{%[a-z0-9_]+}} = flow.dispatch {{.*}} -> [[POOL:%[a-z0-9]+]]{
// CHECK-LABEL: func.func @other_tables
// CHECK:         [[Q:%[0-9]+]] = torch.operator "torch.amdnfs.rotary"
// CHECK:         call @amdnfs.dispatch_kv_write
// CHECK:         "torch.amdnfs.paged_attention"([[Q]],
// WAVE32-LABEL: func.func @other_tables
func.func @other_tables(%q: !q, %k: !k, %v: !k, %cos: !t, %sin: !t, %c: !t, %s: !t, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> (!pool, !y) {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %half = torch.constant.float 5.000000e-01
  %cap = torch.constant.float 0.000000e+00
  %i0 = torch.constant.int 0
  %qr = torch.operator "torch.amdnfs.rotary"(%q, %c, %s, %true) : (!q, !t, !t, !torch.bool) -> !q
  %kr = torch.operator "torch.amdnfs.rotary"(%k, %cos, %sin, %true) : (!k, !t, !t, !torch.bool) -> !k
  %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %kr, %v, %table, %start, %valid) : (!pool, !k, !k, !table, !count, !count) -> !pool
  %1 = torch.operator "torch.amdnfs.paged_attention"(%qr, %0, %table, %start, %valid, %none, %none, %half, %i0, %cap) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0, %1 : !pool, !y
}

// -----

!k = !torch.vtensor<[1,2,3,16],f32>
!pool = !torch.vtensor<[?,2,16,2,16],f32>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>

// CHECK-LABEL: func.func @wide
// CHECK:         "torch.amdnfs.kv_write"
// CHECK:       // refused: dispatch-kv-write: f32 has no kernel; f16 and bf16 have
// WAVE32-LABEL: func.func @wide
func.func @wide(%k: !k, %pool: !pool, %table: !table, %n: !count) -> !pool {
  %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %k, %table, %n, %n) : (!pool, !k, !k, !table, !count, !count) -> !pool
  return %0 : !pool
}

// -----

!k = !torch.vtensor<[2,2,3,16],f16>
!pool = !torch.vtensor<[?,2,16,2,16],f16>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>

// CHECK-LABEL: func.func @uneven
// CHECK:         "torch.amdnfs.kv_write"
// CHECK:       // refused: dispatch-kv-write: the rows of keys or values do not lie evenly in any tensor
// WAVE32-LABEL: func.func @uneven
func.func @uneven(%k: !k, %pool: !pool, %table: !table, %n: !count) -> !pool {
  %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %k, %table, %n, %n) : (!pool, !k, !k, !table, !count, !count) -> !pool
  return %0 : !pool
}

// -----

!k = !torch.vtensor<[1,2,3,16],f16>
!t = !torch.vtensor<[1,1,3,16],f16>
!pool = !torch.vtensor<[?,2,16,2,16],f16>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>

// CHECK-LABEL: func.func @turned_values
// CHECK:         "torch.amdnfs.kv_write"
// CHECK:       // refused: dispatch-kv-write: the values are normalised or rotated
// WAVE32-LABEL: func.func @turned_values
func.func @turned_values(%k: !k, %cos: !t, %pool: !pool, %table: !table, %n: !count) -> !pool {
  %false = torch.constant.bool false
  %v = torch.operator "torch.amdnfs.rotary"(%k, %cos, %cos, %false) : (!k, !t, !t, !torch.bool) -> !k
  %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %v, %table, %n, %n) : (!pool, !k, !k, !table, !count, !count) -> !pool
  return %0 : !pool
}

// -----

!k = !torch.vtensor<[1,2,3,16],f16>
!pool = !torch.vtensor<[?,2,16,2,16],si8>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>

// A pool of bytes holds fp8; they are made by integers, so any chip can.
// CHECK-LABEL: func.func private @amdnfs.dispatch_kv_write
// CHECK:         amdnfs.cost = {bytes = [576, 0], flops = [0, 0]}
// CHECK-LABEL: func.func @bytes
// WAVE32-LABEL: func.func @bytes
// WAVE32:         call @amdnfs.dispatch_kv_write
func.func @bytes(%k: !k, %pool: !pool, %table: !table, %n: !count) -> !pool {
  %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %k, %table, %n, %n) : (!pool, !k, !k, !table, !count, !count) -> !pool
  return %0 : !pool
}

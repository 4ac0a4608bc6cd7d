// RUN: amdnfs-opt --passes='dispatch-paged-attention{num-compute-units=4 fp8=f8E4M3FNUZ}' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='dispatch-paged-attention{processor=gfx1100 wave-size=32 num-compute-units=4}' %s | filecheck %s --check-prefix=WAVE32
// RUN: amdnfs-opt --passes='dispatch-paged-attention{backend=cuda processor=sm_80 wave-size=32 num-compute-units=4}' %s | filecheck %s --check-prefix=CUDA

!q = !torch.vtensor<[4,4,4,16],f16>
!pool = !torch.vtensor<[?,2,16,2,16],f16>
!table = !torch.vtensor<[4,?],si32>
!count = !torch.vtensor<[4],si64>
!y = !torch.vtensor<[4,4,4,16],f16>

// Enough tiles for every compute unit: one dispatch of row tiles, requests times KV heads, and one split.
// CHECK-LABEL: func.func private @amdnfs.paged_attention.b4.h4.t4.kv2.d16.p16.f16.scale3F000000(
// CHECK-SAME:    [[Q:%[a-z0-9]+]]: tensor<4x4x4x16xf16>, [[POOL:%[a-z0-9]+]]: tensor<?x2x16x2x16xf16>, [[TABLE:%[a-z0-9]+]]: tensor<4x?xi32>, [[START:%[a-z0-9]+]]: tensor<4xi64>, [[VALID:%[a-z0-9]+]]: tensor<4xi64>)
// CHECK-DAG:     [[SPARE:%[a-z0-9_]+]] = arith.constant 0 : i32
// CHECK-DAG:     [[TOKENS:%[a-z0-9_]+]] = arith.constant 4 : i32
// CHECK-DAG:     [[PAGES:%[a-z0-9_]+]] = tensor.dim [[POOL]], %c0
// CHECK-DAG:     [[WIDTH:%[a-z0-9_]+]] = tensor.dim [[TABLE]], %c1
// CHECK:         [[COLUMNS:%[a-z0-9_]+]] = arith.index_cast [[WIDTH]] : index to i32
// CHECK-DAG:     [[X:%[a-z0-9_]+]] = arith.constant 1 : index
// CHECK-DAG:     [[Y:%[a-z0-9_]+]] = arith.constant 8 : index
// CHECK-DAG:     [[Z:%[a-z0-9_]+]] = arith.constant 1 : index
// CHECK:         [[R:%[0-9]+]] = flow.dispatch @[[KERNEL:[a-z_0-9.]+]]::@paged_attention[{{%[a-z0-9_]+}}, [[Y]], {{%[a-z0-9_]+}}]([[Q]], [[POOL]], [[TABLE]], [[START]], [[VALID]], [[COLUMNS]], [[TOKENS]], [[SPARE]], [[SPARE]], [[SPARE]])
// CHECK-SAME:      amdnfs.cost = {bytes = [4096, 512], flops = [0, 4096]}
// CHECK-SAME:      tensor<?x2x16x2x16xf16>{[[PAGES]]}, tensor<4x?xi32>{[[WIDTH]]}, {{.*}} -> tensor<4x4x4x16xf16>
// CHECK-NEXT:    return [[R]]
// CHECK:       hal.executable.source private @[[KERNEL]] attributes
// CHECK-SAME:    entry = "paged_attention", kernel = {
// CHECK-SAME:    matrix_instructions = {{[1-9][0-9]*}} : i64, scratch_bytes = 0 : i64
// CHECK-SAME:    spills = 0 : i64
// CHECK-SAME:    op = "paged_attention", tiling = "ROWS=16,KEYS=64,waves=4,stages=2"
// CHECK-SAME:    amdnfs.object = dense<"0x7F454C46
// CHECK-SAME:    amdnfs.object_path = "[[KERNEL]].hsaco"
// CHECK-NEXT:    hal.executable.export public @paged_attention ordinal(0) layout(#{{[a-z0-9_]+}}) count(%{{.*}}: !hal.device, [[I:%[a-z0-9]+]]: index, [[J:%[a-z0-9]+]]: index, [[K:%[a-z0-9]+]]: index)
// CHECK-NEXT:      hal.return [[I]], [[J]], [[K]]
// CHECK-NEXT:    <workgroup_size = [256 : index, 1 : index, 1 : index]>
// CHECK-NOT:   @combine_splits
// CHECK-LABEL: func.func @prefill
// CHECK:         call @amdnfs.paged_attention.b4.h4.t4.kv2.d16.p16.f16.scale3F000000(
// WAVE32-LABEL: func.func private @amdnfs.paged_attention.b4.h4.t4
// WAVE32:         op = "paged_attention"
// WAVE32:         <workgroup_size = [256 : index, 1 : index, 1 : index]>
// A cuda kernel is text, and the launch gives it its shared memory.
// CUDA-LABEL:  func.func private @amdnfs.paged_attention.b4.h4.t4
// CUDA:          hal.executable.source private @[[KERNEL:[a-z_0-9.]+]] attributes
// CUDA-SAME:       amdnfs.object = dense<"0x2F2F
// CUDA-SAME:       amdnfs.object_path = "[[KERNEL]].ptx"
// CUDA:          <workgroup_size = [128 : index, 1 : index, 1 : index], workgroup_local_memory = {{[1-9][0-9]*}}>
func.func @prefill(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !y {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[1,4,1,16],bf16>
!pool = !torch.vtensor<[?,2,16,2,16],bf16>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!sinks = !torch.vtensor<[4],bf16>
!y = !torch.vtensor<[1,1,4,16],bf16>

// Two tiles for four compute units: the keys are split in four, and only the kernel that joins them reads the sinks.
// CHECK-LABEL: func.func private @amdnfs.paged_attention.b1.h4.t1.kv2.d16.p16.bf16.scale3F000000.sinks(
// CHECK-SAME:    [[SINKS:%[a-z0-9]+]]: tensor<4xbf16>) -> tensor<1x1x4x16xbf16>
// CHECK-DAG:     [[PAIRS:%[a-z0-9_]+]] = arith.constant 2 : index
// CHECK-DAG:     [[SPLITS:%[a-z0-9_]+]] = arith.constant 4 : index
// CHECK:         [[PART:%[0-9]+]]:2 = flow.dispatch @{{[a-z_0-9.]+}}::@paged_attention[{{%[a-z0-9_]+}}, [[PAIRS]], [[SPLITS]]](
// CHECK-NOT:     [[SINKS]]
// CHECK-SAME:    -> (tensor<16x16xf32>, tensor<16x2xf32>)
// CHECK:         [[R:%[0-9]+]] = flow.dispatch @[[COMBINE:[a-z_0-9.]+]]::@combine_splits[{{.*}}]([[PART]]#0, [[PART]]#1, [[SINKS]], {{.*}}) -> tensor<1x1x4x16xbf16>
// CHECK-NEXT:    return [[R]]
// CHECK:       hal.executable.source private @[[COMBINE]] attributes
// CHECK-SAME:    op = "combine_splits"
// CHECK-LABEL: func.func @decode_with_sinks
// CHECK:         call @amdnfs.paged_attention.b1.h4.t1.kv2.d16.p16.bf16.scale3F000000.sinks(
func.func @decode_with_sinks(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count, %sinks: !sinks) -> !y {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %sinks, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !sinks, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[1,4,1,16],f16>
!pool = !torch.vtensor<[?,2,16,2,16],f16>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!y = !torch.vtensor<[1,1,4,16],f16>

// Layers that are alike call one function.
// CHECK:         hal.executable.source private @amdnfs.combine_splits
// CHECK:         hal.executable.source private @amdnfs.paged_attention
// CHECK-NOT:     hal.executable.source
// CHECK-LABEL:   func.func @two_layers
// CHECK-COUNT-2: call @amdnfs.paged_attention.b1.h4.t1.kv2.d16.p16.f16.scale3F000000(
func.func @two_layers(%q: !q, %pool: !pool, %other: !pool, %table: !table, %start: !count, %valid: !count) -> (!y, !y) {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %1 = torch.operator "torch.amdnfs.paged_attention"(%q, %other, %table, %start, %valid, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0, %1 : !y, !y
}

// -----

!q = !torch.vtensor<[1,4,1,16],f32>
!pool = !torch.vtensor<[?,2,16,2,16],f32>
!qh = !torch.vtensor<[1,4,1,16],f16>
!poolh = !torch.vtensor<[?,2,16,2,16],f16>
!three = !torch.vtensor<[?,2,16,3,16],f16>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!slopes = !torch.vtensor<[4],f32>
!y = !torch.vtensor<[1,1,4,16],f32>
!yh = !torch.vtensor<[1,1,4,16],f16>

// What lower-paged-attention refuses, too, is refused there (the third one). Slopes (ALiBi) are one more operand.
// CHECK-LABEL: func.func private @amdnfs.paged_attention.b1.h4.t1.kv2.d16.p16.f16.scale3F000000.slopes(
// CHECK-SAME:    [[SLOPES:%[a-z0-9]+]]: tensor<4xf32>) -> tensor<1x1x4x16xf16>
// CHECK:         flow.dispatch {{.*}}, [[SLOPES]], {{.*}} tensor<4xf32>,
// CHECK-LABEL: func.func @refused
// CHECK-COUNT-2: torch.operator "torch.amdnfs.paged_attention"
// CHECK:       // refused: dispatch-paged-attention: f32 has no kernel; f16 and bf16 have
// CHECK-NOT:   // refused
func.func @refused(%q: !q, %pool: !pool, %qh: !qh, %poolh: !poolh, %three: !three, %t: !table, %s: !count, %slopes: !slopes) -> !yh {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %full = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %t, %s, %s, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %alibi = torch.operator "torch.amdnfs.paged_attention"(%qh, %poolh, %t, %s, %s, %none, %slopes, %half, %any, %zero) : (!qh, !poolh, !table, !count, !count, !torch.none, !slopes, !torch.float, !torch.int, !torch.float) -> !yh
  %heads = torch.operator "torch.amdnfs.paged_attention"(%qh, %three, %t, %s, %s, %none, %none, %half, %any, %zero) : (!qh, !three, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !yh
  return %alibi : !yh
}

// -----

!q = !torch.vtensor<[4,4,4,16],f16>
!pool = !torch.vtensor<[?,2,16,2,16],si8>
!table = !torch.vtensor<[4,?],si32>
!count = !torch.vtensor<[4],si64>
!y = !torch.vtensor<[4,4,4,16],f16>

// A pool of bytes holds fp8: half as many bytes of it are read.
// CHECK-LABEL: func.func private @amdnfs.paged_attention.b4.h4.t4.kv2.d16.p16.f16.scale3F000000.bytes(
// CHECK-SAME:    tensor<?x2x16x2x16xi8>
// CHECK:         amdnfs.cost = {bytes = [4096, 256], flops = [0, 4096]}
// CHECK-LABEL: func.func @bytes
// CHECK-NOT:     torch.operator
// WAVE32-LABEL: func.func @bytes
// CUDA-LABEL:  func.func @bytes
func.func @bytes(%q: !q, %pool: !pool, %table: !table, %n: !count) -> !y {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %n, %n, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

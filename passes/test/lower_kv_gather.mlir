// RUN: amdnfs-opt --passes='lower-kv-gather' --why %s | filecheck %s

!pool = !torch.vtensor<[?,2,16,2,8],f16>
!table = !torch.vtensor<[3,?],si32>
!count = !torch.vtensor<[3],si64>
!rows = !torch.vtensor<[3,2,?,8],f16>

// Keys and values are read by one function each; what is past the live context is read as zero.
// CHECK-LABEL: func.func private @amdnfs.kv_gather.values.b3.kv2.d8.p16.f16(
// CHECK-SAME:    [[POOL:%[a-z0-9]+]]: tensor<?x2x16x2x8xf16>, [[TABLE:%[a-z0-9]+]]: tensor<3x?xi32>, [[START:%[a-z0-9]+]]: tensor<3xi64>, [[VALID:%[a-z0-9]+]]: tensor<3xi64>) -> tensor<3x2x?x8xf16>
// CHECK:         [[COVERED:%[0-9]+]] = arith.muli
// CHECK:         [[SIZE:%[0-9]+]] = util.optimization_barrier [[COVERED]]
// CHECK:         tensor.empty([[SIZE]]) : tensor<3x2x?x8xf16>
// CHECK:           [[PAGE32:%[a-z0-9_]+]] = tensor.extract [[TABLE]]
// CHECK:           [[PAGE:%[0-9]+]] = arith.index_cast [[PAGE32]]
// CHECK:           [[X:%[a-z0-9_]+]] = tensor.extract [[POOL]]{{\[}}[[PAGE]], %c1
// CHECK:           [[BEGIN:%[a-z0-9_]+]] = tensor.extract [[START]]
// CHECK:           [[COUNT:%[a-z0-9_]+]] = tensor.extract [[VALID]]
// CHECK:           [[END:%[0-9]+]] = arith.addi [[BEGIN]], [[COUNT]]
// CHECK:           [[LIVE:%[0-9]+]] = arith.cmpi slt, {{%[0-9]+}}, [[END]]
// CHECK:           arith.select [[LIVE]], [[X]], %cst
// CHECK-LABEL: func.func private @amdnfs.kv_gather.keys.b3.kv2.d8.p16.f16(
// CHECK:           tensor.extract {{%[a-z0-9]+}}[{{%[0-9]+}}, %c0
// CHECK-LABEL: func.func @keys_and_values
// CHECK:         call @amdnfs.kv_gather.keys.b3.kv2.d8.p16.f16(
// CHECK:         call @amdnfs.kv_gather.values.b3.kv2.d8.p16.f16(
func.func @keys_and_values(%pool: !pool, %table: !table, %start: !count, %valid: !count) -> (!rows, !rows) {
  %keys = torch.constant.int 0
  %values = torch.constant.int 1
  %0 = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %keys) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %1 = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %values) : (!pool, !table, !count, !count, !torch.int) -> !rows
  return %0, %1 : !rows, !rows
}

// -----

!pool = !torch.vtensor<[?,2,16,2,8],f32>
!pages = !torch.vtensor<[?,2,?,2,8],f32>
!table = !torch.vtensor<[3,?],si32>
!count = !torch.vtensor<[3],si64>
!rows = !torch.vtensor<[3,2,?,8],f32>
!small = !torch.vtensor<[3,2,?,8],f16>
!more = !torch.vtensor<[4,2,?,8],f32>

// CHECK-LABEL: func.func @refused
// CHECK-COUNT-4: torch.operator "torch.amdnfs.kv_gather"
// CHECK:       // refused: lower-kv-gather: which must be the constant 0 (keys) or 1 (values)
// CHECK-NEXT:  // refused: lower-kv-gather: the pool must be [?, 2, page, kv_heads, dim], the table [batch, ?] and the result [batch, kv_heads, ?, dim]
// CHECK-NEXT:  // refused: lower-kv-gather: the pool must be [?, 2, page, kv_heads, dim], the table [batch, ?] and the result [batch, kv_heads, ?, dim]
// CHECK-NEXT:  // refused: lower-kv-gather: the pool must be [?, 2, page, kv_heads, dim], the table [batch, ?] and the result [batch, kv_heads, ?, dim]
// CHECK-NOT:   // refused
func.func @refused(%pool: !pool, %pages: !pages, %table: !table, %start: !count, %valid: !count) -> !rows {
  %keys = torch.constant.int 0
  %neither = torch.constant.int 2
  %0 = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %neither) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %page_size = torch.operator "torch.amdnfs.kv_gather"(%pages, %table, %start, %valid, %keys) : (!pages, !table, !count, !count, !torch.int) -> !rows
  %element = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %keys) : (!pool, !table, !count, !count, !torch.int) -> !small
  %batch = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %keys) : (!pool, !table, !count, !count, !torch.int) -> !more
  return %0 : !rows
}

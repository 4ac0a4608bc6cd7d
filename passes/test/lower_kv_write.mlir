// RUN: amdnfs-opt --passes='lower-kv-write' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='lower-kv-write{most-fused-bytes=16}' %s | filecheck %s --check-prefix=APART
// RUN: amdnfs-opt --passes='lower-kv-write{fp8=f8E4M3FNUZ}' %s | filecheck %s --check-prefix=FNUZ

!pool = !torch.vtensor<[?,2,16,4,64],f16>
!kv = !torch.vtensor<[2,4,3,64],f16>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>

// Rows are (request, token, K or V); the slot of each is (page, K or V, place in the page).
// CHECK-LABEL: func.func private @amdnfs.kv_write.b2.t3.kv4.d64.p16.f16(
// CHECK-SAME:    [[POOL:%[a-z0-9]+]]: tensor<?x2x16x4x64xf16>, [[K:%[a-z0-9]+]]: {{[^,]+}}, [[V:%[a-z0-9]+]]: {{[^,]+}}, [[TABLE:%[a-z0-9]+]]:
// CHECK:         linalg.generic {{.*}} ins([[K]], [[V]] :
// CHECK:         [[ROWS:%[a-z0-9_]+]] = tensor.collapse_shape {{.*}} into tensor<12x4x64xf16>
// CHECK:         linalg.generic {{.*}} outs({{.*}} : tensor<2x3x2x3xi32>)
// CHECK:           [[IS_REAL:%[0-9]+]] = arith.cmpi slt
// CHECK:           [[PAGE:%[a-z0-9_]+]] = tensor.extract [[TABLE]]
// CHECK-NEXT:      arith.select [[IS_REAL]], [[PAGE]], %c0_i32
// CHECK:         [[SLOTS:%[a-z0-9_]+]] = tensor.collapse_shape {{.*}} into tensor<12x3xi32>
// CHECK:         [[NEW:%[0-9]+]] = iree_linalg_ext.scatter dimension_map = [0, 1, 2] unique_indices(true) ins([[ROWS]], [[SLOTS]] : {{.*}}) outs([[POOL]] :
// CHECK:         return [[NEW]]

// APART-LABEL: func.func private @amdnfs.kv_write.b2.t3.kv4.d64.p16.f16(
// APART:         [[ROWS:%[a-z0-9_]+]] = tensor.collapse_shape {{.*}} into tensor<12x4x64xf16>
// APART-NEXT:    [[KEPT:%[0-9]+]] = util.optimization_barrier [[ROWS]]
// APART:         iree_linalg_ext.scatter {{.*}} ins([[KEPT]],

// CHECK-LABEL: func.func @two_layers_of_one_shape
// CHECK-COUNT-2: call @amdnfs.kv_write.b2.t3.kv4.d64.p16.f16
func.func @two_layers_of_one_shape(%a: !pool, %b: !pool, %k: !kv, %v: !kv, %table: !table, %start: !count, %valid: !count) -> (!pool, !pool) {
  %0 = torch.operator "torch.amdnfs.kv_write"(%a, %k, %v, %table, %start, %valid) : (!pool, !kv, !kv, !table, !count, !count) -> !pool
  %1 = torch.operator "torch.amdnfs.kv_write"(%b, %k, %v, %table, %start, %valid) : (!pool, !kv, !kv, !table, !count, !count) -> !pool
  return %0, %1 : !pool, !pool
}

// CHECK-LABEL: func.func @another_operator
// CHECK:         torch.operator "torch.amdnfs.kv_read"
func.func @another_operator(%a: !pool) -> !pool {
  %0 = torch.operator "torch.amdnfs.kv_read"(%a) : (!pool) -> !pool
  return %0 : !pool
}

// -----

!pool = !torch.vtensor<[?,2,4,1,8],f32>
!small = !torch.vtensor<[?,2,4,1,8],f16>
!heads = !torch.vtensor<[?,2,4,2,8],f32>
!pages = !torch.vtensor<[?,2,?,1,8],f32>
!kv = !torch.vtensor<[1,1,2,8],f32>
!dynamic = !torch.vtensor<[1,1,?,8],f32>
!matrix = !torch.vtensor<[2,8],f32>
!narrow = !torch.vtensor<[1,1,2,4],f32>
!table = !torch.vtensor<[1,?],si32>
!wide = !torch.vtensor<[1,?],si64>
!count = !torch.vtensor<[1],si64>

// CHECK-LABEL:   func.func @refused
// CHECK-COUNT-7: torch.operator "torch.amdnfs.kv_write"
// CHECK-COUNT-2: // refused: lower-kv-write: keys and values must have one static shape [batch, kv_heads, tokens, dim]
// CHECK-COUNT-5: // refused: lower-kv-write: the pool must be [?, 2, page, kv_heads, dim] as the keys, the table [batch, ?]
// CHECK-NOT:     // refused
func.func @refused(%pool: !pool, %small: !small, %heads: !heads, %pages: !pages, %k: !kv, %dynamic: !dynamic, %matrix: !matrix, %narrow: !narrow, %table: !table, %wide: !wide, %n: !count) -> !pool {
  %tokens_dynamic = torch.operator "torch.amdnfs.kv_write"(%pool, %dynamic, %dynamic, %table, %n, %n) : (!pool, !dynamic, !dynamic, !table, !count, !count) -> !pool
  %head_dims_differ = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %narrow, %table, %n, %n) : (!pool, !kv, !narrow, !table, !count, !count) -> !pool
  %pool_elements = torch.operator "torch.amdnfs.kv_write"(%small, %k, %k, %table, %n, %n) : (!small, !kv, !kv, !table, !count, !count) -> !small
  %pool_heads = torch.operator "torch.amdnfs.kv_write"(%heads, %k, %k, %table, %n, %n) : (!heads, !kv, !kv, !table, !count, !count) -> !heads
  %page_dynamic = torch.operator "torch.amdnfs.kv_write"(%pages, %k, %k, %table, %n, %n) : (!pages, !kv, !kv, !table, !count, !count) -> !pages
  %table_elements = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %k, %wide, %n, %n) : (!pool, !kv, !kv, !wide, !count, !count) -> !pool
  %key_rank = torch.operator "torch.amdnfs.kv_write"(%pool, %matrix, %matrix, %table, %n, %n) : (!pool, !matrix, !matrix, !table, !count, !count) -> !pool
  return %tokens_dynamic : !pool
}

// -----

!pool = !torch.vtensor<[?,2,4,1,8],si8>
!kv = !torch.vtensor<[1,1,2,8],f16>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>

// A pool of bytes holds fp8: rows are rounded before they are scattered, and saturate at 448, or 240.
// CHECK-LABEL: func.func private @amdnfs.kv_write.b1.t2.kv1.d8.p4.f16.f8E4M3FN(
// CHECK-SAME:    tensor<?x2x4x1x8xi8>, {{%[a-z0-9]+}}: tensor<1x1x2x8xf16>
// CHECK:         arith.select {{.*}} : f16
// CHECK:         arith.constant 1138753536 : i32
// CHECK:         arith.trunci {{.*}} : i32 to i8
// CHECK:         iree_linalg_ext.scatter {{.*}} tensor<?x2x4x1x8xi8>
// CHECK-LABEL: func.func @bytes
// CHECK:         call @amdnfs.kv_write.b1.t2.kv1.d8.p4.f16.f8E4M3FN(
// FNUZ-LABEL:  func.func private @amdnfs.kv_write.b1.t2.kv1.d8.p4.f16.f8E4M3FNUZ(
// FNUZ:          arith.constant 1131413504 : i32
func.func @bytes(%pool: !pool, %k: !kv, %table: !table, %n: !count) -> !pool {
  %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %k, %table, %n, %n) : (!pool, !kv, !kv, !table, !count, !count) -> !pool
  return %0 : !pool
}

// RUN: amdnfs-opt --passes='lower-paged-attention' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='lower-paged-attention{split-softmax=true}' %s | filecheck %s --check-prefix=SPLIT
// RUN: amdnfs-opt --passes='lower-paged-attention{vector-lanes=4 vector-registers=32 bf16-pairs=true}' %s | filecheck %s --check-prefix=VECTOR

!q = !torch.vtensor<[2,4,3,8],bf16>
!pool = !torch.vtensor<[?,2,16,2,8],bf16>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!y = !torch.vtensor<[2,3,4,8],bf16>

// Query heads of one KV head are rows of one product; scores and sums are in f32, weights are stored rounded.
// CHECK-LABEL: func.func private @amdnfs.paged_attention.b2.h4.t3.kv2.d8.p16.bf16.scale3F000000(
// CHECK-SAME:    [[Q:%[a-z0-9]+]]: tensor<2x4x3x8xbf16>, [[POOL:%[a-z0-9]+]]: tensor<?x2x16x2x8xbf16>, [[TABLE:%[a-z0-9]+]]: tensor<2x?xi32>
// CHECK-NOT:     sinks
// CHECK:         [[ROWS:%[a-z0-9_]+]] = tensor.collapse_shape {{.*}} into tensor<4x6x8xbf16>
// CHECK:         [[KEYS:%[0-9]+]] = linalg.generic {{.*}} outs({{.*}} : tensor<4x?x8xbf16>)
// CHECK:           tensor.extract [[TABLE]]
// CHECK:           tensor.extract [[POOL]]
// CHECK:         [[VALUES:%[0-9]+]] = linalg.generic {{.*}} outs({{.*}} : tensor<4x?x8xbf16>)
// CHECK:           [[V:%[a-z0-9_]+]] = tensor.extract [[POOL]]
// CHECK:           arith.select {{%[0-9]+}}, [[V]], %cst
// CHECK:         linalg.batch_matmul {{.*}} ins([[ROWS]], [[KEYS]] : {{.*}}) outs({{.*}} : tensor<4x6x?xf32>)
// CHECK:           arith.constant 4611686018427387904 : i64
// CHECK-NOT:       math.tanh
// CHECK-NOT:       arith.sitofp
// CHECK-NOT:     util.optimization_barrier
// CHECK:         [[WEIGHTS:%[0-9]+]] = linalg.generic {{.*}} outs({{.*}} : tensor<4x6x?xbf16>)
// CHECK:         linalg.batch_matmul ins([[WEIGHTS]], [[VALUES]] : {{.*}}) outs({{.*}} : tensor<4x6x8xf32>)
// SPLIT:           arith.maximumf
// SPLIT:         [[MAX:%[0-9]+]] = util.optimization_barrier {{%[0-9]+}} : tensor<4x6xf32>
// SPLIT:         linalg.generic {{.*}} ins({{%[0-9]+}}, [[MAX]] : {{.*}}) outs({{%[0-9]+}} : tensor<4x6xf32>)
// SPLIT:         linalg.generic {{.*}} ins({{%[0-9]+}}, [[MAX]] : {{.*}}) outs({{%[0-9]+}} : tensor<4x6x?xbf16>)
// CHECK-LABEL: func.func @plain
// CHECK:         call @amdnfs.paged_attention.b2.h4.t3.kv2.d8.p16.bf16.scale3F000000(
func.func @plain(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !y {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[1,4,1,8],f32>
!pool = !torch.vtensor<[?,2,16,2,8],f32>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!sinks = !torch.vtensor<[4],f32>
!y = !torch.vtensor<[1,1,4,8],f32>

// CHECK-LABEL: func.func private @amdnfs.paged_attention.b1.h4.t1.kv2.d8.p16.f32.scale3F800000.window7.cap41F00000.sinks(
// CHECK-SAME:    [[SINKS:%[a-z0-9]+]]: tensor<4xf32>)
// CHECK:         arith.constant 7 : i64
// CHECK:         math.tanh
// CHECK:         tensor.extract [[SINKS]]
// CHECK-NOT:     arith.truncf
// CHECK-LABEL: func.func @window_softcap_and_sinks
// CHECK:         call @amdnfs.paged_attention.b1.h4.t1.kv2.d8.p16.f32.scale3F800000.window7.cap41F00000.sinks(
func.func @window_softcap_and_sinks(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count, %sinks: !sinks) -> !y {
  %none = torch.constant.none
  %one = torch.constant.float 1.000000e+00
  %seven = torch.constant.int 7
  %thirty = torch.constant.float 3.000000e+01
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %sinks, %none, %one, %seven, %thirty) : (!q, !pool, !table, !count, !count, !sinks, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[2,4,3,8],f16>
!pool = !torch.vtensor<[?,2,16,2,8],f16>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!slopes = !torch.vtensor<[4],f32>
!y = !torch.vtensor<[2,3,4,8],f16>

// A score falls with the distance, before the mask.
// CHECK-LABEL: func.func private @amdnfs.paged_attention.b2.h4.t3.kv2.d8.p16.f16.scale3F800000.slopes(
// CHECK-SAME:    [[SLOPES:%[a-z0-9]+]]: tensor<4xf32>)
// CHECK:         [[DISTANCE:%[0-9]+]] = arith.subi {{.*}} : i64
// CHECK:         [[SLOPE:%[a-z0-9_]+]] = tensor.extract [[SLOPES]]
// CHECK:         arith.trunci [[DISTANCE]]
// CHECK:         [[DROP:%[0-9]+]] = arith.mulf [[SLOPE]], {{.*}} : f32
// CHECK:         [[BIASED:%[0-9]+]] = arith.subf {{.*}}, [[DROP]] : f32
// CHECK:         arith.select {{%[0-9]+}}, [[BIASED]], {{.*}} : f32
// CHECK-LABEL: func.func @slopes
// CHECK:         call @amdnfs.paged_attention.b2.h4.t3.kv2.d8.p16.f16.scale3F800000.slopes(
func.func @slopes(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count, %slopes: !slopes) -> !y {
  %none = torch.constant.none
  %one = torch.constant.float 1.000000e+00
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %none, %slopes, %one, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !slopes, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[1,4,1,8],f32>
!dynamic = !torch.vtensor<[1,4,?,8],f32>
!pool = !torch.vtensor<[?,2,16,2,8],f32>
!small = !torch.vtensor<[?,2,16,2,8],f16>
!pages = !torch.vtensor<[?,2,?,2,8],f32>
!three = !torch.vtensor<[?,2,16,3,8],f32>
!wide = !torch.vtensor<[?,2,16,2,16],f32>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!sinks = !torch.vtensor<[4],f16>
!y = !torch.vtensor<[1,1,4,8],f32>

// CHECK-LABEL: func.func @refused
// CHECK-COUNT-8: torch.operator "torch.amdnfs.paged_attention"
// CHECK:       // refused: lower-paged-attention: the query must have a static shape [batch, heads, tokens, head_dim]
// CHECK-NEXT:  // refused: lower-paged-attention: scale, window and softcap must be constants
// CHECK-NEXT:  // refused: lower-paged-attention: the pool must be [?, 2, page_tokens, kv_heads, head_dim] with the element type of the query
// CHECK-NEXT:  // refused: lower-paged-attention: the sizes of a page must be static
// CHECK-NEXT:  // refused: lower-paged-attention: 4 query heads are not a multiple of 3 KV heads
// CHECK-NEXT:  // refused: lower-paged-attention: head dims of query (8) and pool (16) differ
// CHECK-NEXT:  // refused: lower-paged-attention: the sinks must be one number a head, with the element type of the query
// CHECK-NEXT:  // refused: lower-paged-attention: the slopes must be one f32 number a head
// CHECK-NOT:   // refused
func.func @refused(%q: !q, %dynamic: !dynamic, %pool: !pool, %small: !small, %pages: !pages, %three: !three, %wide: !wide, %t: !table, %s: !count, %sinks: !sinks, %window: !torch.int) -> !y {
  %none = torch.constant.none
  %c = torch.constant.float 1.000000e+00
  %w = torch.constant.int 0
  %tokens_dynamic = torch.operator "torch.amdnfs.paged_attention"(%dynamic, %pool, %t, %s, %s, %none, %none, %c, %w, %c) : (!dynamic, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %window_unknown = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %t, %s, %s, %none, %none, %c, %window, %c) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %pool_elements = torch.operator "torch.amdnfs.paged_attention"(%q, %small, %t, %s, %s, %none, %none, %c, %w, %c) : (!q, !small, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %page_dynamic = torch.operator "torch.amdnfs.paged_attention"(%q, %pages, %t, %s, %s, %none, %none, %c, %w, %c) : (!q, !pages, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %heads = torch.operator "torch.amdnfs.paged_attention"(%q, %three, %t, %s, %s, %none, %none, %c, %w, %c) : (!q, !three, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %head_dims = torch.operator "torch.amdnfs.paged_attention"(%q, %wide, %t, %s, %s, %none, %none, %c, %w, %c) : (!q, !wide, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %sink_elements = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %t, %s, %s, %sinks, %none, %c, %w, %c) : (!q, !pool, !table, !count, !count, !sinks, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  %slope_elements = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %t, %s, %s, %none, %sinks, %c, %w, %c) : (!q, !pool, !table, !count, !count, !torch.none, !sinks, !torch.float, !torch.int, !torch.float) -> !y
  return %slope_elements : !y
}

// -----

!q = !torch.vtensor<[1,4,1,16],bf16>
!pool = !torch.vtensor<[?,2,16,2,16],si8>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!y = !torch.vtensor<[1,1,4,16],bf16>

// A pool of bytes holds fp8: its bits are moved into an f16.
// CHECK-LABEL: func.func private @amdnfs.paged_attention.b1.h4.t1.kv2.d16.p16.bf16.scale3F000000.bytes(
// CHECK-SAME:    tensor<?x2x16x2x16xi8>
// CHECK-COUNT-2: arith.constant 2.560000e+02 : f32
// CHECK-LABEL: func.func @bytes
// SPLIT-LABEL: func.func @bytes
func.func @bytes(%q: !q, %pool: !pool, %table: !table, %n: !count) -> !y {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %n, %n, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[1,4,8,8],bf16>
!pool = !torch.vtensor<[?,2,16,2,8],bf16>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!y = !torch.vtensor<[1,8,4,8],bf16>

// In vectors, scores are never stored; pairs of the head dim, then pairs of keys, are multiplied. Few tokens share a
// vector with the heads of their KV head; lanes that are left over are cleared.
// VECTOR-LABEL: func.func private @amdnfs.paged_attention.b2.h4.t3.kv2.d8.p16.bf16.scale3F000000(
// VECTOR:         dispatch.tensor.load {{.*}} sizes = [1, 2, 1, 8]
// VECTOR:         arith.constant dense<0> : vector<4xi32>
// VECTOR:         vector.transfer_write {{%cst[_0-9]*}}, {{.*}} : vector<8xbf16>, tensor<4x8xbf16>
// VECTOR-COUNT-16: llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.128"
// VECTOR:         dispatch.tensor.store {{.*}} sizes = [1, 1, 2, 8]
// VECTOR-NOT:     linalg.batch_matmul
// VECTOR-LABEL: func.func @plain
// VECTOR-LABEL: func.func private @amdnfs.paged_attention.b1.h4.t8.kv2.d8.p16.bf16.scale3F000000(
// VECTOR:         flow.dispatch.workgroups
// VECTOR-COUNT-16: llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.128"
// VECTOR:           arith.cmpi sge
// VECTOR:           math.exp
// VECTOR:           arith.cmpi ult
// VECTOR:           vector.interleave {{.*}} : vector<8xbf16> -> vector<16xbf16>
// VECTOR-COUNT-32: llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.128"
// VECTOR:           arith.divf
// VECTOR-NOT:     linalg.batch_matmul
// VECTOR-LABEL: func.func @in_vectors
func.func @in_vectors(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !y {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %none, %none, %half, %any, %zero) : (!q, !pool, !table, !count, !count, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !y
  return %0 : !y
}

// RUN: amdnfs-opt --passes='lower-attention' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='lower-attention{split-softmax=true}' %s | filecheck %s --check-prefix=SPLIT

!q = !torch.vtensor<[2,4,3,8],bf16>
!k = !torch.vtensor<[2,2,5,8],bf16>
!v = !torch.vtensor<[2,2,5,6],bf16>
!y = !torch.vtensor<[2,3,4,6],bf16>

// Query heads of one key head are an axis of their own; sums are in f32, weights are stored rounded.
// CHECK-LABEL: func.func private @amdnfs.attention.q2x4x3x8.k2x2x5x8.v2x2x5x6.bf16.scale3F000000(
// CHECK:         [[Q:%[a-z0-9_]+]] = tensor.expand_shape {{.*}} into tensor<2x2x2x3x8xbf16>
// CHECK:         linalg.generic {{.*}} ins([[Q]], %arg1 : {{.*}}) outs({{.*}} : tensor<2x2x2x3x5xf32>)
// CHECK:           arith.extf
// CHECK-NOT:     math.tanh
// CHECK-NOT:     arith.select
// CHECK-NOT:     util.optimization_barrier
// CHECK:         [[WEIGHTS:%[0-9]+]] = linalg.generic {{.*}} outs({{.*}} : tensor<2x2x2x3x5xbf16>)
// CHECK:           arith.truncf
// CHECK:         linalg.generic {{.*}} ins([[WEIGHTS]], %arg2 : {{.*}}) outs({{.*}} : tensor<2x2x2x3x6xf32>)
// CHECK:         tensor.collapse_shape {{.*}} into tensor<2x3x4x6xbf16>
// SPLIT:           arith.maximumf
// SPLIT:         [[MAX:%[0-9]+]] = util.optimization_barrier {{%[0-9]+}} : tensor<2x2x2x3xf32>
// SPLIT:         linalg.generic {{.*}} ins({{%[0-9]+}}, [[MAX]] : {{.*}}) outs({{%[0-9]+}} : tensor<2x2x2x3xf32>)
// SPLIT:         linalg.generic {{.*}} ins({{%[0-9]+}}, [[MAX]] : {{.*}}) outs({{%[0-9]+}} : tensor<2x2x2x3x5xbf16>)
// CHECK-LABEL: func.func @plain
// CHECK:         call @amdnfs.attention.q2x4x3x8.k2x2x5x8.v2x2x5x6.bf16.scale3F000000(
func.func @plain(%q: !q, %k: !k, %v: !v) -> !y {
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %zero = torch.constant.float 0.000000e+00
  %false = torch.constant.bool false
  %0 = torch.operator "torch.amdnfs.attention"(%q, %k, %v, %none, %none, %none, %half, %zero, %false) : (!q, !k, !v, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[?,4,?,8],f32>
!k = !torch.vtensor<[?,4,?,8],f32>
!mask = !torch.vtensor<[?,1,1,?],i1>
!bias = !torch.vtensor<[1,4,?,?],f32>
!slopes = !torch.vtensor<[4],f32>
!y = !torch.vtensor<[?,?,4,8],f32>

// Requests, queries and keys may be dynamic; a score is capped, biased, lowered by distance and hidden, in this order.
// CHECK-LABEL: func.func private @amdnfs.attention.qDx4xDx8.kDx4xDx8.vDx4xDx8.f32.scale3F800000.cap41F00000.maskDx1x1xD.bias1x4xDxD.slopes4.causal(
// CHECK-SAME:    {{.*}}[[MASK:%arg3]]: tensor<?x1x1x?xi1>, [[BIAS:%arg4]]: tensor<1x4x?x?xf32>, [[SLOPES:%arg5]]: tensor<4xf32>)
// CHECK:         [[B:%[a-z0-9_]+]] = tensor.dim %arg0, %c0
// CHECK:         [[T:%[a-z0-9_]+]] = tensor.dim %arg0, %c2
// CHECK:         [[S:%[a-z0-9_]+]] = tensor.dim %arg1, %c2
// CHECK:         tensor.empty([[B]], [[T]]) : tensor<?x4x1x?xf32>
// CHECK:         tensor.empty([[B]], [[T]], [[S]]) : tensor<?x4x1x?x?xf32>
// CHECK:         [[CAPPED:%[0-9]+]] = arith.mulf {{%[0-9]+}}, {{%cst[_0-9]*}} : f32
// CHECK:         [[IB:%[0-9]+]] = linalg.index 0
// CHECK:         [[IT:%[0-9]+]] = linalg.index 3
// CHECK:         [[IS:%[0-9]+]] = linalg.index 4
// CHECK:         [[ADDED:%[a-z0-9_]+]] = tensor.extract [[BIAS]][%c0, {{%[0-9]+}}, [[IT]], [[IS]]]
// CHECK:         [[BIASED:%[0-9]+]] = arith.addf [[CAPPED]], [[ADDED]]
// CHECK:         tensor.extract [[SLOPES]]
// CHECK:         [[SLOPED:%[0-9]+]] = arith.subf [[BIASED]],
// CHECK:         [[SEEN:%[a-z0-9_]+]] = tensor.extract [[MASK]]{{\[}}[[IB]], %c0, %c0, [[IS]]]
// CHECK:         [[MASKED:%[0-9]+]] = arith.select [[SEEN]], [[SLOPED]],
// CHECK:         [[PAST:%[0-9]+]] = arith.cmpi ule, [[IS]], [[IT]]
// CHECK:         arith.select [[PAST]], [[MASKED]],
// CHECK-LABEL: func.func @everything
func.func @everything(%q: !q, %k: !k, %v: !k, %mask: !mask, %bias: !bias, %slopes: !slopes) -> !y {
  %one = torch.constant.float 1.000000e+00
  %thirty = torch.constant.float 3.000000e+01
  %true = torch.constant.bool true
  %0 = torch.operator "torch.amdnfs.attention"(%q, %k, %v, %mask, %bias, %slopes, %one, %thirty, %true) : (!q, !k, !k, !mask, !bias, !slopes, !torch.float, !torch.float, !torch.bool) -> !y
  return %0 : !y
}

// -----

!q = !torch.vtensor<[2,4,3,8],f32>
!k = !torch.vtensor<[2,2,5,8],f32>
!flat = !torch.vtensor<[8,3,8],f32>
!open = !torch.vtensor<[2,?,3,8],f32>
!other = !torch.vtensor<[2,2,6,8],f32>
!three = !torch.vtensor<[2,3,5,8],f32>
!mask = !torch.vtensor<[2,1,3,5],f32>
!bias = !torch.vtensor<[2,2,3,5],f32>
!slopes = !torch.vtensor<[2],f32>
!y = !torch.vtensor<[2,3,4,8],f32>
!yt = !torch.vtensor<[2,4,3,8],f32>

// CHECK-LABEL: func.func @refused
// CHECK-COUNT-9: torch.operator "torch.amdnfs.attention"
// CHECK:       // refused: lower-attention: scale, softcap and causal must be constants
// CHECK-NEXT:  // refused: lower-attention: queries, keys and values must have four axes
// CHECK-NEXT:  // refused: lower-attention: heads and their dims must be static
// CHECK-NEXT:  // refused: lower-attention: keys and values must fit the queries, and be of their element type
// CHECK-NEXT:  // refused: lower-attention: the result must be [batch, tokens, heads, value_dim] in the element type of the queries
// CHECK-NEXT:  // refused: lower-attention: 4 query heads are not a multiple of 3 key heads
// CHECK-NEXT:  // refused: lower-attention: the mask must be i1 and fit the scores
// CHECK-NEXT:  // refused: lower-attention: the bias must be f32 and fit the scores
// CHECK-NEXT:  // refused: lower-attention: the slopes must be f32 and fit the scores
// CHECK-NOT:   // refused
func.func @refused(%q: !q, %k: !k, %flat: !flat, %open: !open, %other: !other, %three: !three, %mask: !mask, %bias: !bias, %slopes: !slopes, %x: !torch.float) -> !y {
  %n = torch.constant.none
  %c = torch.constant.float 1.000000e+00
  %f = torch.constant.bool false
  %scale_unknown = torch.operator "torch.amdnfs.attention"(%q, %k, %k, %n, %n, %n, %x, %c, %f) : (!q, !k, !k, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  %three_axes = torch.operator "torch.amdnfs.attention"(%flat, %k, %k, %n, %n, %n, %c, %c, %f) : (!flat, !k, !k, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  %heads_dynamic = torch.operator "torch.amdnfs.attention"(%open, %k, %k, %n, %n, %n, %c, %c, %f) : (!open, !k, !k, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  %keys_differ = torch.operator "torch.amdnfs.attention"(%q, %k, %other, %n, %n, %n, %c, %c, %f) : (!q, !k, !other, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  %result = torch.operator "torch.amdnfs.attention"(%q, %k, %k, %n, %n, %n, %c, %c, %f) : (!q, !k, !k, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !yt
  %heads = torch.operator "torch.amdnfs.attention"(%q, %three, %three, %n, %n, %n, %c, %c, %f) : (!q, !three, !three, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  %mask_element = torch.operator "torch.amdnfs.attention"(%q, %k, %k, %mask, %n, %n, %c, %c, %f) : (!q, !k, !k, !mask, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  %bias_shape = torch.operator "torch.amdnfs.attention"(%q, %k, %k, %n, %bias, %n, %c, %c, %f) : (!q, !k, !k, !torch.none, !bias, !torch.none, !torch.float, !torch.float, !torch.bool) -> !y
  %slopes_shape = torch.operator "torch.amdnfs.attention"(%q, %k, %k, %n, %n, %slopes, %c, %c, %f) : (!q, !k, !k, !torch.none, !torch.none, !slopes, !torch.float, !torch.float, !torch.bool) -> !y
  return %slopes_shape : !y
}

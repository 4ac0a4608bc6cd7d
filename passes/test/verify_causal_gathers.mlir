// RUN: not amdnfs-opt --passes='verify-causal-gathers' %s 2>&1 | filecheck %s

// Functions that are accepted are not in the message: a mask by the positions of the call, whatever follows it; one
// token; no gather at all.
// CHECK-NOT: @hidden_by_positions
// CHECK-NOT: @one_token
// CHECK-NOT: @no_gather
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!rows = !torch.vtensor<[2,2,?,8],f32>
!scores = !torch.vtensor<[2,2,3,?],f32>
!one = !torch.vtensor<[2,2,1,?],f32>
!seen = !torch.vtensor<[2,1,3,?],i1>
!seen1 = !torch.vtensor<[2,1,1,?],i1>

func.func @hidden_by_positions(%scores: !scores, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !scores {
  %i1 = torch.constant.int 1
  %rows = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %i2 = torch.constant.int 2
  %l2_1_1_1 = torch.prim.ListConstruct %i2, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %start, %l2_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[2,1,1,1],si64>
  %i0 = torch.constant.int 0
  %i3 = torch.constant.int 3
  %tokens = torch.aten.arange.start %i0, %i3, %none, %none, %none, %none : !torch.int, !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %column = torch.aten.unsqueeze %tokens, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %positions = torch.aten.add.Tensor %begin, %column, %i1 : !torch.vtensor<[2,1,1,1],si64>, !torch.vtensor<[3,1],si64>, !torch.int -> !torch.vtensor<[2,1,3,1],si64>
  %seen = torch.aten.le.Tensor %keys, %positions : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,3,1],si64> -> !seen
  %f6 = torch.constant.float -1.000000e+38
  %hidden = torch.aten.where.ScalarOther %seen, %scores, %f6 : !seen, !scores, !torch.float -> !scores
  %f7 = torch.constant.float 2.000000e+00
  %twice = torch.aten.mul.Scalar %hidden, %f7 : !scores, !torch.float -> !scores
  %im1 = torch.constant.int -1
  %weights = torch.aten.softmax.int %twice, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  return %weights : !scores
}

func.func @one_token(%scores: !one, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !one {
  %i1 = torch.constant.int 1
  %rows = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %i2 = torch.constant.int 2
  %l2_1_1_1 = torch.prim.ListConstruct %i2, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %start, %l2_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[2,1,1,1],si64>
  %seen = torch.aten.le.Tensor %keys, %begin : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,1,1],si64> -> !seen1
  %f4 = torch.constant.float -1.000000e+38
  %hidden = torch.aten.where.ScalarOther %seen, %scores, %f4 : !seen1, !one, !torch.float -> !one
  %im1 = torch.constant.int -1
  %weights = torch.aten.softmax.int %hidden, %im1, %none : !one, !torch.int, !torch.none -> !one
  return %weights : !one
}

func.func @no_gather(%scores: !scores) -> !scores {
  %im1 = torch.constant.int -1
  %none = torch.constant.none
  %0 = torch.aten.softmax.int %scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  return %0 : !scores
}

// -----

// CHECK: function @not_hidden: the model's own attention code is not seen to hide the keys after each query, so it would read what is no key
// CHECK-NEXT: torch.aten.softmax.int
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!rows = !torch.vtensor<[2,2,?,8],f32>
!scores = !torch.vtensor<[2,2,3,?],f32>

func.func @not_hidden(%scores: !scores, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !scores {
  %i1 = torch.constant.int 1
  %rows = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %im1 = torch.constant.int -1
  %none = torch.constant.none
  %weights = torch.aten.softmax.int %scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  return %weights : !scores
}

// -----

// CHECK: function @one_key_ahead: the model's own attention code is not seen to hide
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!rows = !torch.vtensor<[2,2,?,8],f32>
!scores = !torch.vtensor<[2,2,3,?],f32>
!seen = !torch.vtensor<[2,1,3,?],i1>

func.func @one_key_ahead(%scores: !scores, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !scores {
  %i1 = torch.constant.int 1
  %rows = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %i2 = torch.constant.int 2
  %l2_1_1_1 = torch.prim.ListConstruct %i2, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %start, %l2_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[2,1,1,1],si64>
  %tokens = torch.aten.arange.start %i1, %i4, %none, %none, %none, %none : !torch.int, !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %column = torch.aten.unsqueeze %tokens, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %positions = torch.aten.add.Tensor %begin, %column, %i1 : !torch.vtensor<[2,1,1,1],si64>, !torch.vtensor<[3,1],si64>, !torch.int -> !torch.vtensor<[2,1,3,1],si64>
  %seen = torch.aten.le.Tensor %keys, %positions : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,3,1],si64> -> !seen
  %f4 = torch.constant.float -1.000000e+38
  %hidden = torch.aten.where.ScalarOther %seen, %scores, %f4 : !seen, !scores, !torch.float -> !scores
  %im1 = torch.constant.int -1
  %weights = torch.aten.softmax.int %hidden, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  return %weights : !scores
}

// -----

// The number of valid tokens is no position.
// CHECK: function @hidden_by_another_tensor: the model's own attention code is not seen to hide
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!rows = !torch.vtensor<[2,2,?,8],f32>
!scores = !torch.vtensor<[2,2,3,?],f32>
!seen = !torch.vtensor<[2,1,3,?],i1>

func.func @hidden_by_another_tensor(%scores: !scores, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !scores {
  %i1 = torch.constant.int 1
  %rows = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %i2 = torch.constant.int 2
  %l2_1_1_1 = torch.prim.ListConstruct %i2, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %valid, %l2_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[2,1,1,1],si64>
  %i0 = torch.constant.int 0
  %i3 = torch.constant.int 3
  %tokens = torch.aten.arange.start %i0, %i3, %none, %none, %none, %none : !torch.int, !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %column = torch.aten.unsqueeze %tokens, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %positions = torch.aten.add.Tensor %begin, %column, %i1 : !torch.vtensor<[2,1,1,1],si64>, !torch.vtensor<[3,1],si64>, !torch.int -> !torch.vtensor<[2,1,3,1],si64>
  %seen = torch.aten.le.Tensor %keys, %positions : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,3,1],si64> -> !seen
  %f6 = torch.constant.float -1.000000e+38
  %hidden = torch.aten.where.ScalarOther %seen, %scores, %f6 : !seen, !scores, !torch.float -> !scores
  %im1 = torch.constant.int -1
  %weights = torch.aten.softmax.int %hidden, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  return %weights : !scores
}

// -----

// A score of -10 still has a weight.
// CHECK: function @hardly_hidden: the model's own attention code is not seen to hide
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!rows = !torch.vtensor<[2,2,?,8],f32>
!scores = !torch.vtensor<[2,2,3,?],f32>
!seen = !torch.vtensor<[2,1,3,?],i1>

func.func @hardly_hidden(%scores: !scores, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !scores {
  %i1 = torch.constant.int 1
  %rows = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %i2 = torch.constant.int 2
  %l2_1_1_1 = torch.prim.ListConstruct %i2, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %start, %l2_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[2,1,1,1],si64>
  %i0 = torch.constant.int 0
  %i3 = torch.constant.int 3
  %tokens = torch.aten.arange.start %i0, %i3, %none, %none, %none, %none : !torch.int, !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %column = torch.aten.unsqueeze %tokens, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %positions = torch.aten.add.Tensor %begin, %column, %i1 : !torch.vtensor<[2,1,1,1],si64>, !torch.vtensor<[3,1],si64>, !torch.int -> !torch.vtensor<[2,1,3,1],si64>
  %seen = torch.aten.le.Tensor %keys, %positions : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,3,1],si64> -> !seen
  %f6 = torch.constant.float -1.000000e+01
  %hidden = torch.aten.where.ScalarOther %seen, %scores, %f6 : !seen, !scores, !torch.float -> !scores
  %im1 = torch.constant.int -1
  %weights = torch.aten.softmax.int %hidden, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  return %weights : !scores
}

// -----

// CHECK: function @no_softmax: the model's own attention code is not seen to hide the keys after each query, so it would read what is no key
// CHECK-NEXT: there is no softmax over the gathered keys
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!rows = !torch.vtensor<[2,2,?,8],f32>
!scores = !torch.vtensor<[2,2,3,?],f32>

func.func @no_softmax(%scores: !scores, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !scores {
  %i1 = torch.constant.int 1
  %rows = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !rows
  %exp = torch.aten.exp %scores : !scores -> !scores
  return %exp : !scores
}

// RUN: amdnfs-opt --passes='fuse-attention' --why %s | filecheck %s

// Heads merged into the batch, ALiBi by the position of the key through baddbmm, an additive mask of positions.
// CHECK-LABEL: func.func @position_bias_of_merged_heads
// CHECK-SAME:    [[Q:%[a-z0-9]+]]: !torch.vtensor<[2,4,3,8],f32>, [[POOL:%[a-z0-9]+]]: {{[^%]*}}[[TABLE:%[a-z0-9]+]]: {{[^%]*}}[[START:%[a-z0-9]+]]: {{[^%]*}}[[VALID:%[a-z0-9]+]]: {{[^%]*}}[[SLOPES:%[a-z0-9]+]]:
// CHECK-NOT:     torch.aten.{{arange|baddbmm|repeat|where}}
// CHECK:         [[ROWS:%[0-9]+]] = torch.aten.view [[Q]], {{.*}} -> !torch.vtensor<[8,3,8],f32>
// CHECK:         [[QUERIES:%[0-9]+]] = torch.aten.view [[ROWS]], {{.*}} -> !torch.vtensor<[2,4,3,8],f32>
// CHECK:         [[NO_SINKS:%[^ ,]+]] = torch.constant.none
// CHECK:         [[SCALE:%[^ ,]+]] = torch.constant.float 2.500000e-01
// CHECK:         [[WINDOW:%[^ ,]+]] = torch.constant.int 0
// CHECK:         [[CAP:%[^ ,]+]] = torch.constant.float 0.000000e+00
// CHECK:         [[MIXED:%[0-9]+]] = torch.operator "torch.amdnfs.paged_attention"([[QUERIES]], [[POOL]], [[TABLE]], [[START]], [[VALID]], [[NO_SINKS]], [[SLOPES]], [[SCALE]], [[WINDOW]], [[CAP]]) {{.*}} -> !torch.vtensor<[2,3,4,8],f32>
// CHECK:         [[HEADS:%[0-9]+]] = torch.aten.permute [[MIXED]]
// CHECK:         torch.aten.view [[HEADS]], {{.*}} -> !torch.vtensor<[8,3,8],f32>
// CHECK-NOT:     kv_gather
// CHECK-NOT:     torch.aten.softmax
// CHECK:         return
!q = !torch.vtensor<[2,4,3,8],f32>
!pool = !torch.vtensor<[?,2,4,4,8],f32>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!slopes = !torch.vtensor<[4],f32>
!kv = !torch.vtensor<[2,4,?,8],f32>
!scores = !torch.vtensor<[2,4,3,?],f32>
!merged = !torch.vtensor<[8,3,?],f32>

func.func @position_bias_of_merged_heads(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count, %slopes: !slopes) -> !q {
  %i0 = torch.constant.int 0
  %k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !kv
  %i1 = torch.constant.int 1
  %v = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !kv
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %i2 = torch.constant.int 2
  %l2_1_1_1 = torch.prim.ListConstruct %i2, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %start, %l2_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[2,1,1,1],si64>
  %i3 = torch.constant.int 3
  %tokens = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %column = torch.aten.unsqueeze %tokens, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %positions = torch.aten.add.Tensor %begin, %column, %i1 : !torch.vtensor<[2,1,1,1],si64>, !torch.vtensor<[3,1],si64>, !torch.int -> !torch.vtensor<[2,1,3,1],si64>
  %seen = torch.aten.le.Tensor %keys, %positions : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,3,1],si64> -> !torch.vtensor<[2,1,3,?],i1>
  %f6 = torch.constant.float 0.000000e+00
  %f7 = torch.constant.float -3.402823e+38
  %mask = torch.aten.where.Scalar %seen, %f6, %f7 : !torch.vtensor<[2,1,3,?],i1>, !torch.float, !torch.float -> !torch.vtensor<[2,1,3,?],f32>
  %l4_1_1 = torch.prim.ListConstruct %i4, %i1, %i1 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %slopes3 = torch.aten.view %slopes, %l4_1_1 : !slopes, !torch.list<int> -> !torch.vtensor<[4,1,1],f32>
  %rise = torch.aten.mul.Tensor %slopes3, %keys : !torch.vtensor<[4,1,1],f32>, !torch.vtensor<[?],si64> -> !torch.vtensor<[4,1,?],f32>
  %l2_1_1 = torch.prim.ListConstruct %i2, %i1, %i1 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %bias = torch.aten.repeat %rise, %l2_1_1 : !torch.vtensor<[4,1,?],f32>, !torch.list<int> -> !torch.vtensor<[8,1,?],f32>
  %i8 = torch.constant.int 8
  %l8_3_8 = torch.prim.ListConstruct %i8, %i3, %i8 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %q3 = torch.aten.view %q, %l8_3_8 : !q, !torch.list<int> -> !torch.vtensor<[8,3,8],f32>
  %im1 = torch.constant.int -1
  %l8_m1_8 = torch.prim.ListConstruct %i8, %im1, %i8 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %k3 = torch.aten.view %k, %l8_m1_8 : !kv, !torch.list<int> -> !torch.vtensor<[8,?,8],f32>
  %kt = torch.aten.transpose.int %k3, %i1, %i2 : !torch.vtensor<[8,?,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[8,8,?],f32>
  %f10 = torch.constant.float 1.000000e+00
  %f11 = torch.constant.float 2.500000e-01
  %raw = torch.aten.baddbmm %bias, %q3, %kt, %f10, %f11 : !torch.vtensor<[8,1,?],f32>, !torch.vtensor<[8,3,8],f32>, !torch.vtensor<[8,8,?],f32>, !torch.float, !torch.float -> !merged
  %l2_4_3_m1 = torch.prim.ListConstruct %i2, %i4, %i3, %im1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %raw4 = torch.aten.view %raw, %l2_4_3_m1 : !merged, !torch.list<int> -> !scores
  %scores = torch.aten.add.Tensor %raw4, %mask, %i1 : !scores, !torch.vtensor<[2,1,3,?],f32>, !torch.int -> !scores
  %weights = torch.aten.softmax.int %scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %l8_3_m1 = torch.prim.ListConstruct %i8, %i3, %im1 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %weights3 = torch.aten.view %weights, %l8_3_m1 : !scores, !torch.list<int> -> !merged
  %v3 = torch.aten.view %v, %l8_m1_8 : !kv, !torch.list<int> -> !torch.vtensor<[8,?,8],f32>
  %mixed = torch.aten.bmm %weights3, %v3 : !merged, !torch.vtensor<[8,?,8],f32> -> !torch.vtensor<[8,3,8],f32>
  %l2_4_3_8 = torch.prim.ListConstruct %i2, %i4, %i3, %i8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.view %mixed, %l2_4_3_8 : !torch.vtensor<[8,3,8],f32>, !torch.list<int> -> !q
  return %y : !q
}

// -----

// Keys and values repeated for the heads that share them, in f16; a window; a softcap. Queries are read as they are.
// CHECK-LABEL: func.func @window_softcap_and_shared_heads
// CHECK-SAME:    [[Q:%[a-z0-9]+]]: !torch.vtensor<[2,4,3,8],f16>
// CHECK-NOT:     torch.aten
// CHECK:         [[SCALE:%[^ ,]+]] = torch.constant.float 5.000000e-01
// CHECK:         [[WINDOW:%[^ ,]+]] = torch.constant.int 5
// CHECK:         [[CAP:%[^ ,]+]] = torch.constant.float 3.000000e+01
// CHECK:         torch.operator "torch.amdnfs.paged_attention"([[Q]], {{.*}}, [[SCALE]], [[WINDOW]], [[CAP]]) {{.*}}!torch.vtensor<[?,2,4,2,8],f16>{{.*}} -> !torch.vtensor<[2,3,4,8],f16>
!q = !torch.vtensor<[2,4,3,8],f16>
!pool = !torch.vtensor<[?,2,4,2,8],f16>
!table = !torch.vtensor<[2,?],si32>
!count = !torch.vtensor<[2],si64>
!kv = !torch.vtensor<[2,2,?,8],f16>
!groups = !torch.vtensor<[2,2,2,?,8],f16>
!heads = !torch.vtensor<[2,4,?,8],f16>
!turned = !torch.vtensor<[2,4,8,?],f16>
!seen = !torch.vtensor<[2,1,3,?],i1>
!scores = !torch.vtensor<[2,4,3,?],f32>

func.func @window_softcap_and_shared_heads(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count) -> !q {
  %i0 = torch.constant.int 0
  %k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !kv
  %i1 = torch.constant.int 1
  %v = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !kv
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %i2 = torch.constant.int 2
  %l2_1_1_1 = torch.prim.ListConstruct %i2, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %start, %l2_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[2,1,1,1],si64>
  %i3 = torch.constant.int 3
  %tokens = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %column = torch.aten.unsqueeze %tokens, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %positions = torch.aten.add.Tensor %begin, %column, %i1 : !torch.vtensor<[2,1,1,1],si64>, !torch.vtensor<[3,1],si64>, !torch.int -> !torch.vtensor<[2,1,3,1],si64>
  %seen = torch.aten.le.Tensor %keys, %positions : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,3,1],si64> -> !seen
  %i5 = torch.constant.int 5
  %oldest = torch.aten.sub.Scalar %positions, %i5, %i1 : !torch.vtensor<[2,1,3,1],si64>, !torch.int, !torch.int -> !torch.vtensor<[2,1,3,1],si64>
  %near = torch.aten.gt.Tensor %keys, %oldest : !torch.vtensor<[?],si64>, !torch.vtensor<[2,1,3,1],si64> -> !seen
  %both = torch.aten.bitwise_and.Tensor %seen, %near : !seen, !seen -> !seen
  %f7 = torch.constant.float 0.000000e+00
  %f8 = torch.constant.float -6.550400e+04
  %mask = torch.aten.where.Scalar %both, %f7, %f8 : !seen, !torch.float, !torch.float -> !torch.vtensor<[2,1,3,?],f16>
  %k1 = torch.aten.unsqueeze %k, %i2 : !kv, !torch.int -> !torch.vtensor<[2,2,1,?,8],f16>
  %i8 = torch.constant.int 8
  %l2_2_2_length_8 = torch.prim.ListConstruct %i2, %i2, %i2, %length, %i8 : (!torch.int, !torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %false = torch.constant.bool false
  %k2 = torch.aten.expand %k1, %l2_2_2_length_8, %false : !torch.vtensor<[2,2,1,?,8],f16>, !torch.list<int>, !torch.bool -> !groups
  %k3 = torch.aten.clone %k2, %i0 : !groups, !torch.int -> !groups
  %l2_4_length_8 = torch.prim.ListConstruct %i2, %i4, %length, %i8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %k4 = torch.aten.view %k3, %l2_4_length_8 : !groups, !torch.list<int> -> !heads
  %v1 = torch.aten.unsqueeze %v, %i2 : !kv, !torch.int -> !torch.vtensor<[2,2,1,?,8],f16>
  %v2 = torch.aten.expand %v1, %l2_2_2_length_8, %false : !torch.vtensor<[2,2,1,?,8],f16>, !torch.list<int>, !torch.bool -> !groups
  %v3 = torch.aten.clone %v2, %i0 : !groups, !torch.int -> !groups
  %v4 = torch.aten.view %v3, %l2_4_length_8 : !groups, !torch.list<int> -> !heads
  %kt = torch.aten.transpose.int %k4, %i2, %i3 : !heads, !torch.int, !torch.int -> !turned
  %i6 = torch.constant.int 6
  %kw = torch.aten.to.dtype %kt, %i6, %false, %false, %none : !turned, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2,4,8,?],f32>
  %qw = torch.aten.to.dtype %q, %i6, %false, %false, %none : !q, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2,4,3,8],f32>
  %raw = torch.aten.matmul %qw, %kw : !torch.vtensor<[2,4,3,8],f32>, !torch.vtensor<[2,4,8,?],f32> -> !scores
  %f12 = torch.constant.float 6.000000e+01
  %ratio = torch.aten.div.Scalar %raw, %f12 : !scores, !torch.float -> !scores
  %bent = torch.aten.tanh %ratio : !scores -> !scores
  %f13 = torch.constant.float 3.000000e+01
  %capped = torch.aten.mul.Scalar %bent, %f13 : !scores, !torch.float -> !scores
  %scores = torch.aten.add.Tensor %capped, %mask, %i1 : !scores, !torch.vtensor<[2,1,3,?],f16>, !torch.int -> !scores
  %weights = torch.aten.softmax.int %scores, %i3, %none : !scores, !torch.int, !torch.none -> !scores
  %small = torch.aten.to.dtype %weights, %i5, %false, %false, %none : !scores, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2,4,3,?],f16>
  %y = torch.aten.matmul %small, %v4 : !torch.vtensor<[2,4,3,?],f16>, !heads -> !q
  return %y : !q
}

// -----

// One token; a stored bias cut to the length of the keys; a mask that is true where a key is hidden.
// CHECK-LABEL: func.func @bias_up_to_the_last_key_and_filled_mask
// CHECK-SAME:    [[STORED:%[a-z0-9]+]]: !torch.vtensor<[2,1,1],bf16>)
// CHECK-NOT:     torch.aten.slice
// CHECK:         [[FLAT:%[0-9]+]] = torch.aten.view [[STORED]], {{.*}} -> !torch.vtensor<[2],bf16>
// CHECK:         [[SLOPES:%[0-9]+]] = torch.aten.to.dtype [[FLAT]], {{.*}} -> !torch.vtensor<[2],f32>
// CHECK:         torch.operator "torch.amdnfs.paged_attention"({{.*}}, [[SLOPES]], {{[^,]*}}, {{[^,]*}}, {{[^,]*}})
!q = !torch.vtensor<[1,2,1,8],f32>
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!slopes = !torch.vtensor<[2,1,1],bf16>
!kv = !torch.vtensor<[1,2,?,8],f32>
!scores = !torch.vtensor<[1,2,1,?],f32>

func.func @bias_up_to_the_last_key_and_filled_mask(%q: !q, %pool: !pool, %table: !table, %start: !count, %valid: !count, %slopes: !slopes) -> !q {
  %i0 = torch.constant.int 0
  %k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !kv
  %i1 = torch.constant.int 1
  %v = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !kv
  %columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %i4 = torch.constant.int 4
  %length = torch.aten.mul.int %columns, %i4 : !torch.int, !torch.int -> !torch.int
  %none = torch.constant.none
  %keys = torch.aten.arange %length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %l1_1_1_1 = torch.prim.ListConstruct %i1, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %begin = torch.aten.view %start, %l1_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[1,1,1,1],si64>
  %tokens = torch.aten.arange %i1, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !count
  %column = torch.aten.unsqueeze %tokens, %i1 : !count, !torch.int -> !torch.vtensor<[1,1],si64>
  %positions = torch.aten.add.Tensor %begin, %column, %i1 : !torch.vtensor<[1,1,1,1],si64>, !torch.vtensor<[1,1],si64>, !torch.int -> !torch.vtensor<[1,1,1,1],si64>
  %seen = torch.aten.le.Tensor %keys, %positions : !torch.vtensor<[?],si64>, !torch.vtensor<[1,1,1,1],si64> -> !torch.vtensor<[1,1,1,?],i1>
  %f4 = torch.constant.float 0.000000e+00
  %f5 = torch.constant.float -3.402823e+38
  %mask = torch.aten.where.Scalar %seen, %f4, %f5 : !torch.vtensor<[1,1,1,?],i1>, !torch.float, !torch.float -> !torch.vtensor<[1,1,1,?],f32>
  %i11 = torch.constant.int 11
  %false = torch.constant.bool false
  %hidden = torch.aten.to.dtype %mask, %i11, %false, %false, %none : !torch.vtensor<[1,1,1,?],f32>, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[1,1,1,?],i1>
  %im63 = torch.constant.int -63
  %back = torch.aten.arange.start %im63, %i1, %none, %none, %none, %none : !torch.int, !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[64],si64>
  %table_of_bias = torch.aten.mul.Tensor %slopes, %back : !slopes, !torch.vtensor<[64],si64> -> !torch.vtensor<[2,1,64],f32>
  %i64 = torch.constant.int 64
  %unused = torch.aten.sub.int %i64, %length : !torch.int, !torch.int -> !torch.int
  %i2 = torch.constant.int 2
  %i9223372036854775807 = torch.constant.int 9223372036854775807
  %bias = torch.aten.slice.Tensor %table_of_bias, %i2, %unused, %i9223372036854775807, %i1 : !torch.vtensor<[2,1,64],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[2,1,?],f32>
  %i3 = torch.constant.int 3
  %l0_1_3_2 = torch.prim.ListConstruct %i0, %i1, %i3, %i2 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %kt = torch.aten.permute %k, %l0_1_3_2 : !kv, !torch.list<int> -> !torch.vtensor<[1,2,8,?],f32>
  %raw = torch.aten.matmul %q, %kt : !q, !torch.vtensor<[1,2,8,?],f32> -> !scores
  %f13 = torch.constant.float 5.000000e-01
  %scaled = torch.aten.mul.Scalar %raw, %f13 : !scores, !torch.float -> !scores
  %biased = torch.aten.add.Tensor %scaled, %bias, %i1 : !scores, !torch.vtensor<[2,1,?],f32>, !torch.int -> !scores
  %scores = torch.aten.masked_fill.Scalar %biased, %hidden, %f5 : !scores, !torch.vtensor<[1,1,1,?],i1>, !torch.float -> !scores
  %im1 = torch.constant.int -1
  %weights = torch.aten.softmax.int %scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %y = torch.aten.matmul %weights, %v : !scores, !kv -> !q
  return %y : !q
}

// -----

// Keys and values that are no pages: keys in another layout, a boolean mask joined with causality, a bias in f16.
// CHECK-LABEL: func.func @plain_tensors
// CHECK-SAME:    [[Q:%[a-z0-9]+]]: {{[^%]*}}[[K:%[a-z0-9]+]]: {{[^%]*}}[[V:%[a-z0-9]+]]: {{[^%]*}}[[MASK:%[a-z0-9]+]]: {{[^%]*}}[[BIAS:%[a-z0-9]+]]:
// CHECK:         [[ROWS:%[0-9]+]] = torch.aten.view [[BIAS]], {{.*}} -> !torch.vtensor<[1,4,3,5],f16>
// CHECK:         [[WIDE:%[0-9]+]] = torch.aten.to.dtype [[ROWS]], {{.*}} -> !torch.vtensor<[1,4,3,5],f32>
// CHECK:         [[KEYS:%[0-9]+]] = torch.aten.permute [[K]], {{.*}} -> !torch.vtensor<[2,2,5,8],f32>
// CHECK:         [[SCALE:%[^ ,]+]] = torch.constant.float 5.000000e-01
// CHECK:         [[CAUSAL:%[^ ,]+]] = torch.constant.bool true
// CHECK:         torch.operator "torch.amdnfs.attention"([[Q]], [[KEYS]], [[V]], [[MASK]], [[WIDE]], {{.*}}, [[SCALE]], {{.*}}, [[CAUSAL]]) {{.*}} -> !torch.vtensor<[2,3,4,6],f32>
// CHECK-NOT:     torch.aten.softmax
!scores = !torch.vtensor<[2,4,3,5],f32>
!seen = !torch.vtensor<[2,1,3,5],i1>

func.func @plain_tensors(%q: !torch.vtensor<[2,4,3,8],f32>, %k: !torch.vtensor<[2,5,2,8],f32>, %v: !torch.vtensor<[2,2,5,6],f32>, %mask: !torch.vtensor<[2,1,1,5],i1>, %bias: !torch.vtensor<[4,3,5],f16>) -> !torch.vtensor<[2,4,3,6],f32> {
  %f0 = torch.constant.float 5.000000e-01
  %half = torch.aten.mul.Scalar %k, %f0 : !torch.vtensor<[2,5,2,8],f32>, !torch.float -> !torch.vtensor<[2,5,2,8],f32>
  %i0 = torch.constant.int 0
  %i2 = torch.constant.int 2
  %i3 = torch.constant.int 3
  %i1 = torch.constant.int 1
  %l0_2_3_1 = torch.prim.ListConstruct %i0, %i2, %i3, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %kt = torch.aten.permute %half, %l0_2_3_1 : !torch.vtensor<[2,5,2,8],f32>, !torch.list<int> -> !torch.vtensor<[2,2,8,5],f32>
  %kt1 = torch.aten.unsqueeze %kt, %i2 : !torch.vtensor<[2,2,8,5],f32>, !torch.int -> !torch.vtensor<[2,2,1,8,5],f32>
  %i8 = torch.constant.int 8
  %i5 = torch.constant.int 5
  %l2_2_2_8_5 = torch.prim.ListConstruct %i2, %i2, %i2, %i8, %i5 : (!torch.int, !torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %false = torch.constant.bool false
  %kt2 = torch.aten.expand %kt1, %l2_2_2_8_5, %false : !torch.vtensor<[2,2,1,8,5],f32>, !torch.list<int>, !torch.bool -> !torch.vtensor<[2,2,2,8,5],f32>
  %i4 = torch.constant.int 4
  %l2_4_8_5 = torch.prim.ListConstruct %i2, %i4, %i8, %i5 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %kt3 = torch.aten.reshape %kt2, %l2_4_8_5 : !torch.vtensor<[2,2,2,8,5],f32>, !torch.list<int> -> !torch.vtensor<[2,4,8,5],f32>
  %none = torch.constant.none
  %v1 = torch.aten.repeat_interleave.self_int %v, %i2, %i1, %none : !torch.vtensor<[2,2,5,6],f32>, !torch.int, !torch.int, !torch.none -> !torch.vtensor<[2,4,5,6],f32>
  %raw = torch.aten.matmul %q, %kt3 : !torch.vtensor<[2,4,3,8],f32>, !torch.vtensor<[2,4,8,5],f32> -> !scores
  %biased = torch.aten.add.Tensor %raw, %bias, %i1 : !scores, !torch.vtensor<[4,3,5],f16>, !torch.int -> !scores
  %t = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %t1 = torch.aten.unsqueeze %t, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %s = torch.aten.arange %i5, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[5],si64>
  %past = torch.aten.ge.Tensor %t1, %s : !torch.vtensor<[3,1],si64>, !torch.vtensor<[5],si64> -> !torch.vtensor<[3,5],i1>
  %seen = torch.aten.logical_and %past, %mask : !torch.vtensor<[3,5],i1>, !torch.vtensor<[2,1,1,5],i1> -> !seen
  %hidden = torch.aten.logical_not %seen : !seen -> !seen
  %f10 = torch.constant.float 0xFFF0000000000000
  %scores = torch.aten.masked_fill.Scalar %biased, %hidden, %f10 : !scores, !seen, !torch.float -> !scores
  %im1 = torch.constant.int -1
  %weights = torch.aten.softmax.int %scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %y = torch.aten.matmul %weights, %v1 : !scores, !torch.vtensor<[2,4,5,6],f32> -> !torch.vtensor<[2,4,3,6],f32>
  return %y : !torch.vtensor<[2,4,3,6],f32>
}

// -----

// CHECK-LABEL: func.func @softmax_of_a_router
// CHECK:         torch.aten.softmax.int
// CHECK-NOT:   // refused

func.func @softmax_of_a_router(%x: !torch.vtensor<[4,8],f32>, %w: !torch.vtensor<[8,16],f32>) -> !torch.vtensor<[4,16],f32> {
  %raw = torch.aten.matmul %x, %w : !torch.vtensor<[4,8],f32>, !torch.vtensor<[8,16],f32> -> !torch.vtensor<[4,16],f32>
  %im1 = torch.constant.int -1
  %none = torch.constant.none
  %y = torch.aten.softmax.int %raw, %im1, %none : !torch.vtensor<[4,16],f32>, !torch.int, !torch.none -> !torch.vtensor<[4,16],f32>
  return %y : !torch.vtensor<[4,16],f32>
}

// -----

// What is nearly attention says why it is not taken, and stays as it is.
// CHECK-LABEL: func.func @refused
// CHECK-NOT:   torch.amdnfs.{{paged_attention|attention}}
// CHECK:       // refused: fuse-attention: the attention weights are read by another operation, too
// CHECK-NEXT:  // refused: fuse-attention: the softmax is not over the last axis
// CHECK-NEXT:  // refused: fuse-attention: the scores are a choice between numbers, none of which hides a key
// CHECK-NEXT:  // refused: fuse-attention: the scores hold no products of queries and keys; they come from torch.aten.sigmoid
// CHECK-NEXT:  // refused: fuse-attention: the attention weights are changed before they meet the values
// CHECK-NEXT:  // refused: fuse-attention: the values are scaled
// CHECK-NEXT:  // refused: fuse-attention: scores or weights are transposed between the products
// CHECK-NEXT:  // refused: fuse-attention: the axes of the products cannot be laid over each other
// CHECK-NEXT:  // refused: fuse-attention: keys or values are read at indices that are not request, head, position and dimension
// CHECK-NEXT:  // refused: fuse-attention: keys and values are shared by different heads
// CHECK-NEXT:  // refused: fuse-attention: heads that share keys and values do not stand next to each other
// CHECK-NEXT:  // refused: fuse-attention: a key is seen where not all of several conditions hold
// CHECK-NEXT:  // refused: fuse-attention: more than one boolean tensor hides keys
// CHECK-NEXT:  // refused: fuse-attention: the mask by position is neither causal nor a window: - key + 3 >= 0
// CHECK-NEXT:  // refused: fuse-attention: the mask is a window that is not causal
// CHECK-NEXT:  // refused: fuse-attention: a window by position is applied over pages only
// CHECK-NEXT:  // refused: fuse-attention: the bias is neither one tensor nor one slope a head times the position of the key
// CHECK-NEXT:  // refused: fuse-attention: the slopes are not one number a head
// CHECK-NEXT:  // refused: fuse-attention: the axis of tokens or keys is made of several
// CHECK-NEXT:  // refused: fuse-attention: keys are f32 and values f64; they must be one float type
// CHECK-NEXT:  // refused: fuse-attention: queries or result cannot be read as [batch, heads, tokens, dim]
// CHECK-NEXT:  // refused: fuse-attention: a tensor with two dynamic sizes would have to be reshaped
// CHECK-NEXT:  // refused: fuse-attention: keys and values do not come from the pages of one pool
// CHECK-NEXT:  // refused: fuse-attention: the keys must be the keys of a pool, and the values its values
// CHECK-NEXT:  // refused: fuse-attention: the mask over pages is not causal by the positions of the call
// CHECK-NEXT:  // refused: fuse-attention: over pages, masks and biases must follow from positions alone
// CHECK-NEXT:  // refused: fuse-attention: keys and values are not read as [batch, kv_heads, keys, dim]
// CHECK-NOT:   // refused
!q = !torch.vtensor<[2,4,3,8],f32>
!kv = !torch.vtensor<[2,4,5,8],f32>
!kt = !torch.vtensor<[2,4,8,5],f32>
!scores = !torch.vtensor<[2,4,3,5],f32>
!flags = !torch.vtensor<[3,5],i1>
!pq = !torch.vtensor<[1,2,3,8],f32>
!pool = !torch.vtensor<[?,2,4,2,8],f32>
!table = !torch.vtensor<[1,?],si32>
!count = !torch.vtensor<[1],si64>
!pages = !torch.vtensor<[1,2,?,8],f32>
!turned = !torch.vtensor<[1,2,8,?],f32>
!pscores = !torch.vtensor<[1,2,3,?],f32>
!pseen = !torch.vtensor<[1,1,3,?],i1>

func.func @refused(%q: !q, %k: !kv, %v: !kv, %m: !flags, %q2: !torch.vtensor<[6,3,8],f32>, %k2: !torch.vtensor<[2,3,5,8],f32>, %v2: !torch.vtensor<[2,3,5,8],f32>, %v3: !torch.vtensor<[2,4,1,8],f32>, %v4: !torch.vtensor<[2,1,5,8],f32>, %k3: !torch.vtensor<[2,2,5,8],f32>, %v5: !torch.vtensor<[2,2,5,8],f32>, %n: !torch.vtensor<[5],i1>, %m2: !torch.vtensor<[3,5],f32>, %n2: !torch.vtensor<[5],f32>, %m3: !torch.vtensor<[3,1],f32>, %q3: !torch.vtensor<[2,2,6,8],f32>, %v6: !torch.vtensor<[2,4,5,8],f64>, %q4: !torch.vtensor<[1,4,3,8],f32>, %q5: !torch.vtensor<[?,4,3,8],f32>, %k4: !torch.vtensor<[?,?,4,8],f32>, %v7: !torch.vtensor<[?,4,?,8],f32>, %q6: !pq, %pool: !pool, %table: !table, %start: !count, %valid: !count, %other: !pool, %m4: !torch.vtensor<[3,?],f32>) -> !q {
  // weights_read_twice
  %i2 = torch.constant.int 2
  %i3 = torch.constant.int 3
  %weights_read_twice_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %weights_read_twice_raw = torch.aten.matmul %q, %weights_read_twice_kt : !q, !kt -> !scores
  %im1 = torch.constant.int -1
  %none = torch.constant.none
  %weights_read_twice_weights = torch.aten.softmax.int %weights_read_twice_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %weights_read_twice_y = torch.aten.matmul %weights_read_twice_weights, %v : !scores, !kv -> !q
  %l3 = torch.prim.ListConstruct %i3 : (!torch.int) -> !torch.list<int>
  %true = torch.constant.bool true
  %weights_read_twice_sum = torch.aten.sum.dim_IntList %weights_read_twice_weights, %l3, %true, %none : !scores, !torch.list<int>, !torch.bool, !torch.none -> !torch.vtensor<[2,4,3,1],f32>
  %i1 = torch.constant.int 1
  %weights_read_twice_z = torch.aten.add.Tensor %weights_read_twice_y, %weights_read_twice_sum, %i1 : !q, !torch.vtensor<[2,4,3,1],f32>, !torch.int -> !q
  // other_axis
  %other_axis_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %other_axis_raw = torch.aten.matmul %q, %other_axis_kt : !q, !kt -> !scores
  %other_axis_weights = torch.aten.softmax.int %other_axis_raw, %i2, %none : !scores, !torch.int, !torch.none -> !scores
  %other_axis_y = torch.aten.matmul %other_axis_weights, %v : !scores, !kv -> !q
  // choice_of_scores
  %choice_of_scores_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %choice_of_scores_raw = torch.aten.matmul %q, %choice_of_scores_kt : !q, !kt -> !scores
  %f6 = torch.constant.float 1.000000e+00
  %choice_of_scores_choice = torch.aten.where.ScalarOther %m, %choice_of_scores_raw, %f6 : !flags, !scores, !torch.float -> !scores
  %choice_of_scores_weights = torch.aten.softmax.int %choice_of_scores_choice, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %choice_of_scores_y = torch.aten.matmul %choice_of_scores_weights, %v : !scores, !kv -> !q
  // unknown_function
  %unknown_function_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %unknown_function_raw = torch.aten.matmul %q, %unknown_function_kt : !q, !kt -> !scores
  %unknown_function_gate = torch.aten.sigmoid %unknown_function_raw : !scores -> !scores
  %unknown_function_weights = torch.aten.softmax.int %unknown_function_gate, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %unknown_function_y = torch.aten.matmul %unknown_function_weights, %v : !scores, !kv -> !q
  // dropout_in_training
  %dropout_in_training_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %dropout_in_training_raw = torch.aten.matmul %q, %dropout_in_training_kt : !q, !kt -> !scores
  %dropout_in_training_weights = torch.aten.softmax.int %dropout_in_training_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %f7 = torch.constant.float 1.000000e-01
  %dropout_in_training_drop = torch.aten.dropout %dropout_in_training_weights, %f7, %true : !scores, !torch.float, !torch.bool -> !scores
  %dropout_in_training_y = torch.aten.matmul %dropout_in_training_drop, %v : !scores, !kv -> !q
  // scaled_values
  %scaled_values_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %scaled_values_raw = torch.aten.matmul %q, %scaled_values_kt : !q, !kt -> !scores
  %scaled_values_weights = torch.aten.softmax.int %scaled_values_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %f8 = torch.constant.float 2.000000e+00
  %scaled_values_v2 = torch.aten.mul.Scalar %v, %f8 : !kv, !torch.float -> !kv
  %scaled_values_y = torch.aten.matmul %scaled_values_weights, %scaled_values_v2 : !scores, !kv -> !q
  // transposed_scores
  %transposed_scores_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %transposed_scores_raw = torch.aten.matmul %q, %transposed_scores_kt : !q, !kt -> !scores
  %i0 = torch.constant.int 0
  %l1_0_2_3 = torch.prim.ListConstruct %i1, %i0, %i2, %i3 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %transposed_scores_p = torch.aten.permute %transposed_scores_raw, %l1_0_2_3 : !scores, !torch.list<int> -> !torch.vtensor<[4,2,3,5],f32>
  %transposed_scores_weights = torch.aten.softmax.int %transposed_scores_p, %im1, %none : !torch.vtensor<[4,2,3,5],f32>, !torch.int, !torch.none -> !torch.vtensor<[4,2,3,5],f32>
  %transposed_scores_vp = torch.aten.permute %v, %l1_0_2_3 : !kv, !torch.list<int> -> !torch.vtensor<[4,2,5,8],f32>
  %transposed_scores_y = torch.aten.matmul %transposed_scores_weights, %transposed_scores_vp : !torch.vtensor<[4,2,3,5],f32>, !torch.vtensor<[4,2,5,8],f32> -> !torch.vtensor<[4,2,3,8],f32>
  // heads_split_in_two_ways
  %i6 = torch.constant.int 6
  %i5 = torch.constant.int 5
  %i8 = torch.constant.int 8
  %l6_5_8 = torch.prim.ListConstruct %i6, %i5, %i8 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_split_in_two_ways_k6 = torch.aten.view %k2, %l6_5_8 : !torch.vtensor<[2,3,5,8],f32>, !torch.list<int> -> !torch.vtensor<[6,5,8],f32>
  %heads_split_in_two_ways_kt = torch.aten.transpose.int %heads_split_in_two_ways_k6, %i1, %i2 : !torch.vtensor<[6,5,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[6,8,5],f32>
  %heads_split_in_two_ways_raw = torch.aten.bmm %q2, %heads_split_in_two_ways_kt : !torch.vtensor<[6,3,8],f32>, !torch.vtensor<[6,8,5],f32> -> !torch.vtensor<[6,3,5],f32>
  %l3_2_3_5 = torch.prim.ListConstruct %i3, %i2, %i3, %i5 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_split_in_two_ways_other = torch.aten.view %heads_split_in_two_ways_raw, %l3_2_3_5 : !torch.vtensor<[6,3,5],f32>, !torch.list<int> -> !torch.vtensor<[3,2,3,5],f32>
  %heads_split_in_two_ways_weights = torch.aten.softmax.int %heads_split_in_two_ways_other, %im1, %none : !torch.vtensor<[3,2,3,5],f32>, !torch.int, !torch.none -> !torch.vtensor<[3,2,3,5],f32>
  %l6_3_5 = torch.prim.ListConstruct %i6, %i3, %i5 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_split_in_two_ways_w6 = torch.aten.view %heads_split_in_two_ways_weights, %l6_3_5 : !torch.vtensor<[3,2,3,5],f32>, !torch.list<int> -> !torch.vtensor<[6,3,5],f32>
  %heads_split_in_two_ways_v6 = torch.aten.view %v2, %l6_5_8 : !torch.vtensor<[2,3,5,8],f32>, !torch.list<int> -> !torch.vtensor<[6,5,8],f32>
  %heads_split_in_two_ways_y = torch.aten.matmul %heads_split_in_two_ways_w6, %heads_split_in_two_ways_v6 : !torch.vtensor<[6,3,5],f32>, !torch.vtensor<[6,5,8],f32> -> !torch.vtensor<[6,3,8],f32>
  // one_value_for_all_keys
  %one_value_for_all_keys_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %one_value_for_all_keys_raw = torch.aten.matmul %q, %one_value_for_all_keys_kt : !q, !kt -> !scores
  %one_value_for_all_keys_weights = torch.aten.softmax.int %one_value_for_all_keys_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %i4 = torch.constant.int 4
  %l2_4_5_8 = torch.prim.ListConstruct %i2, %i4, %i5, %i8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %false = torch.constant.bool false
  %one_value_for_all_keys_v5 = torch.aten.expand %v3, %l2_4_5_8, %false : !torch.vtensor<[2,4,1,8],f32>, !torch.list<int>, !torch.bool -> !kv
  %one_value_for_all_keys_y = torch.aten.matmul %one_value_for_all_keys_weights, %one_value_for_all_keys_v5 : !scores, !kv -> !q
  // values_shared_alone
  %values_shared_alone_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %values_shared_alone_raw = torch.aten.matmul %q, %values_shared_alone_kt : !q, !kt -> !scores
  %values_shared_alone_weights = torch.aten.softmax.int %values_shared_alone_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %values_shared_alone_y = torch.aten.matmul %values_shared_alone_weights, %v4 : !scores, !torch.vtensor<[2,1,5,8],f32> -> !q
  // heads_that_alternate
  %l1_2_1_1 = torch.prim.ListConstruct %i1, %i2, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_that_alternate_k1 = torch.aten.repeat %k3, %l1_2_1_1 : !torch.vtensor<[2,2,5,8],f32>, !torch.list<int> -> !kv
  %heads_that_alternate_v1 = torch.aten.repeat %v5, %l1_2_1_1 : !torch.vtensor<[2,2,5,8],f32>, !torch.list<int> -> !kv
  %heads_that_alternate_kt = torch.aten.transpose.int %heads_that_alternate_k1, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %heads_that_alternate_raw = torch.aten.matmul %q, %heads_that_alternate_kt : !q, !kt -> !scores
  %heads_that_alternate_weights = torch.aten.softmax.int %heads_that_alternate_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %heads_that_alternate_y = torch.aten.matmul %heads_that_alternate_weights, %heads_that_alternate_v1 : !scores, !kv -> !q
  // hidden_where_both_hold
  %hidden_where_both_hold_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %hidden_where_both_hold_raw = torch.aten.matmul %q, %hidden_where_both_hold_kt : !q, !kt -> !scores
  %hidden_where_both_hold_t = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %hidden_where_both_hold_t1 = torch.aten.unsqueeze %hidden_where_both_hold_t, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %hidden_where_both_hold_s = torch.aten.arange %i5, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[5],si64>
  %hidden_where_both_hold_past = torch.aten.ge.Tensor %hidden_where_both_hold_t1, %hidden_where_both_hold_s : !torch.vtensor<[3,1],si64>, !torch.vtensor<[5],si64> -> !flags
  %hidden_where_both_hold_edge = torch.aten.sub.Scalar %hidden_where_both_hold_t1, %i3, %i1 : !torch.vtensor<[3,1],si64>, !torch.int, !torch.int -> !torch.vtensor<[3,1],si64>
  %hidden_where_both_hold_near = torch.aten.gt.Tensor %hidden_where_both_hold_s, %hidden_where_both_hold_edge : !torch.vtensor<[5],si64>, !torch.vtensor<[3,1],si64> -> !flags
  %hidden_where_both_hold_both = torch.aten.logical_and %hidden_where_both_hold_past, %hidden_where_both_hold_near : !flags, !flags -> !flags
  %f15 = torch.constant.float -3.402823e+38
  %hidden_where_both_hold_s2 = torch.aten.masked_fill.Scalar %hidden_where_both_hold_raw, %hidden_where_both_hold_both, %f15 : !scores, !flags, !torch.float -> !scores
  %hidden_where_both_hold_weights = torch.aten.softmax.int %hidden_where_both_hold_s2, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %hidden_where_both_hold_y = torch.aten.matmul %hidden_where_both_hold_weights, %v : !scores, !kv -> !q
  // two_masks
  %two_masks_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %two_masks_raw = torch.aten.matmul %q, %two_masks_kt : !q, !kt -> !scores
  %two_masks_scores = torch.aten.where.ScalarOther %m, %two_masks_raw, %f15 : !flags, !scores, !torch.float -> !scores
  %two_masks_scores2 = torch.aten.where.ScalarOther %n, %two_masks_scores, %f15 : !torch.vtensor<[5],i1>, !scores, !torch.float -> !scores
  %two_masks_weights = torch.aten.softmax.int %two_masks_scores2, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %two_masks_y = torch.aten.matmul %two_masks_weights, %v : !scores, !kv -> !q
  // first_keys_only
  %first_keys_only_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %first_keys_only_raw = torch.aten.matmul %q, %first_keys_only_kt : !q, !kt -> !scores
  %first_keys_only_t = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %first_keys_only_t1 = torch.aten.unsqueeze %first_keys_only_t, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %first_keys_only_s = torch.aten.arange %i5, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[5],si64>
  %first_keys_only_past = torch.aten.ge.Tensor %first_keys_only_t1, %first_keys_only_s : !torch.vtensor<[3,1],si64>, !torch.vtensor<[5],si64> -> !flags
  %first_keys_only_later = torch.aten.le.Tensor %first_keys_only_t1, %first_keys_only_s : !torch.vtensor<[3,1],si64>, !torch.vtensor<[5],si64> -> !flags
  %first_keys_only_latest = torch.aten.lt.Scalar %first_keys_only_s, %i4 : !torch.vtensor<[5],si64>, !torch.int -> !torch.vtensor<[5],i1>
  %first_keys_only_scores = torch.aten.where.ScalarOther %first_keys_only_latest, %first_keys_only_raw, %f15 : !torch.vtensor<[5],i1>, !scores, !torch.float -> !scores
  %first_keys_only_weights = torch.aten.softmax.int %first_keys_only_scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %first_keys_only_y = torch.aten.matmul %first_keys_only_weights, %v : !scores, !kv -> !q
  // window_ahead
  %window_ahead_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %window_ahead_raw = torch.aten.matmul %q, %window_ahead_kt : !q, !kt -> !scores
  %window_ahead_t = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %window_ahead_t1 = torch.aten.unsqueeze %window_ahead_t, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %window_ahead_s = torch.aten.arange %i5, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[5],si64>
  %window_ahead_past = torch.aten.ge.Tensor %window_ahead_t1, %window_ahead_s : !torch.vtensor<[3,1],si64>, !torch.vtensor<[5],si64> -> !flags
  %window_ahead_edge = torch.aten.sub.Scalar %window_ahead_t1, %i3, %i1 : !torch.vtensor<[3,1],si64>, !torch.int, !torch.int -> !torch.vtensor<[3,1],si64>
  %window_ahead_near = torch.aten.gt.Tensor %window_ahead_s, %window_ahead_edge : !torch.vtensor<[5],si64>, !torch.vtensor<[3,1],si64> -> !flags
  %window_ahead_scores = torch.aten.where.ScalarOther %window_ahead_near, %window_ahead_raw, %f15 : !flags, !scores, !torch.float -> !scores
  %window_ahead_weights = torch.aten.softmax.int %window_ahead_scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %window_ahead_y = torch.aten.matmul %window_ahead_weights, %v : !scores, !kv -> !q
  // window_without_pages
  %window_without_pages_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %window_without_pages_raw = torch.aten.matmul %q, %window_without_pages_kt : !q, !kt -> !scores
  %window_without_pages_t = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %window_without_pages_t1 = torch.aten.unsqueeze %window_without_pages_t, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %window_without_pages_s = torch.aten.arange %i5, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[5],si64>
  %window_without_pages_past = torch.aten.ge.Tensor %window_without_pages_t1, %window_without_pages_s : !torch.vtensor<[3,1],si64>, !torch.vtensor<[5],si64> -> !flags
  %window_without_pages_edge = torch.aten.sub.Scalar %window_without_pages_t1, %i3, %i1 : !torch.vtensor<[3,1],si64>, !torch.int, !torch.int -> !torch.vtensor<[3,1],si64>
  %window_without_pages_near = torch.aten.gt.Tensor %window_without_pages_s, %window_without_pages_edge : !torch.vtensor<[5],si64>, !torch.vtensor<[3,1],si64> -> !flags
  %window_without_pages_both = torch.aten.logical_and %window_without_pages_past, %window_without_pages_near : !flags, !flags -> !flags
  %window_without_pages_scores = torch.aten.where.ScalarOther %window_without_pages_both, %window_without_pages_raw, %f15 : !flags, !scores, !torch.float -> !scores
  %window_without_pages_weights = torch.aten.softmax.int %window_without_pages_scores, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %window_without_pages_y = torch.aten.matmul %window_without_pages_weights, %v : !scores, !kv -> !q
  // two_biases
  %two_biases_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %two_biases_raw = torch.aten.matmul %q, %two_biases_kt : !q, !kt -> !scores
  %two_biases_b1 = torch.aten.add.Tensor %two_biases_raw, %m2, %i1 : !scores, !torch.vtensor<[3,5],f32>, !torch.int -> !scores
  %two_biases_b2 = torch.aten.add.Tensor %two_biases_b1, %n2, %i1 : !scores, !torch.vtensor<[5],f32>, !torch.int -> !scores
  %two_biases_weights = torch.aten.softmax.int %two_biases_b2, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %two_biases_y = torch.aten.matmul %two_biases_weights, %v : !scores, !kv -> !q
  // slope_by_query
  %slope_by_query_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %slope_by_query_raw = torch.aten.matmul %q, %slope_by_query_kt : !q, !kt -> !scores
  %slope_by_query_t = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %slope_by_query_t1 = torch.aten.unsqueeze %slope_by_query_t, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %slope_by_query_s = torch.aten.arange %i5, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[5],si64>
  %slope_by_query_past = torch.aten.ge.Tensor %slope_by_query_t1, %slope_by_query_s : !torch.vtensor<[3,1],si64>, !torch.vtensor<[5],si64> -> !flags
  %slope_by_query_rise = torch.aten.mul.Tensor %m3, %slope_by_query_s : !torch.vtensor<[3,1],f32>, !torch.vtensor<[5],si64> -> !torch.vtensor<[3,5],f32>
  %slope_by_query_b1 = torch.aten.add.Tensor %slope_by_query_raw, %slope_by_query_rise, %i1 : !scores, !torch.vtensor<[3,5],f32>, !torch.int -> !scores
  %slope_by_query_weights = torch.aten.softmax.int %slope_by_query_b1, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %slope_by_query_y = torch.aten.matmul %slope_by_query_weights, %v : !scores, !kv -> !q
  // heads_among_the_queries
  %heads_among_the_queries_kt = torch.aten.transpose.int %k3, %i2, %i3 : !torch.vtensor<[2,2,5,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[2,2,8,5],f32>
  %heads_among_the_queries_raw = torch.aten.matmul %q3, %heads_among_the_queries_kt : !torch.vtensor<[2,2,6,8],f32>, !torch.vtensor<[2,2,8,5],f32> -> !torch.vtensor<[2,2,6,5],f32>
  %l2_2_2_3_5 = torch.prim.ListConstruct %i2, %i2, %i2, %i3, %i5 : (!torch.int, !torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_among_the_queries_r5 = torch.aten.view %heads_among_the_queries_raw, %l2_2_2_3_5 : !torch.vtensor<[2,2,6,5],f32>, !torch.list<int> -> !torch.vtensor<[2,2,2,3,5],f32>
  %heads_among_the_queries_b5 = torch.aten.add.Tensor %heads_among_the_queries_r5, %m2, %i1 : !torch.vtensor<[2,2,2,3,5],f32>, !torch.vtensor<[3,5],f32>, !torch.int -> !torch.vtensor<[2,2,2,3,5],f32>
  %l2_2_6_5 = torch.prim.ListConstruct %i2, %i2, %i6, %i5 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_among_the_queries_b4 = torch.aten.view %heads_among_the_queries_b5, %l2_2_6_5 : !torch.vtensor<[2,2,2,3,5],f32>, !torch.list<int> -> !torch.vtensor<[2,2,6,5],f32>
  %heads_among_the_queries_weights = torch.aten.softmax.int %heads_among_the_queries_b4, %im1, %none : !torch.vtensor<[2,2,6,5],f32>, !torch.int, !torch.none -> !torch.vtensor<[2,2,6,5],f32>
  %heads_among_the_queries_y = torch.aten.matmul %heads_among_the_queries_weights, %v5 : !torch.vtensor<[2,2,6,5],f32>, !torch.vtensor<[2,2,5,8],f32> -> !torch.vtensor<[2,2,6,8],f32>
  // double_values
  %double_values_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %double_values_raw = torch.aten.matmul %q, %double_values_kt : !q, !kt -> !scores
  %double_values_weights = torch.aten.softmax.int %double_values_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %i7 = torch.constant.int 7
  %double_values_w = torch.aten.to.dtype %double_values_weights, %i7, %false, %false, %none : !scores, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2,4,3,5],f64>
  %double_values_y = torch.aten.matmul %double_values_w, %v6 : !torch.vtensor<[2,4,3,5],f64>, !torch.vtensor<[2,4,5,8],f64> -> !torch.vtensor<[2,4,3,8],f64>
  // queries_of_one_request
  %queries_of_one_request_kt = torch.aten.transpose.int %k, %i2, %i3 : !kv, !torch.int, !torch.int -> !kt
  %queries_of_one_request_raw = torch.aten.matmul %q4, %queries_of_one_request_kt : !torch.vtensor<[1,4,3,8],f32>, !kt -> !scores
  %queries_of_one_request_weights = torch.aten.softmax.int %queries_of_one_request_raw, %im1, %none : !scores, !torch.int, !torch.none -> !scores
  %queries_of_one_request_y = torch.aten.matmul %queries_of_one_request_weights, %v : !scores, !kv -> !q
  // two_dynamic_sizes
  %l0_2_3_1 = torch.prim.ListConstruct %i0, %i2, %i3, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %two_dynamic_sizes_kt = torch.aten.permute %k4, %l0_2_3_1 : !torch.vtensor<[?,?,4,8],f32>, !torch.list<int> -> !torch.vtensor<[?,4,8,?],f32>
  %two_dynamic_sizes_raw = torch.aten.matmul %q5, %two_dynamic_sizes_kt : !torch.vtensor<[?,4,3,8],f32>, !torch.vtensor<[?,4,8,?],f32> -> !torch.vtensor<[?,4,3,?],f32>
  %two_dynamic_sizes_weights = torch.aten.softmax.int %two_dynamic_sizes_raw, %im1, %none : !torch.vtensor<[?,4,3,?],f32>, !torch.int, !torch.none -> !torch.vtensor<[?,4,3,?],f32>
  %two_dynamic_sizes_y = torch.aten.matmul %two_dynamic_sizes_weights, %v7 : !torch.vtensor<[?,4,3,?],f32>, !torch.vtensor<[?,4,?,8],f32> -> !torch.vtensor<[?,4,3,8],f32>
  // two_pools
  %two_pools_k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %two_pools_v = torch.operator "torch.amdnfs.kv_gather"(%other, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %shared_columns = torch.aten.size.int %table, %i1 : !table, !torch.int -> !torch.int
  %shared_length = torch.aten.mul.int %shared_columns, %i4 : !torch.int, !torch.int -> !torch.int
  %shared_keys = torch.aten.arange %shared_length, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %l1_1_1_1 = torch.prim.ListConstruct %i1, %i1, %i1, %i1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %shared_begin = torch.aten.view %start, %l1_1_1_1 : !count, !torch.list<int> -> !torch.vtensor<[1,1,1,1],si64>
  %shared_tokens = torch.aten.arange %i3, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[3],si64>
  %shared_column = torch.aten.unsqueeze %shared_tokens, %i1 : !torch.vtensor<[3],si64>, !torch.int -> !torch.vtensor<[3,1],si64>
  %shared_positions = torch.aten.add.Tensor %shared_begin, %shared_column, %i1 : !torch.vtensor<[1,1,1,1],si64>, !torch.vtensor<[3,1],si64>, !torch.int -> !torch.vtensor<[1,1,3,1],si64>
  %shared_seen = torch.aten.le.Tensor %shared_keys, %shared_positions : !torch.vtensor<[?],si64>, !torch.vtensor<[1,1,3,1],si64> -> !pseen
  %two_pools_kt = torch.aten.transpose.int %two_pools_k, %i2, %i3 : !pages, !torch.int, !torch.int -> !turned
  %two_pools_raw = torch.aten.matmul %q6, %two_pools_kt : !pq, !turned -> !pscores
  %two_pools_scores = torch.aten.where.ScalarOther %shared_seen, %two_pools_raw, %f15 : !pseen, !pscores, !torch.float -> !pscores
  %two_pools_weights = torch.aten.softmax.int %two_pools_scores, %im1, %none : !pscores, !torch.int, !torch.none -> !pscores
  %two_pools_y = torch.aten.matmul %two_pools_weights, %two_pools_v : !pscores, !pages -> !pq
  // keys_as_values
  %keys_as_values_k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %keys_as_values_kt = torch.aten.transpose.int %keys_as_values_k, %i2, %i3 : !pages, !torch.int, !torch.int -> !turned
  %keys_as_values_raw = torch.aten.matmul %q6, %keys_as_values_kt : !pq, !turned -> !pscores
  %keys_as_values_scores = torch.aten.where.ScalarOther %shared_seen, %keys_as_values_raw, %f15 : !pseen, !pscores, !torch.float -> !pscores
  %keys_as_values_weights = torch.aten.softmax.int %keys_as_values_scores, %im1, %none : !pscores, !torch.int, !torch.none -> !pscores
  %keys_as_values_y = torch.aten.matmul %keys_as_values_weights, %keys_as_values_k : !pscores, !pages -> !pq
  // no_mask
  %no_mask_k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %no_mask_v = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %no_mask_kt = torch.aten.transpose.int %no_mask_k, %i2, %i3 : !pages, !torch.int, !torch.int -> !turned
  %no_mask_raw = torch.aten.matmul %q6, %no_mask_kt : !pq, !turned -> !pscores
  %no_mask_weights = torch.aten.softmax.int %no_mask_raw, %im1, %none : !pscores, !torch.int, !torch.none -> !pscores
  %no_mask_y = torch.aten.matmul %no_mask_weights, %no_mask_v : !pscores, !pages -> !pq
  // bias_that_is_given
  %bias_that_is_given_k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %bias_that_is_given_v = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %bias_that_is_given_kt = torch.aten.transpose.int %bias_that_is_given_k, %i2, %i3 : !pages, !torch.int, !torch.int -> !turned
  %bias_that_is_given_raw = torch.aten.matmul %q6, %bias_that_is_given_kt : !pq, !turned -> !pscores
  %bias_that_is_given_scores = torch.aten.where.ScalarOther %shared_seen, %bias_that_is_given_raw, %f15 : !pseen, !pscores, !torch.float -> !pscores
  %bias_that_is_given_biased = torch.aten.add.Tensor %bias_that_is_given_scores, %m4, %i1 : !pscores, !torch.vtensor<[3,?],f32>, !torch.int -> !pscores
  %bias_that_is_given_weights = torch.aten.softmax.int %bias_that_is_given_biased, %im1, %none : !pscores, !torch.int, !torch.none -> !pscores
  %bias_that_is_given_y = torch.aten.matmul %bias_that_is_given_weights, %bias_that_is_given_v : !pscores, !pages -> !pq
  // heads_as_requests
  %heads_as_requests_k = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i0) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %heads_as_requests_v = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %i1) : (!pool, !table, !count, !count, !torch.int) -> !pages
  %l2_1_m1_8 = torch.prim.ListConstruct %i2, %i1, %im1, %i8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_as_requests_k4 = torch.aten.view %heads_as_requests_k, %l2_1_m1_8 : !pages, !torch.list<int> -> !torch.vtensor<[2,1,?,8],f32>
  %heads_as_requests_v4 = torch.aten.view %heads_as_requests_v, %l2_1_m1_8 : !pages, !torch.list<int> -> !torch.vtensor<[2,1,?,8],f32>
  %l2_1_3_8 = torch.prim.ListConstruct %i2, %i1, %i3, %i8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_as_requests_q4 = torch.aten.view %q6, %l2_1_3_8 : !pq, !torch.list<int> -> !torch.vtensor<[2,1,3,8],f32>
  %heads_as_requests_kt = torch.aten.transpose.int %heads_as_requests_k4, %i2, %i3 : !torch.vtensor<[2,1,?,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[2,1,8,?],f32>
  %heads_as_requests_raw = torch.aten.matmul %heads_as_requests_q4, %heads_as_requests_kt : !torch.vtensor<[2,1,3,8],f32>, !torch.vtensor<[2,1,8,?],f32> -> !torch.vtensor<[2,1,3,?],f32>
  %heads_as_requests_scores = torch.aten.where.ScalarOther %shared_seen, %heads_as_requests_raw, %f15 : !pseen, !torch.vtensor<[2,1,3,?],f32>, !torch.float -> !torch.vtensor<[2,1,3,?],f32>
  %heads_as_requests_weights = torch.aten.softmax.int %heads_as_requests_scores, %im1, %none : !torch.vtensor<[2,1,3,?],f32>, !torch.int, !torch.none -> !torch.vtensor<[2,1,3,?],f32>
  %heads_as_requests_y = torch.aten.matmul %heads_as_requests_weights, %heads_as_requests_v4 : !torch.vtensor<[2,1,3,?],f32>, !torch.vtensor<[2,1,?,8],f32> -> !torch.vtensor<[2,1,3,8],f32>
  %l1_2_3_8 = torch.prim.ListConstruct %i1, %i2, %i3, %i8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads_as_requests_y4 = torch.aten.view %heads_as_requests_y, %l1_2_3_8 : !torch.vtensor<[2,1,3,8],f32>, !torch.list<int> -> !pq
  return %weights_read_twice_z : !q
}

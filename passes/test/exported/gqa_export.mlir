// RUN: amdnfs-opt --passes='fuse-attention' --why %s | filecheck %s
// Grouped queries with a boolean mask as torch.export writes them; see make.py. Keys and values are read before they
// are repeated, and the mask before it is turned round.
// CHECK-LABEL: func.func @main_graph
// CHECK-SAME:    [[Q:%[a-z0-9]+]]: {{[^%]*}}[[K:%[a-z0-9]+]]: {{[^%]*}}[[V:%[a-z0-9]+]]: {{[^%]*}}[[MASK:%[a-z0-9]+]]: !torch.vtensor<[2,1,6,6],i1>
// CHECK-NOT:     torch.aten
// CHECK:         [[NO_BIAS:%[^ ,]+]] = torch.constant.none
// CHECK:         [[NO_SLOPES:%[^ ,]+]] = torch.constant.none
// CHECK:         [[SCALE:%[^ ,]+]] = torch.constant.float 0.353553
// CHECK:         [[MIXED:%[0-9]+]] = torch.operator "torch.amdnfs.attention"([[Q]], [[K]], [[V]], [[MASK]], [[NO_BIAS]], [[NO_SLOPES]], [[SCALE]], {{.*}} : (!torch.vtensor<[2,4,6,8],f32>, !torch.vtensor<[2,2,6,8],f32>, !torch.vtensor<[2,2,6,8],f32>, {{.*}} -> !torch.vtensor<[2,6,4,8],f32>
// CHECK:         torch.aten.permute [[MIXED]]
// CHECK-NOT:     torch.aten.softmax
// CHECK-NOT:   // refused

module {
  func.func @main_graph(%arg0: !torch.vtensor<[2,4,6,8],f32>, %arg1: !torch.vtensor<[2,2,6,8],f32>, %arg2: !torch.vtensor<[2,2,6,8],f32>, %arg3: !torch.vtensor<[2,1,6,6],i1>) -> !torch.vtensor<[2,6,4,8],f32> {
    %int2 = torch.constant.int 2
    %0 = torch.aten.unsqueeze %arg1, %int2 : !torch.vtensor<[2,2,6,8],f32>, !torch.int -> !torch.vtensor<[2,2,1,6,8],f32>
    %int2_0 = torch.constant.int 2
    %int2_1 = torch.constant.int 2
    %int2_2 = torch.constant.int 2
    %int6 = torch.constant.int 6
    %int8 = torch.constant.int 8
    %1 = torch.prim.ListConstruct %int2_0, %int2_1, %int2_2, %int6, %int8 : (!torch.int, !torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %false = torch.constant.bool false
    %2 = torch.aten.expand %0, %1, %false : !torch.vtensor<[2,2,1,6,8],f32>, !torch.list<int>, !torch.bool -> !torch.vtensor<[2,2,2,6,8],f32>
    %int0 = torch.constant.int 0
    %3 = torch.aten.clone %2, %int0 : !torch.vtensor<[2,2,2,6,8],f32>, !torch.int -> !torch.vtensor<[2,2,2,6,8],f32>
    %int2_3 = torch.constant.int 2
    %int4 = torch.constant.int 4
    %int6_4 = torch.constant.int 6
    %int8_5 = torch.constant.int 8
    %4 = torch.prim.ListConstruct %int2_3, %int4, %int6_4, %int8_5 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %5 = torch.aten._unsafe_view %3, %4 : !torch.vtensor<[2,2,2,6,8],f32>, !torch.list<int> -> !torch.vtensor<[2,4,6,8],f32>
    %int-1 = torch.constant.int -1
    %int-2 = torch.constant.int -2
    %6 = torch.aten.transpose.int %5, %int-1, %int-2 : !torch.vtensor<[2,4,6,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[2,4,8,6],f32>
    %7 = torch.aten.matmul %arg0, %6 : !torch.vtensor<[2,4,6,8],f32>, !torch.vtensor<[2,4,8,6],f32> -> !torch.vtensor<[2,4,6,6],f32>
    %float3.535530e-01 = torch.constant.float 0.35355339059327379
    %8 = torch.aten.mul.Scalar %7, %float3.535530e-01 : !torch.vtensor<[2,4,6,6],f32>, !torch.float -> !torch.vtensor<[2,4,6,6],f32>
    %9 = torch.aten.bitwise_not %arg3 : !torch.vtensor<[2,1,6,6],i1> -> !torch.vtensor<[2,1,6,6],i1>
    %float-Inf = torch.constant.float 0xFFF0000000000000
    %10 = torch.aten.masked_fill.Scalar %8, %9, %float-Inf : !torch.vtensor<[2,4,6,6],f32>, !torch.vtensor<[2,1,6,6],i1>, !torch.float -> !torch.vtensor<[2,4,6,6],f32>
    %int-1_6 = torch.constant.int -1
    %int6_7 = torch.constant.int 6
    %11 = torch.aten.softmax.int %10, %int-1_6, %int6_7 : !torch.vtensor<[2,4,6,6],f32>, !torch.int, !torch.int -> !torch.vtensor<[2,4,6,6],f32>
    %none = torch.constant.none
    %none_8 = torch.constant.none
    %int6_9 = torch.constant.int 6
    %cpu = torch.constant.device "cpu"
    %int0_10 = torch.constant.int 0
    torch.aten._assert_tensor_metadata %11, %none, %none_8, %int6_9, %cpu, %int0_10 : !torch.vtensor<[2,4,6,6],f32>, !torch.none, !torch.none, !torch.int, !torch.Device, !torch.int
    %int2_11 = torch.constant.int 2
    %12 = torch.aten.unsqueeze %arg2, %int2_11 : !torch.vtensor<[2,2,6,8],f32>, !torch.int -> !torch.vtensor<[2,2,1,6,8],f32>
    %int2_12 = torch.constant.int 2
    %int2_13 = torch.constant.int 2
    %int2_14 = torch.constant.int 2
    %int6_15 = torch.constant.int 6
    %int8_16 = torch.constant.int 8
    %13 = torch.prim.ListConstruct %int2_12, %int2_13, %int2_14, %int6_15, %int8_16 : (!torch.int, !torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %false_17 = torch.constant.bool false
    %14 = torch.aten.expand %12, %13, %false_17 : !torch.vtensor<[2,2,1,6,8],f32>, !torch.list<int>, !torch.bool -> !torch.vtensor<[2,2,2,6,8],f32>
    %int0_18 = torch.constant.int 0
    %15 = torch.aten.clone %14, %int0_18 : !torch.vtensor<[2,2,2,6,8],f32>, !torch.int -> !torch.vtensor<[2,2,2,6,8],f32>
    %int2_19 = torch.constant.int 2
    %int4_20 = torch.constant.int 4
    %int6_21 = torch.constant.int 6
    %int8_22 = torch.constant.int 8
    %16 = torch.prim.ListConstruct %int2_19, %int4_20, %int6_21, %int8_22 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %17 = torch.aten._unsafe_view %15, %16 : !torch.vtensor<[2,2,2,6,8],f32>, !torch.list<int> -> !torch.vtensor<[2,4,6,8],f32>
    %18 = torch.aten.matmul %11, %17 : !torch.vtensor<[2,4,6,6],f32>, !torch.vtensor<[2,4,6,8],f32> -> !torch.vtensor<[2,4,6,8],f32>
    %int1 = torch.constant.int 1
    %int2_23 = torch.constant.int 2
    %19 = torch.aten.transpose.int %18, %int1, %int2_23 : !torch.vtensor<[2,4,6,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[2,6,4,8],f32>
    return %19 : !torch.vtensor<[2,6,4,8],f32>
  }
}


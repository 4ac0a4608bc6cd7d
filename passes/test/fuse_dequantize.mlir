// RUN: amdnfs-opt --passes='fuse-dequantize' --why %s | filecheck %s

!x = !torch.vtensor<[2,64],f16>
!y = !torch.vtensor<[2,8],f16>
!w = !torch.vtensor<[8,64],f16>
!grouped = !torch.vtensor<[8,2,32],f16>
!points = !torch.vtensor<[8,2,1],si8>

// Two int4 in a byte, viewed as groups; zero points are converted, and the factors stand the other way round.
// CHECK-LABEL: func.func @int4_in_groups
// CHECK-SAME:    ([[X:%[a-z0-9]+]]: {{.*}}, [[BYTES:%[a-z0-9]+]]: {{.*}}, [[SCALES:%[a-z0-9]+]]: {{.*}}, [[ZEROS:%[a-z0-9]+]]: {{.*}}, [[BIAS:%[a-z0-9]+]]: {{.*}})
// CHECK-NOT:     torch.aten.{{_to_copy|stack|sub|mul|unsqueeze|__}}
// CHECK:         [[Z:%[0-9]+]] = torch.aten.view [[ZEROS]], {{.*}} -> !torch.vtensor<[8,2],si8>
// CHECK:         [[LAYOUT:%[a-z0-9_]+]] = torch.constant.str "i4-g32-zp-rows-f16"
// CHECK:         [[S:%[0-9]+]] = torch.aten.view [[SCALES]], {{.*}} -> !torch.vtensor<[8,2],f16>
// CHECK:         torch.operator "torch.amdnfs.quantized_linear"([[X]], [[BYTES]], [[S]], [[Z]], [[BIAS]], [[LAYOUT]])
func.func @int4_in_groups(%x: !x, %bytes: !torch.vtensor<[8,32],si8>, %scales: !torch.vtensor<[8,2,1],f16>, %zeros: !points, %bias: !torch.vtensor<[8],f16>) -> !y {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %f16 = torch.constant.int 5
  %four = torch.constant.int 4
  %one = torch.constant.int 1
  %last = torch.constant.int -1
  %n = torch.constant.int 8
  %g = torch.constant.int 2
  %k = torch.constant.int 32
  %depth = torch.constant.int 64
  %up = torch.aten.__lshift__.Scalar %bytes, %four : !torch.vtensor<[8,32],si8>, !torch.int -> !torch.vtensor<[8,32],si8>
  %low = torch.aten.__rshift__.Scalar %up, %four : !torch.vtensor<[8,32],si8>, !torch.int -> !torch.vtensor<[8,32],si8>
  %high = torch.aten.__rshift__.Scalar %bytes, %four : !torch.vtensor<[8,32],si8>, !torch.int -> !torch.vtensor<[8,32],si8>
  %parts = torch.prim.ListConstruct %low, %high : (!torch.vtensor<[8,32],si8>, !torch.vtensor<[8,32],si8>) -> !torch.list<vtensor>
  %pairs = torch.aten.stack %parts, %last : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[8,32,2],si8>
  %groups = torch.prim.ListConstruct %n, %g, %k : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %viewed = torch.aten.view %pairs, %groups : !torch.vtensor<[8,32,2],si8>, !torch.list<int> -> !torch.vtensor<[8,2,32],si8>
  %float = torch.aten._to_copy %viewed, %f16, %none, %none, %none, %false, %none : !torch.vtensor<[8,2,32],si8>, !torch.int, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none -> !grouped
  %points = torch.aten._to_copy %zeros, %f16, %none, %none, %none, %false, %none : !points, !torch.int, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none -> !torch.vtensor<[8,2,1],f16>
  %moved = torch.aten.sub.Tensor %float, %points, %one : !grouped, !torch.vtensor<[8,2,1],f16>, !torch.int -> !grouped
  %scaled = torch.aten.mul.Tensor %scales, %moved : !torch.vtensor<[8,2,1],f16>, !grouped -> !grouped
  %flat = torch.prim.ListConstruct %n, %depth : (!torch.int, !torch.int) -> !torch.list<int>
  %weight = torch.aten.view %scaled, %flat : !grouped, !torch.list<int> -> !w
  %y = torch.aten.linear %x, %weight, %bias : !x, !w, !torch.vtensor<[8],f16> -> !y
  return %y : !y
}

// -----

!x = !torch.vtensor<[2,64],f32>
!y = !torch.vtensor<[2,8],f32>
!w = !torch.vtensor<[8,64],f32>
!data = !torch.vtensor<[8,64],si8>
!scales = !torch.vtensor<[8,1],f32>

// A weight that something else reads too is fused where it is a weight, and stays where it is not.
// CHECK-LABEL: func.func @used_twice
// CHECK:         [[W:%[0-9]+]] = torch.aten.mul.Tensor
// CHECK:         torch.operator "torch.amdnfs.quantized_linear"
// CHECK:         return {{.*}}, [[W]]
func.func @used_twice(%x: !x, %data: !data, %scales: !scales) -> (!y, !w) {
  %none = torch.constant.none
  %f32 = torch.constant.int 6
  %float = torch.prims.convert_element_type %data, %f32 : !data, !torch.int -> !w
  %weight = torch.aten.mul.Tensor %float, %scales : !w, !scales -> !w
  %y = torch.aten.linear %x, %weight, %none : !x, !w, !torch.none -> !y
  return %y, %weight : !y, !w
}

// No conversion, a conversion from another type, zero points in floats, a sum of scales: not this arithmetic.
// CHECK-LABEL: func.func @left_alone
// CHECK-NOT:     amdnfs.quantized_linear
// CHECK-NOT:   // refused
// CHECK-LABEL: func.func @refused
func.func @left_alone(%x: !x, %data: !data, %w: !w, %ints: !torch.vtensor<[8,64],si32>, %scales: !scales) -> (!y, !y, !y, !y) {
  %none = torch.constant.none
  %f32 = torch.constant.int 6
  %one = torch.constant.int 1
  %float = torch.prims.convert_element_type %data, %f32 : !data, !torch.int -> !w
  %from_ints = torch.prims.convert_element_type %ints, %f32 : !torch.vtensor<[8,64],si32>, !torch.int -> !w
  %a = torch.aten.mul.Tensor %w, %scales : !w, !scales -> !w
  %b = torch.aten.mul.Tensor %from_ints, %scales : !w, !scales -> !w
  %moved = torch.aten.sub.Tensor %float, %scales, %one : !w, !scales, !torch.int -> !w
  %c = torch.aten.mul.Tensor %moved, %scales : !w, !scales -> !w
  %d = torch.aten.add.Tensor %float, %scales, %one : !w, !scales, !torch.int -> !w
  %0 = torch.aten.linear %x, %a, %none : !x, !w, !torch.none -> !y
  %1 = torch.aten.linear %x, %b, %none : !x, !w, !torch.none -> !y
  %2 = torch.aten.linear %x, %c, %none : !x, !w, !torch.none -> !y
  %3 = torch.aten.linear %x, %d, %none : !x, !w, !torch.none -> !y
  return %0, %1, %2, %3 : !y, !y, !y, !y
}

// CHECK-NOT:     amdnfs.quantized_linear
// CHECK:       // refused: fuse-dequantize: group_size 16 of grouping group: allowed are (32, 64, 128)
// CHECK-NEXT:  // refused: fuse-dequantize: the scales must be [8, 1]
// CHECK-NEXT:  // refused: fuse-dequantize: the weight must have a static shape and the type of the rows
// CHECK-NOT:   // refused
func.func @refused(%x: !x, %half: !torch.vtensor<[2,64],f16>, %data: !data, %scales: !torch.vtensor<[8,4,1],f32>, %row: !torch.vtensor<[1,64],f32>, %column: !scales) -> (!y, !y, !y) {
  %none = torch.constant.none
  %f32 = torch.constant.int 6
  %n = torch.constant.int 8
  %g = torch.constant.int 4
  %k = torch.constant.int 16
  %depth = torch.constant.int 64
  %float = torch.prims.convert_element_type %data, %f32 : !data, !torch.int -> !w
  %groups = torch.prim.ListConstruct %n, %g, %k : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %flat = torch.prim.ListConstruct %n, %depth : (!torch.int, !torch.int) -> !torch.list<int>
  %viewed = torch.aten.view %float, %groups : !w, !torch.list<int> -> !torch.vtensor<[8,4,16],f32>
  %scaled = torch.aten.mul.Tensor %viewed, %scales : !torch.vtensor<[8,4,16],f32>, !torch.vtensor<[8,4,1],f32> -> !torch.vtensor<[8,4,16],f32>
  %small_groups = torch.aten.view %scaled, %flat : !torch.vtensor<[8,4,16],f32>, !torch.list<int> -> !w
  %columns = torch.aten.mul.Tensor %float, %row : !w, !torch.vtensor<[1,64],f32> -> !w
  %other = torch.aten.mul.Tensor %float, %column : !w, !scales -> !w
  %0 = torch.aten.linear %x, %small_groups, %none : !x, !w, !torch.none -> !y
  %1 = torch.aten.linear %x, %columns, %none : !x, !w, !torch.none -> !y
  %2 = torch.aten.linear %half, %other, %none : !torch.vtensor<[2,64],f16>, !w, !torch.none -> !y
  return %0, %1, %2 : !y, !y, !y
}

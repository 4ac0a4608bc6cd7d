// RUN: amdnfs-opt --passes='lower-rotary' --why %s | filecheck %s

!x = !torch.vtensor<[1,2,3,8],f16>
!table = !torch.vtensor<[1,1,3,8],f32>
!y = !torch.vtensor<[1,2,3,8],f32>

// The pair is the axis in front of the rest: element i and i + 4. Tables have no head axis of their own.
// CHECK-DAG:   #[[X:map[0-9]*]] = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1, d2, d3, d4)>
// CHECK-DAG:   #[[TABLE:map[0-9]*]] = affine_map<(d0, d1, d2, d3, d4) -> (d0, 0, d2, d3, d4)>
// CHECK-LABEL: func.func private @amdnfs.rotary.halves.1x2x3x8xf16.1x1x3x8xf32.f32
// CHECK-SAME:    ([[ARG:%[a-z0-9]+]]: tensor<1x2x3x8xf16>
// CHECK:         [[XS:%[a-z0-9_]+]] = tensor.expand_shape [[ARG]] {{.*}} output_shape [1, 2, 3, 2, 4]
// CHECK:         linalg.generic {indexing_maps = [#[[X]], #[[TABLE]], #[[TABLE]], #[[X]]]
// CHECK-SAME:      tensor<1x2x3x2x4xf16>, tensor<1x1x3x2x4xf32>, tensor<1x1x3x2x4xf32>) outs({{.*}} : tensor<1x2x3x2x4xf32>)
// CHECK:         [[PAIR:%[0-9]+]] = linalg.index 3
// CHECK:         [[OTHER:%[0-9]+]] = arith.subi %c1{{[_0-9]*}}, [[PAIR]]
// CHECK:         tensor.extract [[XS]][{{%[0-9]+, %[0-9]+, %[0-9]+}}, [[OTHER]], {{%[0-9]+}}]
// CHECK-COUNT-2: arith.extf {{.*}} : f16 to f32
// CHECK-NOT:     arith.truncf
// CHECK:         tensor.collapse_shape
// CHECK-LABEL: func.func @halves
// CHECK:         call @amdnfs.rotary.halves.1x2x3x8xf16.1x1x3x8xf32.f32
func.func @halves(%x: !x, %cos: !table, %sin: !table) -> !y {
  %interleaved = torch.constant.bool false
  %0 = torch.operator "torch.amdnfs.rotary"(%x, %cos, %sin, %interleaved) : (!x, !table, !table, !torch.bool) -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[3,8],bf16>

// The pair is the last axis: elements 2i and 2i + 1. Computed in f32, rounded once.
// CHECK-LABEL: func.func private @amdnfs.rotary.interleaved.3x8xbf16.3x8xbf16.bf16
// CHECK:         tensor.expand_shape {{.*}} output_shape [3, 4, 2]
// CHECK:         [[PAIR:%[0-9]+]] = linalg.index 2
// CHECK:         arith.subi %c1{{[_0-9]*}}, [[PAIR]]
// CHECK-COUNT-4: arith.extf {{.*}} : bf16 to f32
// CHECK:         [[R:%[0-9]+]] = arith.select
// CHECK-NEXT:    [[ROUNDED:%[0-9]+]] = arith.truncf [[R]] : f32 to bf16
// CHECK-NEXT:    linalg.yield [[ROUNDED]]
// CHECK-LABEL: func.func @interleaved
func.func @interleaved(%x: !x, %cos: !x, %sin: !x) -> !x {
  %interleaved = torch.constant.bool true
  %0 = torch.operator "torch.amdnfs.rotary"(%x, %cos, %sin, %interleaved) : (!x, !x, !x, !torch.bool) -> !x
  return %0 : !x
}

// -----

!x = !torch.vtensor<[2,8],f32>
!odd = !torch.vtensor<[2,7],f32>
!dynamic = !torch.vtensor<[?,8],f32>
!small = !torch.vtensor<[2,8],f16>
!row = !torch.vtensor<[8],f32>

// CHECK-LABEL:   func.func @refused
// CHECK-COUNT-7: torch.operator
// CHECK-COUNT-2: // refused: lower-rotary: operands must be tensors and a constant flag
// CHECK-COUNT-5: // refused: lower-rotary: the last axis must be even, and both tables of one static type that fits
// CHECK-NOT:     // refused
func.func @refused(%x: !x, %odd: !odd, %dynamic: !dynamic, %small: !small, %row: !row, %unknown: !torch.vtensor, %flag: !torch.bool) -> !x {
  %f = torch.constant.bool false
  %flag_unknown = torch.operator "torch.amdnfs.rotary"(%x, %x, %x, %flag) : (!x, !x, !x, !torch.bool) -> !x
  %no_shape = torch.operator "torch.amdnfs.rotary"(%unknown, %x, %x, %f) : (!torch.vtensor, !x, !x, !torch.bool) -> !x
  %axis_odd = torch.operator "torch.amdnfs.rotary"(%odd, %odd, %odd, %f) : (!odd, !odd, !odd, !torch.bool) -> !odd
  %size_dynamic = torch.operator "torch.amdnfs.rotary"(%dynamic, %x, %x, %f) : (!dynamic, !x, !x, !torch.bool) -> !dynamic
  %tables_differ = torch.operator "torch.amdnfs.rotary"(%x, %x, %small, %f) : (!x, !x, !small, !torch.bool) -> !x
  %other_rank = torch.operator "torch.amdnfs.rotary"(%x, %row, %row, %f) : (!x, !row, !row, !torch.bool) -> !x
  %x_broadcast = torch.operator "torch.amdnfs.rotary"(%row, %x, %x, %f) : (!row, !x, !x, !torch.bool) -> !x
  return %flag_unknown : !x
}

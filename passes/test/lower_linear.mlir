// RUN: amdnfs-opt --passes='lower-linear' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='lower-linear{vector-lanes=4 vector-registers=16}' %s | filecheck %s --check-prefix=VECTOR
// RUN: amdnfs-opt --passes='lower-linear{vector-lanes=4 vector-registers=32 bf16-pairs=true}' %s | filecheck %s --check-prefix=PAIRS

// The weight is read as it lies on disk, [columns, depth], and the sum is in f32 whatever is stored.
// CHECK-DAG:   #[[X:map[0-9]*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK-DAG:   #[[WEIGHT:map[0-9]*]] = affine_map<(d0, d1, d2) -> (d1, d2)>

// CHECK-LABEL: func.func private @amdnfs.mm.2x4xf32.4x8(
// CHECK:         [[Y:%[0-9]+]] = linalg.matmul ins({{.*}} : tensor<2x4xf32>, tensor<4x8xf32>)
// CHECK-NEXT:    return [[Y]]

// CHECK-LABEL: func.func private @amdnfs.linear.1x2x4xf16.8x4.bias1(
// CHECK:         [[ROWS:%[a-z0-9_]+]] = tensor.collapse_shape {{.*}} : tensor<1x2x4xf16> into tensor<2x4xf16>
// CHECK:         [[SUM:%[0-9]+]] = linalg.matmul indexing_maps = [#[[X]], #[[WEIGHT]], {{.*}}] ins([[ROWS]], {{.*}}) outs({{.*}} : tensor<2x8xf32>)
// CHECK:         linalg.generic {{.*}} ins({{%[a-z0-9]+}}, [[SUM]] : tensor<8xf16>, tensor<2x8xf32>)
// CHECK:           [[WITH_BIAS:%[0-9]+]] = arith.addf
// CHECK-NEXT:      arith.truncf [[WITH_BIAS]] : f32 to f16
// CHECK:         tensor.expand_shape {{.*}} : tensor<2x8xf16> into tensor<1x2x8xf16>

// In vectors, the loops are written out; a matrix that is not [columns, depth] stays a contraction.
// VECTOR-LABEL: func.func private @amdnfs.mm.2x4xf32.4x8(
// VECTOR:         linalg.matmul
// VECTOR-LABEL: func.func private @amdnfs.linear.1x2x4xf16.8x4.bias1(
// VECTOR:         flow.dispatch.workgroups
// VECTOR:           vector.transfer_read {{.*}} : tensor<8x4xf16>, vector<4xf16>
// VECTOR:           arith.extf {{.*}} : vector<4xf16> to vector<4xf32>
// VECTOR:           vector.fma {{.*}} : vector<4xf32>
// VECTOR:           vector.reduction <add>
// VECTOR:           arith.addf

// CHECK-LABEL: func.func @linear_with_bias
// CHECK:         call @amdnfs.linear.1x2x4xf16.8x4.bias1
func.func @linear_with_bias(%x: !torch.vtensor<[1,2,4],f16>, %w: !torch.vtensor<[8,4],f16>, %b: !torch.vtensor<[8],f16>) -> !torch.vtensor<[1,2,8],f16> {
  %0 = torch.aten.linear %x, %w, %b : !torch.vtensor<[1,2,4],f16>, !torch.vtensor<[8,4],f16>, !torch.vtensor<[8],f16> -> !torch.vtensor<[1,2,8],f16>
  return %0 : !torch.vtensor<[1,2,8],f16>
}

// CHECK-LABEL:   func.func @two_calls_of_one_function
// CHECK-COUNT-2: call @amdnfs.mm.2x4xf32.4x8
func.func @two_calls_of_one_function(%x: !torch.vtensor<[2,4],f32>, %w: !torch.vtensor<[4,8],f32>, %v: !torch.vtensor<[4,8],f32>) -> (!torch.vtensor<[2,8],f32>, !torch.vtensor<[2,8],f32>) {
  %0 = torch.aten.mm %x, %w : !torch.vtensor<[2,4],f32>, !torch.vtensor<[4,8],f32> -> !torch.vtensor<[2,8],f32>
  %1 = torch.aten.mm %x, %v : !torch.vtensor<[2,4],f32>, !torch.vtensor<[4,8],f32> -> !torch.vtensor<[2,8],f32>
  return %0, %1 : !torch.vtensor<[2,8],f32>, !torch.vtensor<[2,8],f32>
}

// -----

!x = !torch.vtensor<[2,4],bf16>
!w = !torch.vtensor<[4,8],bf16>
!y = !torch.vtensor<[2,8],bf16>

// CHECK-LABEL: func.func private @amdnfs.mm.2x4xbf16.4x8.bias2(
// CHECK-LABEL: func.func @addmm
// CHECK:         call @amdnfs.mm.2x4xbf16.4x8.bias2
// CHECK:         torch.aten.addmm
func.func @addmm(%c: !y, %x: !x, %w: !w) -> (!y, !y) {
  %one = torch.constant.int 1
  %two = torch.constant.int 2
  %lowered = torch.aten.addmm %c, %x, %w, %one, %one : !y, !x, !w, !torch.int, !torch.int -> !y
  %scaled = torch.aten.addmm %c, %x, %w, %two, %one : !y, !x, !w, !torch.int, !torch.int -> !y
  return %lowered, %scaled : !y, !y
}

// -----

!x = !torch.vtensor<[2,4],f32>
!w = !torch.vtensor<[4,8],f32>
!y = !torch.vtensor<[2,8],f32>
!dynamic = !torch.vtensor<[?,4],f32>
!integers = !torch.vtensor<[4,8],si64>

// CHECK-LABEL: func.func @refused
// CHECK-NOT:     call @
// CHECK-COUNT-2: // refused: lower-linear: a size is dynamic; only static row counts are lowered
// CHECK-NEXT:  // refused: lower-linear: element types f32 and si64 are not one float type
// CHECK-NEXT:  // refused: lower-linear: only rows times a matrix are lowered
// CHECK-NEXT:  // refused: lower-linear: the bias must be a row of the result, or all of them, of its element type
// CHECK-NEXT:  // refused: lower-linear: the bias must be a row of the result, or all of them, of its element type
// CHECK-NOT:   // refused
func.func @refused(%x: !x, %w: !w, %dynamic: !dynamic, %unknown: !torch.vtensor, %ints: !integers, %v: !torch.vtensor<[4],f32>, %column: !torch.vtensor<[2,1],f32>, %small: !torch.vtensor<[8],f16>) -> !y {
  %one = torch.constant.int 1
  %none = torch.constant.none
  %rows = torch.aten.mm %dynamic, %w : !dynamic, !w -> !torch.vtensor<[?,8],f32>
  %no_shape = torch.aten.mm %x, %unknown : !x, !torch.vtensor -> !y
  %elements = torch.aten.mm %x, %ints : !x, !integers -> !y
  %vector = torch.aten.linear %v, %x, %none : !torch.vtensor<[4],f32>, !x, !torch.none -> !torch.vtensor<[2],f32>
  %column_bias = torch.aten.addmm %column, %x, %w, %one, %one : !torch.vtensor<[2,1],f32>, !x, !w, !torch.int, !torch.int -> !y
  %small_bias = torch.aten.addmm %small, %x, %w, %one, %one : !torch.vtensor<[8],f16>, !x, !w, !torch.int, !torch.int -> !y
  return %column_bias : !y
}

// -----

!x = !torch.vtensor<[3,8],bf16>
!w = !torch.vtensor<[8,8],bf16>

// PAIRS-LABEL: func.func private @amdnfs.linear.3x8xbf16.8x8(
// PAIRS:         vector.transfer_read {{.*}} : tensor<8x8xbf16>, vector<8xbf16>
// PAIRS-NOT:     arith.extf
// PAIRS:         llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.128"({{.*}}) : (vector<4xf32>, vector<8xbf16>, vector<8xbf16>) -> vector<4xf32>
func.func @pairs(%x: !x, %w: !w) -> !x {
  %none = torch.constant.none
  %0 = torch.aten.linear %x, %w, %none : !x, !w, !torch.none -> !x
  return %0 : !x
}

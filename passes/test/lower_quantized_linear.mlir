// RUN: amdnfs-opt --passes='lower-quantized-linear' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='lower-quantized-linear{pad-rows-begin=2 pad-rows-end=9 pad-rows=16}' %s | filecheck %s --check-prefix=PAD
// RUN: amdnfs-opt --passes='lower-quantized-linear{vector-lanes=16 vector-registers=32}' %s | filecheck %s --check-prefix=VECTOR
// RUN: amdnfs-opt --passes='lower-quantized-linear{shift-fp8=true}' %s | filecheck %s --check-prefix=SHIFT
// RUN: amdnfs-opt --passes='lower-quantized-linear{vector-lanes=16 vector-registers=32 bf16-pairs=true}' %s | filecheck %s --check-prefix=PAIRS

!x = !torch.vtensor<[1,2,64],f16>
!y = !torch.vtensor<[1,2,8],f16>

// The bytes are read as 4-bit integers, and the groups are a loop of the sum.
// CHECK-LABEL: func.func private @amdnfs.quantized_linear.1x2x64xf16.8.i4_g32_zp_rows_f16.bias(
// CHECK:         [[STORED:%[a-z0-9]+]] = flow.tensor.bitcast {{%[a-z0-9]+}} : tensor<8x32xi8> -> tensor<8x2x32xi4>
// CHECK:         [[WEIGHT:%[a-z0-9]+]] = linalg.generic {{.*}} iterator_types = ["parallel", "parallel", "parallel"]} ins([[STORED]], {{.*}} : tensor<8x2x32xi4>, tensor<8x2xi8>, tensor<8x2xf16>)
// CHECK:           arith.subi
// CHECK:           arith.mulf {{.*}} : f16
// CHECK:         linalg.generic {{.*}} iterator_types = ["parallel", "parallel", "reduction", "reduction"]} ins({{%[a-z0-9_]+}}, [[WEIGHT]] : tensor<2x2x32xf16>, tensor<8x2x32xf16>) outs({{.*}} : tensor<2x8xf32>)
// CHECK-LABEL: func.func @int4_in_groups
// CHECK:         call @amdnfs.quantized_linear.1x2x64xf16.8.i4_g32_zp_rows_f16.bias

// PAD-LABEL: func.func private @amdnfs.quantized_linear.1x2x64xf16.8.i4_g32_zp_rows_f16.bias(
// PAD:         tensor.pad {{.*}} low[0, 0] high[14, 0]
// PAD:         [[WIDE:%[a-z0-9]+]] = util.optimization_barrier {{.*}} : tensor<16x8xf16>
// PAD:         tensor.extract_slice [[WIDE]][0, 0] [2, 8] [1, 1]

// VECTOR-LABEL: func.func private @amdnfs.quantized_linear.1x2x64xf16.8.i4_g32_zp_rows_f16.bias(
// VECTOR:         flow.dispatch.workgroups
// VECTOR:           vector.interleave {{.*}} : vector<16xi8> -> vector<32xi8>
// VECTOR:           vector.fma {{.*}} : vector<16xf32>
func.func @int4_in_groups(%x: !x, %data: !torch.vtensor<[8,32],si8>, %scales: !torch.vtensor<[8,2],f16>, %zeros: !torch.vtensor<[8,2],si8>, %bias: !torch.vtensor<[8],f16>) -> !y {
  %layout = torch.constant.str "i4-g32-zp-rows-f16"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %zeros, %bias, %layout) : (!x, !torch.vtensor<[8,32],si8>, !torch.vtensor<[8,2],f16>, !torch.vtensor<[8,2],si8>, !torch.vtensor<[8],f16>, !torch.str) -> !y
  return %0 : !y
}

// -----

// A scale of the whole row is applied to the sum; an odd depth is no obstacle.
// CHECK-LABEL: func.func private @amdnfs.quantized_linear.3x33xf32.4.i8_channel_rows_f32(
// CHECK:         linalg.generic {{.*}} ins({{.*}} : tensor<4x1x33xi8>)
// CHECK-NOT:     arith.mulf
// CHECK:         [[SUMS:%[a-z0-9]+]] = linalg.generic {{.*}} outs({{.*}} : tensor<3x4xf32>)
// CHECK:         linalg.generic {{.*}} ins([[SUMS]], {{.*}} : tensor<3x4xf32>, tensor<4xf32>)
// CHECK:           arith.mulf
// CHECK-LABEL: func.func @two_of_one_form
// CHECK-COUNT-2: call @amdnfs.quantized_linear.3x33xf32.4.i8_channel_rows_f32

// VECTOR-LABEL: func.func @two_of_one_form
func.func @two_of_one_form(%x: !torch.vtensor<[3,33],f32>, %a: !torch.vtensor<[4,33],si8>, %b: !torch.vtensor<[4,33],si8>, %scales: !torch.vtensor<[4,1],f32>) -> (!torch.vtensor<[3,4],f32>, !torch.vtensor<[3,4],f32>) {
  %none = torch.constant.none
  %layout = torch.constant.str "i8-channel-rows-f32"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %a, %scales, %none, %none, %layout) : (!torch.vtensor<[3,33],f32>, !torch.vtensor<[4,33],si8>, !torch.vtensor<[4,1],f32>, !torch.none, !torch.none, !torch.str) -> !torch.vtensor<[3,4],f32>
  %1 = torch.operator "torch.amdnfs.quantized_linear"(%x, %b, %scales, %none, %none, %layout) : (!torch.vtensor<[3,33],f32>, !torch.vtensor<[4,33],si8>, !torch.vtensor<[4,1],f32>, !torch.none, !torch.none, !torch.str) -> !torch.vtensor<[3,4],f32>
  return %0, %1 : !torch.vtensor<[3,4],f32>, !torch.vtensor<[3,4],f32>
}

// -----

!x = !torch.vtensor<[2,32],bf16>
!y = !torch.vtensor<[2,8],bf16>
!data = !torch.vtensor<[8,32],si8>

// The flavour of fp8 is that of the layout, not of the bytes.
// CHECK-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.f8E4M3FNUZ_tensor_rows_bf16(
// CHECK:         flow.tensor.bitcast {{.*}} : tensor<8x32xi8> -> tensor<8x1x32xf8E4M3FNUZ>
// CHECK:         arith.extf {{.*}} : f8E4M3FNUZ to bf16
// CHECK:         linalg.generic {{.*}} ins({{.*}} : tensor<2x8xf32>, tensor<1xbf16>)
// VECTOR-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.f8E4M3FNUZ_tensor_rows_bf16(
// VECTOR:         arith.constant 1.280000e+02 : f32
// SHIFT-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.f8E4M3FNUZ_tensor_rows_bf16(
// SHIFT:         arith.shli
// SHIFT:         arith.bitcast {{.*}} : i16 to f16
// SHIFT-NOT:     f8E4M3FNUZ to
// SHIFT-LABEL: func.func @fp8
func.func @fp8(%x: !x, %data: !data, %scales: !torch.vtensor<[1,1],bf16>) -> !y {
  %none = torch.constant.none
  %layout = torch.constant.str "f8E4M3FNUZ-tensor-rows-bf16"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %layout) : (!x, !data, !torch.vtensor<[1,1],bf16>, !torch.none, !torch.none, !torch.str) -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[2,32],bf16>
!y = !torch.vtensor<[2,8],bf16>
!data = !torch.vtensor<[8,32],si8>

// Rows are rounded to int8, in a dispatch of their own, and the sum is in integers. Integers are not padded.
// CHECK-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.i8_channel_rows_bf16_a8(
// CHECK:         [[FOUND:%[a-z0-9]+]] = linalg.generic {{.*}} outs({{.*}} : tensor<2xf32>)
// CHECK:         [[LARGEST:%[a-z0-9]+]] = util.optimization_barrier [[FOUND]] : tensor<2xf32>
// CHECK:         [[ROUNDED:%[a-z0-9]+]] = linalg.generic {{.*}} ins({{%[a-z0-9]+}}, [[LARGEST]] : {{.*}} outs({{.*}} : tensor<2x32xi8>)
// CHECK:           math.roundeven
// CHECK:         linalg.generic {{.*}} ins([[ROUNDED]], {{%[a-z0-9]+}} : tensor<2x32xi8>, tensor<8x32xi8>) outs({{.*}} : tensor<2x8xi32>)
// PAD-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.i8_channel_rows_bf16_a8(
// PAD-NOT:     tensor.pad
// PAD-LABEL: func.func @int8_times_int8
// VECTOR-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.i8_channel_rows_bf16_a8(
// VECTOR:         vector.deinterleave {{.*}} : vector<32xi32> -> vector<16xi32>
func.func @int8_times_int8(%x: !x, %data: !data, %scales: !torch.vtensor<[8,1],bf16>) -> !y {
  %none = torch.constant.none
  %layout = torch.constant.str "i8-channel-rows-bf16-a8"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %layout) : (!x, !data, !torch.vtensor<[8,1],bf16>, !torch.none, !torch.none, !torch.str) -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[2,32],bf16>
!y = !torch.vtensor<[2,8],bf16>
!data = !torch.vtensor<[8,32],si8>

// Rows are rounded to fp8 of the weight's flavour, and enter the sum as it does; 224 is the largest of both flavours.
// CHECK-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.f8E4M3FNUZ_channel_rows_bf16_af8(
// CHECK:         [[FOUND:%[a-z0-9]+]] = linalg.generic {{.*}} outs({{.*}} : tensor<2xf32>)
// CHECK:         [[LARGEST:%[a-z0-9]+]] = util.optimization_barrier [[FOUND]] : tensor<2xf32>
// CHECK:         [[BYTES:%[a-z0-9]+]] = linalg.generic {{.*}} ins({{%[a-z0-9]+}}, [[LARGEST]] : {{.*}} outs({{.*}} : tensor<2x32xi8>)
// CHECK:           arith.minui
// CHECK:         [[ROWS:%[a-z0-9]+]] = flow.tensor.bitcast [[BYTES]] : tensor<2x32xi8> -> tensor<2x32xf8E4M3FNUZ>
// CHECK:         linalg.generic {{.*}} ins([[ROWS]], {{%[a-z0-9]+}} : tensor<2x32xf8E4M3FNUZ>, tensor<8x32xf8E4M3FNUZ>) outs({{.*}} : tensor<2x8xf32>)
// CHECK:         linalg.generic {{.*}} ins({{.*}} : tensor<2x8xf32>, tensor<2xf32>, tensor<8xbf16>)
// PAD-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.f8E4M3FNUZ_channel_rows_bf16_af8(
// PAD-NOT:     tensor.pad
// PAD-LABEL: func.func @fp8_times_fp8
// VECTOR-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.f8E4M3FNUZ_channel_rows_bf16_af8(
// VECTOR:         arith.minui
// VECTOR:         flow.dispatch.workgroups({{.*}}) : (tensor<2x32xf32>, tensor<8x32xi8>, tensor<8x1xbf16>) -> tensor<2x8xf32>
// VECTOR:         linalg.generic {{.*}} ins({{.*}} : tensor<2x8xf32>, tensor<2xf32>) outs({{.*}} : tensor<2x8xbf16>)
// SHIFT-LABEL: func.func private @amdnfs.quantized_linear.2x32xbf16.8.f8E4M3FNUZ_channel_rows_bf16_af8(
// SHIFT:         linalg.generic {{.*}} ins({{.*}} : tensor<2x1x32xbf16>, tensor<8x1x32xbf16>) outs({{.*}} : tensor<2x8xf32>)
// SHIFT-NOT:     f8E4M3FNUZ to
// SHIFT-LABEL: func.func @fp8_times_fp8
func.func @fp8_times_fp8(%x: !x, %data: !data, %scales: !torch.vtensor<[8,1],bf16>) -> !y {
  %none = torch.constant.none
  %layout = torch.constant.str "f8E4M3FNUZ-channel-rows-bf16-af8"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %layout) : (!x, !data, !torch.vtensor<[8,1],bf16>, !torch.none, !torch.none, !torch.str) -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[2,128],bf16>
!y = !torch.vtensor<[2,8],bf16>
!data = !torch.vtensor<[8,64],si8>

// With pairs of bf16, int4 is looked up; rows are taken apart before, unless there is but one.
// PAIRS-LABEL: func.func private @amdnfs.quantized_linear.1x128xbf16.8.i4_g64_rows_bf16(
// PAIRS-COUNT-1: flow.dispatch.workgroups
// PAIRS:           vector.deinterleave {{.*}} : vector<64xbf16> -> vector<32xbf16>
// PAIRS-LABEL: func.func private @amdnfs.quantized_linear.2x128xbf16.8.i4_g64_rows_bf16(
// PAIRS:         [[SPLIT:%[0-9]+]] = flow.dispatch.workgroups({{.*}} -> tensor<2x128xbf16>
// PAIRS:           vector.deinterleave {{.*}} : vector<64xbf16> -> vector<32xbf16>
// PAIRS:         flow.dispatch.workgroups([[SPLIT]],
// PAIRS-NOT:       vector.deinterleave
// PAIRS:           llvm.call_intrinsic "llvm.x86.avx512.permvar.hi.512"
// PAIRS-LABEL: func.func @int4_and_bf16
func.func @int4_and_bf16(%x: !x, %one: !torch.vtensor<[1,128],bf16>, %data: !data, %scales: !torch.vtensor<[8,2],bf16>) -> (!y, !torch.vtensor<[1,8],bf16>) {
  %none = torch.constant.none
  %layout = torch.constant.str "i4-g64-rows-bf16"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %layout) : (!x, !data, !torch.vtensor<[8,2],bf16>, !torch.none, !torch.none, !torch.str) -> !y
  %1 = torch.operator "torch.amdnfs.quantized_linear"(%one, %data, %scales, %none, %none, %layout) : (!torch.vtensor<[1,128],bf16>, !data, !torch.vtensor<[8,2],bf16>, !torch.none, !torch.none, !torch.str) -> !torch.vtensor<[1,8],bf16>
  return %0, %1 : !y, !torch.vtensor<[1,8],bf16>
}

// -----

!x = !torch.vtensor<[2,96],bf16>
!y = !torch.vtensor<[2,8],bf16>
!data = !torch.vtensor<[8,96],si8>

// Beside bf16, rows become words and units in a dispatch of their own; products are added up in integers.
// CHECK-LABEL: func.func @int8_and_bf16
// VECTOR-LABEL: func.func private @amdnfs.quantized_linear.2x96xbf16.8.i8_channel_rows_bf16(
// VECTOR:         [[ROUND:%[0-9]+]]:2 = flow.dispatch.workgroups({{.*}} -> (tensor<2x96xi16>, tensor<2x3xf32>)
// VECTOR:           vector.reduction <maximumf>
// VECTOR:           math.roundeven
// VECTOR:           arith.trunci {{.*}} : vector<16xi32> to vector<16xi16>
// VECTOR:         flow.dispatch.workgroups([[ROUND]]#0, {{.*}}, [[ROUND]]#1)
// VECTOR:           arith.extsi {{.*}} : vector<32xi8> to vector<32xi16>
// VECTOR:           llvm.call_intrinsic "llvm.x86.avx512.pmaddw.d.512"
// VECTOR:           arith.sitofp {{.*}} : vector<16xi32> to vector<16xf32>
// VECTOR-LABEL: func.func @int8_and_bf16
func.func @int8_and_bf16(%x: !x, %data: !data, %scales: !torch.vtensor<[8,1],bf16>) -> !y {
  %none = torch.constant.none
  %layout = torch.constant.str "i8-channel-rows-bf16"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %layout) : (!x, !data, !torch.vtensor<[8,1],bf16>, !torch.none, !torch.none, !torch.str) -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[2,64],f32>
!y = !torch.vtensor<[2,8],f32>
!data = !torch.vtensor<[8,64],si8>
!scales = !torch.vtensor<[8,1],f32>

// CHECK-LABEL: func.func @refused
// CHECK-NOT:     call @
// CHECK:       // refused: lower-quantized-linear: 'i4' is no layout of a quantised weight: list index out of range
// CHECK-NEXT:  // refused: lower-quantized-linear: a size is dynamic
// CHECK-NEXT:  // refused: lower-quantized-linear: the rows are tensor<2x64xi32>, not a matrix of f32, f16 or bf16
// CHECK-NEXT:  // refused: lower-quantized-linear: groups of 128 do not divide a row of 64 elements
// CHECK-NEXT:  // refused: lower-quantized-linear: data must be tensor<8x32xi8>, not tensor<8x64xi8>
// CHECK-NEXT:  // refused: lower-quantized-linear: scales must be tensor<8x1xf16>, not tensor<8x1xf32>
// CHECK-NEXT:  // refused: lower-quantized-linear: zero points are missing for i8-channel-zp-rows-f32
// CHECK-NEXT:  // refused: lower-quantized-linear: bias must be tensor<8xf32>, not tensor<8x1xf32>
// CHECK-NOT:   // refused
func.func @refused(%x: !x, %dynamic: !torch.vtensor<[?,64],f32>, %ints: !torch.vtensor<[2,64],si32>, %data: !data, %scales: !scales) {
  %none = torch.constant.none
  %unknown = torch.constant.str "i4"
  %channel = torch.constant.str "i8-channel-rows-f32"
  %groups = torch.constant.str "i8-g128-rows-f32"
  %half = torch.constant.str "i4-channel-rows-f32"
  %f16 = torch.constant.str "i8-channel-rows-f16"
  %zeros = torch.constant.str "i8-channel-zp-rows-f32"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %unknown) : (!x, !data, !scales, !torch.none, !torch.none, !torch.str) -> !y
  %1 = torch.operator "torch.amdnfs.quantized_linear"(%dynamic, %data, %scales, %none, %none, %channel) : (!torch.vtensor<[?,64],f32>, !data, !scales, !torch.none, !torch.none, !torch.str) -> !torch.vtensor<[?,8],f32>
  %2 = torch.operator "torch.amdnfs.quantized_linear"(%ints, %data, %scales, %none, %none, %channel) : (!torch.vtensor<[2,64],si32>, !data, !scales, !torch.none, !torch.none, !torch.str) -> !y
  %3 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %groups) : (!x, !data, !scales, !torch.none, !torch.none, !torch.str) -> !y
  %4 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %half) : (!x, !data, !scales, !torch.none, !torch.none, !torch.str) -> !y
  %5 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %f16) : (!x, !data, !scales, !torch.none, !torch.none, !torch.str) -> !y
  %6 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %zeros) : (!x, !data, !scales, !torch.none, !torch.none, !torch.str) -> !y
  %7 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %scales, %channel) : (!x, !data, !scales, !torch.none, !scales, !torch.str) -> !y
  return
}

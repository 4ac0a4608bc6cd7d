// RUN: amdnfs-opt --passes='lower-argmax' --why %s | filecheck %s

// Two maxima: of the values, then of what is left of the row from the first top value on.
// CHECK-LABEL: func.func private @amdnfs.argmax.2x8xf32
// CHECK-SAME:    ([[X:%[a-z0-9]+]]: tensor<2x8xf32>) -> tensor<2xi64>
// CHECK:         [[LOWEST:%[a-z0-9_]+]] = arith.constant 0xFF800000 : f32
// CHECK:         [[INIT:%[0-9]+]] = linalg.fill ins([[LOWEST]]
// CHECK:         [[MAX:%[0-9]+]] = linalg.generic {{.*}} ins([[X]] : {{.*}}) outs([[INIT]]
// CHECK:           arith.maximumf
// CHECK:         [[LEFT:%[0-9]+]] = linalg.generic {{.*}} ins([[X]], [[MAX]] :
// CHECK:           arith.cmpf oge
// CHECK:           arith.maximumf
// CHECK:         linalg.generic {{.*}} ins([[LEFT]] : tensor<2xf32>)
// CHECK:           arith.fptoui {{.*}} : f32 to i32
// CHECK-LABEL: func.func @last_axis
// CHECK:         call @amdnfs.argmax.2x8xf32
// CHECK-NOT:     torch.aten.argmax
// CHECK:         return
func.func @last_axis(%x: !torch.vtensor<[2,8],f32>) -> !torch.vtensor<[2],si64> {
  %axis = torch.constant.int -1
  %keep = torch.constant.bool false
  %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[2,8],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2],si64>
  return %0 : !torch.vtensor<[2],si64>
}

// The same shape again calls the same function.
// CHECK-LABEL: func.func @axis_counted_from_the_front
// CHECK:         call @amdnfs.argmax.2x8xf32
func.func @axis_counted_from_the_front(%x: !torch.vtensor<[2,8],f32>) -> !torch.vtensor<[2],si64> {
  %axis = torch.constant.int 1
  %keep = torch.constant.bool false
  %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[2,8],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2],si64>
  return %0 : !torch.vtensor<[2],si64>
}

// CHECK-LABEL:   func.func @another_meaning
// CHECK-COUNT-4: torch.aten.argmax
func.func @another_meaning(%x: !torch.vtensor<[2,8],f32>, %row: !torch.vtensor<[8],f32>) -> !torch.vtensor<[8],si64> {
  %first = torch.constant.int 0
  %last = torch.constant.int -1
  %all = torch.constant.none
  %keep = torch.constant.bool true
  %drop = torch.constant.bool false
  %axis = torch.aten.argmax %x, %first, %drop : !torch.vtensor<[2,8],f32>, !torch.int, !torch.bool -> !torch.vtensor<[8],si64>
  %kept = torch.aten.argmax %x, %last, %keep : !torch.vtensor<[2,8],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2,1],si64>
  %flat = torch.aten.argmax %x, %all, %drop : !torch.vtensor<[2,8],f32>, !torch.none, !torch.bool -> !torch.vtensor<[],si64>
  %vector = torch.aten.argmax %row, %last, %drop : !torch.vtensor<[8],f32>, !torch.int, !torch.bool -> !torch.vtensor<[],si64>
  return %axis : !torch.vtensor<[8],si64>
}

// -----

// The first refused length is 2^24; one less is still exact.
// CHECK:         func.func private @amdnfs.argmax.1x16777215xf32
// CHECK-LABEL:   func.func @refused_but_for_the_first
// CHECK:         call @amdnfs.argmax.1x16777215xf32
// CHECK-COUNT-3: torch.aten.argmax
// CHECK-COUNT-3: // refused: lower-argmax: only static f32 rows shorter than 2^24 are lowered
// CHECK-NOT:     // refused
func.func @refused_but_for_the_first(%exact: !torch.vtensor<[1,16777215],f32>, %long: !torch.vtensor<[1,16777216],f32>, %dynamic: !torch.vtensor<[?,8],f32>, %small: !torch.vtensor<[1,8],f16>) -> !torch.vtensor<[1],si64> {
  %axis = torch.constant.int -1
  %keep = torch.constant.bool false
  %0 = torch.aten.argmax %exact, %axis, %keep : !torch.vtensor<[1,16777215],f32>, !torch.int, !torch.bool -> !torch.vtensor<[1],si64>
  %1 = torch.aten.argmax %long, %axis, %keep : !torch.vtensor<[1,16777216],f32>, !torch.int, !torch.bool -> !torch.vtensor<[1],si64>
  %2 = torch.aten.argmax %dynamic, %axis, %keep : !torch.vtensor<[?,8],f32>, !torch.int, !torch.bool -> !torch.vtensor<[?],si64>
  %3 = torch.aten.argmax %small, %axis, %keep : !torch.vtensor<[1,8],f16>, !torch.int, !torch.bool -> !torch.vtensor<[1],si64>
  return %0 : !torch.vtensor<[1],si64>
}

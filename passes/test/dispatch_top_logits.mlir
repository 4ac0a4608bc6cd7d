// RUN: amdnfs-opt --passes='dispatch-top-logits' --why %s | filecheck %s

!x = !torch.vtensor<[2,5000],f32>
!i = !torch.vtensor<[2],si64>

// Five parts of 1024 logits for each of two rows, then a workgroup a row. The type goes up to who is called from outside.
// CHECK-LABEL: func.func private @amdnfs.dispatch_top_logits.{{[0-9a-f]+}}.2x5000
// CHECK-SAME:    [[X:%[a-z0-9]+]]: tensor<2x5000xf32>) -> tensor<2x129xi32>
// CHECK-DAG:     [[PARTS:%[a-z0-9_]+]] = arith.constant 5 : i32
// CHECK-DAG:     [[NUM:%[a-z0-9_]+]] = arith.constant 5 : index
// CHECK-DAG:     [[ROWS:%[a-z0-9_]+]] = arith.constant 2 : index
// CHECK:         [[PART:%[0-9]+]]:2 = flow.dispatch @amdnfs.top_of_part.{{[0-9a-f]+}}::@top_of_part[[[NUM]], [[ROWS]], {{%[a-z0-9_]+}}]([[X]],
// CHECK-SAME:      -> (tensor<2x5x64xi64>, tensor<2x5x2xf32>)
// CHECK:         [[TOP:%[0-9]+]] = flow.dispatch @amdnfs.top_of_row.{{[0-9a-f]+}}::@top_of_row[{{.*}}]([[PART]]#0, [[PART]]#1, [[PARTS]],
// CHECK:         return [[TOP]] : tensor<2x129xi32>
// CHECK:       func.func private @tail({{.*}}) -> (!torch.vtensor<[2,5000],f32>, !torch.vtensor<[2,129],si32>)
// CHECK-NOT:     torch.aten.argmax
// CHECK:       func.func @through_a_call({{.*}}) -> (!torch.vtensor<[2,129],si32>, !torch.vtensor<[2,5000],f32>)
// CHECK-SAME:    attributes {iree.reflection = {amdnfs.top_logits = "64"}}
// CHECK:         [[R:%[0-9]+]]:2 = call @tail({{.*}}) : ({{.*}}) -> (!torch.vtensor<[2,5000],f32>, !torch.vtensor<[2,129],si32>)
// CHECK:         return [[R]]#1, [[R]]#0
func.func private @tail(%x: !x) -> (!x, !i) {
  %axis = torch.constant.int -1
  %keep = torch.constant.bool false
  %0 = torch.aten.argmax %x, %axis, %keep : !x, !torch.int, !torch.bool -> !i
  return %x, %0 : !x, !i
}
func.func @through_a_call(%x: !x) -> (!i, !x) {
  %0:2 = call @tail(%x) : (!x) -> (!x, !i)
  return %0#1, %0#0 : !i, !x
}

// -----

// A choice that the program itself uses stays as it is.
// CHECK-LABEL: func.func @used
// CHECK:         torch.aten.argmax
// CHECK:       the value is not only returned, but used by torch.aten.add.Scalar
func.func @used(%x: !torch.vtensor<[2,5000],f32>) -> !torch.vtensor<[2],si64> {
  %axis = torch.constant.int -1
  %one = torch.constant.int 1
  %keep = torch.constant.bool false
  %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[2,5000],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2],si64>
  %1 = torch.aten.add.Scalar %0, %one, %one : !torch.vtensor<[2],si64>, !torch.int, !torch.int -> !torch.vtensor<[2],si64>
  return %1 : !torch.vtensor<[2],si64>
}

// -----

// A short row is read whole; so is a verifying program's, which has another rank.
// CHECK-LABEL: func.func @short
// CHECK-NOT:     call
// CHECK:         torch.aten.argmax
// CHECK:         torch.aten.argmax
func.func @short(%x: !torch.vtensor<[2,4096],f32>, %y: !torch.vtensor<[2,3,5000],f32>) -> (!torch.vtensor<[2],si64>, !torch.vtensor<[2,3],si64>) {
  %axis = torch.constant.int -1
  %keep = torch.constant.bool false
  %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[2,4096],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2],si64>
  %1 = torch.aten.argmax %y, %axis, %keep : !torch.vtensor<[2,3,5000],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2,3],si64>
  return %0, %1 : !torch.vtensor<[2],si64>, !torch.vtensor<[2,3],si64>
}

// -----

// CHECK-LABEL: func.func @too_long
// CHECK:         torch.aten.argmax
// CHECK:       a row of 300000 logits is longer than 262144
func.func @too_long(%x: !torch.vtensor<[1,300000],f32>) -> !torch.vtensor<[1],si64> {
  %axis = torch.constant.int -1
  %keep = torch.constant.bool false
  %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[1,300000],f32>, !torch.int, !torch.bool -> !torch.vtensor<[1],si64>
  return %0 : !torch.vtensor<[1],si64>
}

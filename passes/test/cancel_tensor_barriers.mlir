// RUN: amdnfs-opt --passes='cancel-tensor-barriers' %s | filecheck %s

// The barrier on a weight goes; what reads it reads the weight.
// CHECK-LABEL: util.func public @weight
// CHECK-SAME:    ([[W:%[a-z0-9]+]]: tensor<4x8xi8>)
// CHECK-NEXT:    [[Y:%[0-9]+]] = flow.tensor.bitcast [[W]] : tensor<4x8xi8> -> tensor<4x16xi4>
// CHECK-NEXT:    util.return [[Y]]
util.func public @weight(%w: tensor<4x8xi8>) -> tensor<4x16xi4> {
  %0 = util.optimization_barrier %w : tensor<4x8xi8>
  %1 = flow.tensor.bitcast %0 : tensor<4x8xi8> -> tensor<4x16xi4>
  util.return %1 : tensor<4x16xi4>
}

// -----

// Several tensors at once, one of them with a dynamic size, behind a dispatch.
// CHECK-LABEL: util.func public @results
// CHECK:         [[Y:%[0-9]+]] = flow.dispatch
// CHECK-NEXT:    util.return [[Y]], %{{[a-z0-9]+}} : tensor<4xf32>, tensor<?xf32>
util.func public @results(%x: tensor<4xf32>, %d: tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>) {
  %0 = flow.dispatch @ex::@f(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %1:2 = util.optimization_barrier %0, %d : tensor<4xf32>, tensor<?xf32>
  util.return %1#0, %1#1 : tensor<4xf32>, tensor<?xf32>
}

// -----

// CHECK-LABEL: util.func public @size
// CHECK-NEXT:    util.optimization_barrier %{{[a-z0-9]+}} : index
util.func public @size(%n: index) -> index {
  %0 = util.optimization_barrier %n : index
  util.return %0 : index
}

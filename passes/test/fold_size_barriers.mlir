// RUN: amdnfs-opt --passes='fold-size-barriers' %s | filecheck %s

// One size, computed by each of two layers: one barrier is left, and it stands right behind the size.
// CHECK-LABEL: util.func public @two_layers
// CHECK:         [[SIZE:%[0-9]+]] = arith.muli
// CHECK-NEXT:    [[S:%[0-9]+]] = util.optimization_barrier [[SIZE]] : index
// CHECK-NEXT:    [[A:%[0-9]+]] = flow.dispatch @ex::@layer([[S]])
// CHECK:         [[B:%[0-9]+]] = flow.dispatch @ex::@layer([[S]])
// CHECK-NEXT:    util.return [[A]], [[B]]
util.func public @two_layers(%n: index) -> (tensor<4xf32>, tensor<4xf32>) {
  %c16 = arith.constant 16 : index
  %0 = arith.muli %n, %c16 : index
  %1 = util.optimization_barrier %0 : index
  %a = flow.dispatch @ex::@layer(%1) : (index) -> tensor<4xf32>
  %2 = arith.muli %n, %c16 : index
  %3 = util.optimization_barrier %2 : index
  %b = flow.dispatch @ex::@layer(%3) : (index) -> tensor<4xf32>
  util.return %a, %b : tensor<4xf32>, tensor<4xf32>
}

// -----

// A barrier between dispatches moves up, so that it does not cut the step in two.
// CHECK-LABEL: util.func public @moves_up
// CHECK:         [[SIZE:%[0-9]+]] = arith.muli
// CHECK-NEXT:    [[S:%[0-9]+]] = util.optimization_barrier [[SIZE]] : index
// CHECK-NEXT:    flow.dispatch @ex::@head(
// CHECK-NEXT:    flow.dispatch @ex::@layer([[S]]
util.func public @moves_up(%n: index) -> tensor<4xf32> {
  %c16 = arith.constant 16 : index
  %0 = arith.muli %n, %c16 : index
  %h = flow.dispatch @ex::@head(%0) : (index) -> tensor<4xf32>
  %1 = util.optimization_barrier %0 : index
  %a = flow.dispatch @ex::@layer(%1, %h) : (index, tensor<4xf32>) -> tensor<4xf32>
  util.return %a : tensor<4xf32>
}

// -----

// Two sizes keep a barrier each; a barrier on a tensor is not a size.
// CHECK-LABEL: util.func public @different_sizes
// CHECK-COUNT-2: util.optimization_barrier %{{.*}} : index
// CHECK:         util.optimization_barrier %{{.*}} : tensor<4xf32>
util.func public @different_sizes(%n: index, %m: index, %t: tensor<4xf32>) -> (index, index, tensor<4xf32>) {
  %0 = util.optimization_barrier %n : index
  %1 = util.optimization_barrier %m : index
  %2 = util.optimization_barrier %t : tensor<4xf32>
  util.return %0, %1, %2 : index, index, tensor<4xf32>
}

// -----

// Functions do not share barriers.
// CHECK-LABEL: util.func public @one
// CHECK:         util.optimization_barrier
// CHECK-LABEL: util.func public @another
// CHECK:         util.optimization_barrier
util.func public @one(%n: index) -> index {
  %0 = util.optimization_barrier %n : index
  util.return %0 : index
}
util.func public @another(%n: index) -> index {
  %0 = util.optimization_barrier %n : index
  util.return %0 : index
}

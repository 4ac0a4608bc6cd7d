// RUN: amdnfs-opt --passes='fold-layer-calls' %s | filecheck %s

// Two calls become two copies of the layer's dispatch; the pools stay tied, the layer is gone.
// CHECK-NOT:   util.func private
// CHECK-LABEL: util.func public @step
// CHECK-SAME:    ([[X:%[a-z0-9]+]]: tensor<16xf16>, [[A:%[a-z0-9]+]]: tensor<?x16xf16>, [[B:%[a-z0-9]+]]: tensor<?x16xf16>, [[N:%[a-z0-9]+]]: index)
// CHECK-NEXT:    [[A1:%[0-9]+]] = flow.dispatch @layer_dispatch::@scatter([[X]], [[A]]) : {{.*}} -> [[A]]{[[N]]}
// CHECK-NEXT:    [[B1:%[0-9]+]] = flow.dispatch @layer_dispatch::@scatter([[X]], [[B]]) : {{.*}} -> [[B]]{[[N]]}
// CHECK-NEXT:    util.return [[A1]], [[B1]]
util.func private @layer(%x: tensor<16xf16>, %pool: tensor<?x16xf16>, %n: index) -> tensor<?x16xf16> attributes {inlining_policy = #util.inline.never} {
  %0 = flow.dispatch @layer_dispatch::@scatter(%x, %pool) : (tensor<16xf16>, tensor<?x16xf16>{%n}) -> %pool{%n}
  util.return %0 : tensor<?x16xf16>
}
util.func public @step(%x: tensor<16xf16>, %a: tensor<?x16xf16>, %b: tensor<?x16xf16>, %n: index) -> (tensor<?x16xf16>, tensor<?x16xf16>) {
  %0 = util.call @layer(%x, %a, %n) : (tensor<16xf16>, tensor<?x16xf16>, index) -> tensor<?x16xf16>
  %1 = util.call @layer(%x, %b, %n) : (tensor<16xf16>, tensor<?x16xf16>, index) -> tensor<?x16xf16>
  util.return %0, %1 : tensor<?x16xf16>, tensor<?x16xf16>
}

// -----

// A layer that calls a layer.
// CHECK-LABEL: module
// CHECK-NOT:   util.func private
// CHECK:       util.func public @nested
// CHECK-NEXT:    flow.tensor.clone
// CHECK-NEXT:    util.return
util.func private @inner(%x: tensor<4xf32>) -> tensor<4xf32> attributes {inlining_policy = #util.inline.never} {
  %0 = flow.tensor.clone %x : tensor<4xf32>
  util.return %0 : tensor<4xf32>
}
util.func private @outer(%x: tensor<4xf32>) -> tensor<4xf32> attributes {inlining_policy = #util.inline.never} {
  %0 = util.call @inner(%x) : (tensor<4xf32>) -> tensor<4xf32>
  util.return %0 : tensor<4xf32>
}
util.func public @nested(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = util.call @outer(%x) : (tensor<4xf32>) -> tensor<4xf32>
  util.return %0 : tensor<4xf32>
}

// -----

// CHECK-LABEL: util.func private @imported
// CHECK-SAME:    inlining_policy = #util.inline.never
// CHECK-LABEL: util.func public @other_entry
// CHECK-SAME:    inlining_policy = #util.inline.never
// CHECK-LABEL: util.func private @nobody_calls
// CHECK-SAME:    inlining_policy = #util.inline.never
// CHECK-LABEL: util.func public @left_alone
// CHECK-NEXT:    util.call @imported
// CHECK-NEXT:    util.call @other_entry
util.func private @imported(%x: tensor<4xf32>) -> tensor<4xf32> attributes {inlining_policy = #util.inline.never}
util.func public @other_entry(%x: tensor<4xf32>) -> tensor<4xf32> attributes {inlining_policy = #util.inline.never} {
  util.return %x : tensor<4xf32>
}
util.func private @nobody_calls(%x: tensor<4xf32>) -> tensor<4xf32> attributes {inlining_policy = #util.inline.never} {
  util.return %x : tensor<4xf32>
}
util.func public @left_alone(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = util.call @imported(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = util.call @other_entry(%0) : (tensor<4xf32>) -> tensor<4xf32>
  util.return %1 : tensor<4xf32>
}

// RUN: amdnfs-opt --passes='cancel-pool-reshapes' --why %s | filecheck %s

// The pool is the second argument, behind a workload; two users read it back under its own type.
// CHECK-LABEL: util.func public @scatter_of_rows
// CHECK-SAME:    ([[ROWS:%[a-z0-9]+]]: {{[^,]+}}, [[POOL:%[a-z0-9]+]]: tensor<?x16xf16>, [[N:%[a-z0-9]+]]: index, [[M:%[a-z0-9]+]]: index)
// CHECK:         [[NEW:%[0-9]+]] = flow.dispatch @ex::@scatter{{\[}}[[M]], [[N]]]([[ROWS]], [[POOL]], [[N]]) : (tensor<?x16xf16>{[[M]]}, tensor<?x16xf16>{[[N]]}, index) -> [[POOL]]{[[N]]}
// CHECK-NEXT:    [[READ:%[0-9]+]] = flow.dispatch @ex::@read([[NEW]])
// CHECK-NEXT:    util.return [[NEW]], [[READ]]
util.func public @scatter_of_rows(%rows: tensor<?x16xf16>, %pool: tensor<?x16xf16>, %n: index, %m: index) -> (tensor<?x16xf16>, tensor<4xf16>) {
  %0 = flow.tensor.reshape %pool : tensor<?x16xf16>{%n} -> tensor<?x2x8xf16>{%n}
  %1 = flow.dispatch @ex::@scatter[%m, %n](%rows, %0, %n) : (tensor<?x16xf16>{%m}, tensor<?x2x8xf16>{%n}, index) -> %0{%n}
  %2 = flow.tensor.reshape %1 : tensor<?x2x8xf16>{%n} -> tensor<?x16xf16>{%n}
  %3 = flow.tensor.reshape %1 : tensor<?x2x8xf16>{%n} -> tensor<?x16xf16>{%n}
  %4 = flow.dispatch @ex::@read(%3) : (tensor<?x16xf16>{%n}) -> tensor<4xf16>
  util.return %2, %4 : tensor<?x16xf16>, tensor<4xf16>
}

// CHECK-LABEL: util.func public @two_reshapes_in_a_row
// CHECK-SAME:    ([[POOL:%[a-z0-9]+]]: tensor<4x16xf32>)
// CHECK:         [[NEW:%[0-9]+]] = flow.dispatch @ex::@scatter([[POOL]]) : (tensor<4x16xf32>) -> [[POOL]]
// CHECK-NEXT:    util.return [[NEW]]
util.func public @two_reshapes_in_a_row(%pool: tensor<4x16xf32>) -> tensor<4x16xf32> {
  %0 = flow.tensor.reshape %pool : tensor<4x16xf32> -> tensor<4x2x8xf32>
  %1 = flow.tensor.reshape %0 : tensor<4x2x8xf32> -> tensor<8x8xf32>
  %2 = flow.dispatch @ex::@scatter(%1) : (tensor<8x8xf32>) -> %1
  %3 = flow.tensor.reshape %2 : tensor<8x8xf32> -> tensor<4x2x8xf32>
  %4 = flow.tensor.reshape %3 : tensor<4x2x8xf32> -> tensor<4x16xf32>
  util.return %4 : tensor<4x16xf32>
}

// CHECK-LABEL: util.func public @not_in_place
// CHECK-NEXT:    [[VIEW:%[0-9]+]] = flow.tensor.reshape
// CHECK-NEXT:    flow.dispatch @ex::@scatter([[VIEW]])
// CHECK-NEXT:    flow.tensor.reshape
util.func public @not_in_place(%pool: tensor<?x16xf32>, %n: index) -> tensor<?x16xf32> {
  %0 = flow.tensor.reshape %pool : tensor<?x16xf32>{%n} -> tensor<?x2x8xf32>{%n}
  %1 = flow.dispatch @ex::@scatter(%0) : (tensor<?x2x8xf32>{%n}) -> tensor<?x2x8xf32>{%n}
  %2 = flow.tensor.reshape %1 : tensor<?x2x8xf32>{%n} -> tensor<?x16xf32>{%n}
  util.return %2 : tensor<?x16xf32>
}

// CHECK-LABEL: util.func public @no_reshape
// CHECK-NEXT:    flow.dispatch @ex::@scatter
// CHECK-NEXT:    util.return
util.func public @no_reshape(%pool: tensor<4x16xf32>) -> tensor<4x16xf32> {
  %0 = flow.dispatch @ex::@scatter(%pool) : (tensor<4x16xf32>) -> %pool
  util.return %0 : tensor<4x16xf32>
}

// -----

// CHECK-LABEL: util.func public @refused
// CHECK-SAME:    ([[POOL:%[a-z0-9]+]]:
// CHECK:         [[VIEW:%[0-9]+]] = flow.tensor.reshape [[POOL]]
// CHECK-NEXT:    flow.dispatch @ex::@read_under_the_view([[VIEW]])
// CHECK:         [[OTHER:%[0-9]+]] = flow.tensor.reshape [[POOL]]
// CHECK-NEXT:    flow.dispatch @ex::@another_size([[OTHER]])
// CHECK:       // refused: cancel-pool-reshapes: the updated pool is read under a type that is neither the dispatch's nor the pool's own
// CHECK-NEXT:  // refused: cancel-pool-reshapes: the reshape changes a dynamic size
// CHECK-NOT:   // refused
util.func public @refused(%pool: tensor<?x16xf32>, %n: index, %m: index) -> (tensor<?x2x8xf32>, tensor<?x16xf32>) {
  %0 = flow.tensor.reshape %pool : tensor<?x16xf32>{%n} -> tensor<?x2x8xf32>{%n}
  %1 = flow.dispatch @ex::@read_under_the_view(%0) : (tensor<?x2x8xf32>{%n}) -> %0{%n}
  %2 = flow.tensor.reshape %pool : tensor<?x16xf32>{%n} -> tensor<?x8xf32>{%m}
  %3 = flow.dispatch @ex::@another_size(%2) : (tensor<?x8xf32>{%m}) -> %2{%m}
  %4 = flow.tensor.reshape %3 : tensor<?x8xf32>{%m} -> tensor<?x16xf32>{%n}
  util.return %1, %4 : tensor<?x2x8xf32>, tensor<?x16xf32>
}

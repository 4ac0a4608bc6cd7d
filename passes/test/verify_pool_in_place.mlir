// RUN: not amdnfs-opt --passes='verify-pool-in-place{first-pool-argument=1}' %s 2>&1 | filecheck %s
// Cut down from programs of `iree-compile --compile-to=stream`. Entry points that are accepted are not in the message.

// The sizes of the dispatch's bindings depend on the pool, which costs nothing; the copied rows do not.
// CHECK-NOT: @in_place
util.func public @in_place(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
  %c0 = arith.constant 0 : index
  %c64 = arith.constant 64 : index
  %0 = stream.tensor.import %arg0 : !hal.buffer_view -> tensor<2x8xf32> in !stream.resource<external>{%c64}
  %1 = hal.buffer_view.dim<%arg1 : !hal.buffer_view>[0] : index
  %2 = arith.muli %1, %c64 : index
  %3 = stream.tensor.import %arg1 : !hal.buffer_view -> tensor<?x16xf32>{%1} in !stream.resource<external>{%2}
  %4 = arith.index_castui %1 : index to i32
  %result, %result_timepoint = stream.resource.alloca uninitialized : !stream.resource<transient>{%c64} => !stream.timepoint
  %5 = stream.cmd.execute await(%result_timepoint) => with(%0 as %arg2: !stream.resource<external>{%c64}, %3 as %arg3: !stream.resource<external>{%2}, %result as %arg4: !stream.resource<transient>{%c64}) {
    stream.cmd.copy %arg2[%c0], %arg4[%c0], %c64 : !stream.resource<external>{%c64} -> !stream.resource<transient>{%c64}
    stream.cmd.dispatch @step_dispatch_0::@scatter[%1](%4 : i32) {
      ro %arg4[%c0 for %c64] : !stream.resource<transient>{%c64},
      rw %arg3[%c0 for %2] : !stream.resource<external>{%2}
    }
    stream.cmd.copy %arg2[%c0], %arg3[%c64], %c64 : !stream.resource<external>{%c64} -> !stream.resource<external>{%2}
  } => !stream.timepoint
  %6 = stream.timepoint.await %5 => %3 : !stream.resource<external>{%2}
  %7 = stream.tensor.export %6 : tensor<?x16xf32>{%1} in !stream.resource<external>{%2} -> !hal.buffer_view
  util.return %7 : !hal.buffer_view
}

// -----

// CHECK: entry point @copies_pool: stream.cmd.copy has a size that depends on the KV pool, so every step would cost time or memory in proportion to it
// CHECK-NEXT: stream.cmd.copy
util.func public @copies_pool(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view, %arg2: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
  %c0 = arith.constant 0 : index
  %c64 = arith.constant 64 : index
  %0 = hal.buffer_view.dim<%arg2 : !hal.buffer_view>[0] : index
  %1 = arith.muli %0, %c64 : index
  %2 = stream.tensor.import %arg2 : !hal.buffer_view -> tensor<?x16xf32>{%0} in !stream.resource<external>{%1}
  %3 = stream.tensor.import %arg1 : !hal.buffer_view -> tensor<?x16xf32>{%0} in !stream.resource<external>{%1}
  %4 = stream.cmd.execute with(%2 as %arg3: !stream.resource<external>{%1}, %3 as %arg4: !stream.resource<external>{%1}) {
    stream.cmd.copy %arg3[%c0], %arg4[%c0], %1 : !stream.resource<external>{%1} -> !stream.resource<external>{%1}
  } => !stream.timepoint
  %5 = stream.timepoint.await %4 => %3 : !stream.resource<external>{%1}
  %6 = stream.tensor.export %5 : tensor<?x16xf32>{%0} in !stream.resource<external>{%1} -> !hal.buffer_view
  util.return %6 : !hal.buffer_view
}

// -----

// Two buffers packed in one: the size is computed from the pool in several steps.
// CHECK: entry point @allocates: stream.resource.alloca has a size that depends on the KV pool
util.func public @allocates(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view) attributes {iree.abi.stub} {
  %c64 = arith.constant 64 : index
  %0 = hal.buffer_view.dim<%arg1 : !hal.buffer_view>[0] : index
  %1 = arith.muli %0, %c64 : index
  %2 = arith.addi %1, %c64 : index
  %3 = util.align %2, %c64 : index
  %result, %result_timepoint = stream.resource.alloca uninitialized : !stream.resource<transient>{%3} => !stream.timepoint
  util.return
}

// -----

// CHECK: entry point @fills: stream.cmd.fill has a size that depends on the KV pool
util.func public @fills(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view) attributes {iree.abi.stub} {
  %c0 = arith.constant 0 : index
  %c0_i8 = arith.constant 0 : i8
  %0 = hal.buffer_view.dim<%arg1 : !hal.buffer_view>[0] : index
  %1 = stream.tensor.import %arg1 : !hal.buffer_view -> tensor<?xi8>{%0} in !stream.resource<external>{%0}
  %2 = stream.cmd.execute with(%1 as %arg2: !stream.resource<external>{%0}) {
    stream.cmd.fill %c0_i8, %arg2[%c0 for %0] : i8 -> !stream.resource<external>{%0}
  } => !stream.timepoint
  util.return
}

// -----

// The page table is no pool: what depends on its size alone may be copied and allocated.
// CHECK-NOT: @copies_page_table
util.func public @copies_page_table(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
  %c0 = arith.constant 0 : index
  %c4 = arith.constant 4 : index
  %0 = hal.buffer_view.dim<%arg0 : !hal.buffer_view>[1] : index
  %1 = arith.muli %0, %c4 : index
  %2 = stream.tensor.import %arg0 : !hal.buffer_view -> tensor<1x?xi32>{%0} in !stream.resource<external>{%1}
  %result, %result_timepoint = stream.resource.alloca uninitialized : !stream.resource<external>{%1} => !stream.timepoint
  %3 = stream.cmd.execute await(%result_timepoint) => with(%2 as %arg2: !stream.resource<external>{%1}, %result as %arg3: !stream.resource<external>{%1}) {
    stream.cmd.copy %arg2[%c0], %arg3[%c0], %1 : !stream.resource<external>{%1} -> !stream.resource<external>{%1}
  } => !stream.timepoint
  %4 = stream.timepoint.await %3 => %result : !stream.resource<external>{%1}
  %5 = stream.tensor.export %4 : tensor<1x?xi32>{%0} in !stream.resource<external>{%1} -> !hal.buffer_view
  util.return %5 : !hal.buffer_view
}

// -----

// Not an entry point: called by one that is checked itself.
// CHECK-NOT: @no_entry
util.func private @no_entry(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view) {
  %0 = hal.buffer_view.dim<%arg1 : !hal.buffer_view>[0] : index
  %result, %result_timepoint = stream.resource.alloca uninitialized : !stream.resource<transient>{%0} => !stream.timepoint
  util.return
}

// -----

// CHECK: entry point @not_scheduled_yet: stream.async.clone has a size that depends on the KV pool
util.func public @not_scheduled_yet(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view) attributes {iree.abi.stub} {
  %0 = hal.buffer_view.dim<%arg1 : !hal.buffer_view>[0] : index
  %1 = stream.tensor.import %arg1 : !hal.buffer_view -> tensor<?xi8>{%0} in !stream.resource<external>{%0}
  %2 = stream.async.clone %1 : !stream.resource<external>{%0} -> !stream.resource<*>{%0}
  util.return
}

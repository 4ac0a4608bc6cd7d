// RUN: amdnfs-opt --passes=hoist-allocations %s | filecheck %s
// Cut down from programs of `iree-compile --compile-to=stream`.

// The memory is as large as the larger function needs; both use it, and neither gives it back.
// CHECK:       util.global private mutable @amdnfs.results : !stream.resource<external>
// CHECK:         arith.constant 64 : index
// CHECK:         util.global.store %{{.+}}, @amdnfs.results
// CHECK:       util.global private mutable @amdnfs.transient : !stream.resource<transient>
// CHECK:       util.initializer
// CHECK-NEXT:    %[[SIZE:.+]] = arith.constant 128 : index
// CHECK-NEXT:    %[[MADE:.+]] = stream.resource.alloc uninitialized on(#hal.device.affinity<@__device_0>) : !stream.resource<transient>{%[[SIZE]]}
// CHECK-NEXT:    util.global.store %[[MADE]], @amdnfs.transient
util.global private @__device_0 : !hal.device

// CHECK-LABEL: util.func public @prefill
// CHECK:         %[[OUT:.+]] = util.global.load @amdnfs.results : !stream.resource<external>
// CHECK:         %[[WORK:.+]] = util.global.load @amdnfs.transient : !stream.resource<transient>
// CHECK:         %[[RUN:.+]] = stream.cmd.execute {{.*}}with(%[[OUT]] as %{{.+}}: !stream.resource<external>{%{{.+}}}, %[[WORK]] as
// CHECK-NOT:     stream.resource.dealloca
// CHECK:         stream.timepoint.await %[[RUN]] => %[[OUT]]
util.func public @prefill(%arg0: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
  %c0 = arith.constant 0 : index
  %c64 = arith.constant 64 : index
  %c128 = arith.constant 128 : index
  %result, %result_timepoint = stream.resource.alloca uninitialized on(#hal.device.affinity<@__device_0>) : !stream.resource<external>{%c64} => !stream.timepoint
  %result_0, %result_timepoint_1 = stream.resource.alloca uninitialized on(#hal.device.affinity<@__device_0>) : !stream.resource<transient>{%c128} => !stream.timepoint
  %0 = stream.timepoint.join max(%result_timepoint, %result_timepoint_1) => !stream.timepoint
  %1 = stream.cmd.execute on(#hal.device.affinity<@__device_0>) await(%0) => with(%result as %arg1: !stream.resource<external>{%c64}, %result_0 as %arg2: !stream.resource<transient>{%c128}) {
    stream.cmd.copy %arg2[%c0], %arg1[%c0], %c64 : !stream.resource<transient>{%c128} -> !stream.resource<external>{%c64}
  } => !stream.timepoint
  %2 = stream.resource.dealloca on(#hal.device.affinity<@__device_0>) await(%1) => %result_0 : !stream.resource<transient>{%c128} => !stream.timepoint
  %3 = stream.timepoint.await %2 => %result : !stream.resource<external>{%c64}
  %4 = stream.tensor.export on(#hal.device.affinity<@__device_0>) %3 : tensor<16xf32> in !stream.resource<external>{%c64} -> !hal.buffer_view
  util.return %4 : !hal.buffer_view
}

// What the inputs decide the size of is allocated in each call, as is a second piece.
// CHECK-LABEL: util.func public @decode
// CHECK:         util.global.load @amdnfs.transient : !stream.resource<transient>
// CHECK:         stream.resource.alloca {{.*}} : !stream.resource<transient>
// CHECK:         stream.resource.alloca {{.*}} : !stream.resource<external>
util.func public @decode(%arg0: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
  %c0 = arith.constant 0 : index
  %c64 = arith.constant 64 : index
  %n = hal.buffer_view.dim<%arg0 : !hal.buffer_view>[0] : index
  %result, %result_timepoint = stream.resource.alloca uninitialized on(#hal.device.affinity<@__device_0>) : !stream.resource<transient>{%c64} => !stream.timepoint
  %result_0, %result_timepoint_1 = stream.resource.alloca uninitialized on(#hal.device.affinity<@__device_0>) : !stream.resource<transient>{%c64} => !stream.timepoint
  %result_2, %result_timepoint_3 = stream.resource.alloca uninitialized on(#hal.device.affinity<@__device_0>) : !stream.resource<external>{%n} => !stream.timepoint
  %0 = stream.timepoint.join max(%result_timepoint, %result_timepoint_1, %result_timepoint_3) => !stream.timepoint
  %1 = stream.cmd.execute on(#hal.device.affinity<@__device_0>) await(%0) => with(%result as %arg1: !stream.resource<transient>{%c64}, %result_0 as %arg2: !stream.resource<transient>{%c64}) {
    stream.cmd.copy %arg1[%c0], %arg2[%c0], %c64 : !stream.resource<transient>{%c64} -> !stream.resource<transient>{%c64}
  } => !stream.timepoint
  %2 = stream.timepoint.await %1 => %result_2 : !stream.resource<external>{%n}
  %3 = stream.tensor.export on(#hal.device.affinity<@__device_0>) %2 : tensor<?xi8>{%n} in !stream.resource<external>{%n} -> !hal.buffer_view
  util.return %3 : !hal.buffer_view
}

// -----

// What the allocations waited for, the work waits for.
// CHECK-LABEL: util.func public @queued
// CHECK:         %[[BEGIN:.+]] = stream.timepoint.import
// CHECK:         stream.cmd.execute {{.*}}await(%[[BEGIN]])
util.func public @queued(%arg0: !hal.fence, %arg1: !hal.fence) attributes {iree.abi.stub} {
  %c0_i32 = arith.constant 0 : i32
  %c0 = arith.constant 0 : index
  %c64 = arith.constant 64 : index
  %0 = stream.timepoint.import %arg0 : (!hal.fence) => !stream.timepoint
  %result, %result_timepoint = stream.resource.alloca uninitialized await(%0) => !stream.resource<transient>{%c64} => !stream.timepoint
  %1 = stream.cmd.execute await(%result_timepoint) => with(%result as %arg2: !stream.resource<transient>{%c64}) {
    stream.cmd.fill %c0_i32, %arg2[%c0 for %c64] : i32 -> !stream.resource<transient>{%c64}
  } => !stream.timepoint
  %2 = stream.resource.dealloca await(%1) => %result : !stream.resource<transient>{%c64} => !stream.timepoint
  stream.timepoint.chain_external %2 => (%arg1 : !hal.fence)
  util.return
}

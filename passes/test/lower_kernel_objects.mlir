// RUN: amdnfs-opt --passes='lower-kernel-objects' %s | filecheck %s
// Programs that are refused are in tests/unit/passes/test_kernel_choice.py: they would leave no output to check here.

#layout = #hal.pipeline.layout<constants = 3, bindings = [#hal.pipeline.binding<storage_buffer>]>
#rocm = #hal.executable.target<"rocm", "rocm-hsaco-fb", {abi = "hip", limits = #iree_gpu.target<arch = "gfx942", features = "", wgp = <compute = fp32, storage = b32, subgroup = none, subgroup_size_choices = [64], max_workgroup_sizes = [1024, 1024, 1024], max_thread_count_per_workgroup = 1024, max_workgroup_memory_bytes = 65536, max_workgroup_counts = [2147483647, 2147483647, 2147483647]>>}>

// The target is the device's with all that it says: IREE takes objects for an equal target only. Facts stay.
// CHECK: #[[TARGET:[a-z_0-9]+]] = #hal.executable.target<"rocm", "rocm-hsaco-fb", {{.*}}arch = "gfx942"
util.global private @device = #hal.device.target<"hip", [#rocm]> : !hal.device

// CHECK:      hal.executable.source private @two_kernels_first <objects =
// CHECK-SAME:   <{#[[TARGET]] = [#hal.executable.object<{path = "first.hsaco", data = dense<[127, 69, 76, 70]> : tensor<4xi8>}>]}>>
// CHECK-SAME:   attributes {amdnfs.facts = {op = "linear"}} {
// CHECK-NEXT:   hal.executable.export public @entry
hal.executable.source private @two_kernels_first attributes {amdnfs.facts = {op = "linear"}, amdnfs.object = dense<"0x7F454C46"> : tensor<4xi8>, amdnfs.object_path = "first.hsaco"} {
  hal.executable.export public @entry ordinal(0) layout(#layout) count(%device: !hal.device) -> (index, index, index) {
    %c1 = arith.constant 1 : index
    hal.return %c1, %c1, %c1 : index, index, index
  } <workgroup_size = [64 : index, 1 : index, 1 : index]>
}

// CHECK:      hal.executable.source private @two_kernels_second <objects =
// CHECK-SAME:   <{#[[TARGET]] = [#hal.executable.object<{path = "second.hsaco", data = dense<1> : tensor<2xi8>}>]}>> {
hal.executable.source private @two_kernels_second attributes {amdnfs.object = dense<1> : tensor<2xi8>, amdnfs.object_path = "second.hsaco"} {
  hal.executable.export public @entry ordinal(0) layout(#layout) count(%device: !hal.device) -> (index, index, index) {
    %c1 = arith.constant 1 : index
    hal.return %c1, %c1, %c1 : index, index, index
  } <workgroup_size = [64 : index, 1 : index, 1 : index]>
}

// CHECK:      hal.executable.source private @not_ours attributes {other = "x"}
// CHECK-NOT:    objects
// CHECK:        hal.executable.export
hal.executable.source private @not_ours attributes {other = "x"} {
  hal.executable.export public @entry ordinal(0) layout(#layout) count(%device: !hal.device) -> (index, index, index) {
    %c1 = arith.constant 1 : index
    hal.return %c1, %c1, %c1 : index, index, index
  } <workgroup_size = [64 : index, 1 : index, 1 : index]>
}

// -----

// Without a kernel of ours the device does not matter.
// CHECK-LABEL: func.func @no_kernel_and_no_device
// CHECK-NOT:   objects
func.func @no_kernel_and_no_device() {
  return
}

// -----

#layout = #hal.pipeline.layout<constants = 3, bindings = [#hal.pipeline.binding<storage_buffer>]>

// One target on two devices is one target; an arrow in it closes no bracket.
// CHECK: #[[TARGET:[a-z_0-9]+]] = #hal.executable.target<"cuda", "cuda-nvptx-fb"
// CHECK: objects = <{#[[TARGET]] = [#hal.executable.object<{path = "k.ptx"
util.global private @first = #hal.device.target<"cuda", [#hal.executable.target<"cuda", "cuda-nvptx-fb", {map = affine_map<(d0) -> (d0)>}>]> : !hal.device
util.global private @second = #hal.device.target<"cuda", [#hal.executable.target<"cuda", "cuda-nvptx-fb", {map = affine_map<(d0) -> (d0)>}>]> : !hal.device
hal.executable.source private @ptx attributes {amdnfs.object = dense<1> : tensor<2xi8>, amdnfs.object_path = "k.ptx"} {
  hal.executable.export public @entry ordinal(0) layout(#layout) count(%device: !hal.device) -> (index, index, index) {
    %c1 = arith.constant 1 : index
    hal.return %c1, %c1, %c1 : index, index, index
  } <workgroup_size = [64 : index, 1 : index, 1 : index]>
}

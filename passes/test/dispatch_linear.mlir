// RUN: amdnfs-opt --passes='dispatch-linear{num-compute-units=4}' --why %s | filecheck %s
// RUN: amdnfs-opt --passes='dispatch-linear{num-compute-units=4 max-norm-rows=1}' %s | filecheck %s --check-prefix=FEW

!x = !torch.vtensor<[1,2,16],f16>
!w = !torch.vtensor<[40,16],f16>
!v = !torch.vtensor<[8,16],f16>
!y = !torch.vtensor<[1,2,40],f16>
!z = !torch.vtensor<[1,2,8],f16>

// Three layers of one input are one dispatch: three tiles of 16 columns for the first weight, one for each other.
// CHECK-LABEL: func.func private @amdnfs.dispatch_linear.
// CHECK-SAME:    [[X:%[a-z0-9]+]]: tensor<1x2x16xf16>, [[Q:%[a-z0-9]+]]: tensor<40x16xf16>, [[K:%[a-z0-9]+]]: tensor<8x16xf16>, [[V:%[a-z0-9]+]]: tensor<8x16xf16>) -> (tensor<1x2x40xf16>, tensor<1x2x8xf16>, tensor<1x2x8xf16>)
// CHECK-DAG:     [[SPARE:%[a-z0-9_]+]] = arith.constant 0 : i32
// CHECK-DAG:     [[ROWS:%[a-z0-9_]+]] = arith.constant 2 : i32
// CHECK-DAG:     [[TILES:%[a-z0-9_]+]] = arith.constant 5 : index
// CHECK:         [[R:%[0-9]+]]:3 = flow.dispatch @[[KERNEL:[a-z_0-9.]+]]::@linear[[[TILES]], {{%[a-z0-9_]+}}, {{%[a-z0-9_]+}}]([[X]], [[Q]], [[K]], [[V]], [[ROWS]], [[SPARE]], [[SPARE]], [[SPARE]])
// CHECK-SAME:      amdnfs.cost = {bytes = [2080, 0], flops = [3584, 0]}
// CHECK-NEXT:    return [[R]]#0, [[R]]#1, [[R]]#2
// CHECK:       hal.executable.source private @[[KERNEL]] attributes
// CHECK-SAME:    entry = "linear", kernel = {
// CHECK-SAME:    matrix_instructions = {{[1-9][0-9]*}} : i64, scratch_bytes = 0 : i64
// CHECK-SAME:    spills = 0 : i64
// CHECK-SAME:    op = "linear", tiling = "ROWS=16,COLUMNS=16,DEPTHS=64,BAND=1,waves=2,stages=1"
// CHECK-SAME:    amdnfs.object = dense<"0x7F454C46
// CHECK-SAME:    amdnfs.object_path = "[[KERNEL]].hsaco"
// CHECK-NOT:   hal.executable.source
// CHECK-LABEL: func.func @three_layers_of_one_input
// CHECK:         [[R:%[0-9]+]]:3 = call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}(
// CHECK-NOT:     torch.aten.linear
// CHECK:         return
func.func @three_layers_of_one_input(%x: !x, %q: !w, %k: !v, %v: !v) -> (!y, !z, !z) {
  %none = torch.constant.none
  %0 = torch.aten.linear %x, %q, %none : !x, !w, !torch.none -> !y
  %1 = torch.aten.linear %x, %k, %none : !x, !v, !torch.none -> !z
  %2 = torch.aten.linear %x, %v, %none : !x, !v, !torch.none -> !z
  return %0, %1, %2 : !y, !z, !z
}

// -----

!x = !torch.vtensor<[2,16],f16>
!w = !torch.vtensor<[8,16],f16>
!b = !torch.vtensor<[8],f16>
!y = !torch.vtensor<[2,8],f16>

// The first and the third have a bias and are one kernel; the biases follow the weights.
// CHECK-LABEL: func.func @only_layers_alike_are_grouped
// CHECK-SAME:    [[X:%[a-z0-9]+]]: {{.*}}, [[W0:%[a-z0-9]+]]: {{.*}}, [[W1:%[a-z0-9]+]]: {{.*}}, [[W2:%[a-z0-9]+]]: {{.*}}, [[B0:%[a-z0-9]+]]: {{.*}}, [[B2:%[a-z0-9]+]]: !torch.vtensor<[8],f16>)
// CHECK-DAG:     [[A0:%[0-9]+]] = torch_c.to_builtin_tensor [[W0]]
// CHECK-DAG:     [[A2:%[0-9]+]] = torch_c.to_builtin_tensor [[W2]]
// CHECK-DAG:     [[A3:%[0-9]+]] = torch_c.to_builtin_tensor [[B0]]
// CHECK-DAG:     [[A4:%[0-9]+]] = torch_c.to_builtin_tensor [[B2]]
// CHECK:         call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}({{%[0-9]+}}, [[A0]], [[A2]], [[A3]], [[A4]])
// CHECK:         [[A1:%[0-9]+]] = torch_c.to_builtin_tensor [[W1]]
// CHECK:         call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}({{%[0-9]+}}, [[A1]])
// CHECK-NOT:     call
// CHECK:         return
func.func @only_layers_alike_are_grouped(%x: !x, %w0: !w, %w1: !w, %w2: !w, %b0: !b, %b2: !b) -> (!y, !y, !y) {
  %none = torch.constant.none
  %0 = torch.aten.linear %x, %w0, %b0 : !x, !w, !b -> !y
  %1 = torch.aten.linear %x, %w1, %none : !x, !w, !torch.none -> !y
  %2 = torch.aten.linear %x, %w2, %b2 : !x, !w, !b -> !y
  return %0, %1, %2 : !y, !y, !y
}

// -----

!x = !torch.vtensor<[2,16],f16>
!w = !torch.vtensor<[8,16],f16>
!y = !torch.vtensor<[2,8],f16>

// CHECK-LABEL: func.func @at_most_three
// CHECK:         {{%[0-9]+}}:3 = call @amdnfs.dispatch_linear.
// CHECK:         {{%[0-9]+}} = call @amdnfs.dispatch_linear.
// CHECK-NOT:     call
// CHECK:         return
func.func @at_most_three(%x: !x, %w0: !w, %w1: !w, %w2: !w, %w3: !w) -> (!y, !y, !y, !y) {
  %none = torch.constant.none
  %0 = torch.aten.linear %x, %w0, %none : !x, !w, !torch.none -> !y
  %1 = torch.aten.linear %x, %w1, %none : !x, !w, !torch.none -> !y
  %2 = torch.aten.linear %x, %w2, %none : !x, !w, !torch.none -> !y
  %3 = torch.aten.linear %x, %w3, %none : !x, !w, !torch.none -> !y
  return %0, %1, %2, %3 : !y, !y, !y, !y
}

// -----

!x = !torch.vtensor<[2,16],f16>
!w = !torch.vtensor<[8,16],f16>
!y = !torch.vtensor<[2,8],f16>

// The second weight is not there yet where the first layer stands.
// CHECK-LABEL: func.func @a_computed_weight_stays_behind
// CHECK:         call @amdnfs.dispatch_linear.
// CHECK:         torch.aten.relu
// CHECK:         call @amdnfs.dispatch_linear.
// CHECK:         return
func.func @a_computed_weight_stays_behind(%x: !x, %w0: !w, %w1: !w) -> (!y, !y) {
  %none = torch.constant.none
  %0 = torch.aten.linear %x, %w0, %none : !x, !w, !torch.none -> !y
  %late = torch.aten.relu %w1 : !w -> !w
  %1 = torch.aten.linear %x, %late, %none : !x, !w, !torch.none -> !y
  return %0, %1 : !y, !y
}

// -----

!x = !torch.vtensor<[2,16],bf16>
!w = !torch.vtensor<[8,16],bf16>
!y = !torch.vtensor<[2,8],bf16>

// The gate's weight comes first, wherever its layer stands; what is added comes last.
// CHECK-LABEL: func.func @gate_and_residual
// CHECK-SAME:    [[X:%[a-z0-9]+]]: {{.*}}, [[UP:%[a-z0-9]+]]: {{.*}}, [[GATE:%[a-z0-9]+]]: {{.*}}, [[R:%[a-z0-9]+]]: {{.*}})
// CHECK-DAG:     [[A0:%[0-9]+]] = torch_c.to_builtin_tensor [[GATE]]
// CHECK-DAG:     [[A1:%[0-9]+]] = torch_c.to_builtin_tensor [[UP]]
// CHECK-DAG:     [[A2:%[0-9]+]] = torch_c.to_builtin_tensor [[R]]
// CHECK:         call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}({{%[0-9]+}}, [[A0]], [[A1]], [[A2]])
// CHECK-NOT:     torch.aten
// CHECK:         return
func.func @gate_and_residual(%x: !x, %up: !w, %gate: !w, %r: !y) -> !y {
  %none = torch.constant.none
  %one = torch.constant.int 1
  %0 = torch.aten.linear %x, %up, %none : !x, !w, !torch.none -> !y
  %1 = torch.aten.linear %x, %gate, %none : !x, !w, !torch.none -> !y
  %2 = torch.aten.silu %1 : !y -> !y
  %3 = torch.aten.mul.Tensor %2, %0 : !y, !y -> !y
  %4 = torch.aten.add.Tensor %r, %3, %one : !y, !y, !torch.int -> !y
  return %4 : !y
}

// -----

!x = !torch.vtensor<[2,16],f16>
!w = !torch.vtensor<[8,16],f16>
!y = !torch.vtensor<[2,8],f16>

// CHECK-LABEL: func.func @used_twice
// CHECK:         call @amdnfs.dispatch_linear.
// CHECK:         torch.aten.silu
// CHECK:         torch.aten.mul.Tensor
// CHECK:         torch.aten.add.Tensor
// CHECK:         return
func.func @used_twice(%x: !x, %w0: !w, %w1: !w, %r: !y) -> (!y, !y) {
  %none = torch.constant.none
  %two = torch.constant.int 2
  %0 = torch.aten.linear %x, %w0, %none : !x, !w, !torch.none -> !y
  %1 = torch.aten.linear %x, %w1, %none : !x, !w, !torch.none -> !y
  %2 = torch.aten.silu %0 : !y -> !y
  %3 = torch.aten.mul.Tensor %2, %1 : !y, !y -> !y
  %4 = torch.aten.add.Tensor %0, %1, %two : !y, !y, !torch.int -> !y
  return %3, %4 : !y, !y
}

// -----

!x = !torch.vtensor<[1,2,16],f16>
!xf = !torch.vtensor<[1,2,16],f32>
!m = !torch.vtensor<[1,2,1],f32>
!g = !torch.vtensor<[16],f16>
!gf = !torch.vtensor<[16],f32>
!w = !torch.vtensor<[8,16],f16>
!y = !torch.vtensor<[1,2,8],f16>

// Two rows are few, and the kernel reads what was not yet normalised; the gain stands behind the weights.
// CHECK-LABEL: func.func @rms_norm(
// CHECK-SAME:    [[H:%[a-z0-9]+]]: {{.*}}, [[GAIN:%[a-z0-9]+]]: {{.*}}, [[W:%[a-z0-9]+]]: {{.*}})
// CHECK-DAG:     [[A0:%[0-9]+]] = torch_c.to_builtin_tensor [[H]]
// CHECK-DAG:     [[A1:%[0-9]+]] = torch_c.to_builtin_tensor [[W]]
// CHECK-DAG:     [[A2:%[0-9]+]] = torch_c.to_builtin_tensor [[GAIN]]
// CHECK:         call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}([[A0]], [[A1]], [[A2]])
// CHECK-NOT:     torch.aten
// CHECK:         return
// FEW-LABEL:   func.func @rms_norm(
// FEW:           [[NORMED:%[0-9]+]] = torch.aten.mul.Tensor %arg1
// FEW:           [[A0:%[0-9]+]] = torch_c.to_builtin_tensor [[NORMED]]
// FEW:           call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}([[A0]], {{%[0-9]+}})
func.func @rms_norm(%h: !x, %gain: !g, %w: !w) -> !y {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %two = torch.constant.int 2
  %one = torch.constant.int 1
  %last = torch.constant.int -1
  %f32 = torch.constant.int 6
  %f16 = torch.constant.int 5
  %eps = torch.constant.float 1.000000e-05
  %wide = torch.prims.convert_element_type %h, %f32 : !x, !torch.int -> !xf
  %square = torch.aten.pow.Tensor_Scalar %wide, %two : !xf, !torch.int -> !xf
  %axes = torch.prim.ListConstruct %last : (!torch.int) -> !torch.list<int>
  %mean = torch.aten.mean.dim %square, %axes, %true, %none : !xf, !torch.list<int>, !torch.bool, !torch.none -> !m
  %more = torch.aten.add.Scalar %mean, %eps, %one : !m, !torch.float, !torch.int -> !m
  %root = torch.aten.rsqrt %more : !m -> !m
  %scaled = torch.aten.mul.Tensor %wide, %root : !xf, !m -> !xf
  %narrow = torch.prims.convert_element_type %scaled, %f16 : !xf, !torch.int -> !x
  %normed = torch.aten.mul.Tensor %gain, %narrow : !g, !x -> !x
  %0 = torch.aten.linear %normed, %w, %none : !x, !w, !torch.none -> !y
  return %0 : !y
}

// Gemma adds 1 to the gain, and narrows last.
// CHECK-LABEL: func.func @rms_norm_with_gain_offset
// CHECK-SAME:    [[H:%[a-z0-9]+]]: {{.*}}, [[GAIN:%[a-z0-9]+]]: {{.*}}, [[W:%[a-z0-9]+]]: {{.*}})
// CHECK-DAG:     [[A0:%[0-9]+]] = torch_c.to_builtin_tensor [[H]]
// CHECK-DAG:     [[A2:%[0-9]+]] = torch_c.to_builtin_tensor [[GAIN]]
// CHECK:         call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}([[A0]], {{%[0-9]+}}, [[A2]])
// CHECK-NOT:     torch.aten
// CHECK:         return
func.func @rms_norm_with_gain_offset(%h: !x, %gain: !g, %w: !w) -> !y {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %two = torch.constant.int 2
  %one = torch.constant.int 1
  %last = torch.constant.int -1
  %f32 = torch.constant.int 6
  %f16 = torch.constant.int 5
  %eps = torch.constant.float 1.000000e-05
  %offset = torch.constant.float 1.000000e+00
  %wide = torch.prims.convert_element_type %h, %f32 : !x, !torch.int -> !xf
  %square = torch.aten.pow.Tensor_Scalar %wide, %two : !xf, !torch.int -> !xf
  %axes = torch.prim.ListConstruct %last : (!torch.int) -> !torch.list<int>
  %mean = torch.aten.mean.dim %square, %axes, %true, %none : !xf, !torch.list<int>, !torch.bool, !torch.none -> !m
  %more = torch.aten.add.Scalar %mean, %eps, %one : !m, !torch.float, !torch.int -> !m
  %root = torch.aten.rsqrt %more : !m -> !m
  %scaled = torch.aten.mul.Tensor %wide, %root : !xf, !m -> !xf
  %wide_gain = torch.prims.convert_element_type %gain, %f32 : !g, !torch.int -> !gf
  %shifted = torch.aten.add.Scalar %wide_gain, %offset, %one : !gf, !torch.float, !torch.int -> !gf
  %gained = torch.aten.mul.Tensor %scaled, %shifted : !xf, !gf -> !xf
  %normed = torch.prims.convert_element_type %gained, %f16 : !xf, !torch.int -> !x
  %0 = torch.aten.linear %normed, %w, %none : !x, !w, !torch.none -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[1,2,16],f16>
!m = !torch.vtensor<[1,2,1],f16>
!g = !torch.vtensor<[16],f16>
!w = !torch.vtensor<[8,16],f16>
!y = !torch.vtensor<[1,2,8],f16>

// The mean over the tokens is no RMS normalisation.
// CHECK-LABEL: func.func @another_axis
// CHECK:         [[ROOT:%[0-9]+]] = torch.aten.rsqrt
// CHECK:         [[SCALED:%[0-9]+]] = torch.aten.mul.Tensor %arg0, [[ROOT]]
// CHECK:         torch.aten.mul.Tensor %arg1, [[SCALED]]
// CHECK:         call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}({{%[0-9]+}}, {{%[0-9]+}})
func.func @another_axis(%h: !x, %gain: !g, %w: !w) -> !y {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %one = torch.constant.int 1
  %eps = torch.constant.float 1.000000e-05
  %square = torch.aten.mul.Tensor %h, %h : !x, !x -> !x
  %axes = torch.prim.ListConstruct %one : (!torch.int) -> !torch.list<int>
  %mean = torch.aten.mean.dim %square, %axes, %true, %none : !x, !torch.list<int>, !torch.bool, !torch.none -> !torch.vtensor<[1,1,16],f16>
  %more = torch.aten.add.Scalar %mean, %eps, %one : !torch.vtensor<[1,1,16],f16>, !torch.float, !torch.int -> !torch.vtensor<[1,1,16],f16>
  %root = torch.aten.rsqrt %more : !torch.vtensor<[1,1,16],f16> -> !torch.vtensor<[1,1,16],f16>
  %scaled = torch.aten.mul.Tensor %h, %root : !x, !torch.vtensor<[1,1,16],f16> -> !x
  %normed = torch.aten.mul.Tensor %gain, %scaled : !g, !x -> !x
  %0 = torch.aten.linear %normed, %w, %none : !x, !w, !torch.none -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[1,16,16],f16>
!m = !torch.vtensor<[1,16],f16>
!g = !torch.vtensor<[16],f16>
!w = !torch.vtensor<[8,16],f16>
!y = !torch.vtensor<[1,16,8],f16>

// Without its axis the mean of a token scales the columns.
// CHECK-LABEL: func.func @a_mean_without_its_axis
// CHECK:         torch.aten.rsqrt
// CHECK:         call @amdnfs.dispatch_linear.{{[a-z0-9.]+}}({{%[0-9]+}}, {{%[0-9]+}})
func.func @a_mean_without_its_axis(%h: !x, %gain: !g, %w: !w) -> !y {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %last = torch.constant.int -1
  %one = torch.constant.int 1
  %eps = torch.constant.float 1.000000e-05
  %square = torch.aten.mul.Tensor %h, %h : !x, !x -> !x
  %axes = torch.prim.ListConstruct %last : (!torch.int) -> !torch.list<int>
  %mean = torch.aten.mean.dim %square, %axes, %false, %none : !x, !torch.list<int>, !torch.bool, !torch.none -> !m
  %more = torch.aten.add.Scalar %mean, %eps, %one : !m, !torch.float, !torch.int -> !m
  %root = torch.aten.rsqrt %more : !m -> !m
  %scaled = torch.aten.mul.Tensor %h, %root : !x, !m -> !x
  %normed = torch.aten.mul.Tensor %gain, %scaled : !g, !x -> !x
  %0 = torch.aten.linear %normed, %w, %none : !x, !w, !torch.none -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[2,16],f16>
!xf = !torch.vtensor<[2,16],f32>
!xd = !torch.vtensor<[?,16],f16>
!xo = !torch.vtensor<[2,12],f16>
!w = !torch.vtensor<[8,16],f16>
!wf = !torch.vtensor<[8,16],f32>
!wo = !torch.vtensor<[8,12],f16>
!y = !torch.vtensor<[2,8],f16>
!yf = !torch.vtensor<[2,8],f32>
!yd = !torch.vtensor<[?,8],f16>

// f32, a dynamic size and rows that are not a multiple of 16 bytes: lower-linear takes these.
// CHECK-LABEL:   func.func @left_alone
// CHECK-COUNT-3: torch.aten.linear
// CHECK-NOT:     call
// CHECK-NOT:     // refused
func.func @left_alone(%xf: !xf, %wf: !wf, %xd: !xd, %w: !w, %xo: !xo, %wo: !wo) -> (!yf, !yd, !y) {
  %none = torch.constant.none
  %full = torch.aten.linear %xf, %wf, %none : !xf, !wf, !torch.none -> !yf
  %dynamic = torch.aten.linear %xd, %w, %none : !xd, !w, !torch.none -> !yd
  %odd = torch.aten.linear %xo, %wo, %none : !xo, !wo, !torch.none -> !y
  return %full, %dynamic, %odd : !yf, !yd, !y
}

// -----

!x = !torch.vtensor<[2,64],f16>
!w = !torch.vtensor<[32,64],si8>
!s = !torch.vtensor<[32,1],f16>
!y = !torch.vtensor<[2,32],f16>

// Rows that are rounded to int8 are rounded in the kernel: one dispatch, which reads the rows as they are.
// CHECK-LABEL: func.func private @amdnfs.dispatch_linear.
// CHECK-SAME:    tensor<2x64xf16>, {{%[a-z0-9]+}}: tensor<32x64xi8>, {{%[a-z0-9]+}}: tensor<32x1xf16>) -> tensor<2x32xf16>
// CHECK:         amdnfs.cost = {{{.*}}, type = "i8"}
// CHECK:         matrix_instructions = {{[1-9][0-9]*}} : i64
// CHECK-LABEL: func.func @integers
// CHECK-NOT:     torch.operator
func.func @integers(%x: !x, %w: !w, %s: !s) -> !y {
  %none = torch.constant.none
  %layout = torch.constant.str "i8-channel-rows-f16-a8"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %w, %s, %none, %none, %layout) : (!x, !w, !s, !torch.none, !torch.none, !torch.str) -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[2,64],f16>
!w = !torch.vtensor<[32,64],si8>
!s = !torch.vtensor<[32,1],f16>
!y = !torch.vtensor<[2,32],f16>

// Rows that are rounded to fp8 are, too, and the matrix units multiply fp8 of the layout's flavour, which is the target's.
// CHECK-LABEL: func.func private @amdnfs.dispatch_linear.
// CHECK-SAME:    tensor<2x64xf16>, {{%[a-z0-9]+}}: tensor<32x64xi8>, {{%[a-z0-9]+}}: tensor<32x1xf16>) -> tensor<2x32xf16>
// CHECK:         amdnfs.cost = {{{.*}}, type = "f8E4M3FNUZ"}
// CHECK:         matrix_instructions = {{[1-9][0-9]*}} : i64
// CHECK-LABEL: func.func @fp8_times_fp8
// CHECK-NOT:     torch.operator
func.func @fp8_times_fp8(%x: !x, %w: !w, %s: !s) -> !y {
  %none = torch.constant.none
  %layout = torch.constant.str "f8E4M3FNUZ-channel-rows-f16-af8"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %w, %s, %none, %none, %layout) : (!x, !w, !s, !torch.none, !torch.none, !torch.str) -> !y
  return %0 : !y
}

// -----

!x = !torch.vtensor<[96,64],f16>
!w = !torch.vtensor<[32,64],si8>
!s = !torch.vtensor<[32,1],f16>
!y = !torch.vtensor<[96,32],f16>

// More rows than few are rounded once, by a kernel before that of the layer.
// CHECK-LABEL: func.func private @amdnfs.dispatch_linear.
// CHECK:         %[[ROUNDED:.+]]:2 = flow.dispatch @amdnfs.round_rows.{{.*}} -> (tensor<96x64xi8>, tensor<96xf32>)
// CHECK:         flow.dispatch @amdnfs.linear.{{[a-z0-9]+}}::{{.*}}(%[[ROUNDED]]#0, %[[ROUNDED]]#1, {{.*}} type = "i8"
// CHECK-LABEL: func.func @many_rows
// CHECK-NOT:     torch.operator
func.func @many_rows(%x: !x, %w: !w, %s: !s) -> !y {
  %none = torch.constant.none
  %layout = torch.constant.str "i8-channel-rows-f16-a8"
  %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %w, %s, %none, %none, %layout) : (!x, !w, !s, !torch.none, !torch.none, !torch.str) -> !y
  return %0 : !y
}

"""Facts of dispatches that say in loops and vectors what one workgroup does: the CPU's linear layers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compile.test_kernel_facts import load, program, receive, weight

REF = "!iree_tensor_ext.dispatch.tensor"
X, DATA, SCALES, Y = "tensor<4x64xf16>", "tensor<32x32xi8>", "tensor<32x2xf16>", "tensor<4x32xf16>"
SUMS = """
      %both = vector.interleave %packed, %packed : vector<8xi8> -> vector<16xi8>
      %byte = vector.extract_strided_slice %both offsets = [0], sizes = [16], strides = [1] : vector<16xi8> to vector<16xi8>
      %long = arith.extsi %byte : vector<16xi8> to vector<16xi32>
      %float = arith.sitofp %long : vector<16xi32> to vector<16xf32>
      %scaled = arith.mulf %float, %scale : vector<16xf32>
      %wide = arith.extf %raw : vector<16xf16> to vector<16xf32>
      %new = vector.fma %wide, %scaled, %sum : vector<16xf32>
"""  # noqa: E501 - types of MLIR
PAIRS = """
      %long = arith.extsi %packed : vector<8xi8> to vector<8xi32>
      %x8 = vector.extract_strided_slice %raw offsets = [0], sizes = [8], strides = [1] : vector<16xf16> to vector<8xf16>
      %whole = arith.fptosi %x8 : vector<8xf16> to vector<8xi32>
      %product = arith.muli %long, %whole : vector<8xi32>
      %even, %odd = vector.deinterleave %product : vector<8xi32> -> vector<4xi32>
      %pair = arith.addi %even, %odd : vector<4xi32>
      %float = arith.sitofp %pair : vector<4xi32> to vector<4xf32>
      %twice = vector.shuffle %float, %float [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]
        : vector<4xf32>, vector<4xf32>
      %new = arith.addf %twice, %sum : vector<16xf32>
"""  # noqa: E501 - types of MLIR
WORDS = """
      %both = vector.interleave %packed, %packed : vector<8xi8> -> vector<16xi8>
      %w = arith.extsi %both : vector<16xi8> to vector<16xi16>
      %words = arith.fptosi %raw : vector<16xf16> to vector<16xi16>
      %pair = llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"(%words, %w)
        : (vector<16xi16>, vector<16xi16>) -> vector<8xi32>
      %float = arith.sitofp %pair : vector<8xi32> to vector<8xf32>
      %twice = vector.shuffle %float, %float [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]
        : vector<8xf32>, vector<8xf32>
      %new = arith.addf %twice, %sum : vector<16xf32>
"""


def dispatch(sums: str = SUMS, end: str = "%c4", head: str = "") -> str:
    """Four rows of 64, times 32 columns of int4 in two groups: 4 workgroups of 8 columns, 2 columns at a time."""
    return f"""
flow.executable private @q {{
  flow.executable.export public @q_export workgroups() -> (index, index, index) {{
    %parts = arith.constant 4 : index
    %one = arith.constant 1 : index
    flow.return %parts, %one, %one : index, index, index
  }}
  builtin.module {{
    func.func @q_export(%x.ref: {REF}<readonly:{X}>, %d.ref: {REF}<readonly:{DATA}>,
        %s.ref: {REF}<readonly:{SCALES}>, %y.ref: {REF}<writeonly:{Y}>) {{
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      %c3 = arith.constant 3 : index
      %c4 = arith.constant 4 : index
      %c8 = arith.constant 8 : index
      %c16 = arith.constant 16 : index
      %c32 = arith.constant 32 : index
      %nothing = arith.constant dense<0.0> : vector<16xf32>
      %no_x = arith.constant 0.0 : f16
      %no_byte = arith.constant 0 : i8
      %id = flow.dispatch.workgroup.id[0] : index
      %first = arith.muli %id, %c8 : index
      {head}
      %x = iree_tensor_ext.dispatch.tensor.load %x.ref, offsets = [0, 0], sizes = [4, 64], strides = [1, 1]
        : {REF}<readonly:{X}> -> {X}
      %d = iree_tensor_ext.dispatch.tensor.load %d.ref, offsets = [%first, 0], sizes = [8, 32], strides = [1, 1]
        : {REF}<readonly:{DATA}> -> tensor<8x32xi8>
      %s = iree_tensor_ext.dispatch.tensor.load %s.ref, offsets = [%first, 0], sizes = [8, 2], strides = [1, 1]
        : {REF}<readonly:{SCALES}> -> tensor<8x2xf16>
      %empty = tensor.empty() : tensor<4x8xf16>
      %done = scf.for %m = %c0 to {end} step %c1 iter_args(%y.m = %empty) -> tensor<4x8xf16> {{
      %m.end = arith.minui %c8, %c32 : index
      %row = scf.for %n = %c0 to %m.end step %c1 iter_args(%y.n = %y.m) -> tensor<4x8xf16> {{
      %total = scf.for %g = %c0 to %c2 step %c1 iter_args(%outer = %nothing) -> vector<16xf32> {{
      %stored = tensor.extract %s[%n, %g] : tensor<8x2xf16>
      %own = arith.extf %stored : f16 to f32
      %scale = vector.broadcast %own : f32 to vector<16xf32>
      %begin = arith.muli %g, %c32 : index
      %part = scf.for %k = %c0 to %c32 step %c16 iter_args(%sum = %outer) -> vector<16xf32> {{
      %place = arith.addi %begin, %k : index
      %half = arith.divui %place, %c2 : index
      %packed = vector.transfer_read %d[%n, %half], %no_byte {{in_bounds = [true]}} : tensor<8x32xi8>, vector<8xi8>
      %raw = vector.transfer_read %x[%m, %place], %no_x {{in_bounds = [true]}} : {X}, vector<16xf16>
      {sums}
      scf.yield %new : vector<16xf32>
      }}
      %grown = vector.fma %part, %scale, %outer : vector<16xf32>
      scf.yield %grown : vector<16xf32>
      }}
      %added = vector.reduction <add>, %total : vector<16xf32> into f32
      %rounded = arith.truncf %added : f32 to f16
      %next = tensor.insert %rounded into %y.n[%m, %n] : tensor<4x8xf16>
      scf.yield %next : tensor<4x8xf16>
      }}
      scf.yield %row : tensor<4x8xf16>
      }}
      iree_tensor_ext.dispatch.tensor.store %done, %y.ref, offsets = [0, %first], sizes = [4, 8], strides = [1, 1]
        : tensor<4x8xf16> -> {REF}<writeonly:{Y}>
      return
    }}
  }}
}}"""


def group_of(text: str) -> dict[str, Any]:
    name = "model.layers.0.mlp.up_proj.weight"
    facts = program(
        text,
        receive("x", 0, X)
        + load("d", DATA)
        + load("s", SCALES)
        + f"%1 = flow.dispatch @q::@q_export(%x, %d, %s) : ({X}, {DATA}, {SCALES}) -> {Y}",
        head=weight("d", f"{name}.int4", DATA) + weight("s", f"{name}.scales", SCALES),
    )
    (group,) = facts["groups"]
    assert isinstance(group, dict)
    return group


def test_a_linear_layer_in_vectors_counts_as_often_as_its_loops_and_workgroups_say() -> None:
    group = group_of(dispatch())
    assert (group["op"], group["kind"], group["quantized"]) == ("mlp.up_proj", "matmul", True)
    assert group["flops"] == {"constant": 2 * 4 * 32 * 64}  # the products with scales are none of tensors
    assert group["bytes"] == {"constant": 4 * 64 * 2 + 32 * 32 + 32 * 2 * 2 + 4 * 32 * 2}
    (found,) = group["contractions"]
    assert (found["operation"], found["type"], found["rows"]) == ("loops in vectors", "f16", {"constant": 4})
    assert found["sizes"] == {"m": "4", "n": "32", "k": "64"}
    assert "unknown" not in group


def test_products_of_integers_count_before_pairs_of_them_are_added() -> None:
    assert group_of(dispatch(PAIRS))["flops"] == {"constant": 2 * 4 * 32 * 64 // 2}  # 8 of 16 elements, here


def test_products_of_words_are_those_of_an_intrinsic() -> None:
    assert group_of(dispatch(WORDS))["flops"] == {"constant": 2 * 4 * 32 * 64}


@pytest.mark.parametrize(("begin", "flops"), [(4, 2 * 4 * 32 * 64), (3, 2 * 3 * 32 * 64), (0, 0)])
def test_loops_whose_length_is_computed(begin: int, flops: int) -> None:
    head = f"%rows = arith.constant {begin} : index\n%end = arith.minui %rows, %c4 : index"
    assert group_of(dispatch(end="%end", head=head)).get("flops") == {"constant": flops}


def test_a_loop_that_depends_on_the_one_around_it_is_gone_through() -> None:
    """Columns up to the row: 0 + 1 + 2 + 3 of them, instead of 4 x 8."""
    text = dispatch().replace("arith.minui %c8, %c32", "arith.minui %m, %c32")
    assert group_of(text)["flops"] == {"constant": 2 * 4 * (0 + 1 + 2 + 3) * 64}


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("%end = arith.addi %id, %c1 : index", "loops: the length of a loop, which is the result of flow.dispatch"),
        (
            "%s0 = iree_tensor_ext.dispatch.tensor.load %d.ref, offsets = [0, 0], sizes = [1, 1], strides = [1, 1]"
            f" : {REF}<readonly:{DATA}> -> tensor<1x1xi8>\n%s1 = tensor.extract %s0[%c0, %c0] : tensor<1x1xi8>\n"
            "%end = arith.index_cast %s1 : i8 to index",
            "loops: the length of a loop, which is the result of tensor.extract",
        ),
    ],
)
def test_a_loop_of_unknown_length_is_told_not_guessed(head: str, reason: str) -> None:
    group = group_of(dispatch(end="%end", head=head))
    assert group["flops"] == {"constant": 0}
    assert len(group["unknown"]) == 1
    assert group["unknown"][0].startswith(reason)


def test_loops_with_arithmetic_of_another_kind_are_told() -> None:
    text = dispatch(SUMS.replace("vector.fma %wide, %scaled, %sum", "arith.maximumf %wide, %sum"))
    assert group_of(text)["unknown"] == ["scf.for: the arithmetic in it"]

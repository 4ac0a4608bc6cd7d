"""Facts of dispatches, on small programs in the flow dialect with known costs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from amdnfs_passes.ir import parse_module

from amdnfs_compile.kernel_facts.dispatches import read_dispatches
from amdnfs_compile.kernel_facts.sizes import PAGE, POOL_PAGE, UnknownSizeError, number, product, smaller
from amdnfs_compile.kernel_facts.sources import Evidence, locate

MAPS = """
#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>
#row = affine_map<(m, k) -> (m)>
#all = affine_map<(m, k) -> (m, k)>
"""
LINEAR = """
%zero = arith.constant 0.0 : f32
%empty = tensor.empty() : tensor<2x8xf32>
%fill = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x8xf32>) -> tensor<2x8xf32>
%out = linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction"]}
    ins(%0, %1 : tensor<2x32xf16>, tensor<8x32xf16>) outs(%fill : tensor<2x8xf32>) {
^bb0(%a: f16, %b: f16, %c: f32):
  %5 = arith.extf %a : f16 to f32
  %6 = arith.extf %b : f16 to f32
  %7 = arith.mulf %5, %6 : f32
  %8 = arith.addf %c, %7 : f32
  linalg.yield %8 : f32
} -> tensor<2x8xf32>
"""
SQUARES = """
%zero = arith.constant 0.0 : f32
%empty = tensor.empty() : tensor<2xf32>
%fill = linalg.fill ins(%zero : f32) outs(%empty : tensor<2xf32>) -> tensor<2xf32>
%out = linalg.generic {indexing_maps = [#all, #row], iterator_types = ["parallel", "reduction"]}
    ins(%0 : tensor<2x32xf32>) outs(%fill : tensor<2xf32>) {
^bb0(%a: f32, %c: f32):
  %7 = arith.mulf %a, %a : f32
  %8 = arith.addf %c, %7 : f32
  linalg.yield %8 : f32
} -> tensor<2xf32>
"""


def function(name: str, inputs: list[str], output: str, body: str) -> str:
    """A dispatch with static sizes: `%0`, `%1`, ... are its inputs, `%out` its result."""
    kinds = [f"!iree_tensor_ext.dispatch.tensor<readonly:{kind}>" for kind in inputs]
    kinds.append(f"!iree_tensor_ext.dispatch.tensor<writeonly:{output}>")
    arguments = ", ".join(f"%arg{i}: {kind}" for i, kind in enumerate(kinds))
    loads = "\n".join(
        f"%{i} = iree_tensor_ext.dispatch.tensor.load %arg{i}, {slices(kind)} : {kinds[i]} -> {kind}"
        for i, kind in enumerate(inputs)
    )
    store = f"iree_tensor_ext.dispatch.tensor.store %out, %arg{len(inputs)}, {slices(output)} : {output} -> {kinds[-1]}"
    return executable(name, f"({arguments}) {{\n{loads}\n{body}\n{store}\nreturn\n}}")


def slices(kind: str) -> str:
    sizes = re.findall(r"(\d+)x", kind)
    zeros, ones = ", ".join("0" for _ in sizes), ", ".join("1" for _ in sizes)
    return f"offsets = [{zeros}], sizes = [{', '.join(sizes)}], strides = [{ones}]"


def executable(name: str, text: str, arguments: str = "") -> str:
    names = ", ".join(part.split(":")[0] for part in arguments.split(",")) if arguments else ""
    return f"""
flow.executable private @{name} {{
  flow.executable.export public @{name}_export workgroups({arguments}) -> (index, index, index) {{
    %x, %y, %z = iree_tensor_ext.dispatch.workgroup_count_from_slice({names})
    flow.return %x, %y, %z : index, index, index
  }}
  builtin.module {{
    func.func @{name}_export{text}
  }}
}}"""


def program(executables: str, body: str, inputs: int = 1, head: str = "") -> dict[str, Any]:
    """Facts of a program with one entry point `decode_2`."""
    arguments = ", ".join(f"%arg{i}: !hal.buffer_view" for i in range(inputs))
    text = f"""{MAPS}
module {{
{head}{executables}
util.func public @decode_2({arguments}) attributes {{iree.abi.stub}} {{
{body}
util.return
}}
}}"""
    facts: dict[str, Any] = read_dispatches(parse_module(text))["decode_2"]
    return facts


def weight(name: str, key: str, kind: str) -> str:
    return f'util.global private @{name} = #flow.parameter.named<"model"::"{key}"> : {kind}\n'


def load(name: str, kind: str) -> str:
    return f"%{name} = util.global.load immutable @{name} : {kind}\n"


def receive(result: str, position: int, kind: str) -> str:
    return f'%{result} = hal.tensor.import %arg{position} "input{position}" : !hal.buffer_view -> {kind}\n'


def test_a_linear_layer_counts_a_multiplication_and_an_addition_for_each_weight_and_row() -> None:
    facts = program(
        function("linear", ["tensor<2x32xf16>", "tensor<8x32xf16>"], "tensor<2x8xf32>", LINEAR),
        receive("x", 0, "tensor<2x32xf16>")
        + load("w", "tensor<8x32xf16>")
        + "%1 = flow.dispatch @linear::@linear_export(%x, %w) : (tensor<2x32xf16>, tensor<8x32xf16>) -> "
        "tensor<2x8xf32>",
        head=weight("w", "model.layers.0.self_attn.q_proj.weight", "tensor<8x32xf16>"),
    )
    (group,) = facts["groups"]
    assert group["flops"] == {"constant": 2 * 2 * 8 * 32}
    assert group["bytes"] == {"constant": 2 * 32 * 2 + 8 * 32 * 2 + 2 * 8 * 4}
    assert facts["weight_bytes"] == {"constant": 8 * 32 * 2}
    assert (group["part"], group["op"], group["kind"], group["layers"]) == ("layer", "self_attn.q_proj", "matmul", [0])
    (contraction,) = group["contractions"]
    assert contraction["type"] == "f16"
    assert contraction["sizes"] == {"m": "2", "n": "8", "k": "32"}
    assert contraction["rows"] == {"constant": 2}


def test_a_sum_of_squares_is_no_contraction() -> None:
    facts = program(
        function("norm", ["tensor<2x32xf32>"], "tensor<2xf32>", SQUARES),
        receive("x", 0, "tensor<2x32xf32>")
        + "%1 = flow.dispatch @norm::@norm_export(%x) : (tensor<2x32xf32>) -> tensor<2xf32>",
    )
    (group,) = facts["groups"]
    assert (group["kind"], group["flops"], group["contractions"]) == ("reduction", {"constant": 0}, [])
    assert group["bytes"] == {"constant": 2 * 32 * 4 + 2 * 4}


def test_layers_that_are_alike_are_one_group_and_a_weight_read_twice_counts_once() -> None:
    call = "flow.dispatch @linear::@linear_export(%x, %{w}) : (tensor<2x32xf16>, tensor<8x32xf16>) -> tensor<2x8xf32>"
    calls = [f"%{i} = " + call.replace("{w}", name) for i, name in enumerate(("a", "b", "b"))]
    facts = program(
        function("linear", ["tensor<2x32xf16>", "tensor<8x32xf16>"], "tensor<2x8xf32>", LINEAR),
        receive("x", 0, "tensor<2x32xf16>")
        + load("a", "tensor<8x32xf16>")
        + load("b", "tensor<8x32xf16>")
        + "\n".join(calls),
        head=weight("a", "model.layers.0.mlp.up.weight", "tensor<8x32xf16>")
        + weight("b", "model.layers.1.mlp.up.weight", "tensor<8x32xf16>"),
    )
    (group,) = facts["groups"]
    assert (group["count"], group["layers"], group["op"]) == (3, [0, 1], "mlp.up")
    assert facts["weight_bytes"] == {"constant": 2 * 8 * 32 * 2}


def test_a_lookup_reads_rows_not_the_table() -> None:
    lookup = """
%empty = tensor.empty() : tensor<2x32xf16>
%out = linalg.generic {indexing_maps = [#row, #all], iterator_types = ["parallel", "parallel"]}
    ins(%1 : tensor<2xi64>) outs(%empty : tensor<2x32xf16>) {
^bb0(%token: i64, %c: f16):
  %i = arith.index_cast %token : i64 to index
  %j = linalg.index 1 : index
  %v = tensor.extract %0[%i, %j] : tensor<512x32xf16>
  linalg.yield %v : f16
} -> tensor<2x32xf16>
"""
    facts = program(
        function("embed", ["tensor<512x32xf16>", "tensor<2xi64>"], "tensor<2x32xf16>", lookup),
        receive("t", 0, "tensor<2xi64>")
        + load("e", "tensor<512x32xf16>")
        + "%1 = flow.dispatch @embed::@embed_export(%e, %t) : (tensor<512x32xf16>, tensor<2xi64>) -> tensor<2x32xf16>",
        head=weight("e", "model.embed_tokens.weight", "tensor<512x32xf16>"),
    )
    (group,) = facts["groups"]
    assert (group["kind"], group["op"], group["part"]) == ("gather", "model.embed_tokens", "head")
    assert group["bytes"] == {"constant": 2 * 32 * 2 + 2 * 8 + 2 * 32 * 2}
    assert facts["weight_bytes"] == {"constant": 2 * 32 * 2}


GATHER = """
(%arg0: !iree_tensor_ext.dispatch.tensor<readonly:tensor<?xi32>>,
 %arg1: !iree_tensor_ext.dispatch.tensor<readonly:tensor<?x2x16x8xf16>>, %arg2: index, %arg3: index, %arg4: index,
 %arg5: !iree_tensor_ext.dispatch.tensor<writeonly:tensor<?x8xf16>>) {
  %c1 = arith.constant 1 : index
  %c16 = arith.constant 16 : index
  %columns = iree_tensor_ext.dispatch.workload.ordinal %arg2, 0 : index
  %pages = iree_tensor_ext.dispatch.workload.ordinal %arg3, 1 : index
  %tokens = iree_tensor_ext.dispatch.workload.ordinal %arg4, 2 : index
  %t = flow.dispatch.tie_shape %arg0 : !iree_tensor_ext.dispatch.tensor<readonly:tensor<?xi32>>{%columns}
  %p = flow.dispatch.tie_shape %arg1 : !iree_tensor_ext.dispatch.tensor<readonly:tensor<?x2x16x8xf16>>{%pages}
  %o = flow.dispatch.tie_shape %arg5 : !iree_tensor_ext.dispatch.tensor<writeonly:tensor<?x8xf16>>{%tokens}
  %0 = iree_tensor_ext.dispatch.tensor.load %t, offsets = [0], sizes = [%columns], strides = [1]
    : !iree_tensor_ext.dispatch.tensor<readonly:tensor<?xi32>>{%columns} -> tensor<?xi32>
  %1 = iree_tensor_ext.dispatch.tensor.load %p, offsets = [0, 0, 0, 0], sizes = [%pages, 2, 16, 8],
    strides = [1, 1, 1, 1] : !iree_tensor_ext.dispatch.tensor<readonly:tensor<?x2x16x8xf16>>{%pages}
    -> tensor<?x2x16x8xf16>
  %empty = tensor.empty(%tokens) : tensor<?x8xf16>
  %out = linalg.generic {indexing_maps = [#all], iterator_types = ["parallel", "parallel"]}
      outs(%empty : tensor<?x8xf16>) {
  ^bb0(%c: f16):
    %i = linalg.index 0 : index
    %j = linalg.index 1 : index
    %column = arith.divui %i, %c16 : index
    %slot = arith.remui %i, %c16 : index
    %page32 = tensor.extract %0[%column] : tensor<?xi32>
    %page = arith.index_cast %page32 : i32 to index
    %v = tensor.extract %1[%page, %c1, %slot, %j] : tensor<?x2x16x8xf16>
    linalg.yield %v : f16
  } -> tensor<?x8xf16>
  iree_tensor_ext.dispatch.tensor.store %out, %o, offsets = [0, 0], sizes = [%tokens, 8], strides = [1, 1]
    : tensor<?x8xf16> -> !iree_tensor_ext.dispatch.tensor<writeonly:tensor<?x8xf16>>{%tokens}
  return
}
"""
CACHE = """
%columns = hal.buffer_view.dim<%arg0 : !hal.buffer_view>[1] : index
%t2 = hal.tensor.import %arg0 "table" : !hal.buffer_view -> tensor<1x?xi32>{%columns}
%pages = hal.buffer_view.dim<%arg1 : !hal.buffer_view>[0] : index
%pool = hal.tensor.import %arg1 "pool" : !hal.buffer_view -> tensor<?x2x16x8xf16>{%pages}
%t = flow.tensor.reshape %t2 : tensor<1x?xi32>{%columns} -> tensor<?xi32>{%columns}
%c16 = arith.constant 16 : index
%plain = arith.muli %columns, %c16 : index
%tokens = util.optimization_barrier %plain : index
"""


def test_gathered_keys_cost_what_the_context_needs_however_large_the_pool() -> None:
    facts = program(
        executable("gather", GATHER, "%a: index, %b: index, %c: index"),
        CACHE
        + """%1 = flow.dispatch @gather::@gather_export[%columns, %pages, %tokens](%t, %pool, %columns, %pages, %tokens)
          : (tensor<?xi32>{%columns}, tensor<?x2x16x8xf16>{%pages}, index, index, index) -> tensor<?x8xf16>{%tokens}""",
        inputs=2,
    )
    (group,) = facts["groups"]
    assert (group["kind"], group["op"], group["layers"]) == ("gather", "attention", [0])
    # A page: 16 rows of 8 read, the same written, and one entry of the table.
    assert group["bytes"] == {"constant": 0, "per_page": 2 * 16 * 8 * 2 + 4}
    assert group["habits"] == ["cache-gather"]
    assert "unknown" not in group


def test_attention_counts_both_products() -> None:
    body = """
%scale = arith.constant 1.0 : f32
%empty = tensor.empty() : tensor<4x2x8xf32>
%out = iree_linalg_ext.attention <
    indexing_maps = [affine_map<(b, m, n, k, l) -> (b, m, k)>, affine_map<(b, m, n, k, l) -> (b, l, k)>,
      affine_map<(b, m, n, k, l) -> (b, l, n)>, affine_map<(b, m, n, k, l) -> ()>,
      affine_map<(b, m, n, k, l) -> (b, m, n)>]>
    ins(%0, %1, %2, %scale : tensor<4x2x16xf16>, tensor<4x64x16xf16>, tensor<4x64x8xf16>, f32)
    outs(%empty : tensor<4x2x8xf32>) {
  ^bb0(%s: f32):
    iree_linalg_ext.yield %s : f32
} -> tensor<4x2x8xf32>
"""
    kinds = ["tensor<4x2x16xf16>", "tensor<4x64x16xf16>", "tensor<4x64x8xf16>"]
    facts = program(
        function("attend", kinds, "tensor<4x2x8xf32>", body),
        "".join(receive(f"i{i}", i, kind) for i, kind in enumerate(kinds))
        + f"%r = flow.dispatch @attend::@attend_export(%i0, %i1, %i2) : ({', '.join(kinds)}) -> tensor<4x2x8xf32>",
        inputs=3,
    )
    (group,) = facts["groups"]
    assert group["kind"] == "attention"
    assert group["flops"] == {"constant": 2 * 4 * 2 * 64 * 16 + 2 * 4 * 2 * 64 * 8}
    assert group["contractions"][0]["sizes"] == {"batch": "4", "m": "2", "n": "8", "k": "64"}


def test_an_upcast_and_a_mask_of_their_own_are_noticed() -> None:
    upcast = """
%empty = tensor.empty() : tensor<8x32xf32>
%out = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel"]}
    ins(%0 : tensor<8x32xf16>) outs(%empty : tensor<8x32xf32>) {
^bb0(%a: f16, %c: f32):
  %5 = arith.extf %a : f16 to f32
  linalg.yield %5 : f32
} -> tensor<8x32xf32>
"""
    mask = """
%no = arith.constant -1.0e4 : f32
%yes = arith.constant 0.0 : f32
%empty = tensor.empty() : tensor<8x32xf32>
%out = linalg.generic {indexing_maps = [#row, #all], iterator_types = ["parallel", "parallel"]}
    ins(%0 : tensor<8xi64>) outs(%empty : tensor<8x32xf32>) {
^bb0(%a: i64, %c: f32):
  %j = linalg.index 1 : index
  %j64 = arith.index_cast %j : index to i64
  %5 = arith.cmpi sle, %j64, %a : i64
  %6 = arith.select %5, %yes, %no : f32
  linalg.yield %6 : f32
} -> tensor<8x32xf32>
"""
    facts = program(
        function("widen", ["tensor<8x32xf16>"], "tensor<8x32xf32>", upcast)
        + function("mask", ["tensor<8xi64>"], "tensor<8x32xf32>", mask),
        receive("x", 0, "tensor<8x32xf16>")
        + receive("p", 1, "tensor<8xi64>")
        + "%1 = flow.dispatch @widen::@widen_export(%x) : (tensor<8x32xf16>) -> tensor<8x32xf32>\n"
        + "%2 = flow.dispatch @mask::@mask_export(%p) : (tensor<8xi64>) -> tensor<8x32xf32>",
        inputs=2,
    )
    assert [group["habits"] for group in facts["groups"]] == [["upcast f16 to f32"], ["mask"]]


def test_a_convolution_is_told_to_be_unknown_not_free() -> None:
    body = """
%empty = tensor.empty() : tensor<1x6x4xf32>
%out = linalg.conv_1d_nwc_wcf ins(%0, %1 : tensor<1x8x2xf32>, tensor<3x2x4xf32>) outs(%empty : tensor<1x6x4xf32>)
  -> tensor<1x6x4xf32>
"""
    kinds = ["tensor<1x8x2xf32>", "tensor<3x2x4xf32>"]
    facts = program(
        function("conv", kinds, "tensor<1x6x4xf32>", body),
        "".join(receive(f"i{i}", i, kind) for i, kind in enumerate(kinds))
        + f"%r = flow.dispatch @conv::@conv_export(%i0, %i1) : ({', '.join(kinds)}) -> tensor<1x6x4xf32>",
        inputs=2,
    )
    assert facts["groups"][0]["unknown"] == ["linalg.conv_1d_nwc_wcf: the arithmetic of linalg.conv_1d_nwc_wcf"]


EMBEDDED = """
hal.executable.source private @ours attributes {amdnfs.facts = {op = "paged_attention", tiling = "KEYS=64",
    kernel = {matrix_instructions = 8 : i64, loads = {dwordx4 = 2 : i64}}}} {
  hal.executable.export public @paged_attention ordinal(0) layout(#hal.pipeline.layout<constants = 3, bindings = [
      #hal.pipeline.binding<storage_buffer>]>) count(%device: !hal.device) -> (index, index, index) {
    %c1 = arith.constant 1 : index
    hal.return %c1, %c1, %c1 : index, index, index
  } <workgroup_size = [64 : index, 1 : index, 1 : index]>
}
"""


@pytest.mark.parametrize(
    ("cost", "flops", "moved", "unknown"),
    [
        (
            "{amdnfs.cost = {flops = [16, 64], bytes = [8, 4]}}",
            {"constant": 16, "per_context_token": 64},
            {"constant": 8, "per_context_token": 4},
            None,
        ),
        (
            "",
            {"constant": 0},
            {"constant": 0},
            ["kernel paged_attention: its maker noted no bytes", "kernel paged_attention: its maker noted no flops"],
        ),
    ],
)
def test_kernels_of_ours_cost_what_their_maker_noted(
    cost: str, flops: dict[str, int], moved: dict[str, int], unknown: list[str] | None
) -> None:
    dispatch = f"%1 = flow.dispatch @ours::@paged_attention(%x) {cost} : (tensor<2x32xf16>) -> tensor<2x32xf16>"
    facts = program(EMBEDDED, receive("x", 0, "tensor<2x32xf16>") + dispatch)
    (group,) = facts["groups"]
    assert (group["export"], group["kind"]) == ("ours::paged_attention", "attention")
    assert (group["flops"], group["bytes"], group.get("unknown")) == (flops, moved, unknown)


def test_copies_between_dispatches_are_listed_apart() -> None:
    facts = program(
        "",
        receive("x", 0, "tensor<2x32xf16>")
        + "%c0 = arith.constant 0 : index\n%e = flow.tensor.empty : tensor<4x32xf16>\n"
        + "%u = flow.tensor.update %x, %e[%c0, %c0] : tensor<2x32xf16> -> %e as tensor<4x32xf16>",
    )
    assert facts["copies"] == [{"operation": "flow.tensor.update", "count": 1, "bytes": {"constant": 2 * 2 * 32 * 2}}]
    assert facts["groups"] == []


def test_sizes_are_linear_forms_and_refuse_to_be_more() -> None:
    tokens = PAGE.times(16)
    assert (tokens + number(3)).as_json() == {"constant": 3, "per_page": 16}
    assert product([tokens, number(4), number(2)]).describe() == "128*pages"
    assert smaller(POOL_PAGE, tokens) == tokens
    assert smaller(number(1000), tokens) == number(1000)
    with pytest.raises(UnknownSizeError, match="two sizes that both depend on the context"):
        product([tokens, tokens])
    with pytest.raises(UnknownSizeError, match="pages of a pool"):
        POOL_PAGE.as_json()


def evidence(*weights: str, layer: int | None = None, kind: str = "elementwise", context: bool = False) -> Evidence:
    return Evidence(weights=weights, cache_layer=layer, kind=kind, has_context_sizes=context)


def test_a_dispatch_without_weights_belongs_to_its_neighbours() -> None:
    found = locate(
        [
            evidence("model.embed_tokens.weight", kind="gather"),
            evidence(),
            evidence("model.layers.0.self_attn.q_proj.weight", kind="matmul"),
            evidence(layer=0, kind="scatter"),
            evidence(layer=0, kind="attention"),
            evidence(kind="reduction"),
            evidence("model.layers.0.self_attn.o_proj.weight", kind="matmul"),
            evidence(),
            evidence("model.layers.1.self_attn.q_proj.weight", kind="matmul"),
            evidence(context=True, kind="matmul"),
            evidence(),
            evidence("model.norm.weight", kind="reduction"),
            evidence("model.embed_tokens.weight", kind="matmul"),
            evidence(kind="reduction"),
        ]
    )
    assert [(item.part, item.layer, item.operation) for item in found] == [
        ("head", None, "model.embed_tokens"),
        ("head", None, "elementwise"),
        ("layer", 0, "self_attn.q_proj"),
        ("layer", 0, "kv_write"),
        ("layer", 0, "attention"),
        ("layer", 0, "attention"),
        ("layer", 0, "self_attn.o_proj"),
        ("layer", 0, "elementwise"),
        ("layer", 1, "self_attn.q_proj"),
        ("layer", 1, "attention"),
        ("layer", 1, "attention"),
        ("tail", None, "model.norm"),
        ("tail", None, "model.embed_tokens"),
        ("tail", None, "reduction"),
    ]


@pytest.mark.parametrize("kind", ["int4", "int8", "fp8"])
def test_the_tensors_of_a_quantised_weight_have_one_name(kind: str) -> None:
    layers = [f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk"]
    names = [f"{layer}.{end}" for layer in layers for end in (kind, "scales", "scales_fnuz", "zeros")]
    (found,) = locate([evidence(*names, "model.layers.0.input_layernorm.weight", kind="matmul")])
    assert found.operation == "self_attn.q_proj+k_proj+input_layernorm"


def test_a_weight_that_iree_has_made_something_of_keeps_its_name() -> None:
    init = """
util.global private @hoisted : tensor<8x32xf16>
util.initializer {
  %w = util.global.load immutable @w : tensor<8x32xf16>
  %1 = flow.tensor.clone %w : tensor<8x32xf16>
  util.global.store %1, @hoisted : tensor<8x32xf16>
  util.return
}
"""
    facts = program(
        function("linear", ["tensor<2x32xf16>", "tensor<8x32xf16>"], "tensor<2x8xf32>", LINEAR),
        receive("x", 0, "tensor<2x32xf16>")
        + load("hoisted", "tensor<8x32xf16>").replace("immutable ", "")
        + "%1 = flow.dispatch @linear::@linear_export(%x, %hoisted) : (tensor<2x32xf16>, tensor<8x32xf16>) -> "
        "tensor<2x8xf32>",
        head=weight("w", "model.layers.3.mlp.up_proj.weight", "tensor<8x32xf16>") + init,
    )
    assert facts["groups"][0]["op"] == "mlp.up_proj"
    assert facts["groups"][0]["layers"] == [3]
    assert facts["weight_bytes"] == {"constant": 8 * 32 * 2}

"""Lower `amdnfs.paged_attention` to explicit batched products over gathered pages.

    query      [batch, heads, tokens, head_dim]
    pool       [num_pages, 2, page_tokens, kv_heads, head_dim]   0 = K, 1 = V
    table      [batch, pages]     start [batch]     num_valid [batch]
    sinks      [heads] or none    one logit a head that takes part in the softmax and has no value
    slopes     [heads] or none    f32; how much a score falls with each token of distance (ALiBi)
    result     [batch, tokens, heads, head_dim]

    score(t, s) = softcap(scale * q_t . k_s) - slope * (start + t - s)
                  for s <= start + t and s > start + t - window, else minus infinity

A pool of `si8` holds fp8 numbers, see `kvcache/fp8_bits.py`. The operands come in this order; scale, window (0 is none) and softcap (0 is none) follow as constants. Models that add
slope * s, the position of the key alone, mean the same: both biases differ by slope * (start + t), which is one number
for all keys of a query and cancels in the softmax. The distance is small where the weight is not, so it loses less.

Query heads that share a KV head are rows of one product (K and V are never expanded). Scores, maximum and sum are in
f32; probabilities are rounded to the storage type before the second product, as transformers does. V rows past the
live context are read as zero, so that a stale NaN in a reused page cannot reach the result through a weight of zero.

Before::

    func.func @f(%q: !torch.vtensor<[1,4,16,16],f16>, %pool: !torch.vtensor<[?,2,16,2,16],f16>, %table: !torch.vtensor<[1,?],si32>, %start: !torch.vtensor<[1],si64>, %valid: !torch.vtensor<[1],si64>) -> !torch.vtensor<[1,16,4,16],f16> {
      %sinks = torch.constant.none
      %slopes = torch.constant.none
      %scale = torch.constant.float 2.500000e-01
      %window = torch.constant.int 0
      %softcap = torch.constant.float 0.000000e+00
      %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %sinks, %slopes, %scale, %window, %softcap) : (!torch.vtensor<[1,4,16,16],f16>, !torch.vtensor<[?,2,16,2,16],f16>, !torch.vtensor<[1,?],si32>, !torch.vtensor<[1],si64>, !torch.vtensor<[1],si64>, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !torch.vtensor<[1,16,4,16],f16>
      return %0 : !torch.vtensor<[1,16,4,16],f16>
    }

After (the call; the called function holds the gathers, two contractions and the softmax between them)::

    func.call @amdnfs.paged_attention.b1.h4.t16.kv2.d16.p16.f16...

Leaves alone: query heads that are not a multiple of the KV heads, a pool, sinks or slopes of another type (all
refused).
Source: Vaswani et al. 2017 (arXiv 1706.03762) eq. 1; softcap: Gemma 2 report (arXiv 2408.00118) section 2; sinks:
transformers `models/gpt_oss/modeling_gpt_oss.py`, `eager_attention_forward`; slopes: Press et al. 2021 (arXiv
2108.12409) section 3.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.target import Fp8Format

from amdnfs_passes.attention import paged_attention_template as template
from amdnfs_passes.attention.paged_attention import PagedAttention, hex_f32
from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, Operation, constant_float, constant_int, is_none, operator_name, walk
from amdnfs_passes.kvcache.fp8_bits import POOL_ELEMENT, decode_text
from amdnfs_passes.templates import TensorType, call_function, tensor_type
from amdnfs_passes.vectors.attention import vector_attention
from amdnfs_passes.vectors.attention_form import VectorAttention, match_vectors
from amdnfs_passes.vectors.product import Vectors

_NO_WINDOW = 1 << 62


@dataclass(frozen=True, kw_only=True)
class LowerPagedAttentionPass(ModulePass):
    """Replaces `amdnfs.paged_attention` by gathers, two contractions and a softmax."""

    split_softmax: bool = False
    """Keep the maximum and the sum in dispatches of their own. IREE 3.13.0 fuses them otherwise, and for a GPU whose
    wave size it does not know it then asks for shared memory in proportion to the context."""
    fp8: str = "f8E4M3FN"
    """Format of pools of bytes: `f8E4M3FN` or `f8E4M3FNUZ`."""
    vector_lanes: int = 0
    """How many f32 a vector register holds, to write attention in vectors (`vectors/attention.py`); 0 for products. A
    cache of fp8 stays products, and so do heads whose scratch the stack does not hold or sizes that fill no tile."""
    vector_registers: int = 0
    """How many vector registers there are; with `vector_lanes` only."""
    bf16_pairs: bool = False
    """Whether the processor adds products of pairs of bf16; with `vector_lanes` only."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if operator_name(op) != "torch.amdnfs.paged_attention":
                continue
            attention = match_paged_attention(op)
            if isinstance(attention, str):
                self.refuse(refusals, op, attention)
                continue
            operands = list(op.operands)[:5] + ([op.operands[5]] if attention.has_sinks else [])
            operands += [op.operands[6]] if attention.has_slopes else []
            form = self._match_vectors(attention)
            if isinstance(form, str):  # lowered all the same, but over gathered pages
                self.refuse(refusals, op, form)
            name = attention.function_name
            if isinstance(form, VectorAttention):
                text = vector_attention(name, form)
            else:
                text = _function_text(attention, self)
            call_function(module, op, name, text, operands)
            rewrites += 1
        return rewrites

    def _match_vectors(self, attention: PagedAttention) -> VectorAttention | str | None:
        """The form in vectors, or why there is none; None where none is asked for."""
        if not self.vector_lanes:
            return None
        vectors = Vectors(lanes=self.vector_lanes, registers=self.vector_registers, has_bf16_pairs=self.bf16_pairs)
        return match_vectors(attention, vectors)


def match_paged_attention(op: Operation) -> PagedAttention | str:
    """The facts of an `amdnfs.paged_attention`, or why it cannot be lowered."""
    query, pool = tensor_type(op.operands[0]), tensor_type(op.operands[1])
    scale, window, softcap = (
        constant_float(op.operands[7]),
        constant_int(op.operands[8]),
        constant_float(op.operands[9]),
    )
    if query is None or pool is None or not query.is_static or len(query.shape) != 4:
        return "the query must have a static shape [batch, heads, tokens, head_dim]"
    if scale is None or window is None or softcap is None:
        return "scale, window and softcap must be constants"
    if (
        len(pool.shape) != 5
        or pool.shape[:2] != (None, 2)
        or pool.element
        not in (
            query.element,
            POOL_ELEMENT,
        )
    ):
        return "the pool must be [?, 2, page_tokens, kv_heads, head_dim] with the element type of the query"
    batch, heads, tokens, head_dim = query.sizes
    _, _, page_tokens, kv_heads, pool_dim = pool.shape
    if kv_heads is None or page_tokens is None:
        return "the sizes of a page must be static"
    if heads % kv_heads:
        return f"{heads} query heads are not a multiple of {kv_heads} KV heads"
    if pool_dim != head_dim:
        return f"head dims of query ({head_dim}) and pool ({pool_dim}) differ"
    has_sinks, has_slopes = (not is_none(operand) for operand in (op.operands[5], op.operands[6]))
    if has_sinks and tensor_type(op.operands[5]) != TensorType(shape=(heads,), element=query.element):
        return "the sinks must be one number a head, with the element type of the query"
    if has_slopes and tensor_type(op.operands[6]) != TensorType(shape=(heads,), element="f32"):
        return "the slopes must be one f32 number a head"
    return PagedAttention(
        batch=batch,
        heads=heads,
        tokens=tokens,
        kv_heads=kv_heads,
        head_dim=head_dim,
        page_tokens=page_tokens,
        element=query.builtin_element,
        scale=scale,
        window=window,
        softcap=softcap,
        has_sinks=has_sinks,
        has_slopes=has_slopes,
        has_bytes=pool.element != query.element,
    )


def _function_text(a: PagedAttention, options: LowerPagedAttentionPass) -> str:
    split_softmax, fp8 = options.split_softmax, Fp8Format(options.fp8)
    group = a.heads // a.kv_heads
    is_f32 = a.element == "f32"
    sizes = {
        "B": a.batch,
        "H": a.heads,
        "T": a.tokens,
        "K": a.kv_heads,
        "G": group,
        "D": a.head_dim,
        "P": a.page_tokens,
        "E": a.element,
        "S": "i8" if a.has_bytes else a.element,
        "N": a.batch * a.kv_heads,
        "M": group * a.tokens,
    }
    sinks = {
        "sink": "%stored" if is_f32 else "%wide",
        "sink_op": "" if is_f32 else f"    %wide = arith.extf %stored : {a.element} to f32",
    }
    return template.FUNCTION.format(
        name=a.function_name,
        scale=f"0x{hex_f32(a.scale)}",
        window=a.window or _NO_WINDOW,
        sink_argument=f", %sinks: tensor<{a.heads}x{a.element}>" if a.has_sinks else "",
        cap=template.CAP.format(cap=f"0x{hex_f32(a.softcap)}") if a.softcap else template.NO_CAP,
        barrier=template.BARRIER.format(**sizes) if split_softmax else "",
        max="%max_stored" if split_softmax else "%max",
        slope_argument=f", %slopes: tensor<{a.heads}xf32>" if a.has_slopes else "",
        bias=template.SLOPES.format(**sizes) if a.has_slopes else "",
        biased="%biased" if a.has_slopes else "%capped",
        raw="_raw" if a.has_sinks else "",
        sink_max=template.SINK_MAX.format(**sizes, **sinks) if a.has_sinks else "",
        sink_sum=template.SINK_SUM.format(**sizes, **sinks) if a.has_sinks else "",
        key="%k8" if a.has_bytes else "%k",
        widen_key=decode_text("%k8", a.element, "%k", fp8) if a.has_bytes else "",
        value="%v8" if a.has_bytes else "%v",
        widen_value=decode_text("%v8", a.element, "%v", fp8) if a.has_bytes else "",
        round="%e" if is_f32 else "%rounded",
        round_op="" if is_f32 else f"    %rounded = arith.truncf %e : f32 to {a.element}",
        **sizes,
    )

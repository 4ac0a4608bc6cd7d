"""Lower `amdnfs.attention` to two contractions and the softmax between them.

    query      [batch, heads, tokens, dim]
    key        [batch, kv_heads, keys, dim]
    value      [batch, kv_heads, keys, value_dim]
    mask       i1, or none; a key is seen where it is true     each axis has the size of
    bias       f32, or none; added to the score                [batch, heads, tokens, keys], or 1
    slopes     [heads] f32, or none; how much a score falls with each token of distance (ALiBi)
    result     [batch, tokens, heads, value_dim]

    score(t, s) = softcap(scale * q_t . k_s) + bias(t, s) - slope * (t - s)
                  for mask(t, s) and, if causal, s <= t; else minus infinity

The operands come in this order; scale, softcap (0 is none) and causal follow as constants. Query heads that share a
key head stand next to each other. Scores and sums are in f32; weights are rounded to the storage type before the second
contraction. A query that sees no key gets the mean of all values. Batch, tokens and keys may be dynamic.

This is attention over tensors, as exported graphs hold it. Attention over a paged cache is `amdnfs.paged_attention`.

Before::

    func.func @f(%q: !torch.vtensor<[1,4,6,8],f32>, %k: !torch.vtensor<[1,2,?,8],f32>, %v: !torch.vtensor<[1,2,?,8],f32>) -> !torch.vtensor<[1,6,4,8],f32> {
      %none = torch.constant.none
      %scale = torch.constant.float 5.000000e-01
      %softcap = torch.constant.float 0.000000e+00
      %causal = torch.constant.bool false
      %0 = torch.operator "torch.amdnfs.attention"(%q, %k, %v, %none, %none, %none, %scale, %softcap, %causal) : (!torch.vtensor<[1,4,6,8],f32>, !torch.vtensor<[1,2,?,8],f32>, !torch.vtensor<[1,2,?,8],f32>, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !torch.vtensor<[1,6,4,8],f32>
      return %0 : !torch.vtensor<[1,6,4,8],f32>
    }

After (the call; the called function holds two contractions and the softmax between them)::

    func.call @amdnfs.attention.q1x4x6x8.k1x2xDx8.v1x2xDx8.f32.scale3F000000

Leaves alone: shapes that do not fit each other, heads that are not a multiple of the key heads, a mask, bias or slopes
of another type (all refused).
Source: Vaswani et al. 2017 (arXiv 1706.03762) eq. 1; Press et al. 2021 (arXiv 2108.12409) section 3.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.attention import attention_template as template
from amdnfs_passes.attention.paged_attention import hex_f32
from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, Operation, constant_bool, constant_float, is_none, operator_name, walk
from amdnfs_passes.templates import TensorType, call_function, tensor_type

_OPTIONAL = ("mask", "bias", "slopes")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attention:
    """One attention with all its static facts."""

    query: TensorType
    key: TensorType
    value: TensorType
    optional: dict[str, TensorType]
    """Types of the optional operands that are there, by name."""
    scale: float
    softcap: float
    is_causal: bool

    @property
    def function_name(self) -> str:
        kinds = {"q": self.query, "k": self.key, "v": self.value}
        parts = [f"{name}{_label(kind)}" for name, kind in kinds.items()]
        parts += [self.query.builtin_element, f"scale{hex_f32(self.scale)}"]
        parts += [f"cap{hex_f32(self.softcap)}"] if self.softcap else []
        parts += [f"{name}{_label(kind)}" for name, kind in self.optional.items()]
        return "amdnfs.attention." + ".".join(parts) + (".causal" if self.is_causal else "")


@dataclass(frozen=True, kw_only=True)
class LowerAttentionPass(ModulePass):
    """Replaces `amdnfs.attention` by two contractions and a softmax."""

    split_softmax: bool = False
    """Keep the maximum and the sum in dispatches of their own; see `lower-paged-attention`."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if operator_name(op) != "torch.amdnfs.attention":
                continue
            attention = _match(op)
            if isinstance(attention, str):
                self.refuse(refusals, op, attention)
                continue
            operands = [operand for operand in list(op.operands)[:6] if not is_none(operand)]
            call_function(module, op, attention.function_name, _function_text(attention, self.split_softmax), operands)
            rewrites += 1
        return rewrites


def _match(op: Operation) -> _Attention | str:
    query, key, value = (tensor_type(operand) for operand in list(op.operands)[:3])
    result = tensor_type(op.result)
    scale, softcap = constant_float(op.operands[6]), constant_float(op.operands[7])
    is_causal = constant_bool(op.operands[8])
    if scale is None or softcap is None or is_causal is None:
        return "scale, softcap and causal must be constants"
    if query is None or key is None or value is None or {len(kind.shape) for kind in (query, key, value)} != {4}:
        return "queries, keys and values must have four axes"
    batch, heads, tokens, dim = query.shape
    _, kv_heads, keys, value_dim = value.shape
    if heads is None or kv_heads is None or dim is None or value_dim is None:
        return "heads and their dims must be static"
    kinds = {query.element, key.element, value.element}
    if key.shape != (batch, kv_heads, keys, dim) or value.shape[0] != batch or len(kinds) > 1:
        return "keys and values must fit the queries, and be of their element type"
    if result is None or result.shape != (batch, tokens, heads, value_dim) or result.element != query.element:
        return "the result must be [batch, tokens, heads, value_dim] in the element type of the queries"
    if heads % kv_heads:
        return f"{heads} query heads are not a multiple of {kv_heads} key heads"
    optional = {}
    for name, operand in zip(_OPTIONAL, list(op.operands)[3:6], strict=True):
        if is_none(operand):
            continue
        kind = tensor_type(operand)
        if kind is None or not _fits(kind, name, (batch, heads, tokens, keys)):
            return f"the {name} must be {'i1' if name == 'mask' else 'f32'} and fit the scores"
        optional[name] = kind
    return _Attention(
        query=query, key=key, value=value, optional=optional, scale=scale, softcap=softcap, is_causal=is_causal
    )


def _fits(kind: TensorType, name: str, grid: tuple[int | None, ...]) -> bool:
    if kind.element != ("i1" if name == "mask" else "f32"):
        return False
    if name == "slopes":
        return kind.shape == (grid[1],)
    return len(kind.shape) == 4 and all(size in (1, own) for size, own in zip(kind.shape, grid, strict=True))


def _function_text(a: _Attention, split_softmax: bool) -> str:
    letters = dict(zip(("B", "H", "T", "D"), a.query.shape, strict=True))
    _, letters["K"], letters["S"], letters["V"] = a.value.shape
    heads, kv_heads = letters["H"], letters["K"]
    assert heads is not None
    assert kv_heads is not None
    sizes = {name: "?" if size is None else str(size) for name, size in letters.items()}
    sizes |= {"G": str(heads // kv_heads), "E": a.query.builtin_element}
    dynamic = [f"%{name.lower()}" for name in "BTS" if letters[name] is None]
    is_f32 = a.query.element == "f32"
    return template.FUNCTION.format(
        name=a.function_name,
        arguments="".join(f", %{name}: {kind.builtin}" for name, kind in a.optional.items()),
        b="%b" if letters["B"] is None else sizes["B"],
        t="%t" if letters["T"] is None else sizes["T"],
        bt=", ".join(name for name in dynamic if name != "%s"),
        bts=", ".join(dynamic),
        scale=f"0x{hex_f32(a.scale)}",
        widen_products="" if is_f32 else template.WIDEN_PRODUCTS.format(**sizes),
        x="%x" if is_f32 else "%xw",
        y="%y" if is_f32 else "%yw",
        **_score_texts(a, sizes),
        barrier=template.BARRIER.format(**sizes) if split_softmax else "",
        max="%max_stored" if split_softmax else "%max",
        round="%e" if is_f32 else "%rounded",
        round_op="" if is_f32 else f"    %rounded = arith.truncf %e : f32 to {sizes['E']}",
        **sizes,
    )


def _score_texts(a: _Attention, sizes: dict[str, str]) -> dict[str, str]:
    """The stages of a score, each of which reads what the one before it made."""
    texts = dict.fromkeys(("cap", "bias", "slopes", "mask", "causal"), "")
    score = "%x"
    if a.softcap:
        texts["cap"], score = template.CAP.format(cap=f"0x{hex_f32(a.softcap)}"), "%capped"
    for name, text, made in (
        ("bias", template.BIAS, "%biased"),
        ("slopes", template.SLOPES, "%sloped"),
        ("mask", template.MASK, "%masked"),
    ):
        if name in a.optional:
            kind = a.optional[name]
            indices = [("%c0" if size == 1 else at) for size, at in zip(kind.shape, _INDICES, strict=False)]
            texts[name] = text.format(score=score, at=", ".join(indices), type=kind.builtin, **sizes)
            score = made
    if a.is_causal:
        texts["causal"], score = template.CAUSAL.format(score=score), "%past"
    return {**texts, "score": score}


_INDICES = ("%ib", "%ih", "%it", "%is")


def _label(kind: TensorType) -> str:
    return "x".join("D" if size is None else str(size) for size in kind.shape)

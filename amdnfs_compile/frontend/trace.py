"""Traces one call shape (a prefill chunk or a decode batch) of a model into a flat graph."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from amdnfs_runtime.errors import ModelError

from amdnfs_compile.frontend.attention import LayerCache, PagedCall, session
from amdnfs_compile.frontend.cached_attention import CachedCall
from amdnfs_compile.frontend.positions import check_positions, context_limit, replace_bounded_maxima

_EXAMPLE_PAGES = 7
_EXAMPLE_TABLE = 5
_DECOMPOSITIONS = {torch.ops.aten.concat.default: torch.ops.aten.cat.default}
"""Other names of operations, which the importer does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallShape:
    """One entry point: `batch` requests with `tokens` new tokens each."""

    batch: int
    """Number of requests in a call."""
    tokens: int
    """Number of new tokens a request; 1 is a decode step."""
    is_verify: bool = False
    """Whether what follows each of the tokens is wanted, not only the last: checks guessed tokens."""

    @property
    def name(self) -> str:
        """Name of the entry point.

        >>> CallShape(batch=1, tokens=16).name, CallShape(batch=4, tokens=1).name
        ('prefill_16', 'decode_4')
        >>> CallShape(batch=4, tokens=5, is_verify=True).name
        'verify_4x5'
        """
        if self.is_verify:
            return f"verify_{self.batch}x{self.tokens}"
        return f"{self.kind}_{self.batch if self.tokens == 1 else self.tokens}"

    @property
    def kind(self) -> str:
        """What the entry point is for: `prefill`, `decode` or `verify`."""
        if self.is_verify:
            return "verify"
        return "decode" if self.tokens == 1 else "prefill"


class _Step(torch.nn.Module):
    """The traced function: one step of a model over its paged cache.

    tokens [batch, tokens] int64, start [batch] int64, num_valid [batch] int64, table [batch, pages] int32 and one pool
    a layer go in; the greedy token [batch] int64, the logits [batch, vocab] f32 of the last valid token, and the pools
    come out. A verify step gives both for all tokens: [batch, tokens] and [batch, tokens, vocab].
    """

    def __init__(
        self, model: torch.nn.Module, caches: dict[int, LayerCache], has_own_attention: bool, is_verify: bool
    ) -> None:
        super().__init__()
        self._is_verify = is_verify
        self.model = model
        self._caches = caches
        self._has_own_attention = has_own_attention

    def forward(
        self,
        tokens: torch.Tensor,
        start: torch.Tensor,
        num_valid: torch.Tensor,
        table: torch.Tensor,
        pools: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        """See the class docstring."""
        call: PagedCall | CachedCall
        if self._has_own_attention:
            call = CachedCall(pools=list(pools), table=table, start=start, num_valid=num_valid)
            options = {"use_cache": True, "past_key_values": call}
        else:
            call = PagedCall(caches=self._caches, pools=list(pools), table=table, start=start, num_valid=num_valid)
            options = {"use_cache": False}
        num_tokens = tokens.shape[1]
        positions = start[:, None] + torch.arange(num_tokens)[None]
        # The last valid row is chosen before the output projection: a chunk costs one row of it, not `tokens` rows.
        keep = 0 if self._is_verify else 1 if num_tokens == 1 else num_valid - 1
        with session(call):
            output = self.model(input_ids=tokens, position_ids=positions, logits_to_keep=keep, **options)
        logits = (output.logits if self._is_verify else output.logits[:, -1]).float()
        return (torch.argmax(logits, -1), logits, *call.pools)


def trace_call(
    model: torch.nn.Module,
    caches: tuple[LayerCache, ...],
    shape: CallShape,
    page_tokens: int,
    has_own_attention: bool = False,
    cache_dtype: torch.dtype | None = None,
) -> torch.export.ExportedProgram:
    """Traces `model` for one call shape; sizes are static but the pool's and the page table's.

    Pools are of `cache_dtype`, by default of the model's type.

    Raises:
        ModelError: If the model's code cannot be traced, or does not take its positions from the call.
    """
    pools = [
        torch.zeros(_EXAMPLE_PAGES, 2, page_tokens, cache.kv_heads, cache.head_dim, dtype=cache_dtype or model.dtype)
        for cache in caches
    ]
    example = (
        torch.zeros(shape.batch, shape.tokens, dtype=torch.int64),
        torch.zeros(shape.batch, dtype=torch.int64),
        torch.ones(shape.batch, dtype=torch.int64),
        torch.ones(shape.batch, _example_columns(model, page_tokens), dtype=torch.int32),
        pools,
    )
    dynamic = torch.export.Dim.AUTO
    step = _Step(model, dict(enumerate(caches)), has_own_attention, shape.is_verify)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                step, example, dynamic_shapes=({}, {}, {}, {1: dynamic}, [{0: dynamic} for _ in pools]), strict=False
            )
            program = program.run_decompositions(_DECOMPOSITIONS)
            replace_bounded_maxima(program)
            check_positions(program)
            return program
    except ModelError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{shape.name}: the model's code cannot be traced: {first}") from error


def _example_columns(model: torch.nn.Module, page_tokens: int) -> int:
    """Width of the example's page table: some models slice a bias of the length of the context to that of the keys.

    One page would be taken for a constant.
    """
    context = context_limit(model.config.get_text_config()) or _EXAMPLE_TABLE * page_tokens
    return max(2, min(_EXAMPLE_TABLE, context // page_tokens))

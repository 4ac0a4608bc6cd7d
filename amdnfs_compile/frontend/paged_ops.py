"""The custom torch ops that stand for paged attention while a model is traced.

The ops are functional (the pool goes in and the new pool comes out), so that `torch.export` needs no mutation support,
and they have no implementation: they exist to be traced, imported and lowered by `lower-paged-attention`,
`lower-kv-write` and `lower-kv-gather`, whose docstrings define what they mean.
"""

from __future__ import annotations

import torch

_LIBRARY = torch.library.Library("amdnfs", "DEF")
_LIBRARY.define(
    "paged_attention(Tensor query, Tensor pool, Tensor table, Tensor start, Tensor num_valid, Tensor? sinks,"
    " Tensor? slopes, float scale, int window, float softcap) -> Tensor"
)
_LIBRARY.define(
    "kv_write(Tensor pool, Tensor key, Tensor value, Tensor table, Tensor start, Tensor num_valid) -> Tensor"
)
_LIBRARY.define("kv_gather(Tensor pool, Tensor table, Tensor start, Tensor num_valid, int which) -> Tensor")


@torch.library.register_fake("amdnfs::paged_attention")
def _paged_attention_shape(
    query: torch.Tensor,
    pool: torch.Tensor,
    table: torch.Tensor,
    start: torch.Tensor,
    num_valid: torch.Tensor,
    sinks: torch.Tensor | None,
    slopes: torch.Tensor | None,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    batch, heads, tokens, head_dim = query.shape
    return query.new_empty(batch, tokens, heads, head_dim)


@torch.library.register_fake("amdnfs::kv_write")
def _kv_write_shape(
    pool: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    table: torch.Tensor,
    start: torch.Tensor,
    num_valid: torch.Tensor,
) -> torch.Tensor:
    return torch.empty_like(pool)


@torch.library.register_fake("amdnfs::kv_gather")
def _kv_gather_shape(
    pool: torch.Tensor, table: torch.Tensor, start: torch.Tensor, num_valid: torch.Tensor, which: int
) -> torch.Tensor:
    _, _, page_tokens, kv_heads, head_dim = pool.shape
    return pool.new_empty(table.shape[0], kv_heads, table.shape[1] * page_tokens, head_dim)


paged_attention = torch.ops.amdnfs.paged_attention.default
"""`[batch, heads, tokens, dim]` queries against a pool; gives `[batch, tokens, heads, dim]`."""

kv_write = torch.ops.amdnfs.kv_write.default
"""A pool with the keys and values `[batch, kv_heads, tokens, dim]` of this call written into it."""

kv_gather = torch.ops.amdnfs.kv_gather.default
"""The keys (`which` 0) or values (1) of all positions that the table covers, `[batch, kv_heads, keys, dim]`."""

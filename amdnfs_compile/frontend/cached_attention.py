"""How a model with attention code of its own reaches our paged cache: through the cache that transformers hands it.

Such a model (bloom, mpt, gptj, ...) does not call the attention function that is named in its configuration, but it
still asks its cache for the keys and values of all tokens so far. Ours writes the new ones into the pool and reads all
of them back as tensors, so that the model's own products and softmax are traced over them. `fuse-attention` then turns
that into `amdnfs.paged_attention`.

The keys read back are those of whole pages. Position `s` of the cache is position `s` of the request, so the mask is
causal by position, and hides what is past the live context.
"""

from __future__ import annotations

from typing import Any

import torch
from amdnfs_runtime.errors import ModelError
from transformers.cache_utils import Cache

from amdnfs_compile.frontend import paged_ops
from amdnfs_compile.frontend.attention import NAME, LayerCache, MaskRequest


def use_own_attention(model: torch.nn.Module) -> None:
    """Lets the mask function, and only it, be ours in a model that calls no attention function.

    transformers refuses `set_attn_implementation` for such models, because they never look at the name.
    """
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None:
            config._attn_implementation = NAME


class _PositionalCache(Cache):
    """What both caches tell a model about themselves: it holds nothing yet, whatever the call."""

    def __init__(self) -> None:
        self.layers: list[Any] = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The tokens before this call. A model uses it to count positions, which it is given instead."""
        return 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """No limit."""
        return -1

    def attend(self, layer: int, *_: object) -> torch.Tensor:
        """Refuses a model that calls the attention interface after all."""
        raise ModelError(f"layer {layer} calls transformers' attention interface, and other layers do not")


class CacheDiscovery(_PositionalCache):
    """Notes each layer's cache while the model runs on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.caches: dict[int, LayerCache] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Records the shapes `[batch, kv_heads, tokens, head_dim]`.

        Raises:
            ModelError: If a layer calls it twice, or keys and values differ in shape.
        """
        if layer_idx in self.caches:
            raise ModelError(f"layer {layer_idx} updates its cache twice; only one attention a layer is supported")
        if key_states.shape != value_states.shape or key_states.dim() != 4:
            raise ModelError(
                f"layer {layer_idx}: keys {list(key_states.shape)} and values {list(value_states.shape)} must have one "
                "shape [batch, kv_heads, tokens, head_dim]"
            )
        self.caches[layer_idx] = LayerCache(kv_heads=key_states.shape[1], head_dim=key_states.shape[3])
        return key_states, value_states

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Number of keys, and the position of the first."""
        return query_length, 0

    def mask(self, request: MaskRequest) -> torch.Tensor:
        """Any mask of the right shape `[batch, 1, tokens, keys]`."""
        return torch.zeros(request.batch, 1, request.tokens, request.tokens, dtype=request.dtype, device="meta")


class CachedCall(_PositionalCache):
    """Emits `kv_write` and two `kv_gather` for each layer of one traced call."""

    def __init__(
        self, *, pools: list[torch.Tensor], table: torch.Tensor, start: torch.Tensor, num_valid: torch.Tensor
    ) -> None:
        super().__init__()
        self.pools = pools
        """Each layer's pool `[num_pages, 2, page_tokens, kv_heads, head_dim]`; the new pool once its layer has run."""
        self._table = table
        self._start = start
        self._num_valid = num_valid
        self._page_tokens = pools[0].shape[2]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values of this call; gives those of all positions `[batch, kv_heads, keys, head_dim]`."""
        old, where = self.pools[layer_idx], (self._table, self._start, self._num_valid)
        pool = paged_ops.kv_write(old, key_states.to(old.dtype), value_states.to(old.dtype), *where)
        self.pools[layer_idx] = pool
        return paged_ops.kv_gather(pool, *where, 0), paged_ops.kv_gather(pool, *where, 1)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Number of keys, and the position of the first."""
        return self._table.shape[1] * self._page_tokens, 0

    def mask(self, request: MaskRequest) -> torch.Tensor:
        """The mask as models with eager attention want it: 0 where a key is seen, else the lowest number.

        Returns:
            `[batch, 1, tokens, keys]` in the type asked for.
        """
        num_keys, _ = self.get_mask_sizes(request.tokens)
        positions = self._start[:, None, None, None] + torch.arange(request.tokens)[:, None]
        requests = torch.arange(request.batch)[:, None, None, None]
        is_seen = request.function(requests, torch.zeros((), dtype=torch.int64), positions, torch.arange(num_keys))
        return torch.where(is_seen, 0.0, torch.finfo(request.dtype).min).to(request.dtype)

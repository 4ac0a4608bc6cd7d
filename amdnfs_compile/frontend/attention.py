"""How a transformers model reaches our paged attention: one attention function, one mask function, registered once.

transformers calls the attention function that is named in the model's configuration. Ours hands every call to the
*active session*: a `Discovery` that only takes notes (shapes, windows), or a `PagedCall` that emits the custom ops.
The session is held here, not passed as keyword arguments, because some models do not pass unknown arguments on.

Models with attention code of their own are not served here but in `cached_attention`, whose sessions take part in the
mask function only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from amdnfs_runtime.errors import ModelError
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from amdnfs_compile.frontend import paged_ops

NAME = "amdnfs_paged"
"""Name under which the functions are registered with transformers."""

_PROBE_DISTANCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCache:
    """What one attention layer keeps for each token."""

    kv_heads: int
    """Number of key/value heads."""
    head_dim: int
    """Size of one key and one value vector."""
    window: int = 0
    """Sliding window in tokens, the token itself included; 0 means that all earlier tokens are seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRequest:
    """What a model asks the mask function for."""

    batch: int
    """Number of requests."""
    tokens: int
    """Number of query tokens."""
    dtype: torch.dtype
    """Type that an additive mask must have."""
    function: Callable[..., torch.Tensor]
    """The model's mask: of the indices of request, head, query position and key position, whether the key is seen."""
    local_size: int | None
    """What the model says of its sliding window, in tokens."""


class _Session(Protocol):
    def mask(self, request: MaskRequest) -> object: ...

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: object,
        options: dict[str, Any],
    ) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class _Mask:
    """What the mask function returns in place of a tensor."""

    window: int


@dataclass(kw_only=True, slots=True)
class Discovery:
    """Notes each layer's cache while the model runs on the meta device."""

    caches: dict[int, LayerCache] = field(default_factory=dict)

    def mask(self, request: MaskRequest) -> object:
        """Remembers the window until `attend` is called with it."""
        return _Mask(window=_window_of(request.function, request.local_size))

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: object,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """Records the shapes; returns an uninitialised result of the right shape."""
        if layer in self.caches:
            raise ModelError(f"layer {layer} calls attention twice; only one call a layer is supported")
        if key.shape[3] != value.shape[3]:
            raise ModelError(
                f"layer {layer}: head dims of keys ({key.shape[3]}) and values ({value.shape[3]}) differ; "
                "latent attention is not supported"
            )
        window = mask.window if isinstance(mask, _Mask) else 0
        named = int(options.get("sliding_window") or 0)
        if isinstance(mask, _Mask) and named and window and named != window:
            raise ModelError(f"layer {layer}: sliding_window={named} but its mask has a window of {window}")
        self.caches[layer] = LayerCache(kv_heads=key.shape[1], head_dim=key.shape[3], window=window or named)
        batch, heads, tokens, _ = query.shape
        return query.new_empty(batch, tokens, heads, value.shape[3])


@dataclass(kw_only=True, slots=True)
class PagedCall:
    """Emits `kv_write` and `paged_attention` for one traced call."""

    caches: dict[int, LayerCache]
    """Each layer's cache, as discovered."""
    pools: list[torch.Tensor]
    """Each layer's pool `[num_pages, 2, page_tokens, kv_heads, head_dim]`; replaced by the new pool as layers run."""
    table: torch.Tensor
    """`[batch, pages]` int32."""
    start: torch.Tensor
    """`[batch]` int64."""
    num_valid: torch.Tensor
    """`[batch]` int64."""

    def mask(self, request: MaskRequest) -> object:
        """No mask: the window is known from discovery."""
        return None

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: object,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """Writes K and V into the layer's pool, then attends over the pool."""
        known = {"scaling", "dropout", "sliding_window", "softcap", "s_aux", "is_causal", "position_ids"}
        unknown = [name for name, value in options.items() if name not in known and isinstance(value, torch.Tensor)]
        if unknown:
            raise ModelError(f"layer {layer}: attention takes the unsupported tensor argument {unknown[0]!r}")
        scaling = options.get("scaling")
        pool = paged_ops.kv_write(self.pools[layer], key, value, self.table, self.start, self.num_valid)
        self.pools[layer] = pool
        return paged_ops.paged_attention(
            query,
            pool,
            self.table,
            self.start,
            self.num_valid,
            options.get("s_aux"),
            None,
            float(query.shape[3] ** -0.5 if scaling is None else scaling),
            self.caches[layer].window,
            float(options.get("softcap") or 0.0),
        )


_active: list[_Session] = []


@contextmanager
def session(active: _Session) -> Iterator[None]:
    """Makes `active` receive all attention calls inside the block."""
    _active.append(active)
    try:
        yield
    finally:
        _active.pop()


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int):
        raise ModelError(f"{type(module).__name__} has no layer_idx, so its cache cannot be told from another's")
    return _active[-1].attend(layer, query, key, value, attention_mask, options), None


def _mask(
    *,
    mask_function: Callable[..., torch.Tensor],
    batch_size: int,
    q_length: int,
    dtype: torch.dtype = torch.float32,
    local_size: int | None = None,
    **options: Any,
) -> object:
    return _active[-1].mask(
        MaskRequest(batch=batch_size, tokens=q_length, dtype=dtype, function=mask_function, local_size=local_size)
    )


def _window_of(mask_function: Callable[..., torch.Tensor], local_size: int | None) -> int:
    """Finds out which mask a mask function is by asking it about single positions.

    Raises:
        ModelError: If it is neither causal nor a causal sliding window.
    """
    window = int(local_size or 0)
    far = 2 * window + _PROBE_DISTANCE
    distances = {-far, -1, 0, 1, _PROBE_DISTANCE - 1, max(window - 1, 0), window, window + 1, far}

    def is_seen(distance: int) -> bool:
        query = torch.tensor(far)
        zero = torch.tensor(0)
        return bool(mask_function(zero, zero, query, query - distance))

    seen = {distance: is_seen(distance) for distance in distances}
    if seen == {distance: distance >= 0 for distance in distances}:
        return 0
    if window and seen == {distance: 0 <= distance < window for distance in distances}:
        return window
    raise ModelError(
        "the attention mask is neither causal nor a causal sliding window (bidirectional or chunked masks "
        "are not supported)"
    )


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _mask)

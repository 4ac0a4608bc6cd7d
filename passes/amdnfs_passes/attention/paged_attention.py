"""One paged attention with all its static facts: what every form of it starts from."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PagedAttention:
    """One attention with all its static facts."""

    batch: int
    heads: int
    tokens: int
    kv_heads: int
    head_dim: int
    page_tokens: int
    element: str
    scale: float
    window: int
    softcap: float
    has_sinks: bool
    has_slopes: bool
    has_bytes: bool = False
    """Whether the pool holds fp8 numbers, as bytes."""

    @property
    def function_name(self) -> str:
        """The function that every attention of this kind calls."""
        parts = [
            f"b{self.batch}.h{self.heads}.t{self.tokens}.kv{self.kv_heads}.d{self.head_dim}.p{self.page_tokens}",
            self.element,
            f"scale{hex_f32(self.scale)}",
        ]
        parts += [f"window{self.window}"] if self.window else []
        parts += [f"cap{hex_f32(self.softcap)}"] if self.softcap else []
        parts += ["sinks"] if self.has_sinks else []
        parts += ["slopes"] if self.has_slopes else []
        parts += ["bytes"] if self.has_bytes else []
        return "amdnfs.paged_attention." + ".".join(parts)


def hex_f32(value: float) -> str:
    """The bits of `value` rounded to f32, as eight hexadecimal digits (exact, unlike decimal text)."""
    return struct.pack(">f", value).hex().upper()

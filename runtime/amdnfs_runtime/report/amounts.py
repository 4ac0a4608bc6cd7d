"""Amounts as people read them."""

from __future__ import annotations

from collections.abc import Sequence

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float, unit: str) -> str:
    """Three digits and a decimal prefix.

    >>> amount(3486515200, "FLOP"), amount(999.6, "B"), amount(0, "B"), amount(48, "B")
    ('3.49 GFLOP', '1.00 kB', '0 B', '48 B')
    """
    for size, prefix in _PREFIXES:
        if value >= 0.9995 * size:
            return f"{_three(value / size)} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def milliseconds(value: float) -> str:
    """Three digits, in milliseconds or microseconds.

    >>> milliseconds(1.2168), milliseconds(0.0588), milliseconds(0)
    ('1.22 ms', '58.8 us', '0 ms')
    """
    if value == 0:
        return "0 ms"
    return f"{_three(value)} ms" if value >= 0.9995 else f"{_three(value * 1e3)} us"


def share(value: float | None) -> str:
    """A share in percent; a dash if it is not known.

    >>> share(0.9996), share(1), share(0.004), share(None)
    ('99.9%', '100%', '0.4%', '-')
    """
    if value is None:
        return "-"
    percent = value * 100
    if percent == round(percent):
        return f"{percent:.0f}%"
    # Never rounded up to all, or down to nothing.
    return f"{min(max(percent, 0.1), 99.9):.1f}%"


def layer_range(layers: Sequence[int]) -> str:
    """Layers as ranges.

    >>> layer_range([0, 1, 2, 5]), layer_range([3]), layer_range([])
    ('0-2,5', '3', '')
    """
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and layer == parts[-1][1] + 1:
            parts[-1][1] = layer
        else:
            parts.append([layer, layer])
    return ",".join(f"{begin}-{end}" if end > begin else f"{begin}" for begin, end in parts)


def count(value: float | None) -> str:
    """A count; a dash if it is not known.

    >>> count(None), count(3), count(7.5), count(4.0)
    ('-', '3', '7.5', '4')
    """
    return "-" if value is None else f"{value:.3g}" if value != int(value) else f"{int(value)}"


def counted(text: str, *, is_all: bool) -> str:
    """A sum as it is shown: with a sign before it if something in it could not be counted.

    >>> counted("3.49 G", is_all=True), counted("3.49 G", is_all=False), counted("0", is_all=False)
    ('3.49 G', '> 3.49 G', 'unknown')
    """
    if is_all:
        return text
    return "unknown" if text == "0" else f"> {text}"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"

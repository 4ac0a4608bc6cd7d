"""Kernels of our own that ride in a program: what their makers noted about them.

Their code is made before IREE sees the program, so IREE's dispatches say nothing about what they do. The notes are in
two attributes: `amdnfs.facts` of the executable describes the code, `amdnfs.cost` of a dispatch its work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from amdnfs_passes.ir import Module, Operation, symbol_name, walk

from amdnfs_compile.kernel_facts.bodies import BodyFacts
from amdnfs_compile.kernel_facts.contractions import Contraction
from amdnfs_compile.kernel_facts.sizes import Size

_FACTS, _OBJECT, _COST = "amdnfs.facts", "amdnfs.object", "amdnfs.cost"
_HEX = re.compile(r'dense<"0x([0-9A-Fa-f]*)">')


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedKernel:
    """One executable that holds a kernel of ours."""

    key: str
    """Executable and export: `@executable::@export` without the `@`."""
    symbol: str
    """Name of the kernel in its code object."""
    operation: str
    """What it does: `paged_attention`."""
    sha256: str | None
    """Digest of its code object; None if the program holds it in a form that cannot be read back."""
    notes: Mapping[str, Any]
    """All of `amdnfs.facts`."""

    @property
    def kind(self) -> str:
        """As in `BodyFacts`."""
        if "attention" in self.operation:
            return "attention"
        return "matmul" if "matmul" in self.operation or "linear" in self.operation else self.operation

    def facts(self, dispatch: Operation) -> BodyFacts:
        """What a dispatch of it does, as its maker noted it there or at the executable."""
        cost = {**self.notes, **(_plain(dispatch.attributes[_COST]) if _COST in dispatch.attributes else {})}
        facts = BodyFacts(kind=self.kind)
        flops, facts.moved = (_linear(cost.get(name)) for name in ("flops", "bytes"))
        facts.unknown += [
            f"kernel {self.symbol}: its maker noted no {name}"
            for name, size in (("flops", flops), ("bytes", facts.moved))
            if size is None
        ]
        if flops is not None and flops != Size():
            facts.contractions.append(
                Contraction(
                    operation=self.operation,
                    element_type=str(cost.get("type", _float_type(dispatch))),
                    sizes=tuple((str(name), str(size)) for name, size in sorted(dict(cost.get("sizes", {})).items())),
                    rows=Size(),
                    flops=flops,
                )
            )
        return facts


def read_embedded(module: Module) -> dict[str, EmbeddedKernel]:
    """The kernels of ours in a module, by the name of their executable."""
    found = {}
    for op in walk(module.operation):
        if op.name != "hal.executable.source":
            continue
        exports = [inner for inner in walk(op) if inner.name == "hal.executable.export"]
        name, notes = symbol_name(op), _plain(op.attributes[_FACTS]) if _FACTS in op.attributes else {}
        for export in exports:
            symbol = symbol_name(export)
            found[name] = EmbeddedKernel(
                key=f"{name}::{symbol}",
                symbol=symbol,
                operation=str(notes.get("op", "unnamed kernel")),
                sha256=_digest(op),
                notes=notes,
            )
    return found


def noted_facts(dispatch: Operation) -> BodyFacts | None:
    """What a dispatch does that is no kernel of ours, if the pass that wrote it noted that, with the op's name."""
    cost = _plain(dispatch.attributes[_COST]) if _COST in dispatch.attributes else {}
    if "op" not in cost:
        return None
    operation = str(cost["op"])
    return EmbeddedKernel(key="", symbol=operation, operation=operation, sha256=None, notes={}).facts(dispatch)


def _digest(op: Operation) -> str | None:
    """sha256 of the code object of an executable: the bytes in its `objects`."""
    texts = [str(op.attributes[name]) for name in ("objects", _OBJECT) if name in op.attributes]
    matches = [match for text in texts for match in _HEX.findall(text)]
    return hashlib.sha256(bytes.fromhex(matches[0])).hexdigest() if len(matches) == 1 else None


def _float_type(dispatch: Operation) -> str:
    """Element type of the first tensor of floats that a dispatch takes: that of the activations."""
    types = [str(value.type.element_type) for value in dispatch.operands if hasattr(value.type, "shape")]
    return next((item for item in types if item.startswith(("f", "bf"))), "f32")


def _linear(value: Any) -> Size | None:
    """`[constant, per_context_token]`."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    return Size(constant=Fraction(value[0]), per_token=Fraction(value[1]))


def _plain(attribute: Any) -> Any:
    """An attribute as plain values."""
    kind = type(attribute).__name__
    if kind == "DictAttr":
        return {attribute[i].name: _plain(attribute[i].attr) for i in range(len(attribute))}
    if kind == "ArrayAttr":
        return [_plain(item) for item in attribute]
    return attribute.value if hasattr(attribute, "value") else str(attribute)

"""Finds linear layers that become one kernel: layers that share an input, a gate with its partner, what follows.

    group      linear(x, w0), linear(x, w1), linear(x, w2)             one kernel, up to three outputs
    gate       act(linear(x, w0)) * linear(x, w1)                      one output
    residual   r + linear(x, w0)                                       added in the epilogue
    norm       x = rms_norm(h)                                         taken into the prologue, if few rows share it

A layer is `aten.linear` or `amdnfs.quantized_linear`. Only layers whose weights are stored alike, all with a bias or
none, are grouped. Weights and biases must be there before the first layer of the group: arguments of the function, as
weights are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amdnfs_targets.quantized_layout import QuantizedLayout

from amdnfs_passes.fuse.norm_match import RmsNorm, match_rms_norm
from amdnfs_passes.ir import Module, Operation, Value, constant_int, constant_str, defining_op, is_none, walk
from amdnfs_passes.quantize.operands import match_quantized_linear
from amdnfs_passes.templates import TensorType, tensor_type

MAX_WEIGHTS = 3
"""Weights of one kernel."""
_ELEMENTS = ("f16", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearLayer:
    """One linear layer that a kernel can take."""

    op: Operation
    """The operation."""
    x: Value
    """Input `[..., depth]`."""
    weight: Value
    """`[columns, depth]`, or stored elements as `layout` says."""
    scales: Value | None
    """Scales of a quantised weight."""
    zeros: Value | None
    """Zero points of a quantised weight."""
    bias: Value | None
    """`[columns]`."""
    layout: QuantizedLayout | None
    """How a quantised weight is stored; None for one of the type of `x`."""
    columns: int
    """Columns of the result."""

    @property
    def result(self) -> Value:
        """Its result."""
        return self.op.results[0]

    @property
    def stored(self) -> list[Value]:
        """What holds the weight."""
        return [value for value in (self.weight, self.scales, self.zeros) if value is not None]

    @property
    def parameters(self) -> list[Value]:
        """What must be there before the layer, its input aside."""
        return [*self.stored, *([] if self.bias is None else [self.bias])]

    def is_like(self, other: LinearLayer) -> bool:
        """Whether one kernel can read both weights."""
        return self.layout == other.layout and (self.bias is None) == (other.bias is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearGroup:
    """Operations that become one kernel."""

    x: Value
    """Input `[..., depth]`, before `norm`."""
    norm: RmsNorm | None
    """Normalisation of the input."""
    layers: tuple[LinearLayer, ...]
    """The layers, alike."""
    gate: str
    """Activation of the gate; empty without one."""
    residual: Value | None
    """Added last, of the type of the result."""
    results: tuple[Value, ...]
    """What the kernel's outputs replace."""
    before: Operation
    """Where the kernel is called."""

    @property
    def num_rows(self) -> int:
        """Rows of the flattened input."""
        return math.prod(_static(self.x).sizes[:-1])

    @property
    def depth(self) -> int:
        """Length of the contraction."""
        return _static(self.x).sizes[-1]

    @property
    def columns(self) -> tuple[int, ...]:
        """Columns of each weight."""
        return tuple(layer.columns for layer in self.layers)

    @property
    def layout(self) -> QuantizedLayout | None:
        """How the weights are stored."""
        return self.layers[0].layout

    @property
    def element(self) -> str:
        """Element type of inputs and results."""
        return _static(self.x).element

    @property
    def gain_place(self) -> int | None:
        """Which of `operands` is the gain of the normalisation."""
        return None if self.norm is None else 1 + sum(len(layer.stored) for layer in self.layers)

    @property
    def operands(self) -> list[Value]:
        """What the kernel reads, in the order of its arguments."""
        layers = self.layers
        found = [self.x, *(layer.weight for layer in layers), *(layer.scales for layer in layers)]
        found += [layer.zeros for layer in layers]
        found += [self.norm.weight if self.norm is not None else None]
        found += [*(layer.bias for layer in layers), self.residual]
        return [value for value in found if value is not None]


def find_groups(module: Module, max_norm_rows: int) -> list[LinearGroup]:
    """All groups of `module`, no layer in two of them, in order of their first layer.

    Args:
        module: The module; it is not changed.
        max_norm_rows: A normalisation is taken into the kernel up to this many rows, or if rows are rounded.
    """
    taken: set[Value] = set()
    groups = []
    for op in walk(module.operation):
        layer = _read(op)
        if layer is None or layer.result in taken:
            continue
        group = _find_group(layer, max_norm_rows)
        taken |= {member.result for member in group.layers}
        groups.append(group)
    return groups


def _find_group(layer: LinearLayer, max_norm_rows: int) -> LinearGroup:
    x, norm = layer.x, None
    rows = math.prod(_static(x).sizes[:-1])
    is_rounding = layer.layout is not None and layer.layout.largest_activation > 0
    if (rows <= max_norm_rows or is_rounding) and (norm := match_rms_norm(x)) is not None:
        x = norm.x
    gated = _find_gate(layer)
    if gated is not None:
        first, second, activation, product = gated
        members, results, before = [first, second], (product.results[0],), product
    else:
        siblings = [member for member in _siblings(layer) if _find_gate(member) is None][:MAX_WEIGHTS]
        members = siblings if len(siblings) > 1 and all(_is_early(member) for member in siblings) else [layer]
        activation, results, before = "", tuple(member.result for member in members), members[0].op
    residual = None
    if len(results) == 1 and (added := _find_residual(results[0])) is not None:
        before, residual = added
        results = (before.results[0],)
    return LinearGroup(
        x=x, norm=norm, layers=tuple(members), gate=activation, residual=residual, results=results, before=before
    )


def _read(op: Operation) -> LinearLayer | None:
    """The layer that `op` is; None if it is something else or no kernel can take it."""
    layer = _read_plain(op) if op.name == "torch.aten.linear" else _read_quantized(op)
    if layer is None:
        return None
    x = tensor_type(layer.x)
    if x is None or not x.is_static or len(x.shape) < 2 or x.element not in _ELEMENTS:
        return None
    depth, rows = x.sizes[-1], math.prod(x.sizes[:-1])
    # Rows of 16 bytes, and offsets that fit in 32 bits.
    largest = max(layer.columns * depth, rows * depth, rows * layer.columns)
    return layer if depth % 8 == 0 and largest < 1 << 31 else None


def _read_plain(op: Operation) -> LinearLayer | None:
    x, weight = tensor_type(op.operands[0]), tensor_type(op.operands[1])
    if x is None or weight is None or not weight.is_static or len(weight.shape) != 2 or weight.element != x.element:
        return None
    bias = None if is_none(op.operands[2]) else op.operands[2]
    if bias is not None:
        kind = tensor_type(bias)
        if kind is None or kind.shape != weight.shape[:1] or kind.element != x.element:
            return None
    return LinearLayer(
        op=op,
        x=op.operands[0],
        weight=op.operands[1],
        scales=None,
        zeros=None,
        bias=bias,
        layout=None,
        columns=weight.sizes[0],
    )


def _read_quantized(op: Operation) -> LinearLayer | None:
    try:
        found = match_quantized_linear(op)
    except ValueError:
        return None  # lower-quantized-linear says why
    if found is None:
        return None
    return LinearLayer(
        op=op,
        x=found.x,
        weight=found.data,
        scales=found.scales,
        zeros=found.zeros,
        bias=found.bias,
        layout=found.layout,
        columns=found.columns,
    )


def _siblings(layer: LinearLayer) -> list[LinearLayer]:
    """`layer` and those of the same input after it whose weights are stored alike, in order."""
    users = {use.owner.operation for use in layer.x.uses}
    order = {other.operation: place for place, other in enumerate(layer.op.block.operations)}
    later = sorted((user for user in users if order.get(user, -1) >= order[layer.op]), key=lambda user: order[user])
    found = [_read(user) for user in later]
    return [other for other in found if other is not None and other.x == layer.x and other.is_like(layer)]


def _is_early(layer: LinearLayer) -> bool:
    """Whether the parameters are arguments of the function, so that the layer can move up."""
    return all(defining_op(value) is None for value in layer.parameters)


def _find_gate(layer: LinearLayer) -> tuple[LinearLayer, LinearLayer, str, Operation] | None:
    """The gate's layer, its partner, the activation and the product, if `layer` is one of the two layers."""
    user = _only_user(layer.result)
    if user is None:
        return None
    activation = _activation(user)
    if activation is not None:
        product = _only_user(user.results[0])
        if product is None or product.name != "torch.aten.mul.Tensor":
            return None
        partner = _layer_of(product.operands[1] if product.operands[0] == user.results[0] else product.operands[0])
        return (layer, partner, activation, product) if partner is not None and _are_pair(layer, partner) else None
    if user.name == "torch.aten.mul.Tensor":
        for operand in user.operands:
            middle = defining_op(operand)
            gate = _layer_of(middle.operands[0]) if middle is not None and _activation(middle) is not None else None
            if gate is not None and gate.result != layer.result:
                found = _find_gate(gate)
                return found if found is not None and found[1].result == layer.result else None
    return None


def _layer_of(value: Value) -> LinearLayer | None:
    op = defining_op(value)
    return _read(op) if op is not None else None


def _are_pair(gate: LinearLayer, partner: LinearLayer) -> bool:
    return (
        partner.x == gate.x
        and partner.is_like(gate)
        and partner.columns == gate.columns
        and _only_user(partner.result) is not None
    )


def _activation(op: Operation) -> str | None:
    if op.name == "torch.aten.silu":
        return "silu"
    if op.name == "torch.aten.relu":
        return "relu"
    if op.name == "torch.aten.gelu":
        return {"tanh": "gelu_tanh", "none": "gelu"}.get(constant_str(op.operands[1]) or "")
    return None


def _find_residual(value: Value) -> tuple[Operation, Value] | None:
    """The addition that alone uses `value`, and what it adds."""
    user = _only_user(value)
    if user is None or user.name != "torch.aten.add.Tensor" or constant_int(user.operands[2]) != 1:
        return None
    other = user.operands[1] if user.operands[0] == value else user.operands[0]
    return (user, other) if other != value and tensor_type(other) == tensor_type(value) else None


def _only_user(value: Value) -> Operation | None:
    users = [use.owner.operation for use in value.uses]
    return users[0] if len(users) == 1 else None


def _static(value: Value) -> TensorType:
    kind = tensor_type(value)
    assert kind is not None
    return kind

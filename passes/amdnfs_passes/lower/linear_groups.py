"""Finds linear layers that become one kernel: layers that share an input, a gate with its partner, what follows.

    group      linear(x, w0), linear(x, w1), linear(x, w2)             one kernel, up to three outputs
    gate       act(linear(x, w0)) * linear(x, w1)                      one output
    residual   r + linear(x, w0)                                       added in the epilogue
    norm       x = rms_norm(h)                                         taken into the prologue, if few rows share it

Only layers without a bias or all with one of `[columns]` are grouped. Weights and biases must be there before the
first layer of the group: arguments of the function, as weights are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amdnfs_passes.fuse.norm_match import RmsNorm, match_rms_norm
from amdnfs_passes.ir import Module, Operation, Value, constant_int, constant_str, defining_op, is_none, walk
from amdnfs_passes.templates import TensorType, tensor_type

MAX_WEIGHTS = 3
"""Weights of one kernel."""
_ELEMENTS = ("f16", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearGroup:
    """Operations that become one kernel."""

    x: Value
    """Input `[..., depth]`, before `norm`."""
    norm: RmsNorm | None
    """Normalisation of the input."""
    weights: tuple[Value, ...]
    """Each `[columns, depth]`."""
    biases: tuple[Value, ...]
    """Each `[columns]`; none or one a weight."""
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
        return tuple(_static(weight).sizes[0] for weight in self.weights)

    @property
    def element(self) -> str:
        """Element type of everything."""
        return _static(self.x).element


def find_groups(module: Module, max_norm_rows: int) -> list[LinearGroup]:
    """All groups of `module`, no layer in two of them, in order of their first layer.

    Args:
        module: The module; it is not changed.
        max_norm_rows: A normalisation is taken into the kernel up to this many rows.
    """
    taken: set[Value] = set()
    groups = []
    for op in walk(module.operation):
        if op.name != "torch.aten.linear" or op.results[0] in taken or not _fits(op):
            continue
        members, group = _find_group(op, max_norm_rows)
        taken |= {member.results[0] for member in members}
        groups.append(group)
    return groups


def _find_group(op: Operation, max_norm_rows: int) -> tuple[list[Operation], LinearGroup]:
    x, norm = op.operands[0], None
    rows = math.prod(_static(x).sizes[:-1])
    if rows <= max_norm_rows and (norm := match_rms_norm(x)) is not None:
        x = norm.x
    gated = _find_gate(op)
    if gated is not None:
        first, second, activation, product = gated
        members, results, before = [first, second], (product.results[0],), product
    else:
        siblings = [member for member in _siblings(op) if _find_gate(member) is None][:MAX_WEIGHTS]
        members = siblings if len(siblings) > 1 and all(_is_early(member) for member in siblings) else [op]
        activation, results, before = "", tuple(member.results[0] for member in members), members[0]
    residual = None
    if len(results) == 1 and (added := _find_residual(results[0])) is not None:
        before, residual = added
        results = (before.results[0],)
    biases = tuple(member.operands[2] for member in members if not is_none(member.operands[2]))
    return members, LinearGroup(
        x=x,
        norm=norm,
        weights=tuple(member.operands[1] for member in members),
        biases=biases,
        gate=activation,
        residual=residual,
        results=results,
        before=before,
    )


def _fits(op: Operation) -> bool:
    x, weight = tensor_type(op.operands[0]), tensor_type(op.operands[1])
    if x is None or weight is None or not (x.is_static and weight.is_static) or len(x.shape) < 2:
        return False
    if x.element not in _ELEMENTS or weight.element != x.element or len(weight.shape) != 2:
        return False
    if not is_none(op.operands[2]):
        bias = tensor_type(op.operands[2])
        if bias is None or bias.shape != weight.shape[:1] or bias.element != x.element:
            return False
    # Rows of 16 bytes, and offsets that fit in 32 bits.
    largest = max(math.prod(weight.sizes), math.prod(x.sizes), math.prod(x.sizes[:-1]) * weight.sizes[0])
    return weight.sizes[1] % 8 == 0 and largest < 1 << 31


def _siblings(op: Operation) -> list[Operation]:
    """`op` and the linear layers of the same input after it, with a bias where `op` has one, in order."""
    has_bias = not is_none(op.operands[2])
    users = {use.owner.operation for use in op.operands[0].uses}
    found = [
        user
        for user in users
        if user.name == "torch.aten.linear"
        and user.operands[0] == op.operands[0]
        and _fits(user)
        and is_none(user.operands[2]) is not has_bias
    ]
    order = {other.operation: place for place, other in enumerate(op.block.operations)}
    later = (user for user in found if order.get(user, -1) >= order[op])
    return sorted(later, key=lambda user: order[user])


def _is_early(op: Operation) -> bool:
    """Whether weight and bias are arguments of the function, so that the layer can move up."""
    return defining_op(op.operands[1]) is None and (is_none(op.operands[2]) or defining_op(op.operands[2]) is None)


def _find_gate(op: Operation) -> tuple[Operation, Operation, str, Operation] | None:
    """The gate's layer, its partner, the activation and the product, if `op` is one of the two layers."""
    user = _only_user(op.results[0])
    activation = _activation(user) if user is not None else None
    if activation is not None and user is not None:
        product = _only_user(user.results[0])
        if product is None or product.name != "torch.aten.mul.Tensor":
            return None
        other = product.operands[1] if product.operands[0] == user.results[0] else product.operands[0]
        partner = defining_op(other)
        return (op, partner, activation, product) if partner is not None and _are_pair(op, partner) else None
    if user is not None and user.name == "torch.aten.mul.Tensor":
        for operand in user.operands:
            middle = defining_op(operand)
            if middle is None or _activation(middle) is None:
                continue
            gate = defining_op(middle.operands[0])
            if gate is not None and gate.name == "torch.aten.linear" and gate.results[0] != op.results[0]:
                found = _find_gate(gate) if _fits(gate) else None
                return found if found is not None and found[1].results[0] == op.results[0] else None
    return None


def _are_pair(gate: Operation, partner: Operation) -> bool:
    return (
        partner.name == "torch.aten.linear"
        and _fits(partner)
        and partner.operands[0] == gate.operands[0]
        and _only_user(partner.results[0]) is not None
        and tensor_type(partner.results[0]) == tensor_type(gate.results[0])
        and is_none(partner.operands[2]) == is_none(gate.operands[2])
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

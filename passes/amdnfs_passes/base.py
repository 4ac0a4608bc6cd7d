"""What a pass is: a frozen dataclass with `run(module) -> number of rewrites`.

A pass works on a whole module (function-level Python passes cannot be scheduled by IREE 3.13's pass manager). It asks
the target for capabilities, and never reads the environment, the device, files or the clock.
"""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from amdnfs_passes.ir import MLIRError, Module


class PassError(Exception):
    """A pass refused the program or broke it; the message names the pass, the operation and the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A place that almost matched: what users ask about."""

    pass_name: str
    """The pass that looked."""
    operation: str
    """First line of the operation, as printed."""
    reason: str
    """The precondition that failed."""
    function: str = ""
    """The function that holds the operation; empty where it stands outside of functions."""


@dataclass(kw_only=True, slots=True)
class PassResult:
    """What one application of a pass did."""

    pass_name: str
    """The pass."""
    rewrites: int
    """Number of rewrites; 0 means that the module is unchanged."""
    seconds: float
    """Wall time of `run`, in seconds."""
    refusals: list[Refusal] = field(default_factory=list)
    """Near misses."""


def _function_name(op: Any) -> str:
    """The symbol of the function around an operation."""
    parent = op.parent
    while parent is not None and "sym_name" not in parent.attributes:
        parent = parent.operation.parent
    return "" if parent is None else str(parent.attributes["sym_name"]).strip('"')


def kebab_case(class_name: str) -> str:
    """Turns `LowerKvWritePass` into `lower-kv-write`.

    >>> kebab_case("LowerKvWritePass")
    'lower-kv-write'
    """
    stem = class_name.removesuffix("Pass")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", stem).lower()


class ModulePass:
    """Base of all passes. Subclasses are frozen, keyword-only dataclasses; their fields are their options."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Names of passes that must stand earlier in a pipeline."""

    @classmethod
    def pass_name(cls) -> str:
        """The name on the command line, made from the class name."""
        return kebab_case(cls.__name__)

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """Rewrites `module` in place.

        Returns:
            The number of rewrites.
        """
        raise NotImplementedError

    def refuse(self, refusals: list[Refusal], op: Any, reason: str) -> None:
        """Records that `op` nearly matched."""
        first_line = str(op).splitlines()[0].strip()
        refusals.append(
            Refusal(pass_name=self.pass_name(), operation=first_line[:160], reason=reason, function=_function_name(op))
        )

    def apply(self, module: Module) -> PassResult:
        """Runs the pass and verifies the module afterwards.

        Raises:
            PassError: If the pass refuses the module or leaves it invalid.
        """
        name = self.pass_name()
        refusals: list[Refusal] = []
        begin = time.perf_counter()
        with module.context:
            try:
                rewrites = self.run(module, refusals)
            except MLIRError as error:
                raise PassError(f"pass {name}: {error}") from error
            try:
                module.operation.verify()
            except MLIRError as error:
                raise PassError(f"pass {name}: the module is invalid after {rewrites} rewrites: {error}") from error
        return PassResult(pass_name=name, rewrites=rewrites, seconds=time.perf_counter() - begin, refusals=refusals)

    def describe(self) -> str:
        """The pass with its options, in the form the command line takes: `name{key=value}`."""
        fields: tuple[Any, ...] = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        options = [f"{item.name.replace('_', '-')}={getattr(self, item.name)}" for item in fields]
        return self.pass_name() + (f"{{{' '.join(options)}}}" if options else "")

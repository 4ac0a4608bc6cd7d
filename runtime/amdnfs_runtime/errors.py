"""The errors a user can meet, each with the exit code its command ends with.

A message has up to four parts: what failed, where, why (the value seen and the values allowed), and what to do.
"""

from __future__ import annotations


class AmdnfsError(Exception):
    """Base of every error that is the input's or the environment's fault, not ours."""

    exit_code: int = 70
    """Process exit code of a command that ends with this error."""


class UsageError(AmdnfsError):
    """A wrong flag, or an unknown target, pass or option."""

    exit_code = 2


class ModelError(AmdnfsError):
    """A model that cannot be imported: missing file, unsupported architecture, wrong dtype."""

    exit_code = 3


class PassFailed(AmdnfsError):  # noqa: N818 - the name is part of the public contract
    """One of our passes refused the program or broke it."""

    exit_code = 4


class LoweringError(AmdnfsError):
    """IREE could not lower a program that our passes accepted."""

    exit_code = 5


class ArtifactError(AmdnfsError):
    """A bundle that is missing, damaged, of another version, or not for this machine."""

    exit_code = 6


class EngineError(AmdnfsError):
    """An engine that cannot go on with a request: its device is stuck, or it was closed."""

    exit_code = 6


class CapacityError(AmdnfsError):
    """A request that can never fit: tokens needed, pages or context available."""

    exit_code = 2


class BudgetError(AmdnfsError):
    """A bundle whose kernels got worse than a budget allows; nothing is wrong with the bundle."""

    exit_code = 7

"""What has been shown for each target, for `amdnfs targets`: recorded evidence, never a guess."""

from __future__ import annotations

from amdnfs_targets.aliases import ALIASES
from amdnfs_targets.registry import GROUPS, TARGETS
from amdnfs_targets.target import Target, TargetKind

EXECUTED_ON_EMULATOR = frozenset(GROUPS["all-amd"])
"""Targets whose machine code gives the CPU's tokens on the emulator (tests/e2e/test_devices.py goes through all)."""

RAN_ON_DEVICE = {"cuda-sm_80": "NVIDIA H200", "cuda-sm_90": "NVIDIA H200"}
"""Targets whose programs ran on real hardware, and which (benchmarks/README.md)."""

_VERIFIED = {TargetKind.CPU: "verified", TargetKind.VULKAN: "verified (Mesa's software driver)"}
"""Kinds whose programs the tests compare with transformers or the CPU program on an ordinary machine."""


def target_rows() -> list[dict[str, str]]:
    """One row a target: names and the four states, told apart."""
    return [_row(name, target) for name, target in TARGETS.items()]


def _row(name: str, target: Target) -> dict[str, str]:
    aliases = [alias for alias, meant in ALIASES.items() if meant == name]
    emulator = "yes" if name in EXECUTED_ON_EMULATOR else "not yet"
    return {
        "target": name,
        "architecture": target.architecture,
        "products": ", ".join(aliases) or "-",
        "compiles": "yes" if target.unsupported is None else f"no: {target.unsupported}",
        "emulator": emulator if target.kind is TargetKind.HIP else "-",
        "this machine": _VERIFIED.get(target.kind, "-"),
        "device": RAN_ON_DEVICE.get(name, "-" if target.kind is TargetKind.CPU else "never"),
    }

"""The targets by name, and how names that people type become targets."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from amdnfs_targets.aliases import ALIASES, ALL_AMD, WITHOUT_TARGET
from amdnfs_targets.cdna import CDNA_TARGETS
from amdnfs_targets.cuda import CUDA_TARGETS
from amdnfs_targets.host import HOST_TARGETS
from amdnfs_targets.rdna import RDNA_TARGETS
from amdnfs_targets.target import Target, TargetKind
from amdnfs_targets.vulkan import VULKAN_TARGETS

_MIN_SIMILARITY = 0.6


class UnknownTargetError(ValueError):
    """A name that is neither a target, nor an alias, nor a group."""


def _by_name(targets: Iterable[Target]) -> Mapping[str, Target]:
    table: dict[str, Target] = {}
    for target in targets:
        if target.name in table:
            raise ValueError(f"two targets are called {target.name!r}")
        table[target.name] = target
    return MappingProxyType(table)


TARGETS: Mapping[str, Target] = _by_name((*HOST_TARGETS, *CUDA_TARGETS, *CDNA_TARGETS, *RDNA_TARGETS, *VULKAN_TARGETS))
"""Every target by its canonical name, in the order in which they are shown. Includes unsupported ones."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {ALL_AMD: tuple(name for name, item in TARGETS.items() if item.kind is TargetKind.HIP and item.unsupported is None)}
)
"""Names that stand for several targets."""


def get_target(name: str) -> Target:
    """Find one target by its name or an alias, upper or lower case.

    >>> get_target("MI300X").name
    'gfx942'
    >>> get_target("strix-halo").architecture
    'rdna3.5'
    >>> get_target("gfx941")
    Traceback (most recent call last):
    ...
    amdnfs_targets.registry.UnknownTargetError: unknown target 'gfx941': known are cpu, cpu-x86-64-v3, cuda-sm_80, \
cuda-sm_86, cuda-sm_89, cuda-sm_90, gfx90a, gfx942, gfx950, gfx1030, gfx1100, gfx1101, gfx1102, gfx1103, gfx1150, \
gfx1151, gfx1152, gfx1200, gfx1201, vulkan; did you mean gfx942 (mi300x)?

    Raises:
        UnknownTargetError: No target or alias is called so; the message lists the known names and the closest one.
    """
    key = name.strip().lower()
    found = TARGETS.get(ALIASES.get(key, key))
    if found is None:
        raise UnknownTargetError(_unknown_message(name))
    return found


def resolve_targets(names: Iterable[str]) -> tuple[Target, ...]:
    """Turn names, aliases and groups into targets: in the order given, each once.

    >>> [target.name for target in resolve_targets(["mi300x", "cpu", "GFX942"])]
    ['gfx942', 'cpu']

    Raises:
        UnknownTargetError: For the first name that is not known.
    """
    found: dict[str, Target] = {}
    for name in names:
        for member in GROUPS.get(name.strip().lower(), (name,)):
            target = get_target(member)
            found.setdefault(target.name, target)
    return tuple(found.values())


def aliases_of(target: Target) -> tuple[str, ...]:
    """The other names of a target.

    >>> aliases_of(get_target("gfx950"))
    ('mi350x', 'mi355x')
    """
    return tuple(alias for alias, name in ALIASES.items() if name == target.name)


def _unknown_message(name: str) -> str:
    message = f"unknown target {name!r}: known are {', '.join(TARGETS)}"
    key = name.strip().lower()
    if key in GROUPS:
        return f"{message}; {key} stands for several targets, and one is needed here"
    for gfx, products in WITHOUT_TARGET.items():
        if key == gfx or key in products:
            shown = f"{gfx} ({', '.join(products)})" if products else gfx
            return (
                f"{message}; {shown} has no target yet, and programs for another gfx do not run on it; "
                "vulkan programs are bound to no gfx"
            )
    # Of equally similar names, difflib prefers the last in alphabetical order: gfx942 before gfx90a for gfx941.
    closest = difflib.get_close_matches(key, [*TARGETS, *ALIASES, *GROUPS], n=1, cutoff=_MIN_SIMILARITY)
    if not closest:
        return message
    return f"{message}; did you mean {_with_other_name(closest[0])}?"


def _with_other_name(name: str) -> str:
    if name in ALIASES:
        return f"{name} ({ALIASES[name]})"
    if name in TARGETS:
        aliases = aliases_of(TARGETS[name])
        if aliases:
            return f"{name} ({aliases[0]})"
    return name

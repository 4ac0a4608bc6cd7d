from __future__ import annotations

import re

import pytest
from amdnfs_targets import ALIASES, GROUPS, TARGETS, UnknownTargetError, aliases_of, get_target, resolve_targets
from amdnfs_targets.aliases import WITHOUT_TARGET

AMD = (
    *("gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1103"),
    *("gfx1150", "gfx1151", "gfx1152", "gfx1200", "gfx1201"),
)


def names(requested: list[str]) -> list[str]:
    return [target.name for target in resolve_targets(requested)]


def test_all_promised_targets_exist() -> None:
    others = {"cpu", "cpu-x86-64-v3", "cuda-sm_80", "cuda-sm_86", "cuda-sm_89", "cuda-sm_90", "vulkan"}
    assert set(TARGETS) == others | set(AMD)
    assert all(name == target.name for name, target in TARGETS.items())


def test_aliases_lead_to_targets_and_hide_none() -> None:
    assert set(ALIASES.values()) <= set(TARGETS)
    assert not set(ALIASES) & (set(TARGETS) | set(GROUPS))
    assert all(alias == alias.lower() for alias in ALIASES)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        *(("mi210", "gfx90a"), ("mi250x", "gfx90a"), ("mi300a", "gfx942"), ("mi325x", "gfx942"), ("mi355x", "gfx950")),
        *(("rx6900xt", "gfx1030"), ("rx7900xtx", "gfx1100"), ("w7900", "gfx1100"), ("rx7800xt", "gfx1101")),
        *(("rx7600", "gfx1102"), ("phoenix", "gfx1103"), ("radeon-780m", "gfx1103"), ("strix-point", "gfx1150")),
        *(("radeon-890m", "gfx1150"), ("strix-halo", "gfx1151"), ("radeon-8060s", "gfx1151")),
        *(("krackan-point", "gfx1152"), ("rx9060xt", "gfx1200"), ("rx9070", "gfx1201"), ("r9700", "gfx1201")),
        *(("sm_86", "cuda-sm_86"), ("cuda", "cuda-sm_80"), ("host", "cpu")),
    ],
)
def test_product_names_are_known(alias: str, name: str) -> None:
    assert get_target(alias).name == name
    assert alias in aliases_of(get_target(name))


@pytest.mark.parametrize("spelling", ["MI300X", " mi300x ", "GFX942", "gfx942"])
def test_case_and_spaces_do_not_matter(spelling: str) -> None:
    assert get_target(spelling).name == "gfx942"


def test_resolve_keeps_the_order_and_drops_repetitions() -> None:
    assert names(["strix-halo", "cpu", "gfx942", "mi300x", "CPU"]) == ["gfx1151", "cpu", "gfx942"]
    assert names([]) == []


def test_group_stands_for_all_supported_amd_targets() -> None:
    assert names(["all-amd"]) == [name for name in AMD if TARGETS[name].unsupported is None]
    assert names(["mi300x", "All-AMD", "cpu"])[:2] == ["gfx942", "gfx90a"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gfx941", "gfx942 (mi300x)"),
        ("strixhalo", "strix-halo (gfx1151)"),
        ("vulcan", "vulkan"),
        ("all_amd", "all-amd"),
    ],
)
def test_unknown_name_gets_a_suggestion(name: str, hint: str) -> None:
    known = ", ".join(TARGETS)
    with pytest.raises(UnknownTargetError, match=re.escape(f"unknown target '{name}': known are {known}; did")) as info:
        resolve_targets(["cpu", name])
    assert str(info.value).endswith(f"; did you mean {hint}?")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gfx906", "gfx906 (mi50, mi60, radeon-vii)"),
        ("MI50", "gfx906 (mi50, mi60, radeon-vii)"),
        ("mi100", "gfx908 (mi100)"),
        ("gfx1031", "gfx1031 (rx6700xt)"),
        ("gfx1035", "gfx1035"),
    ],
)
def test_a_gpu_without_a_target_is_not_told_to_use_that_of_another(name: str, shown: str) -> None:
    with pytest.raises(UnknownTargetError) as info:
        resolve_targets([name])
    message = str(info.value)
    assert message.startswith(f"unknown target '{name}': known are cpu, ")
    assert message.endswith(
        f"; {shown} has no target yet, and programs for another gfx do not run on it; "
        "vulkan programs are bound to no gfx"
    )


def test_gpus_without_a_target_have_none() -> None:
    names = {*WITHOUT_TARGET, *(product for products in WITHOUT_TARGET.values() for product in products)}
    assert not names & ({*TARGETS, *ALIASES, *GROUPS})


def test_unlike_name_gets_no_suggestion() -> None:
    with pytest.raises(UnknownTargetError, match=r"vulkan$"):
        get_target("zzz")


def test_group_is_no_single_target() -> None:
    with pytest.raises(UnknownTargetError, match="all-amd stands for several targets, and one is needed here"):
        get_target("all-amd")

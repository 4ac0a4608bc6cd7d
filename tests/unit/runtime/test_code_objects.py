"""Code objects inside programs, and how many waves of their kernels fit on a SIMD."""

from __future__ import annotations

import pytest
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.report.code_objects import Kernel, find_code_objects
from amdnfs_runtime.report.metadata import unpack
from amdnfs_runtime.report.occupancy import occupancy_of

from tests.report_bundle import FIGURES, code_object


def test_every_code_object_of_a_program_is_found_and_read() -> None:
    first = code_object("gfx942", {"a": {"vgprs": 72, "vgpr_spills": 3, "scratch_bytes": 16}, "b": {}})
    second = code_object("gfx942", {"c": {"agprs": 8}})
    other = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x03\x00\x3e\x00" + b"\0" * 60  # for x86-64
    found = find_code_objects(b"flatbuffer" + first + b"...." + other + second)
    assert [(item.offset, item.num_bytes, item.gfx) for item in found] == [
        (10, len(first), "gfx942"),
        (10 + len(first) + 4 + len(other), len(second), "gfx942"),
    ]
    kernel = found[0].kernels["a"]
    assert (kernel.vgprs, kernel.vgpr_spills, kernel.scratch_bytes, kernel.lds_bytes) == (72, 3, 16, 4096)
    assert list(found[0].kernels) == ["a", "b"]
    assert found[1].kernels["c"].agprs == 8


def test_the_lds_is_what_the_descriptor_tells_the_hardware() -> None:
    (found,) = find_code_objects(code_object("gfx942", {"a": {"lds_bytes": 0}}, {"lds_bytes": 8192}))
    assert found.kernels["a"].lds_bytes == 8192


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (code_object("gfx942", {"a": {}})[:-40], r"claims \d+ bytes, the program has \d+ from there on"),
        (code_object("gfx942", {"a": {}}, {"scratch_bytes": 4}), "kernel a: metadata and descriptor differ in scratch"),
        (
            code_object("gfx942", {"a": {}}, {"wave_size": 32}),
            "kernel a: the metadata says waves of 64, the descriptor",
        ),
        (code_object("gfx942", {"a": {}}).replace(b"AMDGPU", b"OTHERS"), "has no metadata note"),
        (
            code_object("gfx942", {"abc": {}}).replace(b"\0abc.kd", b"\0abd.kd"),
            "kernel abc has metadata but no descrip",
        ),
    ],
)
def test_a_damaged_code_object_is_named_by_its_place(image: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=rf"code object at byte 4 of the program cannot be read: .*{message}"):
        find_code_objects(b"head" + image)


def test_a_program_without_code_objects_has_none() -> None:
    assert find_code_objects(b"\x7fELF of another kind") == ()


@pytest.mark.parametrize(("data", "message"), [(b"\xda\x00\x05ab", "in the middle"), (b"\xc1", "unexpected type 0xc1")])
def test_metadata_that_is_none_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(data)


def waves(gfx: str, vgprs: int, threads: int | None = None, lds: int = 0, sgprs: int = 20) -> float:
    size = 64 if gfx.startswith("gfx9") else 32
    figures = {**FIGURES, "vgprs": vgprs, "lds_bytes": lds, "sgprs": sgprs, "wave_size": size}
    figures["workgroup_threads"] = threads or size
    occupancy = occupancy_of(Kernel(name="k", is_workgroup_processor_mode=size == 32, **figures), gfx)
    assert occupancy is not None
    return occupancy.waves


VGPRS = (24, 48, 65, 72, 96, 97, 120, 121, 128, 129, 168, 192, 193, 256)
LDS = (4096, 10000, 16384, 20000, 33000, 60000)


# What LLVM prints as "Occupancy" for such kernels, for each of the counts above (the LLVM of Triton 3.9.0).
@pytest.mark.parametrize(
    ("gfx", "by_vgprs", "by_lds"),
    [
        ("gfx90a", (8, 8, 7, 7, 5, 4, 4, 4, 4, 3, 3, 2, 2, 2), (8, 6, 4, 3, 1, 1)),
        ("gfx942", (8, 8, 7, 7, 5, 4, 4, 4, 4, 3, 3, 2, 2, 2), (8, 6, 4, 3, 1, 1)),
        ("gfx950", (8, 8, 7, 7, 5, 4, 4, 4, 4, 3, 3, 2, 2, 2), (8, 8, 8, 8, 4, 2)),
        ("gfx1030", (16, 16, 12, 12, 10, 9, 8, 8, 8, 7, 5, 5, 4, 4), (16, 16, 16, 12, 6, 4)),
        ("gfx1100", (16, 16, 16, 16, 16, 12, 12, 10, 10, 10, 9, 8, 7, 5), (16, 16, 16, 12, 6, 4)),
        ("gfx1101", (16, 16, 16, 16, 16, 12, 12, 10, 10, 10, 9, 8, 7, 5), (16, 16, 16, 12, 6, 4)),
        ("gfx1102", (16, 16, 12, 12, 10, 9, 8, 8, 8, 7, 5, 5, 4, 4), (16, 16, 16, 12, 6, 4)),
        ("gfx1103", (16, 16, 12, 12, 10, 9, 8, 8, 8, 7, 5, 5, 4, 4), (16, 16, 16, 12, 6, 4)),
        ("gfx1150", (16, 16, 12, 12, 10, 9, 8, 8, 8, 7, 5, 5, 4, 4), (16, 16, 16, 12, 6, 4)),
        ("gfx1151", (16, 16, 16, 16, 16, 12, 12, 10, 10, 10, 9, 8, 7, 5), (16, 16, 16, 12, 6, 4)),
        ("gfx1152", (16, 16, 12, 12, 10, 9, 8, 8, 8, 7, 5, 5, 4, 4), (16, 16, 16, 12, 6, 4)),
        ("gfx1200", (16, 16, 16, 16, 16, 12, 12, 10, 10, 10, 9, 8, 7, 5), (16, 16, 16, 12, 6, 4)),
        ("gfx1201", (16, 16, 16, 16, 16, 12, 12, 10, 10, 10, 9, 8, 7, 5), (16, 16, 16, 12, 6, 4)),
    ],
)
def test_waves_agree_with_llvm(gfx: str, by_vgprs: tuple[int, ...], by_lds: tuple[int, ...]) -> None:
    assert tuple(waves(gfx, vgprs) for vgprs in VGPRS) == by_vgprs
    assert tuple(waves(gfx, 24, 256, lds) for lds in LDS) == by_lds


def test_waves_of_few_workgroups_are_not_whole() -> None:
    assert waves("gfx942", 24, 64, 40000) == 0.25  # one workgroup of one wave on four SIMDs
    assert waves("gfx942", 300, 1024) == 0  # four waves a SIMD, of which the registers hold one
    assert waves("gfx942", 24, 64, sgprs=104) == 7


def test_another_processor_has_no_known_register_file() -> None:
    kernel = Kernel(name="k", is_workgroup_processor_mode=False, **FIGURES)
    assert occupancy_of(kernel, "gfx803") is None

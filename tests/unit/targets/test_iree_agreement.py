"""What ``amdnfs_targets`` says of a target is what the installed IREE says of it, and IREE takes its flags."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from functools import cache

import pytest
from amdnfs_targets import TARGETS, Target, TargetKind, get_target

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("iree") is None or importlib.util.find_spec("iree.compiler") is None,
    reason="iree-base-compiler is not installed",
)

NAMED_GPUS = [name for name, item in TARGETS.items() if item.kind in (TargetKind.HIP, TargetKind.CUDA)]
DESCRIBED = [name for name in NAMED_GPUS if any("#hal.device.target" in flag for flag in TARGETS[name].iree_flags)]
PROGRAM = """
func.func @f(%x: tensor<64xf32>) -> tensor<64xf32> {
  %y = math.exp %x : tensor<64xf32>
  return %y : tensor<64xf32>
}
"""


def run_compiler(flags: tuple[str, ...], *more: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "iree.compiler.tools.scripts.iree_compile", "-", "-o", "-", *flags, *more]
    return subprocess.run(command, input=PROGRAM.encode(), capture_output=True, check=False)


@cache
def device_of(flags: tuple[str, ...]) -> str:
    """The device as IREE describes it to itself."""
    done = run_compiler(flags, "--compile-to=executable-targets")
    assert done.returncode == 0, done.stderr.decode()
    found = re.search(rb'#hal\.device\.target<".*?\]>(?= : !hal\.device)', done.stdout)
    assert found is not None
    return found.group().decode()


def number(device: str, key: str) -> int:
    found = re.search(rf"\b{key} = \[?(\d+)", device)
    assert found is not None, key
    return int(found.group(1))


def intrinsics(device: str) -> list[str]:
    """The matrix instructions that ``Target.matrix_ops`` covers: see its text for what is left out."""
    found = re.search(r" mma = \[(.*?)\]", device)
    every = re.findall(r"<(\w+)>", found.group(1)) if found else []
    left_out = re.compile(r"F64|x\d+B_|F8E5|F8E4\w+_F8|_\d+x\d+x\d+x\d+")
    return [name for name in every if not left_out.search(name)]


@pytest.mark.parametrize("name", NAMED_GPUS)
def test_capabilities_are_those_that_iree_assumes(name: str) -> None:
    target = get_target(name)
    device = device_of(target.iree_flags)
    # IREE does not take sm_90: its own kernels for that target are made for sm_80.
    processor = "sm_80" if name == "cuda-sm_90" else name.removeprefix("cuda-")
    assert f'arch = "{processor}"' in device
    assert [op.iree_intrinsic for op in target.matrix_ops] == intrinsics(device)
    assert target.wave_size == number(device, "subgroup_size_choices")
    if name not in ("cuda-sm_86", "cuda-sm_90"):  # IREE takes sm_80's figure for both.
        assert target.lds_bytes == number(device, "max_workgroup_memory_bytes")


@pytest.mark.parametrize("name", DESCRIBED)
def test_described_gfx_is_still_refused_by_name(name: str) -> None:
    done = run_compiler(("--iree-hal-target-device=hip", f"--iree-rocm-target={name}"))
    assert f"Unknown ROCM target '{name}'" in done.stderr.decode(), (
        f"IREE takes {name} by name now: its device need no longer be described in rdna.py"
    )


@pytest.mark.parametrize("name", ["gfx1102", "gfx1152"])
def test_described_rdna3_is_what_iree_says_of_gfx1101(name: str) -> None:
    model = device_of(get_target("gfx1101").iree_flags)
    assert device_of(get_target(name).iree_flags) == model.replace("gfx1101", name)


@pytest.mark.parametrize("name", DESCRIBED)
def test_described_gfx_is_in_the_code_object(name: str) -> None:
    done = run_compiler(get_target(name).compile_flags)
    assert done.returncode == 0, done.stderr.decode()
    assert re.search(rf"amdhsa[\w-]*-{name}\b".encode(), done.stdout)


@pytest.mark.parametrize("target", [TARGETS["cpu"], TARGETS["cpu-x86-64-v3"], TARGETS["vulkan"]], ids=lambda t: t.name)
def test_other_targets_compile(target: Target) -> None:
    done = run_compiler(target.compile_flags)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout


def test_vulkan_program_depends_on_no_subgroup_size() -> None:
    device = device_of(get_target("vulkan").iree_flags)
    assert "subgroup = none" in device

"""HIP calls that the emulator does not do: each says what is missing, and nothing runs."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path

import pytest

from tests.unit.hipemu.machine import HipError, Machine, assemble, kernel_text

pytest.importorskip("triton")


class Device(Machine):
    """Calls of HIP by name."""

    def __call__(self, name: str, *arguments: object) -> None:
        self._check(getattr(self._hip, name)(*arguments))


class CopyNode(ctypes.Structure):
    """HIP_MEMCPY3D."""

    _fields_ = [
        *((f"{side}_{name}", kind) for side in ("from", "to") for name, kind in (
            ("x", c_size_t), ("y", c_size_t), ("z", c_size_t), ("level", c_size_t), ("type", c_uint),
            ("host", c_void_p), ("device", c_void_p), ("array", c_void_p), ("pitch", c_size_t), ("height", c_size_t),
        )),
        ("width", c_size_t),
        ("height", c_size_t),
        ("depth", c_size_t),
    ]  # fmt: skip


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_host_stubs(device: Device) -> None:
    with pytest.raises(HipError, match=r"^hipLaunchKernel needs a host stub; only hipModuleLaunchKernel is supported$"):
        device("hipLaunchKernel", None, *[c_uint(1)] * 6, None, c_size_t(0), None)


def test_arguments_in_extra(device: Device) -> None:
    module, kernel = c_void_p(), c_void_p()
    device("hipModuleLoadData", byref(module), assemble("gfx942", kernel_text("gfx942", "", wave=64)))
    device("hipModuleGetFunction", byref(kernel), module, b"k")
    extra = (c_void_p * 1)()
    with pytest.raises(HipError, match=r"^kernel k: arguments in `extra` are not supported$"):
        device("hipModuleLaunchKernel", kernel, 1, 1, 1, 64, 1, 1, 0, None, None, extra)


def test_properties_of_no_chip(device: Device) -> None:
    with pytest.raises(HipError, match=r"^no chip is chosen yet: set AMDNFS_EMULATE_TARGET$"):
        device("hipGetDeviceProperties", ctypes.create_string_buffer(4096), c_int(0))


def test_graph_copies_of_rows(device: Device) -> None:
    graph, node = c_void_p(), c_void_p()
    device("hipGraphCreate", byref(graph), c_uint(0))
    copy = CopyNode(width=16, height=2, depth=1)
    with pytest.raises(HipError, match=r"^graph copies of more than one row are not supported$"):
        device("hipDrvGraphAddMemcpyNode", byref(node), graph, None, c_size_t(0), byref(copy), None)


def test_a_kernel_that_is_not_there(device: Device) -> None:
    module, kernel = c_void_p(), c_void_p()
    device("hipModuleLoadData", byref(module), assemble("gfx942", kernel_text("gfx942", "", wave=64)))
    with pytest.raises(HipError, match="other"):
        device("hipModuleGetFunction", byref(kernel), module, b"other")

"""A tiny HIP program around a few lines of AMD assembly, executed by the emulator.

The kernel gives each lane eight dwords of input in v4-v11 (all of them also of lane 0 in s16-s23) and takes v12-v19 as
its eight dwords of output. v0 is the lane's number in the workgroup.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from amdnfs_hipemu import library_folder
from numpy.typing import NDArray

U32 = NDArray[np.uint32]
DWORDS = 8

TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1150", "gfx1200")

_LOAD_OLD = """
  s_load_dwordx4 s[4:7], s[0:1], 0x0
  s_waitcnt lgkmcnt(0)
  v_and_b32_e32 v0, 0x3ff, v0
  v_lshlrev_b32_e32 v1, 5, v0
  global_load_dwordx4 v[4:7], v1, s[4:5]
  global_load_dwordx4 v[8:11], v1, s[4:5] offset:16
  s_load_dwordx8 s[16:23], s[4:5], 0x0
  s_waitcnt vmcnt(0) lgkmcnt(0)
"""
_STORE_OLD = """
  global_store_dwordx4 v1, v[12:15], s[6:7]
  global_store_dwordx4 v1, v[16:19], s[6:7] offset:16
  s_endpgm
"""


def _newer(text: str, target: str) -> str:
    for old, new in (
        ("s_load_dwordx4", "s_load_b128"),
        ("s_load_dwordx8", "s_load_b256"),
        ("global_load_dwordx4", "global_load_b128"),
        ("global_store_dwordx4", "global_store_b128"),
    ):
        text = text.replace(old, new)
    if target.startswith("gfx12"):
        text = text.replace("s_waitcnt vmcnt(0) lgkmcnt(0)", "s_wait_loadcnt 0x0\n  s_wait_kmcnt 0x0")
        text = text.replace("s_waitcnt lgkmcnt(0)", "s_wait_kmcnt 0x0")
    return text


def kernel_text(target: str, body: str, *, wave: int, lds_bytes: int = 0, scratch_bytes: int = 0) -> str:
    """Assembly of a code object with one kernel, `k`."""
    is_cdna, load, store = target.startswith("gfx9"), _LOAD_OLD, _STORE_OLD
    if target.startswith(("gfx11", "gfx12")):
        load, store = _newer(load, target), _newer(store, target)
    special = ".amdhsa_accum_offset 64" if is_cdna else f".amdhsa_wavefront_size32 {int(wave == 32)}"
    return f"""
.amdgcn_target "amdgcn-amd-amdhsa--{target}"
.text
.globl k
.p2align 8
.type k,@function
k:
{load}
{body}
{store}
.Lend:
.size k, .Lend-k
.rodata
.p2align 6
.amdhsa_kernel k
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_kernarg_size 16
  .amdhsa_group_segment_fixed_size {lds_bytes}
  .amdhsa_private_segment_fixed_size {scratch_bytes}
  .amdhsa_next_free_vgpr {128 if is_cdna else 64}
  .amdhsa_next_free_sgpr 64
  {special}
.end_amdhsa_kernel
.amdgpu_metadata
---
amdhsa.version: [1, 2]
amdhsa.target: amdgcn-amd-amdhsa--{target}
amdhsa.kernels:
  - .name: k
    .symbol: k.kd
    .kernarg_segment_size: 16
    .kernarg_segment_align: 8
    .group_segment_fixed_size: {lds_bytes}
    .private_segment_fixed_size: {scratch_bytes}
    .wavefront_size: {wave}
    .sgpr_count: 64
    .vgpr_count: 64
    .max_flat_workgroup_size: 1024
    .args:
      - {{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}}
      - {{.offset: 8, .size: 8, .value_kind: global_buffer, .address_space: global}}
...
.end_amdgpu_metadata
"""


def assemble(target: str, text: str) -> bytes:
    """The linked code object of an assembly text."""
    from triton._C.libtriton import amd
    from triton.backends.amd.compiler import assemble_amdgcn

    with tempfile.TemporaryDirectory() as folder:
        built, linked = Path(folder, "k.o"), Path(folder, "k.hsaco")
        built.write_bytes(assemble_amdgcn(text, target, ""))
        amd.link_hsaco(str(built), str(linked))
        return linked.read_bytes()


class HipError(RuntimeError):
    """A HIP call failed; the text is the emulator's."""


class Machine:
    """A copy of the emulator's library with settings of its own."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """Copies the library to `folder`, since it reads its settings once.

        Args:
            folder: An empty folder.
            settings: Environment variables without `AMDNFS_EMULATE_`.
        """
        copy = folder / "libamdhip64.so"
        copy.write_bytes((library_folder() / "libamdhip64.so").read_bytes())
        self._hip = ctypes.CDLL(str(copy))
        self._hip.hipGetErrorString.restype = ctypes.c_char_p
        names = {f"AMDNFS_EMULATE_{name}": value for name, value in (settings or {}).items()}
        old = {name: os.environ.get(name) for name in names}
        os.environ.update(names)
        try:
            self._check(self._hip.hipInit(0))
        finally:
            for name, value in old.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def _check(self, error: int) -> None:
        if error:
            raise HipError(self._hip.hipGetErrorString(error).decode())

    def run_text(self, target: str, body: str, data: U32, **options: int) -> U32:
        """Runs a body on `data` ([lanes, 8], one workgroup) and gives [lanes, 8]."""
        groups = options.pop("groups", 1)
        wave = options.pop("wave", 64 if target.startswith("gfx9") else 32)
        return self.run_object(assemble(target, kernel_text(target, body, wave=wave, **options)), data, groups=groups)

    def run_object(self, code: bytes, data: U32, *, groups: int = 1) -> U32:
        """Runs kernel `k` of a code object.

        Raises:
            HipError: If a call fails or the kernel is stopped.
        """
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self._hip.hipModuleLoadData(ctypes.byref(module), code))
        data = np.ascontiguousarray(data, np.uint32)
        buffers = [ctypes.c_void_p() for _ in range(2)]
        try:
            self._check(self._hip.hipModuleGetFunction(ctypes.byref(function), module, b"k"))
            for buffer in buffers:
                self._check(self._hip.hipMalloc(ctypes.byref(buffer), ctypes.c_size_t(data.nbytes)))
            size = ctypes.c_size_t(data.nbytes)
            self._check(self._hip.hipMemcpy(buffers[0], data.ctypes.data_as(ctypes.c_void_p), size, 1))
            pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(buffer) for buffer in buffers))
            self._check(
                self._hip.hipModuleLaunchKernel(function, groups, 1, 1, len(data), 1, 1, 0, None, pointers, None)
            )
            out = np.empty_like(data)
            self._check(self._hip.hipMemcpy(out.ctypes.data_as(ctypes.c_void_p), buffers[1], size, 2))
            return out
        finally:
            for buffer in buffers:
                self._hip.hipFree(buffer)
            self._hip.hipModuleUnload(module)


def random_bits(rng: np.random.Generator, lanes: int) -> U32:
    """Any bits."""
    return rng.integers(0, 2**32, (lanes, DWORDS), np.uint32)


def random_floats(rng: np.random.Generator, lanes: int) -> U32:
    """f32 of moderate size."""
    return rng.normal(0, 4, (lanes, DWORDS)).astype(np.float32).view(np.uint32)

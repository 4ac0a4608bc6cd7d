"""Counting instructions in assembly."""

from __future__ import annotations

import pytest

from amdnfs_compile.kernel_facts.assembly import count_instructions, read_assembly

CDNA = """
	.amdgcn_target "amdgcn-amd-amdhsa--gfx942"
	.text
	.globl	first
	.type	first,@function
first:
	s_load_dwordx4 s[0:3], s[4:5], 0x0
	buffer_load_dwordx4 v[0:3], v9, s[0:3], 0 offen ; v_mfma in a comment
	buffer_load_ushort v4, v9, s[0:3], 0 offen
	ds_write2st64_b64 v8, v[0:1], v[2:3] offset1:1
	ds_read_b128 v[0:3], v8
	s_waitcnt lgkmcnt(0)
	s_barrier
	v_mfma_f32_16x16x16_f16 v[0:3], v[0:1], v[2:3], 0
	v_mfma_f32_16x16x16_f16 v[0:3], v[0:1], v[2:3], v[0:3]
	v_smfmac_f32_16x16x32_f16 v[0:3], v[0:1], v[2:5], v9
	v_add_f64 v[0:1], v[0:1], v[2:3]
	global_store_short v8, v4, s[0:1]
	s_endpgm
.Lfunc_end0:
	.size	first, .Lfunc_end0-first
	.type	second,@function
second:
	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]
	v_dual_mov_b32 v0, 1 :: v_dual_add_f32 v1, v2, v3
	global_load_d16_hi_b16 v0, v1, s[0:1]
	ds_load_2addr_b64 v[0:3], v8 offset1:1
	scratch_store_b128 off, v[0:3], off offset:16
	s_barrier_signal -1
	s_barrier_wait -1
	s_endpgm
.Lfunc_end1:
	.amdgpu_metadata
---
amdhsa.kernels:
{kernels}
amdhsa.target:   amdgcn-amd-amdhsa--gfx942
...
	.end_amdgpu_metadata
"""
METADATA = """  - .agpr_count:     4
    .group_segment_fixed_size: 2048
    .max_flat_workgroup_size: 256
    .name:           {name}
    .private_segment_fixed_size: 16
    .sgpr_count:     22
    .sgpr_spill_count: 1
    .symbol:         {name}.kd
    .vgpr_count:     40
    .vgpr_spill_count: 3
    .wavefront_size: 64"""


def text_of(*names: str, drop: str = "") -> str:
    kernels = "\n".join(METADATA.format(name=name) for name in names)
    return CDNA.format(kernels="\n".join(line for line in kernels.splitlines() if not drop or drop not in line))


def test_instructions_are_counted_kernel_by_kernel() -> None:
    facts = read_assembly(text_of("first", "second"))
    first, second = facts["first"], facts["second"]
    assert first["matrix"] == {"v_mfma_f32_16x16x16_f16": 2, "v_smfmac_f32_16x16x32_f16": 1}
    assert first["matrix_instructions"] == 3
    assert first["loads"] == {"global": {"2": 1, "16": 1}, "lds": {"16": 1}, "scalar": {"16": 1}}
    assert first["stores"] == {"global": {"2": 1}, "lds": {"16": 1}}
    assert (first["barriers"], first["waits"], first["f64"], first["vector_alu"]) == (1, 1, 1, 1)
    assert second["matrix"] == {"v_wmma_f32_16x16x16_f16": 1}
    assert second["loads"] == {"global": {"2": 1}, "lds": {"16": 1}}
    assert (second["barriers"], second["scratch_accesses"], second["vector_alu"]) == (1, 1, 2)


def test_registers_and_memory_come_from_the_metadata() -> None:
    first = read_assembly(text_of("first"))["first"]
    assert (first["vgprs"], first["agprs"], first["sgprs"]) == (40, 4, 22)
    assert (first["vgpr_spills"], first["sgpr_spills"]) == (3, 1)
    assert (first["lds_bytes"], first["scratch_bytes"]) == (2048, 16)
    assert (first["workgroup_threads"], first["wave_size"]) == (256, 64)


def test_metadata_without_agprs_is_that_of_a_processor_without_them() -> None:
    assert (
        read_assembly(text_of("first", drop=".agpr_count").replace("    .group", "  - .group"))["first"]["agprs"] == 0
    )


def test_a_missing_figure_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"metadata of kernel first has no \.vgpr_spill_count"):
        read_assembly(text_of("first", drop=".vgpr_spill"))


def test_metadata_without_code_is_an_error() -> None:
    with pytest.raises(ValueError, match="metadata of kernel third, but no code"):
        read_assembly(text_of("first", "third"))


def test_a_width_that_a_name_does_not_tell_is_called_unknown() -> None:
    assert count_instructions(["\tglobal_load_something v0, v1, s[0:1]"])["loads"] == {"global": {"unknown": 1}}

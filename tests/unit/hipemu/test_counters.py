"""The JSON line of a dispatch, counted by hand for small programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.hipemu.machine import HipError, Machine, random_bits

pytest.importorskip("triton")

DATA = random_bits(np.random.default_rng(12), 64)


def count(folder: Path, target: str, body: str, **options: int) -> dict[str, Any]:
    path = folder / "counters.jsonl"
    Machine(folder, {"COUNTERS": str(path)}).run_text(target, body, DATA, **options)
    (line,) = path.read_text(encoding="utf-8").splitlines()
    return dict(json.loads(line))


def test_the_frame_of_every_program(tmp_path: Path) -> None:
    got = count(tmp_path, "gfx942", "")
    assert {key: got[key] for key in ("dispatch", "kernel", "target", "grid", "block", "waves", "fault")} == {
        "dispatch": 1,
        "kernel": "k",
        "target": "gfx942",
        "grid": [1, 1, 1],
        "block": [64, 1, 1],
        "waves": 1,
        "fault": None,
    }
    assert got["instructions"]["vector-memory"] == 4
    assert got["instructions"]["scalar-memory"] == 2
    assert got["loaded_bytes"] == got["stored_bytes"] == {"16": 2048}
    assert got["scalar_loaded_bytes"] == 48
    # 2048 bytes are 16 lines; the buffers begin at multiples of 256 bytes, and kernel arguments are not counted.
    assert (got["loaded_lines"], got["stored_lines"]) == (16, 16)
    assert len(got["code_object"]) == 16


def test_lanes_and_matrix_flops(tmp_path: Path) -> None:
    body = "s_mov_b64 exec, 0xff\nv_mov_b32_e32 v12, 0\ns_mov_b64 exec, -1\nv_mfma_f32_16x16x16_f16 v[12:15], v[4:5], v[6:7], 0"
    frame, got = count(tmp_path, "gfx942", "s_nop 0"), {}
    (tmp_path / "second").mkdir()
    got = count(tmp_path / "second", "gfx942", body)
    assert got["matrix_flops"] == 2 * 16 * 16 * 16
    assert got["instructions"]["matrix"] == 1
    assert got["vector_lanes"] - frame["vector_lanes"] == 8 + 64
    assert got["vector_slots"] - frame["vector_slots"] == 2 * 64


@pytest.mark.parametrize(("shift", "conflicts"), [(2, 0), (3, 2), (7, 62)])
def test_bank_conflicts(tmp_path: Path, shift: int, conflicts: int) -> None:
    """Lanes a dword apart meet no bank twice; two dwords apart each bank serves two lanes of 32; 32 apart all 32."""
    body = f"s_mov_b32 m0, -1\nv_lshlrev_b32_e32 v2, {shift}, v0\nds_write_b32 v2, v4\ns_waitcnt lgkmcnt(0)"
    got = count(tmp_path, "gfx942", body, lds_bytes=8192)
    assert got["lds_bank_conflicts"] == conflicts
    assert got["lds_stored_bytes"] == 256


def test_scratch_and_atomics(tmp_path: Path) -> None:
    body = """v_mov_b32_e32 v2, 0
    scratch_store_dword v2, v4, off
    scratch_load_dword v12, v2, off
    global_atomic_add v2, v4, s[4:5]
    s_waitcnt vmcnt(0)
    """
    got = count(tmp_path, "gfx942", body, scratch_bytes=16)
    assert (got["scratch_stored_bytes"], got["scratch_loaded_bytes"]) == (256, 256)
    assert got["atomic_operations"] == 64


def test_a_fault_is_in_the_line(tmp_path: Path) -> None:
    path = tmp_path / "counters.jsonl"
    machine = Machine(tmp_path, {"COUNTERS": str(path)})
    with pytest.raises(HipError):
        machine.run_text("gfx942", "s_trap 3", DATA)
    fault = json.loads(path.read_text(encoding="utf-8"))["fault"]
    assert fault["kind"] == "trap"
    assert "s_trap 3" in fault["message"]

"""A bundle made by hand for tests of the report: a manifest, facts, and a program that holds small code objects."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

from amdnfs_runtime.bundle import (
    EntryPoint,
    LayerCacheEntry,
    Manifest,
    ModelEntry,
    TargetEntry,
    file_entry,
    read_manifest,
)

FIGURES: dict[str, int] = {
    "vgprs": 40,
    "agprs": 0,
    "sgprs": 22,
    "vgpr_spills": 0,
    "sgpr_spills": 0,
    "lds_bytes": 4096,
    "scratch_bytes": 0,
    "workgroup_threads": 256,
    "wave_size": 64,
}
"""What the code objects here say of a kernel, unless told otherwise."""
_KEYS = {
    "vgprs": ".vgpr_count",
    "agprs": ".agpr_count",
    "sgprs": ".sgpr_count",
    "vgpr_spills": ".vgpr_spill_count",
    "sgpr_spills": ".sgpr_spill_count",
    "lds_bytes": ".group_segment_fixed_size",
    "scratch_bytes": ".private_segment_fixed_size",
    "workgroup_threads": ".max_flat_workgroup_size",
    "wave_size": ".wavefront_size",
}


def pack(value: Any) -> bytes:
    """`value` as MessagePack, in the long forms."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return struct.pack(">BI", 0xCE, value)
    if isinstance(value, str):
        return struct.pack(">BH", 0xDA, len(value)) + value.encode()
    if isinstance(value, list):
        return struct.pack(">BH", 0xDC, len(value)) + b"".join(pack(item) for item in value)
    return struct.pack(">BH", 0xDE, len(value)) + b"".join(pack(key) + pack(item) for key, item in value.items())


def code_object(gfx: str, kernels: dict[str, dict[str, int]], descriptor: dict[str, int] | None = None) -> bytes:
    """An ELF image with metadata and descriptors, but without code.

    Args:
        gfx: Processor.
        kernels: For each kernel what differs from `FIGURES`.
        descriptor: What the descriptors say otherwise than the metadata.
    """
    figures = {name: {**FIGURES, **changes} for name, changes in kernels.items()}
    entries = [
        {".symbol": f"{name}.kd", ".name": name, **{_KEYS[key]: value for key, value in item.items()}}
        for name, item in figures.items()
    ]
    note_body = pack({"amdhsa.kernels": entries, "amdhsa.target": f"amdgcn-amd-amdhsa--{gfx}"})
    note = struct.pack("<III", 7, len(note_body), 32) + b"AMDGPU\0\0" + note_body + b"\0" * (-len(note_body) % 4)
    names, symbols, home = b"\0", b"\0" * 24, b""
    for name, item in figures.items():
        symbols += struct.pack("<IBBHQQ", len(names), 1, 0, 4, 0x1000 + len(home), 64)
        names += f"{name}.kd".encode() + b"\0"
        home += _descriptor({**item, **(descriptor or {})})
    return _elf([(7, 0, note), (2, 3, symbols), (3, 0, names), (1, 0, home)])


def _descriptor(item: dict[str, int]) -> bytes:
    image = bytearray(64)
    struct.pack_into("<II", image, 0, item["lds_bytes"], item["scratch_bytes"])
    struct.pack_into("<I", image, 48, (1 << 29) if item["wave_size"] == 32 else 0)
    struct.pack_into("<H", image, 56, (1 << 10) if item["wave_size"] == 32 else 0)
    return bytes(image)


def _elf(sections: list[tuple[int, int, bytes]]) -> bytes:
    """`sections` are pairs of type, link and content; they get the numbers 1, 2, ..."""
    body, headers = b"", struct.pack("<IIQQQQIIQQ", *([0] * 10))
    for kind, link, content in sections:
        address = 0x1000 if kind == 1 else 0
        headers += struct.pack("<IIQQQQIIQQ", 0, kind, 0, address, 64 + len(body), len(content), link, 0, 1, 24)
        body += content
    head = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    head += struct.pack("<HHIQQQIHHHHHH", 3, 224, 1, 0, 0, 64 + len(body), 0, 64, 56, 0, 64, len(sections) + 1, 0)
    return head + body + headers


def cost(constant: float, per_page: float = 0, per_token: float = 0) -> dict[str, float]:
    """A cost as facts.json has it."""
    parts = {"per_page": per_page, "per_context_token": per_token}
    return {"constant": constant, **{name: value for name, value in parts.items() if value}}


def group(export: str, op: str, flops: dict[str, float], moved: dict[str, float], **more: Any) -> dict[str, Any]:
    """A dispatch group as facts.json has it: a matmul in layers 0 and 1 unless told otherwise."""
    contraction = {
        "operation": "linalg.generic",
        "type": "f16",
        "sizes": {"m": "16", "n": "64", "k": "32"},
        "rows": cost(16),
        "flops": flops,
    }
    values = {
        "export": export,
        "op": op,
        "part": "layer",
        "kind": "matmul",
        "layers": [0, 1],
        "count": 2,
        "flops": flops,
        "bytes": moved,
        "contractions": [contraction] if any(flops.values()) else [],
    }
    return {**values, **more}


GROUPS = [
    group("linear", "mlp.up_proj", cost(65536), cost(8000)),
    group("attend", "attention", cost(0, per_token=64), cost(1000, per_page=512), kind="attention"),
    group("norm", "model.norm", cost(0), cost(100), kind="reduction", part="tail", layers=[], count=1),
]
"""Dispatches of the hand-made entry point, unless told otherwise."""


def make_bundle(
    folder: Path,
    *,
    groups: list[dict[str, Any]] | None = None,
    kernels: dict[str, dict[str, int]] | None = None,
    counts: dict[str, dict[str, Any]] | None = None,
    target: str = "gfx942",
    kind: str = "hip",
    refusals: list[dict[str, str]] | None = None,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Writes a bundle of a two-layer model with one entry point, `prefill_16`.

    Args:
        folder: Where.
        groups: Its dispatches.
        kernels: For each kernel what its code object says otherwise than `FIGURES`.
        counts: For each kernel what was counted in its assembly otherwise than 8 matrix instructions.
        target: Its only target.
        kind: Kind of the target; only hip programs hold code objects.
        refusals: Near misses of passes.
        changes: Keys of facts.json that are different; None removes a key.
    """
    groups = GROUPS if groups is None else groups
    names = [item["export"] for item in groups]
    code = {name: (kernels or {}).get(name, {}) for name in names}
    image = code_object(target, code) if kind == "hip" else b""
    facts: dict[str, Any] = {
        "passes": [{"name": "dispatch-linear", "rewrites": 2}, {"name": "lower-paged-attention", "rewrites": 2}],
        "refusals": refusals or [],
        "dispatches": {
            "prefill_16": {
                "groups": groups,
                "copies": [{"operation": "flow.tensor.update", "count": 1, "bytes": cost(500)}],
                "weight_bytes": cost(4000),
            }
        },
        "code_objects": [{"sha256": hashlib.sha256(image).hexdigest(), "num_bytes": len(image)}] if image else [],
        "kernels": {name: _kernel_facts(name, image, code[name], (counts or {}).get(name, {})) for name in names}
        if image
        else {},
    }
    facts |= changes or {}
    place = folder / "artifacts" / target
    place.mkdir(parents=True)
    (place / "program.vmfb").write_bytes(b"PK\x03\x04some bytes before" + image + b"and after")
    (place / "facts.json").write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))
    _write_manifest(folder, target, kind)
    return folder


def add_target(bundle: Path, other: Path) -> Path:
    """Adds the targets of another bundle of the same model to `bundle`."""
    first, second = read_manifest(bundle), read_manifest(other)
    shutil.copytree(other / "artifacts", bundle / "artifacts", dirs_exist_ok=True)
    joined = dataclasses.replace(
        first, targets={**first.targets, **second.targets}, files={**first.files, **second.files}
    )
    (bundle / "manifest.json").write_text(joined.to_json())
    return bundle


def _kernel_facts(name: str, image: bytes, code: dict[str, int], counts: dict[str, Any]) -> dict[str, Any]:
    return {
        "symbol": name,
        "object": hashlib.sha256(image).hexdigest(),
        **FIGURES,
        **code,
        "matrix_instructions": 8,
        "matrix": {"v_mfma_f32_16x16x16_f16": 8},
        "vector_alu": 10,
        "f64": 0,
        "barriers": 1,
        "waits": 2,
        "loads": {"global": {"16": 3, "2": 1}},
        "stores": {"global": {"2": 1}},
        **counts,
    }


def _write_manifest(folder: Path, target: str, kind: str) -> None:
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    place = f"artifacts/{target}"
    paths = ["tokenizer/tokenizer.json", f"{place}/program.vmfb", f"{place}/facts.json"]
    manifest = Manifest(
        model=ModelEntry(
            name="hand-made",
            architecture="LlamaForCausalLM",
            model_type="llama",
            dtype="f16",
            vocab_size=100,
            context_tokens=4096,
            digest="0" * 64,
        ),
        page_tokens=16,
        cache_dtype="f16",
        layers=(
            LayerCacheEntry(kind="paged", kv_heads=2, head_dim=8, window=0),
            LayerCacheEntry(kind="paged", kv_heads=2, head_dim=8, window=64),
        ),
        bos_token_id=None,
        eos_token_ids=(),
        weights=(),
        targets={
            target: TargetEntry(
                kind=kind,
                gfx=target if kind == "hip" else None,
                program=f"{place}/program.vmfb",
                facts=f"{place}/facts.json",
                entry_points=(EntryPoint(name="prefill_16", kind="prefill", batch=1, tokens=16),),
                cpu_features=(),
            )
        },
        files={path: file_entry(folder / path) for path in paths},
    )
    (folder / "manifest.json").write_text(manifest.to_json())

"""A compile into a place: new, extended, repaired, refused, interrupted; and the same bytes every time.

Most tests replace tracing and IREE by stand-ins, because it is not the programs that they look at.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amdnfs_runtime
import pytest
from amdnfs_runtime.bundle import read_manifest, verify_files
from amdnfs_runtime.errors import ArtifactError, LoweringError, ModelError, PassFailed, UsageError

from amdnfs_compile import CompileOptions, Dtype, compile_model
from amdnfs_compile.frontend.huggingface import ImportedModel, bind_parameters
from amdnfs_compile.lower import Lowered
from amdnfs_compile.processes import CompilerProcesses, CompileStopped

OPTIONS = CompileOptions(prefill_chunks=(16,), decode_batches=(1, 4))
PROGRAM = "artifacts/cpu/program.vmfb"
WEIGHTS = "weights/model.safetensors"


@dataclasses.dataclass
class Backend:
    """What the stand-ins were asked, and what the next lowering does."""

    lowered: list[str] = dataclasses.field(default_factory=list)
    imports: int = 0
    error: BaseException | None = None
    content: Callable[[Any], bytes] = lambda target: f"amdgcn-amd-amdhsa--{target.gfx}".encode()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    state = Backend()

    def import_model(checkpoint: Any, skeleton: Any, shapes: Any, *_: Any) -> ImportedModel:
        state.imports += 1
        return ImportedModel(
            bytecode=b"",
            bindings=bind_parameters(checkpoint, skeleton),
            caches=skeleton.caches,
            shapes=tuple(shapes),
            passes=(),
            num_traced_layers=2,
            num_distinct_layers=1,
        )

    def lower_module(_bytecode: bytes, target: Any, *_: object) -> Lowered:
        state.lowered.append(target.name)
        if state.error is not None:
            raise state.error
        return Lowered(vmfb=state.content(target), flags=(), passes=(), peak_rss_bytes=0)

    monkeypatch.setattr("amdnfs_compile.compiler.import_model", import_model)
    monkeypatch.setattr("amdnfs_compile.compiler.lower_module", lower_module)
    return state


def content_of(folder: Path) -> dict[str, str]:
    """Digest of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def only_target(bundle: Path, name: str, output: Path) -> Path:
    """A copy of a bundle with one of its targets."""
    shutil.copytree(bundle, output)
    values = json.loads((bundle / "manifest.json").read_text())
    for other in set(values["targets"]) - {name}:
        shutil.rmtree(output / "artifacts" / other)
        values["files"] = {n: e for n, e in values["files"].items() if not n.startswith(f"artifacts/{other}/")}
        del values["targets"][other]
    (output / "manifest.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    return output


def no_leftovers(folder: Path) -> bool:
    return not [path.name for path in folder.iterdir() if "partial" in path.name]


def test_a_new_bundle_is_whole(twin: Path, tmp_path: Path, backend: Backend) -> None:
    phases: list[str] = []
    output = compile_model(
        twin, ["cpu", "gfx942"], tmp_path / "m.amdnfs", OPTIONS, lambda phase, _text: phases.append(phase)
    )
    manifest = read_manifest(output)
    verify_files(output, manifest)
    assert list(manifest.targets) == ["cpu", "gfx942"]
    assert manifest.targets["gfx942"].gfx == "gfx942"
    assert manifest.targets["gfx942"].cpu_features == ()
    assert manifest.targets["cpu"].cpu_features
    assert set(manifest.files) == set(content_of(output)) - {"manifest.json"}
    assert (manifest.bos_token_id, manifest.eos_token_ids) == (1, (2,))
    assert dict.fromkeys(phases) == dict.fromkeys(["plan", "weights", "lower", "bundle", "done"])
    assert str(twin.parent) not in (output / "manifest.json").read_text()


def test_the_default_place_is_named_after_the_model(
    twin: Path, tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compile_model(str(twin), ["cpu"], options=OPTIONS) == Path("twin.amdnfs")
    read_manifest(tmp_path / "twin.amdnfs")


def test_an_up_to_date_bundle_is_left_alone(twin: Path, bundle: Path, backend: Backend) -> None:
    before = {path: path.stat().st_mtime_ns for path in [bundle, *bundle.rglob("*")]}
    told: list[str] = []
    assert compile_model(twin, ["cpu"], bundle, OPTIONS, lambda _phase, text: told.append(text)) == bundle
    assert (backend.lowered, backend.imports) == ([], 0)
    assert told[-1] == "cpu: up to date, kept"
    assert before == {path: path.stat().st_mtime_ns for path in [bundle, *bundle.rglob("*")]}


def test_a_target_is_added_without_touching_the_others(twin: Path, fresh_bundle: Path, backend: Backend) -> None:
    before = content_of(fresh_bundle)
    program = (fresh_bundle / PROGRAM).stat()
    compile_model(twin, ["cpu", "cpu-x86-64-v3"], fresh_bundle, OPTIONS)
    assert backend.lowered == ["cpu-x86-64-v3"]
    after = content_of(fresh_bundle)
    assert (fresh_bundle / PROGRAM).stat().st_ino == program.st_ino
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: digest for name, digest in before.items() if name != "manifest.json"
    }
    assert set(after) - set(before) == {f"artifacts/cpu-x86-64-v3/{name}" for name in ("facts.json", "program.vmfb")}
    assert list(read_manifest(fresh_bundle).targets) == ["cpu", "cpu-x86-64-v3"]
    assert amdnfs_runtime.load(fresh_bundle, target="cpu").generate("abc", max_tokens=2)


def test_other_entry_points_compile_that_target_again(twin: Path, fresh_bundle: Path, backend: Backend) -> None:
    other = dataclasses.replace(OPTIONS, decode_batches=(1, 2))
    compile_model(twin, ["cpu"], fresh_bundle, other)
    assert backend.lowered == ["cpu"]
    points = read_manifest(fresh_bundle).targets["cpu"].entry_points
    assert [point.name for point in points] == ["prefill_16", "decode_1", "decode_2"]


@pytest.mark.parametrize(
    ("change", "described"),
    [
        ({"page_tokens": 32}, "(twin, f32, pages of 16 tokens)"),
        ({"dtype": Dtype.F16}, "(twin, f32, pages of 16 tokens)"),
        ({"context_tokens": 64}, "(twin, f32, pages of 16 tokens)"),
    ],
)
def test_other_options_do_not_fit_a_bundle(
    twin: Path, bundle: Path, backend: Backend, change: dict[str, Any], described: str
) -> None:
    before = content_of(bundle)
    with pytest.raises(UsageError) as error:
        compile_model(twin, ["cpu"], bundle, dataclasses.replace(OPTIONS, **change))
    assert str(error.value) == (
        f"{bundle} holds another model or other options {described}; remove it, or choose another place with -o"
    )
    assert content_of(bundle) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"])
def test_another_model_does_not_fit_a_bundle(fresh_twin: Path, bundle: Path, backend: Backend, name: str) -> None:
    path = fresh_twin / name
    if name == "model.safetensors":
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    elif name == "config.json":
        path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-5}))
    else:
        path.write_text(path.read_text() + " ")
    with pytest.raises(UsageError, match="holds another model or other options"):
        compile_model(fresh_twin, ["cpu"], bundle, OPTIONS)
    assert backend.lowered == []


def test_something_else_at_the_output_is_refused_before_any_work(twin: Path, tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "thesis").write_text("precious")
    told: list[str] = []
    with pytest.raises(UsageError, match="exists and is not a bundle; choose another place with -o"):
        compile_model(twin, ["cpu"], tmp_path / "thesis", OPTIONS, lambda phase, _text: told.append(phase))
    assert told == ["plan"]
    assert (tmp_path / "thesis").read_text() == "precious"


def test_a_damaged_manifest_at_the_output(twin: Path, fresh_bundle: Path, backend: Backend) -> None:
    (fresh_bundle / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError) as error:
        compile_model(twin, ["cpu"], fresh_bundle, OPTIONS)
    assert "cannot be read as JSON" in str(error.value)
    assert str(error.value).endswith(f"remove {fresh_bundle} first, or choose another place with -o")


@pytest.mark.parametrize("name", [PROGRAM, "artifacts/cpu/facts.json", WEIGHTS, "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_compiling_again_repairs_a_bundle(
    twin: Path, fresh_bundle: Path, backend: Backend, name: str, damage: str
) -> None:
    path = fresh_bundle / name
    content = path.read_bytes()
    path.unlink()
    if damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))
    backend.content = lambda _target: b"program, made again"
    compile_model(twin, ["cpu"], fresh_bundle, OPTIONS)
    assert backend.lowered == ["cpu"]
    verify_files(fresh_bundle, read_manifest(fresh_bundle))
    assert (fresh_bundle / WEIGHTS).read_bytes() == (twin / "model.safetensors").read_bytes()
    assert (fresh_bundle / "tokenizer/tokenizer.json").read_bytes() == (twin / "tokenizer.json").read_bytes()
    assert (fresh_bundle / PROGRAM).read_bytes() == b"program, made again"


def test_a_damaged_target_that_is_not_asked_for_is_named(twin: Path, fresh_bundle: Path, backend: Backend) -> None:
    (fresh_bundle / PROGRAM).unlink()
    with pytest.raises(ArtifactError) as error:
        compile_model(twin, ["cpu-x86-64-v3"], fresh_bundle, OPTIONS)
    assert str(error.value) == f"{fresh_bundle}: {PROGRAM} is missing or altered; make it again with --target cpu"
    assert backend.lowered == []


def test_repairing_shared_files_keeps_other_targets(
    twin: Path, tmp_path: Path, fresh_bundle: Path, backend: Backend
) -> None:
    compile_model(twin, ["cpu-x86-64-v3"], fresh_bundle, OPTIONS)
    program = (fresh_bundle / PROGRAM).read_bytes()
    (fresh_bundle / "tokenizer" / "tokenizer.json").unlink()
    compile_model(twin, ["cpu-x86-64-v3"], fresh_bundle, OPTIONS)
    assert backend.lowered == ["cpu-x86-64-v3"] * 2
    verify_files(fresh_bundle, read_manifest(fresh_bundle))
    assert (fresh_bundle / PROGRAM).read_bytes() == program


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        LoweringError("IREE cannot lower the program for cpu-x86-64-v3"),
        PassFailed("phase stream: a pool is copied"),
        ModelError("a model error"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("at", ["nothing", "a bundle"])
def test_a_compile_that_ends_early_leaves_everything_as_it_was(
    twin: Path, fresh_bundle: Path, backend: Backend, error: BaseException, at: str
) -> None:
    output = fresh_bundle if at == "a bundle" else fresh_bundle.with_name("other.amdnfs")
    before = content_of(fresh_bundle)
    backend.error = error
    with pytest.raises(type(error)):
        compile_model(twin, ["cpu-x86-64-v3"], output, OPTIONS)
    assert backend.lowered == ["cpu-x86-64-v3"]
    assert no_leftovers(fresh_bundle.parent)
    assert [path.name for path in fresh_bundle.parent.iterdir()] == [fresh_bundle.name]
    assert content_of(fresh_bundle) == before
    verify_files(fresh_bundle, read_manifest(fresh_bundle))


def test_the_first_failing_target_ends_a_compile_of_several(twin: Path, tmp_path: Path, backend: Backend) -> None:
    def fail_for_v3(target: Any) -> bytes:
        if target.name == "cpu-x86-64-v3":
            raise LoweringError("no luck")
        return b"program"

    backend.content = fail_for_v3
    with pytest.raises(LoweringError, match="no luck"):
        compile_model(twin, ["cpu", "cpu-x86-64-v3"], tmp_path / "m.amdnfs", dataclasses.replace(OPTIONS, jobs=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "held"), [(b"amdgcn-amd-amdhsa--gfx90a", "gfx90a"), (b"no code object at all", "nothing")]
)
def test_a_code_object_for_another_processor_is_no_artifact(
    twin: Path, tmp_path: Path, backend: Backend, content: bytes, held: str
) -> None:
    backend.content = lambda _target: content
    with pytest.raises(LoweringError) as error:
        compile_model(twin, ["gfx942"], tmp_path / "m.amdnfs", OPTIONS)
    assert str(error.value) == (
        f"the program for gfx942 must hold code objects for gfx942 alone, but holds some for {held}"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_type_that_a_target_does_not_compute_in_is_warned_about(twin: Path, tmp_path: Path, backend: Backend) -> None:
    told: list[str] = []
    options = dataclasses.replace(OPTIONS, dtype=Dtype.BF16)
    compile_model(twin, ["gfx1030"], tmp_path / "m.amdnfs", options, lambda _phase, text: told.append(text))
    assert "warning: gfx1030 does not compute in bf16 itself; it will be slow there" in told


def test_oddities_of_a_model_are_warned_about(fresh_twin: Path, tmp_path: Path, backend: Backend) -> None:
    config = json.loads((fresh_twin / "config.json").read_text())
    (fresh_twin / "config.json").write_text(json.dumps({**config, "architectures": "LlamaForCausalLM"}))
    (fresh_twin / "generation_config.json").write_text('{"eos_token_id": [2, 128]}')
    told: list[str] = []
    output = compile_model(
        fresh_twin, ["cpu"], tmp_path / "m.amdnfs", OPTIONS, lambda phase, text: told.append(f"{phase} {text}")
    )
    assert told[1] == (
        f"plan warning: {fresh_twin / 'generation_config.json'}: eos_token_id 128 is outside the model's vocabulary of "
        "128 tokens and is left out"
    )
    manifest = read_manifest(output)
    assert (manifest.model.architecture, manifest.eos_token_ids) == ("LlamaForCausalLM", (2,))


def test_a_second_compile_to_the_same_output_fails_at_once(twin: Path, tmp_path: Path, backend: Backend) -> None:
    output, told = tmp_path / "m.amdnfs", list[str]()

    def compile_again(_target: Any) -> bytes:
        with pytest.raises(UsageError) as error:
            compile_model(twin, ["cpu"], output, OPTIONS, lambda phase, _text: told.append(phase))
        assert str(error.value).startswith(f"{output} is being written by another compile; wait until")
        return b"program"

    backend.content = compile_again
    compile_model(twin, ["cpu"], output, OPTIONS)
    assert told == ["plan"], "before any work"
    assert [path.name for path in tmp_path.iterdir()] == ["m.amdnfs"]
    verify_files(output, read_manifest(output))


@pytest.mark.parametrize("reason", ["a failure", "an interrupt"])
def test_what_ends_one_target_ends_the_others_at_once(
    twin: Path, tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    error = LoweringError("no luck") if reason == "a failure" else KeyboardInterrupt()
    others: list[object] = []
    begun = threading.Event()

    def lower_module(_bytecode: bytes, target: Any, _work: Path | None, processes: CompilerProcesses) -> Lowered:
        if target.name == "cpu":
            begun.set()
            try:
                processes.run(["sleep", "90"], tmp_path, dict(os.environ))
            except CompileStopped as stopped:
                others.append(stopped)
                raise
        begun.wait()
        raise error

    monkeypatch.setattr("amdnfs_compile.compiler.lower_module", lower_module)
    begin = time.monotonic()
    targets = ["cpu", "cpu-x86-64-v3", "gfx942"]
    with pytest.raises(type(error)):
        compile_model(twin, targets, tmp_path / "m.amdnfs", dataclasses.replace(OPTIONS, jobs=2))
    assert time.monotonic() - begin < 80, "sleeps for 90 s if it is not killed"
    assert len(others) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes_wherever_and_in_whatever_steps(
    twin: Path, bundle: Path, fresh_bundle: Path, tmp_path: Path
) -> None:
    """Both targets at once from another folder; a target added later; merged from two bundles."""
    moved = Path(shutil.copytree(twin, tmp_path / "some where" / "deeper" / "twin"))
    at_once = compile_model(moved, ["cpu-x86-64-v3", "cpu"], tmp_path / "elsewhere" / "all.amdnfs", OPTIONS)
    wanted = content_of(at_once)
    cpu_files = {name: digest for name, digest in content_of(bundle).items() if name != "manifest.json"}
    assert {name: wanted[name] for name in cpu_files} == cpu_files

    compile_model(twin, ["cpu-x86-64-v3"], fresh_bundle, OPTIONS)
    assert content_of(fresh_bundle) == wanted

    from amdnfs_compile.merge import merge_bundles

    other = only_target(at_once, "cpu-x86-64-v3", tmp_path / "v3.amdnfs")
    merged = merge_bundles([bundle, other], tmp_path / "merged.amdnfs")
    assert content_of(merged) == wanted
    results = {
        name: amdnfs_runtime.load(merged, target=name).generate("abc", max_tokens=8)[0].token_ids
        for name in ("cpu", "cpu-x86-64-v3")
    }
    assert results["cpu"] == results["cpu-x86-64-v3"]

"""The commands as a user meets them: help, exit codes, streams, pipes, signals, and the shipped model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amdnfs_runtime
import click
import pytest
from amdnfs_runtime.bundle import read_manifest, verify_files
from amdnfs_runtime.errors import LoweringError, PassFailed
from safetensors import safe_open

from amdnfs_compile.cli import main

RunCli = Callable[..., Any]

DEMO_MODEL = Path(__file__).parents[2] / "examples" / "demo_model"
SMALL = ("--prefill-chunks", "16", "--decode-batches", "1")
LIKE_THE_BUNDLE = ("--prefill-chunks", "16", "--decode-batches", "1,4")


def commands() -> dict[str, click.Command]:
    """Every command by what a user types."""
    found: dict[str, click.Command] = {"amdnfs-compile": main.compile_command, "amdnfs-opt": main.opt_command}
    found.update({f"amdnfs {name}": command for name, command in main.cli.commands.items()})
    return dict(sorted(found.items()))


def describe(name: str, command: click.Command) -> Iterator[str]:
    """One line for the command and one for each of its options."""
    arguments = [
        item.make_metavar(click.Context(command)) for item in command.params if isinstance(item, click.Argument)
    ]
    yield " ".join([name, *arguments])
    for item in command.params:
        if not isinstance(item, click.Option):
            continue
        kind = "|".join(item.type.choices) if isinstance(item.type, click.Choice) else item.type.name
        traits = ["flag" if item.is_flag else kind]
        traits += ["repeatable"] if item.multiple else []
        traits += ["required"] if item.required else []
        shown = item.get_default(click.Context(command), call=False) if item.show_default else None
        traits += [f"default {shown}"] if shown is not None else []
        yield f"    {', '.join(item.opts)}: {', '.join(traits)}"


def content_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def program(name: str, *arguments: object) -> list[str]:
    """A command line that runs one of the programs in a process of its own."""
    entry = {"amdnfs": "main", "amdnfs-compile": "compile_main"}[name]
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {path!r}; from amdnfs_compile.cli.main import {entry}; {entry}()"
    return [sys.executable, "-c", code, *map(str, arguments)]


# Help and options


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_with_an_example(run_cli: RunCli, name: str) -> None:
    first, *rest = name.split()
    done = run_cli(first, *rest, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: {name} ")
    example = str(commands()[name].epilog).removeprefix("\b\n")
    assert example.startswith(f"Example: {name}")
    assert f"  {example}\n" in done.out, "on one line, so that it can be copied"


def test_a_new_option_is_noticed(check_golden: Callable[[str, str], None]) -> None:
    lines = [line for name, command in commands().items() for line in describe(name, command)]
    check_golden("cli.txt", "\n".join(lines) + "\n")


def test_every_option_says_what_it_is() -> None:
    silent = [
        f"{name} {item.opts[0]}"
        for name, command in commands().items()
        for item in command.params
        if isinstance(item, click.Option) and not item.help and not item.show_default
    ]
    assert silent == []


def test_the_version(run_cli: RunCli) -> None:
    from importlib.metadata import version

    assert run_cli("amdnfs", "--version").out == f"amdnfs, version {version('amdnfs')}\n"


def test_no_command_at_all(run_cli: RunCli) -> None:
    done = run_cli("amdnfs")
    assert done.code == 2
    assert "Commands:" in done.err


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["amdnfs", "zorg"], "No such command 'zorg'"),
        (["amdnfs-compile"], "Missing argument 'MODEL'"),
        (["amdnfs-compile", "MODEL"], "error: no target given; name at least one, e.g. --target gfx942"),
        (["amdnfs-compile", "MODEL", "--target", "gfx941"], "did you mean gfx942 (mi300x)?"),
        (["amdnfs-compile", "MODEL", "--target", "cpu", "--page-tokens", "17"], "error: --page-tokens 17: allowed are"),
        (["amdnfs-compile", "MODEL", "--target", "cpu", "--jobs", "0"], "error: --jobs 0: must be at least 1"),
        (["amdnfs-compile", "MODEL", "--target", "cpu", "--dtype", "f8"], "'f8' is not one of 'auto', 'f32'"),
        (
            ["amdnfs-compile", "MODEL", "--target", "cpu", "--quantize", "w8a8", "--group-size", "32"],
            "error: --group-size 32: --quantize w8a8 has channel, default channel",
        ),
        (
            ["amdnfs-compile", "MODEL", "--target", "cpu", "--prefill-chunks", "a"],
            "error: --prefill-chunks a: give numbers, e.g. 1,8",
        ),
        (
            ["amdnfs-compile", "MODEL", "--target", "cpu", "--decode-batches", "4,1"],
            "error: --decode-batches 4,1: give growing sizes from 1 to 1024",
        ),
        (
            ["amdnfs-compile", "MODEL", "--target", "cpu", "--context", "999"],
            "error: --context 999: the model's own limit",
        ),
        (["amdnfs-compile", "MODEL", "--target", "cpu", "-o", "MODEL"], "exists and is not a bundle; choose another"),
        (["amdnfs-compile", "MODEL", "--zorg"], "No such option '--zorg'"),
        (["amdnfs-opt"], "error: no file given; amdnfs-opt FILE.mlir --passes=..., or --list"),
        (["amdnfs-opt", "absent.mlir"], "error: absent.mlir cannot be read: "),
        (["amdnfs-opt", "MODEL/config.json", "--passes=zorg"], "error: --passes=zorg: unknown pass 'zorg'"),
        (["amdnfs-opt", "MODEL/config.json"], "config.json is not valid MLIR: "),
        (["amdnfs", "merge"], "Missing argument 'BUNDLES...'"),
        (["amdnfs", "merge", "BUNDLE"], "Missing option '-o'"),
        (["amdnfs", "generate", "BUNDLE", "--prompt", "a", "--max-tokens", "x"], "'x' is not a valid integer"),
        (
            ["amdnfs", "generate", "BUNDLE", "--prompt", "a", "--max-tokens", "0"],
            "error: max_tokens must be an integer",
        ),
        (["amdnfs", "generate", "BUNDLE", "--prompt", "a", "--top-p", "3"], "error: top_p must be a finite number > 0"),
        (["amdnfs", "generate", "BUNDLE", "--prompt", "a", "--stop", ""], "error: stop must be a string or a list"),
        (
            ["amdnfs", "generate", "BUNDLE", "--prompt", "LONG"],
            "error: the prompt has 200 tokens, but the context is 128",
        ),
        (
            ["amdnfs", "generate", "BUNDLE", "--prompt", "a", "--kv-pages", "2"],
            "error: the request needs 8 pages of 16",
        ),
        (["amdnfs", "generate", "BUNDLE", "--prompt", "a", "--kv-pages", "1"], "error: num_pages=1: the pool needs at"),
    ],
)
def test_usage_and_capacity_errors_exit_with_2(
    run_cli: RunCli, twin: Path, bundle: Path, arguments: list[str], message: str
) -> None:
    names = {"MODEL": str(twin), "BUNDLE": str(bundle), "LONG": "z" * 200}
    done = run_cli(*[names.get(item, item.replace("MODEL/", f"{twin}/")) for item in arguments])
    assert done.code == 2
    assert message in done.err
    assert done.out == ""
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "error: no folder at "),
        (
            lambda folder: (folder / "config.json").unlink(),
            "config.json is missing, so this is not a Hugging Face model",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON: "),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors: truncated or damaged ("),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'),
            "vit: not a causal language model",
        ),
    ],
)
def test_model_errors_exit_with_3(
    run_cli: RunCli, fresh_twin: Path, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(fresh_twin)
    done = run_cli("amdnfs-compile", fresh_twin, "--target", "cpu", "-o", tmp_path / "m.amdnfs")
    assert done.code == 3
    assert message in done.err
    assert done.out == ""
    assert not (tmp_path / "m.amdnfs").exists()


def test_a_hub_id_that_is_not_in_an_empty_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_CACHE", None)
    command = program("amdnfs-compile", "some-owner/some-model", "--offline", "--target", "cpu")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "error: some-owner/some-model is neither a folder nor in the hub's local cache; "
        "repeat without --offline to download it"
    )


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (PassFailed, 4, "error: phase stream: a reason\n"),
        (LoweringError, 5, "error: phase stream: a reason\n"),
        (KeyboardInterrupt, 130, "interrupted; no bundle was changed\n"),
        (
            ZeroDivisionError,
            70,
            "this is a bug in amdnfs: please report it with the text above and the command you ran\n",
        ),
    ],
)
def test_exit_codes_of_a_compile_that_fails(
    run_cli: RunCli,
    twin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    code: int,
    line: str,
) -> None:
    def fail(*_: object) -> None:
        raise error("phase stream: a reason")

    monkeypatch.setattr("amdnfs_compile.compiler.import_model", fail)
    done = run_cli("amdnfs-compile", twin, "--target", "cpu", "-o", tmp_path / "m.amdnfs")
    assert done.code == code
    assert line in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []
    if code == 70:
        assert "ZeroDivisionError: phase stream: a reason" in done.err
        assert "iree-base-compiler 3." in done.err.splitlines()[-1]
    else:
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "BUNDLE", "--check"],
        ["verify", "BUNDLE"],
        ["generate", "BUNDLE", "--prompt", "a"],
        ["merge", "BUNDLE", "-o", "OUT"],
    ],
)
def test_artifact_errors_exit_with_6(run_cli: RunCli, fresh_bundle: Path, tmp_path: Path, arguments: list[str]) -> None:
    path = fresh_bundle / "artifacts" / "cpu" / "program.vmfb"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    names = {"BUNDLE": str(fresh_bundle), "OUT": str(tmp_path / "out.amdnfs")}
    done = run_cli("amdnfs", *[names.get(item, item) for item in arguments])
    assert done.code == 6
    assert done.err == (
        f"error: {fresh_bundle}: the file artifacts/cpu/program.vmfb was altered: its sha256 is not the manifest's; "
        "copy the bundle again, or compile it again\n"
    )
    assert done.out == ""


@pytest.mark.parametrize("command", [["inspect"], ["generate", "--prompt", "a"]])
def test_no_bundle_exits_with_6(run_cli: RunCli, tmp_path: Path, command: list[str]) -> None:
    done = run_cli("amdnfs", *command, tmp_path / "absent")
    assert done.code == 6
    assert done.err.startswith(f"error: no bundle at {tmp_path / 'absent'}: no such folder; make one with: ")


# amdnfs-compile


def test_a_dry_run_writes_nothing(run_cli: RunCli, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = (twin, "--target", "mi300x", "--target", "cpu", "--dry-run", *LIKE_THE_BUNDLE)
    done = run_cli("amdnfs-compile", *arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "twin: llama, 2 layers of 1 kind(s), f32, 0.3 MB of weights, context 128 tokens\n"
        "  gfx942: prefill_16, decode_1, decode_4\n"
        "  cpu: prefill_16, decode_1, decode_4\n"
    )
    values = json.loads(run_cli("amdnfs-compile", *arguments, "--json").out)
    assert values["targets"] == {name: ["prefill_16", "decode_1", "decode_4"] for name in ("cpu", "gfx942")}
    assert (values["model"], values["dtype"], values["layers"], values["context_tokens"]) == ("twin", "f32", 2, 128)
    assert values["quantized_weights"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_the_size_of_quantised_weights_as_they_are_stored(
    run_cli: RunCli, twin: Path, tmp_path: Path
) -> None:
    options = ("--target", "cpu", "--quantize", "int4", "--group-size", "32", "--zero-points")
    planned = json.loads(run_cli("amdnfs-compile", twin, *options, "--dry-run", "--json").out)["quantized_weights"]
    done = run_cli("amdnfs-compile", twin, *options, *LIKE_THE_BUNDLE, "-o", tmp_path / "b")
    assert done.code == 0
    (archive,) = (tmp_path / "b" / "weights").glob("quantized-*.safetensors")
    with safe_open(archive, framework="np") as stored:
        sizes = {name: stored.get_tensor(name).nbytes for name in stored.keys()}  # noqa: SIM118 - it is no dictionary
    assert planned["tensor_bytes"] == sizes
    assert planned["bytes"] == sum(sizes.values())
    assert planned["count"] == 2 * 7  # 7 linear layers a decoder layer


def test_an_up_to_date_bundle(run_cli: RunCli, twin: Path, bundle: Path) -> None:
    arguments = (twin, "--target", "cpu", "-o", bundle, *LIKE_THE_BUNDLE)
    done = run_cli("amdnfs-compile", *arguments)
    assert (done.code, done.out) == (0, f"{bundle}\n")
    assert "cpu: up to date, kept" in done.err
    quiet = run_cli("amdnfs-compile", *arguments, "--json")
    assert quiet.err == ""
    values = json.loads(quiet.out)
    assert (values["bundle"], values["targets"]) == (str(bundle), ["cpu"])
    assert values["peak_rss_bytes"]["amdnfs"] > 2**20


def test_a_name_that_looks_like_markup_is_shown_as_it_is(run_cli: RunCli, twin: Path, tmp_path: Path) -> None:
    model = shutil.copytree(twin, tmp_path / "a[bold]b[/red]")
    done = run_cli("amdnfs-compile", model, "--target", "cpu", "-o", model)
    assert done.code == 2
    assert "reading the headers of" in done.err
    assert "a[bold]b[/red]" in done.err.splitlines()[0]


def start_compile(*arguments: object) -> subprocess.Popen[str]:
    """Starts a compile in a process of its own and returns once it traces."""
    command = program("amdnfs-compile", *arguments)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "tracing" in line:
            return process
    raise AssertionError(f"ended with {process.wait()} before it traced")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_compile_that_is_stopped_leaves_the_old_bundle(
    twin: Path, fresh_bundle: Path, number: signal.Signals
) -> None:
    before = content_of(fresh_bundle)
    process = start_compile(twin, "--target", "cpu-x86-64-v3", "-o", fresh_bundle, *LIKE_THE_BUNDLE)
    partial = [path for path in fresh_bundle.parent.iterdir() if path != fresh_bundle]
    assert len(partial) == 2
    assert all(path.name.startswith(".twin.amdnfs.partial-") for path in partial)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert content_of(fresh_bundle) == before
    assert amdnfs_runtime.load(fresh_bundle, target="cpu").generate("abc", max_tokens=2)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err.endswith("interrupted; no bundle was changed\n")
        assert not any(path.exists() for path in partial)
    else:
        assert process.returncode == -signal.SIGKILL
        assert all(path.exists() for path in partial)
        from amdnfs_compile.staging import staged_folder

        with staged_folder(fresh_bundle.with_name("other.amdnfs")):
            assert all(path.exists() for path in partial), "another bundle's folder is none of its business"
        with staged_folder(fresh_bundle):
            assert not any(path.exists() for path in partial)


# amdnfs generate


def test_generate_prints_the_prompt_and_its_continuation(run_cli: RunCli, bundle: Path) -> None:
    arguments = ("generate", bundle, "--max-tokens", 6, "--ignore-eos")
    expected = amdnfs_runtime.load(bundle).generate(["Hi", "Yo"], max_tokens=6, ignore_eos=True)
    done = run_cli("amdnfs", *arguments, "--prompt", "Hi")
    assert (done.code, done.out, done.err) == (0, f"Hi{expected[0].text}\n", "")
    done = run_cli("amdnfs", *arguments, "--prompt", "Hi", "--prompt", "Yo")
    assert done.out == f"Hi{expected[0].text}\n---\nYo{expected[1].text}\n---\n"


def test_generate_reads_the_prompt_from_standard_input(run_cli: RunCli, bundle: Path) -> None:
    arguments = ("generate", bundle, "--max-tokens", 6, "--json")
    done = run_cli("amdnfs", *arguments, stdin=b"Two\nlines")
    assert json.loads(done.out)["results"][0]["prompt"] == "Two\nlines"
    assert json.loads(done.out)["results"][0]["prompt_token_ids"] == list(b"Two\nlines")
    done = run_cli("amdnfs", *arguments, stdin=b"\xff\xfe")
    assert done.code == 2
    assert done.err.startswith("error: the prompt on standard input is not UTF-8 text: ")


def test_generate_as_json(run_cli: RunCli, bundle: Path) -> None:
    arguments = ("--prompt", "Hi", "--prompt", "", "--max-tokens", 4, "--temperature", 0.5, "--seed", 3, "--ignore-eos")
    done = run_cli("amdnfs", "generate", bundle, "--json", *arguments)
    assert (done.code, done.err) == (0, "")
    values = json.loads(done.out)
    assert values.keys() == {"target", "results"}
    assert values["target"] == "cpu"
    assert len(values["results"]) == 2
    for result, prompt, ids in zip(values["results"], ("Hi", ""), ([72, 105], [1]), strict=True):
        assert result.keys() == {"prompt", "text", "prompt_token_ids", "token_ids", "finish_reason", "timings"}
        assert (result["prompt"], result["prompt_token_ids"]) == (prompt, ids)
        assert result["finish_reason"] == "length"
        assert len(result["token_ids"]) == 4
        assert all(isinstance(token, int) for token in result["token_ids"])
        timings = result["timings"]
        rates = {"prefill_tokens_per_s", "decode_tokens_per_s"}
        assert timings.keys() == {"prefill_s", "decode_s"} | rates
        assert all(value > 0 for value in timings.values())
    again = json.loads(run_cli("amdnfs", "generate", bundle, "--json", *arguments).out)
    assert [item["token_ids"] for item in again["results"]] == [item["token_ids"] for item in values["results"]]


def test_a_reader_that_has_seen_enough_is_no_error(bundle: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = program("amdnfs", "inspect", bundle, "--json")
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


# amdnfs inspect, merge, targets, doctor


def test_inspect_for_people_and_for_scripts(run_cli: RunCli, bundle: Path) -> None:
    done = run_cli("amdnfs", "inspect", bundle, "--check")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"{bundle}: twin (LlamaForCausalLM, f32)"
    assert "  cache: 2 layers, f32, pages of 16 tokens, 8192 bytes a page" in lines
    assert lines[-2].split()[-3:] == ["prefill_16,", "decode_1,", "decode_4"]
    assert lines[-1] == "  all 6 files agree with their digests"
    values = json.loads(run_cli("amdnfs", "inspect", bundle, "--json").out)
    assert values["model"]["vocab_size"] == 128
    assert list(values["targets"]) == ["cpu"]
    assert "checked_files" not in values


def test_verify_finds_the_bundle_right(run_cli: RunCli, twin: Path, bundle: Path) -> None:
    done = run_cli("amdnfs", "verify", bundle, "--against", twin, "--target", "cpu", "--json")
    values = json.loads(done.out)
    assert done.code == 0
    assert values["files"] == 6
    assert len(values["checks"]) >= 4
    assert all(row["right"] and row["error"] < row["tolerance"] for row in values["checks"])
    assert done.err == "", "no progress bar of transformers"
    done = run_cli("amdnfs", "verify", bundle)
    assert done.code == 0
    assert done.out.startswith("6 files agree with their digests\n")


def test_verify_finds_other_weights(run_cli: RunCli, fresh_twin: Path, bundle: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = fresh_twin / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1.01
    save_file(tensors, path, metadata={"format": "pt"})
    done = run_cli("amdnfs", "verify", bundle, "--against", fresh_twin, "--target", "cpu")
    assert done.code == 6
    assert "WRONG" in done.out
    assert done.err.splitlines()[-1].startswith(
        f"error: {bundle}: the logits differ from transformers' in: prefill whole"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--against", "nowhere"], 2, "error: --against nowhere: no such folder; give that of the model the bundle"),
        (["--target", "gfx942", "--against", "MODEL"], 6, "error: the bundle has no target gfx942; it holds cpu"),
        (["--emulate"], 2, "error: --emulate runs hip programs; name one of the bundle's gfx targets with --target"),
    ],
)
def test_verify_refuses(
    run_cli: RunCli, twin: Path, bundle: Path, arguments: list[str], code: int, message: str
) -> None:
    done = run_cli("amdnfs", "verify", bundle, *[str(twin) if item == "MODEL" else item for item in arguments])
    assert done.code == code
    assert done.err.startswith(message)
    assert len(done.err.splitlines()) <= 6


def test_verify_refuses_another_model(run_cli: RunCli, fresh_twin: Path, bundle: Path) -> None:
    config = fresh_twin / "config.json"
    content = config.read_text()
    config.write_text(json.dumps({**json.loads(content), "vocab_size": 100}))
    done = run_cli("amdnfs", "verify", bundle, "--against", fresh_twin)
    assert done.code == 3
    assert done.err == (
        f"error: {fresh_twin}: a llama model with a vocabulary of 100 tokens, but the bundle was made from a llama "
        "model with one of 128; give the folder of the model that the bundle was made from\n"
    )
    config.unlink()
    done = run_cli("amdnfs", "verify", bundle, "--against", fresh_twin)
    assert (done.code, done.err) == (
        3,
        f"error: {fresh_twin}: config.json is missing, so this is not a Hugging Face model folder\n",
    )


def test_merge(run_cli: RunCli, bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "all.amdnfs"
    done = run_cli("amdnfs", "merge", bundle, bundle, "-o", output)
    assert (done.code, done.out, done.err) == (0, f"{output}\n", "")
    assert content_of(output) == content_of(bundle)
    done = run_cli("amdnfs", "merge", bundle, "-o", output)
    assert (done.code, done.err) == (2, f"error: {output} exists; remove it, or choose another place with -o\n")


def test_doctor(run_cli: RunCli) -> None:
    values = json.loads(run_cli("amdnfs", "doctor", "--json").out)
    assert values["can_compile"] is True
    assert values["packages"]["iree-base-runtime"]
    done = run_cli("amdnfs", "doctor")
    assert done.code == 0
    assert "AMD GPUs: " in done.out


def test_targets(run_cli: RunCli) -> None:
    rows = json.loads(run_cli("amdnfs", "targets", "--json").out)
    assert {"cpu", "gfx942", "gfx1100", "vulkan"} <= {row["target"] for row in rows}
    done = run_cli("amdnfs", "targets")
    assert done.code == 0
    assert "nobody has run the hip programs on AMD hardware yet" in done.out


def test_opt_lists_passes_and_the_order_of_a_compile(run_cli: RunCli) -> None:
    done = run_cli("amdnfs-opt", "--list")
    assert (done.code, done.err) == (0, "")
    assert "lower-paged-attention" in done.out
    assert "\n  torch " in done.out


# The shipped model


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "demo.amdnfs"
    kept = output.with_name("intermediates")
    command = program(
        "amdnfs-compile", DEMO_MODEL, "--target", "cpu", "-o", output, "--keep-intermediates", kept, *SMALL
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}\n"
    return output


def test_the_demo_adds_17_and_25(run_cli: RunCli, demo: Path) -> None:
    verify_files(demo, read_manifest(demo))
    done = run_cli("amdnfs", "generate", demo, "--prompt", "17 + 25 =", "--max-tokens", 4, "--json")
    result = json.loads(done.out)["results"][0]
    assert result["text"].startswith(" 42.")


def test_the_intermediate_programs_are_kept_where_asked(demo: Path) -> None:
    kept = demo.with_name("intermediates") / "cpu"
    assert {"0-linalg.mlirbc", "1-flow.mlirbc", "3-stream.mlirbc"} <= {path.name for path in kept.iterdir()}
    assert (kept / "program.vmfb").read_bytes() == (demo / "artifacts" / "cpu" / "program.vmfb").read_bytes()


def test_the_demo_writes_in_words(run_cli: RunCli, demo: Path) -> None:
    done = run_cli("amdnfs", "generate", demo, "--prompt", "Once upon a time", "--max-tokens", 24)
    assert done.code == 0
    assert done.out.startswith("Once upon a time")
    assert len(done.out.split()) > 8
    assert done.out.isprintable() or done.out.isascii()

"""`amdnfs generate`: text in, text out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.request import GenerationResult, SamplingParams

from amdnfs_compile.cli.streams import has_reader

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DEFAULTS = SamplingParams()


@click.command(name="generate", epilog='Example: amdnfs generate my-llama.amdnfs --prompt "Once upon a time"')
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--prompt", "prompts", multiple=True, help="Text to continue; repeatable [default: standard input].")
@click.option("--chat", is_flag=True, help="Each prompt is a user's message: use the bundle's chat template.")
@click.option("--max-tokens", type=int, default=_DEFAULTS.max_tokens, show_default=True)
@click.option("--min-tokens", type=int, default=_DEFAULTS.min_tokens, show_default=True)
@click.option("--temperature", type=float, default=_DEFAULTS.temperature, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=int, default=_DEFAULTS.top_k, show_default=True, help="0 is off.")
@click.option("--top-p", type=float, default=_DEFAULTS.top_p, show_default=True)
@click.option("--min-p", type=float, default=_DEFAULTS.min_p, show_default=True)
@click.option("--repetition-penalty", type=float, default=_DEFAULTS.repetition_penalty, show_default=True)
@click.option("--seed", type=int, help="Same seed, same text.")
@click.option("--stop", multiple=True, help="Text that ends the generation; repeatable.")
@click.option("--stop-token-id", "stop_token_ids", type=int, multiple=True, help="Token that ends it; repeatable.")
@click.option("--ignore-eos", is_flag=True, help="Go on past the model's end token.")
@click.option("--target", help="Use this target of the bundle [default: the best for this machine].")
@click.option("--emulate", is_flag=True, help="Execute a hip program's machine code on the CPU; slow.")
@click.option("--kv-pages", "num_pages", type=int, help="Pages of the KV pool.")
@click.option("--draft", type=click.Path(path_type=Path), help="Bundle of a smaller model that guesses next tokens.")
@click.option("--no-check", is_flag=True, help="Skip the digests of the bundle's files.")
@click.option("--json", "as_json", is_flag=True, help="Print token ids, timings and finish reason as JSON.")
def generate_command(
    bundle: Path,
    prompts: tuple[str, ...],
    chat: bool,
    target: str | None,
    emulate: bool,
    num_pages: int | None,
    draft: Path | None,
    no_check: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Continue one or more prompts with BUNDLE."""
    params = SamplingParams(**choices)
    from amdnfs_runtime.llm import load

    texts = list(prompts) or [_standard_input()]
    if emulate:
        target = _emulated(bundle, target)
    llm = load(bundle, target=target, num_pages=num_pages, check=not no_check, draft=draft)
    asked: list[Any] = _chats(bundle, texts, llm.tokenizer) if chat else list(texts)
    if as_json:
        results = llm.generate(asked, params)
        rows = [_as_values(text, result) for text, result in zip(texts, results, strict=True)]
        click.echo(json.dumps({"target": llm.target_name, "results": rows}, indent=1, ensure_ascii=False))
    elif len(texts) == 1:
        pieces = llm.stream(asked[0], params)  # refuses a bad prompt before anything is printed
        click.echo("" if chat else texts[0], nl=False)
        for piece in pieces:
            click.echo(piece, nl=False)
            if not has_reader():
                break
        click.echo()
    else:
        for text, result in zip(texts, llm.generate(asked, params), strict=True):
            click.echo(f"{text}{result.text}\n---")


def _emulated(bundle: Path, target: str | None) -> str:
    """The target to emulate; makes the emulator the HIP library of this process."""
    from amdnfs_runtime.bundle import read_manifest
    from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
    from amdnfs_runtime.execution import DEVICE_VARIABLE

    from amdnfs_compile.cli.emulation import emulator_folder
    from amdnfs_compile.verify import target_to_run

    manifest = read_manifest(bundle)
    name = target_to_run(manifest, target, is_emulated=True)
    gfx = manifest.targets[name].gfx
    if gfx is not None and HIP_DYLIB_VARIABLE not in os.environ:  # our own library, in a process that runs one target
        os.environ.setdefault(DEVICE_VARIABLE, gfx)
    os.environ[HIP_DYLIB_VARIABLE] = str(emulator_folder())
    return name


def _chats(bundle: Path, texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of chats with one message each."""
    from amdnfs_runtime.chat_template import ChatTemplate, read_template_source

    source = read_template_source(bundle)
    if source is None:
        raise UsageError(f"{bundle} has no chat template: its model only continues texts; leave out --chat")
    template = ChatTemplate(source)
    chats = [template.render([{"role": "user", "content": text}]) for text in texts]
    return [tokenizer.encode(chat, add_special_tokens=False).ids for chat in chats]


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"the prompt on standard input is not UTF-8 text: {error}") from error


def _as_values(prompt: str, result: GenerationResult) -> dict[str, Any]:
    timings = result.timings
    return {
        "prompt": prompt,
        "text": result.text,
        "prompt_token_ids": list(result.prompt_token_ids),
        "token_ids": list(result.token_ids),
        "finish_reason": str(result.finish_reason),
        "timings": {
            "prefill_s": timings.prefill_s,
            "decode_s": timings.decode_s,
            "prefill_tokens_per_s": timings.prefill_tokens_per_s,
            "decode_tokens_per_s": timings.decode_tokens_per_s,
        },
    }

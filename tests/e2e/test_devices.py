"""Programs on devices that CI can have: AMD code on a stand-in HIP library, Vulkan on Mesa's software driver.

Twins as code of every AMD target are in test_amd_targets.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import amdnfs_runtime
import pytest
import torch
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE, inspect_host
from amdnfs_targets.registry import GROUPS

from amdnfs_compile import CompileOptions, compile_model
from amdnfs_compile.verify import verify_bundle
from tests.twins import make_twin

DEMO_MODEL = Path(__file__).parents[2] / "examples" / "demo_model"
STORIES_VARIABLE = "AMDNFS_TEST_STORIES260K"
EMULATED = ("gfx90a", "gfx950", "gfx1151")
PROMPT = "Once upon a time"
SMALL = CompileOptions(prefill_chunks=(16,), decode_batches=(4,))
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" "
    "Lily was sad and didn't know w"
)
"""What llama2.c's stories260K writes, greedy from its begin token, 100 tokens (llama2.c README)."""

needs_emulator = pytest.mark.skipif(
    not os.environ.get(HIP_DYLIB_VARIABLE),
    reason=f"{HIP_DYLIB_VARIABLE} does not name a folder with a stand-in libamdhip64.so",
)
needs_vulkan = pytest.mark.skipif(
    not inspect_host().has_vulkan, reason="no Vulkan driver is installed (Debian: mesa-vulkan-drivers)"
)
needs_stories = pytest.mark.skipif(
    not os.environ.get(STORIES_VARIABLE), reason=f"{STORIES_VARIABLE} does not name the folder of stories260K"
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model for the CPU, with all default entry points."""
    return compile_model(DEMO_MODEL, ["cpu"], tmp_path_factory.mktemp("demo") / "demo.amdnfs")


def greedy(bundle: Path, target: str, prompt: str, num_tokens: int) -> tuple[int, ...]:
    """Greedy tokens after `prompt`."""
    (result,) = amdnfs_runtime.load(bundle, target=target).generate(prompt, max_tokens=num_tokens)
    return result.token_ids


@needs_emulator
@pytest.mark.emulator
@pytest.mark.parametrize("part", range(3))
def test_amd_code_gives_the_cpu_tokens(part: int, demo: Path, tmp_path: Path) -> None:
    """The shipped model's machine code writes what its CPU program writes, for every AMD target."""
    targets = GROUPS["all-amd"][part::3]
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(1, 8))
    bundle = compile_model(DEMO_MODEL, targets, tmp_path / "amd", options)
    for target in targets:
        assert greedy(bundle, target, PROMPT, 16) == greedy(demo, "cpu", PROMPT, 16), target


@needs_emulator
@pytest.mark.emulator
@pytest.mark.parametrize(("twin", "target"), [("gpt_oss", "gfx942"), ("cohere", "gfx1100")])
def test_other_forms_as_iree_compiles_them(twin: str, target: str, tmp_path: Path) -> None:
    """Windows, sinks, experts, and interleaved rotary, in f32 and without kernels of ours."""
    model = make_twin(twin, tmp_path / "model")
    bundle = compile_model(model, [target], tmp_path / "bundle", SMALL)
    checks = verify_bundle(bundle, model, target, num_tokens=20)
    assert all(check.is_right for check in checks), checks


@needs_emulator
@pytest.mark.emulator
@pytest.mark.parametrize(("twin", "target"), [("bloom", "gfx1201"), ("qwen3", "gfx950"), ("glm4", "gfx90a")])
def test_other_forms_in_kernels(twin: str, target: str, tmp_path: Path) -> None:
    """Slopes and a fused projection, normalised heads, and half of each vector rotated in pairs, in 16 bits."""
    model = make_twin(twin, tmp_path / "model", torch.float16)
    bundle = compile_model(model, [target], tmp_path / "bundle", SMALL)
    facts = json.loads((bundle / "artifacts" / target / "facts.json").read_text())
    assert not [item for item in facts["refusals"] if item["pass"] in ("dispatch-kv-write", "dispatch-paged-attention")]
    checks = verify_bundle(bundle, model, target, num_tokens=20)
    assert all(check.is_right for check in checks), checks


@needs_vulkan
@pytest.mark.vulkan
def test_vulkan_gives_the_cpu_tokens(demo: Path, tmp_path: Path) -> None:
    """The shipped model on the installed Vulkan driver."""
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(1,))
    bundle = compile_model(DEMO_MODEL, ["vulkan"], tmp_path / "vulkan", options)
    for prompt in ("17 + 25 =", PROMPT):
        assert greedy(bundle, "vulkan", prompt, 40) == greedy(demo, "cpu", prompt, 40)


def test_demo_model_can_add(demo: Path) -> None:
    """The shipped model's answer is the sum."""
    llm = amdnfs_runtime.load(demo, target="cpu")
    sums = [(17, 25), (83, 9), (46, 38)]
    results = llm.generate([f"{a} + {b} =" for a, b in sums], max_tokens=12)
    assert [result.text for result in results] == [f" {a + b}." for a, b in sums]


@needs_stories
def test_stories260k_writes_its_story(tmp_path: Path) -> None:
    """Word for word, on the CPU."""
    bundle = compile_model(os.environ[STORIES_VARIABLE], ["cpu"], tmp_path / "stories")
    llm = amdnfs_runtime.load(bundle)
    (result,) = llm.generate([[1]], max_tokens=100)
    assert result.text == STORY


@needs_stories
@needs_emulator
@pytest.mark.emulator
def test_stories260k_on_amd_code(tmp_path: Path) -> None:
    """The first 16 tokens, as AMD machine code."""
    targets = list(EMULATED)
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(1,))
    bundle = compile_model(os.environ[STORIES_VARIABLE], targets, tmp_path / "stories", options)
    for target in targets:
        llm = amdnfs_runtime.load(bundle, target=target)
        (result,) = llm.generate([[1]], max_tokens=16)
        assert len(result.token_ids) == 16, target
        assert STORY.startswith(result.text), target
        assert len(result.text) > 20, target

"""Programs that find the largest logits themselves, executed on the emulator: same choices as from whole rows."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from amdnfs_passes.kernels.provider import has_triton
from amdnfs_runtime import SamplingParams
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.llm import LLM, load_engine

from amdnfs_compile import CompileOptions, compile_model
from tests.twins import make_twin

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(
        not (os.environ.get(HIP_DYLIB_VARIABLE) and has_triton()),
        reason=f"needs {HIP_DYLIB_VARIABLE} and the extra amdnfs[triton]",
    ),
]

TARGETS = ("gfx942", "gfx1100")
VOCAB = 5000
PROMPTS = ([5, 17, 80, 33], list(range(3, 40)), [99])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A twin whose rows are long enough for the kernels, and not a multiple of their parts."""
    folder = tmp_path_factory.mktemp("top")
    model = make_twin("llama", folder / "model", torch.float16, vocab_size=VOCAB)
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(4,))
    return compile_model(model, ["cpu", *TARGETS], folder / "bundle", options)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=6, ignore_eos=True, logprobs=5),
        SamplingParams(max_tokens=6, ignore_eos=True, logprobs=3, temperature=0.8, top_k=20, seed=3),
        SamplingParams(max_tokens=6, ignore_eos=True, logprobs=0, temperature=0.05, top_p=0.5, seed=4),
    ],
    ids=["greedy", "top-k", "top-p"],
)
def test_no_row_of_logits_goes_to_the_host(bundle: Path, target: str, params: SamplingParams) -> None:
    """Prompts of one and of several chunks, decoded together, with log-probabilities."""
    results = {}
    for name in ("cpu", target):
        engine = load_engine(bundle, target=name)
        results[name] = LLM(engine).generate([list(prompt) for prompt in PROMPTS], params)
        assert (engine.counters.num_rows_read == 0) == (name == target), name
    for expected, got in zip(results["cpu"], results[target], strict=True):
        assert got.token_ids == expected.token_ids
        assert got.logprobs is not None
        assert expected.logprobs is not None
        for ours, theirs in zip(got.logprobs, expected.logprobs, strict=True):
            assert math.isclose(ours.logprob, theirs.logprob, abs_tol=0.05), (ours, theirs)


@pytest.mark.parametrize("target", TARGETS)
def test_the_kernels_were_taken(bundle: Path, target: str) -> None:
    facts = json.loads((bundle / "artifacts" / target / "facts.json").read_text())
    assert not [refusal for refusal in facts["refusals"] if refusal["pass"] == "dispatch-top-logits"]

"""The shipped model as bundles, each compiled once a session."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`examples/demo_model` compiled for this CPU; not to be changed."""
    from amdnfs_compile import CompileOptions, compile_model

    model = Path(__file__).parents[3] / "examples" / "demo_model"
    output = tmp_path_factory.mktemp("bundles") / "demo.amdnfs"
    return compile_model(model, ["cpu"], output, CompileOptions(prefill_chunks=(16, 64), decode_batches=(1, 8)))


@pytest.fixture(scope="session")
def guessing_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`examples/demo_model` with programs that check guesses; not to be changed."""
    from amdnfs_compile import CompileOptions, compile_model

    model = Path(__file__).parents[3] / "examples" / "demo_model"
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(1, 4), speculate=3)
    return compile_model(model, ["cpu"], tmp_path_factory.mktemp("bundles") / "demo.amdnfs", options)

"""Options out of range are refused by name, value and range."""

from __future__ import annotations

from typing import Any

import pytest
from amdnfs_runtime.errors import UsageError

from amdnfs_compile import CompileOptions, Dtype


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page_tokens": 17}, "--page-tokens 17: allowed are 16, 32 and 64"),
        ({"prefill_chunks": ()}, "--prefill-chunks : give growing sizes from 2 to 8192"),
        ({"prefill_chunks": (1, 16)}, "--prefill-chunks 1,16: give growing sizes from 2 to 8192"),
        ({"prefill_chunks": (16, 16)}, "--prefill-chunks 16,16: give growing sizes from 2 to 8192"),
        ({"speculate": 16}, "--speculate 16: must be from 0 to 15"),
        ({"speculate": -1}, "--speculate -1: must be from 0 to 15"),
        ({"decode_batches": (4, 1)}, "--decode-batches 4,1: give growing sizes from 1 to 1024"),
        ({"decode_batches": (0,)}, "--decode-batches 0: give growing sizes from 1 to 1024"),
        ({"context_tokens": 0}, "--context 0: must be at least 1"),
        ({"jobs": 0}, "--jobs 0: must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        CompileOptions(**options)
    assert str(error.value) == message
    assert error.value.exit_code == 2


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="page_token"):
        CompileOptions(page_token=16)  # type: ignore[call-arg]


def test_the_limits_themselves_are_allowed() -> None:
    options = CompileOptions(
        page_tokens=64, prefill_chunks=(2, 8192), decode_batches=(1, 1024), context_tokens=1, jobs=1
    )
    assert options.dtype is Dtype.AUTO

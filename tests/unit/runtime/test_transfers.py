"""Small arrays to a device and back, and calls between; the device is the processor's, which takes a GPU's calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.transfers import Transfers
from iree import runtime as rt
from iree.compiler.tools import compile_str

PROGRAM = """
func.func @add(%x: tensor<4xi64>, %y: tensor<?xi64>) -> (tensor<4xi64>, tensor<?xi64>) {
  %e = tensor.empty() : tensor<4xi64>
  %r = linalg.map { arith.addi } ins(%x, %x : tensor<4xi64>, tensor<4xi64>) outs(%e : tensor<4xi64>)
  return %r, %y : tensor<4xi64>, tensor<?xi64>
}
"""


def back(transfers: Transfers, view: Any) -> np.ndarray:
    return transfers.download(rt.DeviceArray(rt.get_device("local-task"), view))


@pytest.fixture(scope="module")
def add() -> tuple[Any, Any]:
    """A context, and a function that takes fences: twice its first argument, and the second."""
    flags = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
    flags += ["--iree-llvmcpu-target-cpu=generic", "--iree-execution-model=async-external"]
    instance = rt.VmInstance()
    module = rt.VmModule.copy_buffer(instance, compile_str(PROGRAM, extra_args=flags))
    hal = rt.create_hal_module(instance, rt.get_device("local-task"))
    return rt.VmContext(instance, [hal, module]), module.lookup_function("add")


def test_calls_follow_what_was_queued_before(transfers: Transfers, add: tuple[Any, Any]) -> None:
    """Nothing is waited for between two calls; the second takes what the first gives."""
    for number in range(20):
        views = transfers.upload([np.arange(4) + number, np.arange(number + 1)])
        doubled, _ = transfers.call(*add, views)
        four_times, other = transfers.call(*add, [doubled, views[1]])
        np.testing.assert_array_equal(back(transfers, four_times), 4 * (np.arange(4) + number))
        np.testing.assert_array_equal(back(transfers, other), np.arange(number + 1))


def test_uploads_do_not_overtake_calls_that_nobody_waited_for(transfers: Transfers, add: tuple[Any, Any]) -> None:
    kept = []
    for number in range(50):
        views = transfers.upload([np.full(4, number), np.arange(3)])
        kept.append(transfers.call(*add, views)[0])
    transfers.wait()
    for number, view in enumerate(kept):
        np.testing.assert_array_equal(back(transfers, view), np.full(4, 2 * number))


def test_a_call_that_fails_leaves_a_queue_that_works(transfers: Transfers, add: tuple[Any, Any]) -> None:
    (view,) = transfers.upload([np.arange(4)])
    with pytest.raises((RuntimeError, ValueError)):
        transfers.call(*add, [view])
    views = transfers.upload([np.arange(4), np.arange(2)])
    np.testing.assert_array_equal(back(transfers, transfers.call(*add, views)[0]), 2 * np.arange(4))


@pytest.fixture
def transfers() -> Transfers:
    return Transfers(rt.get_device("local-task"))


def test_arrays_come_back_as_they_went(transfers: Transfers) -> None:
    rng = np.random.default_rng(1)
    for columns in (1, 3, 40, 5, 300):  # it grows, and what was larger is not seen again
        arrays = [
            rng.integers(-(1 << 60), 1 << 60, (4, 1)),
            rng.integers(-(1 << 60), 1 << 60, 4),
            rng.integers(0, 1 << 30, (4, columns)).astype(np.int32),
        ]
        for array, sent in zip(arrays, transfers.upload(arrays), strict=True):
            got = back(transfers, sent)
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(got, array)


def test_views_of_rows_are_sent_as_they_are_seen(transfers: Transfers) -> None:
    whole = np.arange(24).reshape(4, 6)
    (sent,) = transfers.upload([whole[:, ::2]])
    np.testing.assert_array_equal(back(transfers, sent), whole[:, ::2])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float16])
def test_results_are_copies(transfers: Transfers, dtype: type) -> None:
    device = rt.get_device("local-task")
    first = transfers.download(rt.asdevicearray(device, np.full((3, 5), 7, dtype)))
    second = transfers.download(rt.asdevicearray(device, np.arange(15, dtype=dtype).reshape(3, 5)))
    assert (first.dtype, first.shape, second.shape) == (np.dtype(dtype), (3, 5), (3, 5))
    assert (first == 7).all()
    np.testing.assert_array_equal(second.reshape(-1), np.arange(15, dtype=dtype))

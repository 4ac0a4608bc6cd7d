"""Small arrays to a device and back; the device is the processor's, which takes the same calls as a GPU's."""

from __future__ import annotations

import numpy as np
import pytest
from amdnfs_runtime.transfers import Transfers
from iree import runtime as rt


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
            got = np.asarray(sent.to_host())
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(got, array)


def test_views_of_rows_are_sent_as_they_are_seen(transfers: Transfers) -> None:
    whole = np.arange(24).reshape(4, 6)
    (sent,) = transfers.upload([whole[:, ::2]])
    np.testing.assert_array_equal(np.asarray(sent.to_host()), whole[:, ::2])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float16])
def test_results_are_copies(transfers: Transfers, dtype: type) -> None:
    device = rt.get_device("local-task")
    first = transfers.download(rt.asdevicearray(device, np.full((3, 5), 7, dtype)))
    second = transfers.download(rt.asdevicearray(device, np.arange(15, dtype=dtype).reshape(3, 5)))
    assert (first.dtype, first.shape, second.shape) == (np.dtype(dtype), (3, 5), (3, 5))
    assert (first == 7).all()
    np.testing.assert_array_equal(second.reshape(-1), np.arange(15, dtype=dtype))

"""Small arrays to a GPU and back, through memory of the host that is kept.

`iree.runtime` allocates memory on the device for every array that a call takes, and on the host for every one that is
read; drivers wait for the GPU in between. A decode step takes four small arrays and gives one: with buffers that are
kept, and copies on the queue, a step of 1.1B on an NVIDIA H200 takes a quarter less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from iree import runtime as rt

_LEAST_BYTES = 256
_ELEMENTS = {np.dtype(np.int64): rt.HalElementType.SINT_64, np.dtype(np.int32): rt.HalElementType.SINT_32}


@dataclass(slots=True)
class _Place:
    """Memory for one array on both sides."""

    host: Any
    """Buffer that the host sees and the device reads."""
    mapping: Any
    """Keeps it mapped."""
    bytes: npt.NDArray[np.uint8]
    """What the host sees."""
    device: Any
    """Buffer on the device; None where results are read."""


class Transfers:
    """Copies arrays to a device and from it. Not for several threads."""

    def __init__(self, device: Any) -> None:
        """Allocates nothing yet.

        Args:
            device: A `HalDevice` that is not the host.
        """
        self._device = device
        self._semaphore = device.create_semaphore(0)
        self._time = 0
        self._inputs: list[_Place] = []
        self._outputs: dict[int, _Place] = {}

    def upload(self, arrays: Sequence[npt.NDArray[Any]]) -> list[Any]:
        """Device arrays of the same shapes, int64 or int32; good until the next upload. Waits for the copies.

        Raises:
            RuntimeError: If the device fails.
        """
        begin, views = self._time, []
        for index, array in enumerate(arrays):
            place = self._input(index, array.nbytes)
            place.bytes[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self._copy(place.host, place.device)
            views.append(
                rt.DeviceArray(
                    self._device,
                    rt.HalBufferView(buffer=place.device, shape=list(array.shape), element_type=_ELEMENTS[array.dtype]),
                )
            )
        if self._time > begin:
            rt.HalFence.create_at(self._semaphore, self._time).wait()
        return views

    def download(self, array: Any) -> npt.NDArray[Any]:
        """A copy of a device array on the host; waits for it.

        Raises:
            RuntimeError: If the device fails.
        """
        view = array._buffer_view
        source = view.get_buffer()
        size = source.byte_length()
        place = self._outputs.get(size)
        if place is None:
            place = self._outputs[size] = self._place(size, rt.BufferUsage.TRANSFER_TARGET, on_device=False)
        self._copy(source, place.host)
        rt.HalFence.create_at(self._semaphore, self._time).wait()
        dtype = np.dtype(array.dtype)
        count = int(np.prod(view.shape, dtype=np.int64))
        result: npt.NDArray[Any] = place.bytes[: count * dtype.itemsize].copy().view(dtype)
        return result.reshape(view.shape)

    def _copy(self, source: Any, target: Any) -> None:
        self._device.queue_copy(
            source,
            target,
            wait_semaphores=rt.HalFence.create_at(self._semaphore, self._time),
            signal_semaphores=rt.HalFence.create_at(self._semaphore, self._time + 1),
        )
        self._time += 1

    def _input(self, index: int, num_bytes: int) -> _Place:
        """Memory for the `index`-th array; what is too small is replaced by at least twice as much."""
        size = max(_LEAST_BYTES, 1 << (num_bytes - 1).bit_length()) if num_bytes else _LEAST_BYTES
        if index == len(self._inputs):
            self._inputs.append(self._place(size, rt.BufferUsage.TRANSFER_SOURCE, on_device=True))
        elif self._inputs[index].bytes.size < size:
            self._inputs[index] = self._place(size, rt.BufferUsage.TRANSFER_SOURCE, on_device=True)
        return self._inputs[index]

    def _place(self, size: int, usage: Any, *, on_device: bool) -> _Place:
        allocator = self._device.allocator
        host = allocator.allocate_buffer(
            memory_type=int(rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE),
            allowed_usage=int(usage | rt.BufferUsage.MAPPING_SCOPED),
            allocation_size=size,
        )
        mapping = host.map()
        device = None
        if on_device:
            device = allocator.allocate_buffer(
                memory_type=int(rt.MemoryType.DEVICE_LOCAL),
                allowed_usage=int(rt.BufferUsage.DEFAULT),
                allocation_size=size,
            )
        return _Place(host, mapping, mapping.asarray([size], np.dtype(np.uint8)), device)

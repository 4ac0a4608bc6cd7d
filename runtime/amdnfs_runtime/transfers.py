"""A GPU's queue: small arrays to the device and back through memory of the host that is kept, and calls between them.

`iree.runtime` allocates memory on the device for every array that a call takes, and on the host for every one that is
read; drivers wait for the GPU in between. A decode step takes four small arrays and gives one: with buffers that are
kept, and copies on the queue, a step of 1.1B on an NVIDIA H200 takes a quarter less.

    upload -> copies ---> call ---> copy -> download        one timeline: each waits for what was queued before it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """Copies arrays to a device and from it, and calls functions between. Not for several threads.

    After an error what was queued before is lost, and the next operation begins anew.
    """

    def __init__(self, device: Any) -> None:
        """Allocates nothing yet.

        Args:
            device: A `HalDevice` that is not the host.
        """
        self._device = device
        self._inputs: list[_Place] = []
        self._outputs: dict[int, _Place] = {}
        self._time = 0
        self._uploaded = 0
        self._begin_anew()

    def upload(self, arrays: Sequence[npt.NDArray[Any]]) -> list[Any]:
        """Buffer views on the device of the same shapes, int64 or int32; good until the next upload.

        Waits for the copies of the last upload, whose memory they take. What uses the views must be queued here, or
        `wait` first.

        Raises:
            RuntimeError: If the device fails.
        """
        with self._or_anew():
            self._wait_until(self._uploaded)
            views = []
            for index, array in enumerate(arrays):
                place = self._input(index, array.nbytes)
                place.bytes[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                self._copy(place.host, place.device)
                views.append(
                    rt.HalBufferView(buffer=place.device, shape=list(array.shape), element_type=_ELEMENTS[array.dtype])
                )
            self._uploaded = self._time
        return views

    def call(self, context: Any, function: Any, arguments: Sequence[Any]) -> list[Any]:
        """Queues a call of a function that takes fences (`coarse-fences`).

        Args:
            context: The `VmContext`.
            function: The `VmFunction`.
            arguments: Buffer views.

        Returns:
            Its results as buffer views, which hold what they should when the queue has come to it: `download` them.

        Raises:
            RuntimeError: If the device fails.
        """
        with self._or_anew():
            taken = rt.VmVariantList(len(arguments) + 2)
            for argument in (*arguments, self._fence(0), self._fence(1)):
                taken.push_ref(argument)
            given = rt.VmVariantList(len(arguments))
            context.invoke(function, taken, given)
            self._time += 1
            return [given.get_as_ref(index).deref(rt.HalBufferView) for index in range(given.size)]

    def wait(self) -> None:
        """Waits for all that is queued.

        Raises:
            RuntimeError: If the device fails.
        """
        with self._or_anew():
            self._wait_until(self._time)

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
        with self._or_anew():
            self._copy(source, place.host)
            self._wait_until(self._time)
        dtype = np.dtype(array.dtype)
        count = int(np.prod(view.shape, dtype=np.int64))
        result: npt.NDArray[Any] = place.bytes[: count * dtype.itemsize].copy().view(dtype)
        return result.reshape(view.shape)

    def _begin_anew(self) -> None:
        self._semaphore = self._device.create_semaphore(0)
        self._time = 0
        self._uploaded = 0

    @contextmanager
    def _or_anew(self) -> Iterator[None]:
        """A timeline with an error stays where it is, so another one is begun."""
        try:
            yield
        except BaseException:
            self._begin_anew()
            raise

    def _fence(self, steps: int) -> Any:
        return rt.HalFence.create_at(self._semaphore, self._time + steps)

    def _wait_until(self, time: int) -> None:
        if time:
            rt.HalFence.create_at(self._semaphore, time).wait()

    def _copy(self, source: Any, target: Any) -> None:
        self._device.queue_copy(
            source,
            target,
            wait_semaphores=self._fence(0),
            signal_semaphores=self._fence(1),
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

"""Planted faults of the check `order`: device memory that is touched before its writer or reader was waited for.

The emulator runs each operation when it is called, so that none of these programs computes a wrong value here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_uint, c_void_p

import numpy as np
import pytest

from tests.unit.hipemu.machine import HipError, Machine, assemble, kernel_text

pytest.importorskip("triton")

LANES = 64
BYTES = LANES * 32
"""What the kernel reads of its first argument, and writes to its second."""
NON_BLOCKING = 1
TO_HOST = 2
Handle = c_void_p


class KernelNode(ctypes.Structure):
    """hipKernelNodeParams."""

    _fields_ = [
        ("block", c_uint * 3),
        ("extra", c_void_p),
        ("function", c_void_p),
        ("grid", c_uint * 3),
        ("parameters", c_void_p),
        ("lds_bytes", c_uint),
    ]


class FillNode(ctypes.Structure):
    """hipMemsetParams."""

    _fields_ = [
        ("to", c_void_p),
        ("element_bytes", c_uint),
        ("height", c_size_t),
        ("pitch", c_size_t),
        ("value", c_uint),
        ("width", c_size_t),
    ]


class Device(Machine):
    """Calls of HIP, one method each, with one kernel."""

    def load(self, code: bytes) -> None:
        module, self._kernel = Handle(), Handle()
        self("hipModuleLoadData", byref(module), code)
        self("hipModuleGetFunction", byref(self._kernel), module, b"k")

    def __call__(self, name: str, *arguments: object) -> None:
        self._check(getattr(self._hip, name)(*arguments))

    def memory(self) -> Handle:
        made = Handle()
        self("hipMalloc", byref(made), c_size_t(BYTES))
        return made

    def stream(self, flags: int = NON_BLOCKING) -> Handle:
        made = Handle()
        self("hipStreamCreateWithFlags", byref(made), c_uint(flags))
        return made

    def event(self) -> Handle:
        made = Handle()
        self("hipEventCreate", byref(made))
        return made

    def run(self, stream: Handle | None, source: Handle, target: Handle) -> None:
        pointers = (c_void_p * 2)(ctypes.addressof(source), ctypes.addressof(target))
        self("hipModuleLaunchKernel", self._kernel, 1, 1, 1, LANES, 1, 1, 0, stream, pointers, None)

    def wait(self, waiting: Handle, for_stream: Handle) -> None:
        event = self.event()
        self("hipEventRecord", event, for_stream)
        self("hipStreamWaitEvent", waiting, event, c_uint(0))

    def node(self, graph: Handle, source: Handle, target: Handle, *after: Handle) -> Handle:
        pointers = (c_void_p * 2)(ctypes.addressof(source), ctypes.addressof(target))
        params = KernelNode(
            block=(LANES, 1, 1), function=self._kernel, grid=(1, 1, 1), parameters=ctypes.addressof(pointers)
        )
        made = Handle()
        edges = (c_void_p * (len(after) + 1))(*after)
        self("hipGraphAddKernelNode", byref(made), graph, edges, c_size_t(len(after)), byref(params))
        return made

    def launch(self, graph: Handle, stream: Handle) -> None:
        made = Handle()
        self("hipGraphInstantiate", byref(made), graph, None, None, c_size_t(0))
        self("hipGraphLaunch", made, stream)


@pytest.fixture(scope="module")
def code() -> bytes:
    return assemble("gfx942", kernel_text("gfx942", "", wave=64))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, code: bytes) -> Device:
    made = Device(tmp_path_factory.mktemp("emulator"), {"CHECKS": "order"})
    made.load(code)
    return made


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory, code: bytes) -> Device:
    made = Device(tmp_path_factory.mktemp("emulator"))
    made.load(code)
    return made


def test_a_kernel_reads_what_another_stream_writes(device: Device) -> None:
    first, second = device.stream(), device.stream()
    a, b, c = device.memory(), device.memory(), device.memory()
    device.run(first, a, b)
    with pytest.raises(
        HipError,
        match=r"order in kernel k at pc 0x\w+ \(global_load_dwordx4\), .*load of 16 bytes at byte 0 of allocation \d+ "
        r"\(2048 bytes, lane 0\), which k writes in stream (\d+); stream \d+ has not waited for it: record an event in "
        r"stream \1 after it, and let stream \d+ wait for that",
    ):
        device.run(second, b, c)


def test_nothing_is_said_without_the_check(unchecked: Device) -> None:
    a, b, c = unchecked.memory(), unchecked.memory(), unchecked.memory()
    unchecked.run(unchecked.stream(), a, b)
    unchecked.run(unchecked.stream(), b, c)


@pytest.mark.parametrize(
    "wait",
    [
        lambda device, first, second: device.wait(second, first),
        lambda device, first, _: device("hipStreamSynchronize", first),
        lambda device, *_: device("hipDeviceSynchronize"),
    ],
    ids=["event", "host waits for the stream", "host waits for the device"],
)
def test_waits_that_order_two_streams(device: Device, wait: Callable[[Device, Handle, Handle], None]) -> None:
    first, second = device.stream(), device.stream()
    a, b, c = device.memory(), device.memory(), device.memory()
    device.run(first, a, b)
    wait(device, first, second)
    device.run(second, b, c)
    with pytest.raises(HipError, match=r"order in kernel k .*store of 16 bytes .*, which k reads in stream \d+;"):
        device.run(first, a, b)  # the wait has one direction


def test_an_event_is_of_the_moment_when_it_was_recorded(device: Device) -> None:
    first, second, event = device.stream(), device.stream(), device.event()
    a, b, c = device.memory(), device.memory(), device.memory()
    device("hipEventRecord", event, first)
    device.run(first, a, b)
    device("hipStreamWaitEvent", second, event, c_uint(0))
    with pytest.raises(HipError, match="order in kernel k"):
        device.run(second, b, c)
    device("hipEventRecord", event, first)
    device("hipEventSynchronize", event)
    device.run(second, b, c)


def test_a_wait_is_passed_on(device: Device) -> None:
    streams = [device.stream() for _ in range(3)]
    a, b, c = device.memory(), device.memory(), device.memory()
    device.run(streams[0], a, b)
    device.wait(streams[1], streams[0])
    device.wait(streams[2], streams[1])
    device.run(streams[2], b, c)


def test_two_readers_and_a_writer_that_waits_for_one(device: Device) -> None:
    first, second, third = device.stream(), device.stream(), device.stream()
    a, b, c = device.memory(), device.memory(), device.memory()
    device.run(first, a, b)
    device.run(second, a, c)
    device.wait(third, second)
    with pytest.raises(HipError, match=r"order in hipMemsetAsync: store of 2048 bytes at byte 0 .*, which k reads in"):
        device("hipMemsetAsync", a, c_int(0), c_size_t(BYTES), third)
    device.wait(third, first)
    device("hipMemsetAsync", a, c_int(0), c_size_t(BYTES), third)


@pytest.mark.parametrize("num_readers", [3, 9])
@pytest.mark.parametrize("missed", [0, 1, -1], ids=["first", "second", "last"])
def test_many_readers_and_a_writer_that_misses_one(device: Device, num_readers: int, missed: int) -> None:
    readers, writer = [device.stream() for _ in range(num_readers)], device.stream()
    a = device.memory()
    for reader in readers:
        device.run(reader, a, device.memory())
    for reader in readers:
        if reader is not readers[missed]:
            device.wait(writer, reader)
    fill = ("hipMemsetAsync", a, c_int(0), c_size_t(BYTES), writer)
    with pytest.raises(HipError, match=r"order in hipMemsetAsync: store of 2048 bytes at byte 0 .*, which k reads in"):
        device(*fill)
    device.wait(writer, readers[missed])
    device(*fill)


@pytest.mark.parametrize("missed", [0, 1, 2])
def test_writers_of_neighbouring_bytes(device: Device, missed: int) -> None:
    """Parts of the same 32 bytes, written by three streams; a copy waits for two of them."""
    writers, reader, a, b = [device.stream() for _ in range(3)], device.stream(), device.memory(), device.memory()
    at = int(a.value or 0)
    for number, writer in enumerate(writers):
        device("hipMemsetAsync", c_void_p(at + 8 * number), c_int(1), c_size_t(8), writer)
        if number != missed:
            device.wait(reader, writer)
    copy = ("hipMemcpyAsync", b, a, c_size_t(24), c_int(3), reader)
    with pytest.raises(HipError, match=rf"byte {8 * missed} of .*, which hipMemsetAsync writes in stream"):
        device(*copy)
    device.wait(reader, writers[missed])
    device(*copy)


def test_the_earlier_of_two_operations_in_neighbouring_bytes(device: Device) -> None:
    """They are of one stream, and the second touches none of the first one's bytes."""
    first, second, a, b = device.stream(), device.stream(), device.memory(), device.memory()
    device("hipDeviceSynchronize")
    device("hipMemsetAsync", a, c_int(1), c_size_t(8), first)
    device("hipMemsetAsync", c_void_p(int(a.value or 0) + 8), c_int(1), c_size_t(8), first)
    with pytest.raises(HipError, match=r"byte 0 of .*, which hipMemsetAsync writes in stream"):
        device("hipMemcpyAsync", b, a, c_size_t(8), c_int(3), second)


@pytest.mark.parametrize(("flags", "is_found"), [(NON_BLOCKING, True), (0, False)])
def test_the_default_stream_waits_for_blocking_streams_only(device: Device, flags: int, is_found: bool) -> None:
    stream, a, b = device.stream(flags), device.memory(), device.memory()
    out = np.empty(BYTES, np.uint8)
    copy = ("hipMemcpy", c_void_p(out.ctypes.data), b, c_size_t(BYTES), c_int(TO_HOST))
    device.run(stream, a, b)
    if is_found:
        with pytest.raises(
            HipError,
            match=r"order in hipMemcpy: load .*, which k writes in stream \d+; the default stream has not waited",
        ):
            device(*copy)
        device("hipStreamSynchronize", stream)
    device(*copy)
    device.run(None, b, a)
    if is_found:
        with pytest.raises(HipError, match=r"which k writes in the default stream; stream \d+ has not"):
            device.run(stream, a, b)
    else:
        device.run(stream, a, b)


def test_copies_of_two_streams(device: Device) -> None:
    first, second = device.stream(), device.stream()
    a, b = device.memory(), device.memory()
    copy = ("hipMemcpyAsync", b, a, c_size_t(BYTES), c_int(3))
    device("hipMemsetD32Async", a, c_int(1), c_size_t(BYTES // 4), first)
    with pytest.raises(HipError, match=r"order in hipMemcpyAsync: load .*, which hipMemsetD32Async writes in stream"):
        device(*copy, second)
    device.wait(second, first)
    device(*copy, second)


def test_other_bytes_of_the_same_memory(device: Device) -> None:
    first, second, a = device.stream(), device.stream(), device.memory()
    at = int(a.value or 0)
    device("hipMemsetAsync", a, c_int(1), c_size_t(333), first)
    device("hipMemsetAsync", c_void_p(at + 333), c_int(2), c_size_t(BYTES - 333), second)
    with pytest.raises(HipError, match=r"store of 1 bytes at byte 300 of .*hipMemsetAsync writes in"):
        device("hipMemsetAsync", c_void_p(at + 300), c_int(2), c_size_t(1), second)


def test_memory_of_a_pool_belongs_to_its_stream(device: Device) -> None:
    first, second, b = device.stream(), device.stream(), device.memory()
    made = Handle()
    device("hipMallocFromPoolAsync", byref(made), c_size_t(BYTES), None, first)
    with pytest.raises(HipError, match=r"order in kernel k .*, which hipMallocAsync writes in stream"):
        device.run(second, b, made)
    device.wait(second, first)
    device.run(second, b, made)
    with pytest.raises(
        HipError, match=r"order in hipFreeAsync: release of 2048 bytes at byte 0 .*, which k writes in stream"
    ):
        device("hipFreeAsync", made, first)
    device.wait(first, second)
    device("hipFreeAsync", made, first)
    with pytest.raises(HipError, match="memory-range"):
        device.run(first, b, made)


def test_hip_free_waits_for_the_device(device: Device) -> None:
    first, second = device.stream(), device.stream()
    a, b, c = device.memory(), device.memory(), device.memory()
    device.run(first, a, b)
    device("hipFree", a)
    device.run(second, b, c)


def test_a_function_of_the_host_comes_after_its_stream(device: Device) -> None:
    first, second = device.stream(), device.stream()
    a, b, c = device.memory(), device.memory(), device.memory()
    called: list[int] = []
    function = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: called.append(1))
    device.run(first, a, b)
    device("hipLaunchHostFunc", first, function, None)
    device.run(second, b, c)
    assert called == [1]


def test_nodes_of_a_graph_without_an_edge(device: Device) -> None:
    graph, a, b, c = Handle(), device.memory(), device.memory(), device.memory()
    device("hipGraphCreate", byref(graph), c_uint(0))
    device.node(graph, a, b)
    device.node(graph, b, c)
    with pytest.raises(
        HipError,
        match=r"order in kernel k .*load .*, which k writes in node 1 of graph (\d+); no path of edges leads to node 2 "
        r"of graph \1 from there",
    ):
        device.launch(graph, device.stream())


@pytest.mark.parametrize("is_whole", [True, False])
def test_edges_of_a_graph(device: Device, is_whole: bool) -> None:
    """A kernel and a fill beside each other, an empty node after both (or one), and a kernel after that."""
    graph, stream, empty, fill = Handle(), device.stream(), Handle(), Handle()
    a, b, c = device.memory(), device.memory(), device.memory()
    device("hipGraphCreate", byref(graph), c_uint(0))
    first = device.node(graph, a, b)
    params = FillNode(to=c, element_bytes=4, height=1, pitch=BYTES, value=7, width=BYTES // 4)
    device("hipGraphAddMemsetNode", byref(fill), graph, None, c_size_t(0), byref(params))
    edges = (c_void_p * 2)(first, fill)
    device("hipGraphAddEmptyNode", byref(empty), graph, edges, c_size_t(2 if is_whole else 1))
    device.node(graph, b, c, empty)
    if not is_whole:
        with pytest.raises(HipError, match=r"store .*, which a fill writes in node 2 of graph"):
            device.launch(graph, stream)
        return
    made = Handle()
    device("hipGraphInstantiate", byref(made), graph, None, None, c_size_t(0))
    for _ in range(3):
        device("hipGraphLaunch", made, stream)
    device("hipGraphExecDestroy", made)
    device.run(stream, c, a)
    with pytest.raises(HipError, match=r"which k writes in node 4 of graph \d+; stream \d+ has not waited for it"):
        device.run(device.stream(), c, device.memory())


def test_a_graph_comes_after_its_stream_only(device: Device) -> None:
    first, second, graph = device.stream(), device.stream(), Handle()
    a, b, c = device.memory(), device.memory(), device.memory()
    device("hipGraphCreate", byref(graph), c_uint(0))
    device.node(graph, b, c)
    device.run(first, a, b)
    device.launch(graph, first)
    device.run(first, a, b)
    with pytest.raises(
        HipError, match=r"stream \d+; node 1 of graph \d+ has not waited .* let the graph's stream wait"
    ):
        device.launch(graph, second)

"""Runs launch plans through the CUDA driver API, of a GPU or of the stand-in library, which interprets PTX.

The tests use it, and the tools that measure kernels.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY = "EDGEPIPE_TEST_LIBCUDA"
VECTOR = 16
CHECK = "CUDA_STANDIN_CHECK"
# CU_JIT_ERROR_LOG_BUFFER and its size.
ERROR_LOG, ERROR_LOG_SIZE = 5, 6


class DriverError(Exception):
    """A call of the driver failed. The message names the function and the error code."""


class Driver:
    """A CUDA driver library with a context on its first device, and a stream."""

    def __init__(self, path: str) -> None:
        self.is_lost = False
        self._library = ctypes.CDLL(path)
        self.call("cuInit", ctypes.c_uint(0))
        context, self.stream, self._device = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(0))
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(self.stream), ctypes.c_uint(0))

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function of the driver. Raises ``DriverError`` if it reports an error."""
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            self.is_lost = True
            raise DriverError(f"{name} failed: {(text.value or b'').decode()} ({code})")

    def name(self) -> str:
        """Name of the device."""
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, ctypes.c_int(len(text)), self._device)
        return text.value.decode()

    def version(self) -> tuple[int, int]:
        """Newest CUDA version that the driver supports, such as (10, 2)."""
        version = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        return version.value // 1000, version.value % 1000 // 10

    def attribute(self, number: int) -> int:
        """An attribute of the device, by its number in cuda.h."""
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), self._device)
        return value.value

    def is_emulated(self) -> bool:
        """Whether this is the stand-in library."""
        return hasattr(self._library, "edgepipe_cuda_standin")

    def allocate(self, size: int) -> ctypes.c_uint64:
        """Device memory of ``size`` bytes, rounded up to whole vectors, as places in a plan are.

        LLVM may load the last three floats of a buffer as an aligned vector of four.
        """
        place = ctypes.c_uint64()
        whole = -(-max(1, size) // VECTOR) * VECTOR
        self.call("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(whole))
        return place

    def free(self, place: ctypes.c_uint64) -> None:
        """Frees device memory."""
        self.call("cuMemFree_v2", place)

    def write(self, place: ctypes.c_uint64, array: np.ndarray) -> None:
        """Copies an array to device memory."""
        if array.nbytes:
            data, size = array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes)
            self.call("cuMemcpyHtoDAsync_v2", place, data, size, self.stream)
            self.synchronize()

    def read(self, place: ctypes.c_uint64, array: np.ndarray) -> None:
        """Copies device memory to an array."""
        if array.nbytes:
            data, size = array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes)
            self.call("cuMemcpyDtoHAsync_v2", data, place, size, self.stream)
            self.synchronize()

    def synchronize(self) -> None:
        """Waits for the stream."""
        self.call("cuStreamSynchronize", self.stream)

    def elapsed(self, start: Callable[[], object]) -> float:
        """Milliseconds of the work that ``start`` puts on the stream, by events around it."""
        begin, end, time = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
        for event in (begin, end):
            self.call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        self.call("cuEventRecord", begin, self.stream)
        start()
        self.call("cuEventRecord", end, self.stream)
        self.synchronize()
        self.call("cuEventElapsedTime", ctypes.byref(time), begin, end)
        for event in (begin, end):
            self.call("cuEventDestroy_v2", event)
        return time.value

    def load(self, ptx: str) -> ctypes.c_void_p:
        """A module of PTX."""
        module = ctypes.c_void_p()
        log = ctypes.create_string_buffer(1 << 14)
        options = (ctypes.c_int * 2)(ERROR_LOG, ERROR_LOG_SIZE)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), len(log))
        text = ptx.encode() + b"\0"
        try:
            count = ctypes.c_uint(2)
            self.call("cuModuleLoadDataEx", ctypes.byref(module), text, count, options, values)
        except DriverError as error:
            raise DriverError(f"{error}: {log.value.decode()}") from None
        return module


_standins: dict[bool, Driver] = {}


def standin(checked: bool) -> Driver:
    """The stand-in driver, whose path ``EDGEPIPE_TEST_LIBCUDA`` names.

    A checked one finds accesses outside of allocations and races between threads. The library reads its
    settings once, so each kind is a copy of its own. After an error, which may have lost the context, the
    next caller gets a new one.
    """
    found = _standins.get(checked)
    if found is not None and not found.is_lost:
        return found
    path = os.environ.get(LIBRARY)
    if path is None:
        raise DriverError(f"{LIBRARY} is not set; run this with `cargo xtask test`")
    before = os.environ.get(CHECK)
    os.environ[CHECK] = "1" if checked else "0"
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "libcuda.so.1"
            shutil.copy(path, copy)
            _standins[checked] = Driver(str(copy))
    finally:
        if before is None:
            del os.environ[CHECK]
        else:
            os.environ[CHECK] = before
    return _standins[checked]


def _release(owner: Driver, places: list[ctypes.c_uint64], module: ctypes.c_void_p) -> None:
    """Frees what a program owns, unless its context is lost."""
    if owner.is_lost:
        return
    for place in places:
        owner.free(place)
    owner.call("cuModuleUnload", module)


class Program:
    """A launch plan in the memory of a device.

    ``apart``: each value has an allocation of its own, so that an access beyond a value is found. Otherwise
    values are at the places of the plan, as in the runner.
    """

    def __init__(
        self, driver: Driver, plan: dict[str, Any], weights: np.ndarray, apart: bool = False
    ) -> None:
        self.plan, self.driver = plan, driver
        self._owned: list[ctypes.c_uint64] = []
        if apart:
            self.values = [self._allocated(value["bytes"]) for value in plan["values"]]
        else:
            arena = self._allocated(plan["arena_bytes"])
            self.values = [
                ctypes.c_uint64(arena.value + value["offset"]) for value in plan["values"]
            ]
        self.weights = []
        for slot in plan["weights"]:
            place = self._allocated(slot["bytes"])
            self.driver.write(place, weights[slot["offset"] : slot["offset"] + slot["bytes"]])
            self.weights.append(place)
        self.module = self.driver.load(plan["ptx"])
        self._functions = {}
        for name in dict.fromkeys(launch["kernel"] for launch in plan["launches"]):
            function = ctypes.c_void_p()
            self.driver.call(
                "cuModuleGetFunction", ctypes.byref(function), self.module, name.encode()
            )
            self._functions[name] = function
        weakref.finalize(self, _release, self.driver, self._owned, self.module)

    def _allocated(self, size: int) -> ctypes.c_uint64:
        self._owned.append(self.driver.allocate(size))
        return self._owned[-1]

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Computes one frame: fills the arrays ``outputs``."""
        for place, array in zip(self.plan["inputs"], inputs, strict=True):
            assert array.nbytes == self.plan["values"][place]["bytes"]
            self.driver.write(self.values[place], np.ascontiguousarray(array))
        for launch in self.plan["launches"]:
            self.launch(launch)
        for place, array in zip(self.plan["outputs"], outputs, strict=True):
            assert array.nbytes == self.plan["values"][place]["bytes"]
            self.driver.read(self.values[place], array)

    def times(self) -> list[float]:
        """Milliseconds of each launch, measured by events around it, on the inputs of the last frame."""
        events = []
        for _ in range(len(self.plan["launches"]) + 1):
            events.append(ctypes.c_void_p())
            self.driver.call("cuEventCreate", ctypes.byref(events[-1]), ctypes.c_uint(0))
        self.driver.call("cuEventRecord", events[0], self.driver.stream)
        for launch, event in zip(self.plan["launches"], events[1:], strict=True):
            self.launch(launch)
            self.driver.call("cuEventRecord", event, self.driver.stream)
        self.driver.synchronize()
        found = []
        for begin, end in itertools.pairwise(events):
            time = ctypes.c_float()
            self.driver.call("cuEventElapsedTime", ctypes.byref(time), begin, end)
            found.append(time.value)
        for event in events:
            self.driver.call("cuEventDestroy_v2", event)
        return found

    def launch(self, launch: dict[str, Any]) -> None:
        """Starts one kernel of the plan."""
        places = [
            self.values[item["value"]] if "value" in item else self.weights[item["weight"]]
            for item in launch["arguments"]
        ]
        pointers = (ctypes.c_void_p * len(places))(*map(ctypes.addressof, places))
        sizes = [ctypes.c_uint(extent) for extent in (*launch["grid"], *launch["block"])]
        function, none = self._functions[launch["kernel"]], ctypes.c_void_p()
        stream, shared = self.driver.stream, ctypes.c_uint(0)
        self.driver.call("cuLaunchKernel", function, *sizes, shared, stream, pointers, none)

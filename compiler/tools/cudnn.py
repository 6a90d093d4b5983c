"""Convolutions by cuDNN, to compare with. Uses the functions that cuDNN 7 to 9 have in common.

A library from the wheel ``nvidia-cudnn-cu12`` (or ``-cu11``) finds cuBLAS in the wheel beside it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuda_driver import Driver

# Values of cudnn.h.
FLOAT, NCHW, CROSS_CORRELATION = 0, 0, 1
DEFAULT_MATH, FMA_MATH = 0, 3  # The latter is float32 without TF32, which cuDNN 7 does not know.
WITH_FMA_MATH = 8000
WORKSPACE_BYTES = 256 << 20


class _Performance(ctypes.Structure):
    """cudnnConvolutionFwdAlgoPerf_t."""

    _fields_ = [
        ("algorithm", ctypes.c_int),
        ("status", ctypes.c_int),
        ("ms", ctypes.c_float),
        ("memory", ctypes.c_size_t),
        ("determinism", ctypes.c_int),
        ("math", ctypes.c_int),
        ("reserved", ctypes.c_int * 3),
    ]


class CudnnError(Exception):
    """cuDNN cannot be loaded, or a call failed. The message names the library or the function."""


class Cudnn:
    """A loaded cuDNN with a handle in the current context. Raises ``CudnnError``."""

    def __init__(self, path: str) -> None:
        try:
            for library in _wheels_beside(Path(path)):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            self._library = ctypes.CDLL(path)
            self._library.cudnnGetErrorString.restype = ctypes.c_char_p
            self._library.cudnnGetVersion.restype = ctypes.c_size_t
        except (OSError, AttributeError) as error:
            raise CudnnError(f"failed to load cuDNN from {path}: {error}") from None
        self.version: int = self._library.cudnnGetVersion()
        self.handle = ctypes.c_void_p()
        self.call("cudnnCreate", ctypes.byref(self.handle))

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function. Raises ``CudnnError`` if it fails."""
        self.check(name, getattr(self._library, name)(*arguments))

    def check(self, name: str, status: int) -> None:
        """Raises ``CudnnError`` if a status is that of a failure."""
        if status != 0:
            text = self._library.cudnnGetErrorString(ctypes.c_int(status)) or b""
            raise CudnnError(f"{name} failed: {text.decode()} ({status})")

    @contextmanager
    def convolution(
        self, driver: Driver, shapes: Sequence[Sequence[int]], attributes: Mapping[str, Any]
    ) -> Iterator[Convolution]:
        """The convolution of input, weight and output ``shapes`` (NCHW) with ONNX's attributes."""
        made = Convolution(self, driver)
        try:
            made.prepare(shapes, attributes)
            yield made
        finally:
            made.free()


def _wheels_beside(path: Path) -> list[Path]:
    """cuBLAS and NVRTC of the wheels beside cuDNN's, in the order in which they need each other."""
    wheels = path.parent.parent.parent
    if path.parent.name != "lib" or wheels.name != "nvidia":
        return []
    names = (
        "cublas/lib/libcublasLt.so.*",
        "cublas/lib/libcublas.so.*",
        "cuda_nvrtc/lib/libnvrtc.so.*",
    )
    return [library for name in names for library in sorted(wheels.glob(name))]


class Convolution:
    """A forward convolution with the algorithm that cuDNN found fastest within the workspace."""

    def __init__(self, library: Cudnn, driver: Driver) -> None:
        self._library, self._driver = library, driver
        self._places: list[ctypes.c_uint64] = []
        self._descriptors: list[tuple[str, ctypes.c_void_p]] = []

    def prepare(self, shapes: Sequence[Sequence[int]], attributes: Mapping[str, Any]) -> None:
        """Allocates memory, and chooses the algorithm. ``shapes``: input, weight and output."""
        library, pads = self._library, tuple(attributes.get("pads", (0, 0, 0, 0)))
        if pads[:2] != pads[2:]:
            raise CudnnError(f"cuDNN pads both sides alike, and the pads are {pads}")
        library.call("cudnnSetStream", library.handle, self._driver.stream)
        for shape in shapes:
            self._places.append(self._driver.allocate(4 * math.prod(shape)))
        self._workspace = self._driver.allocate(WORKSPACE_BYTES)
        self._places.append(self._workspace)
        self._input, self._output = self._tensor(shapes[0]), self._tensor(shapes[2])
        self._filter = self._made("Filter")
        library.call("cudnnSetFilter4dDescriptor", self._filter, FLOAT, NCHW, *shapes[1])
        self._convolution = self._made("Convolution")
        library.call(
            "cudnnSetConvolution2dDescriptor",
            self._convolution,
            *pads[:2],
            *attributes.get("strides", (1, 1)),
            *attributes.get("dilations", (1, 1)),
            CROSS_CORRELATION,
            FLOAT,
        )
        groups = ctypes.c_int(attributes.get("group", 1))
        library.call("cudnnSetConvolutionGroupCount", self._convolution, groups)
        kind = FMA_MATH if library.version >= WITH_FMA_MATH else DEFAULT_MATH
        library.call("cudnnSetConvolutionMathType", self._convolution, kind)
        found, count = _Performance(), ctypes.c_int()
        search = "cudnnFindConvolutionForwardAlgorithmEx"
        library.call(
            search,
            *self._operands(),
            self._output,
            self._pointer(2),
            1,
            ctypes.byref(count),
            ctypes.byref(found),
            ctypes.c_void_p(self._workspace.value),
            ctypes.c_size_t(WORKSPACE_BYTES),
        )
        if count.value < 1:
            raise CudnnError(f"{search} found no algorithm")
        library.check(search, found.status)
        self._algorithm = found.algorithm

    def run(self) -> None:
        """Starts the convolution on the driver's stream."""
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        handle, source, place, weight, weights, convolution = self._operands()
        self._library.call(
            "cudnnConvolutionForward",
            handle,
            ctypes.byref(one),
            source,
            place,
            weight,
            weights,
            convolution,
            self._algorithm,
            ctypes.c_void_p(self._workspace.value),
            ctypes.c_size_t(WORKSPACE_BYTES),
            ctypes.byref(zero),
            self._output,
            self._pointer(2),
        )

    def free(self) -> None:
        """Frees descriptors and memory."""
        for kind, descriptor in self._descriptors:
            self._library.call(f"cudnnDestroy{kind}Descriptor", descriptor)
        for place in self._places:
            self._driver.free(place)

    def _operands(self) -> tuple[object, ...]:
        return (
            self._library.handle,
            self._input,
            self._pointer(0),
            self._filter,
            self._pointer(1),
            self._convolution,
        )

    def _pointer(self, place: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._places[place].value)

    def _made(self, kind: str) -> ctypes.c_void_p:
        descriptor = ctypes.c_void_p()
        self._library.call(f"cudnnCreate{kind}Descriptor", ctypes.byref(descriptor))
        self._descriptors.append((kind, descriptor))
        return descriptor

    def _tensor(self, shape: Sequence[int]) -> ctypes.c_void_p:
        descriptor = self._made("Tensor")
        self._library.call("cudnnSetTensor4dDescriptor", descriptor, NCHW, FLOAT, *shape)
        return descriptor

"""Convolutions by cuDNN, to compare with. Uses the functions that cuDNN 7 to 9 have in common."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cuda_driver import Driver

# Values of cudnn.h.
FLOAT, NCHW, CROSS_CORRELATION = 0, 0, 1
FMA_MATH = 3  # float32 without TF32
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


class Cudnn:
    """A loaded cuDNN with a handle in the current context."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self.handle = ctypes.c_void_p()
        self.call("cudnnCreate", ctypes.byref(self.handle))

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function. Raises ``RuntimeError`` if it fails."""
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} failed with status {status}")

    @contextmanager
    def convolution(
        self, driver: Driver, shapes: Sequence[Sequence[int]], attributes: Mapping[str, Any]
    ) -> Iterator[Convolution]:
        """The convolution of input, weight and output ``shapes`` (NCHW) with ONNX's attributes."""
        made = Convolution(self, driver, shapes, attributes)
        try:
            yield made
        finally:
            made.free()


class Convolution:
    """A forward convolution with the algorithm that cuDNN found fastest within the workspace."""

    def __init__(
        self,
        library: Cudnn,
        driver: Driver,
        shapes: Sequence[Sequence[int]],
        attributes: Mapping[str, Any],
    ) -> None:
        self._library, self._driver = library, driver
        library.call("cudnnSetStream", library.handle, driver.stream)
        self._places = [driver.allocate(4 * _elements(shape)) for shape in shapes]
        self._workspace = driver.allocate(WORKSPACE_BYTES)
        self._input, self._output = self._tensor(shapes[0]), self._tensor(shapes[2])
        self._filter = self._made("cudnnCreateFilterDescriptor")
        library.call("cudnnSetFilter4dDescriptor", self._filter, FLOAT, NCHW, *shapes[1])
        self._convolution = self._made("cudnnCreateConvolutionDescriptor")
        # cuDNN pads both sides alike.
        pads = attributes.get("pads", (0, 0, 0, 0))[:2]
        strides = attributes.get("strides", (1, 1))
        dilations = attributes.get("dilations", (1, 1))
        library.call(
            "cudnnSetConvolution2dDescriptor",
            self._convolution,
            *pads,
            *strides,
            *dilations,
            CROSS_CORRELATION,
            FLOAT,
        )
        groups = ctypes.c_int(attributes.get("group", 1))
        library.call("cudnnSetConvolutionGroupCount", self._convolution, groups)
        library.call("cudnnSetConvolutionMathType", self._convolution, FMA_MATH)
        found, count = _Performance(), ctypes.c_int()
        library.call(
            "cudnnFindConvolutionForwardAlgorithmEx",
            *self._operands(),
            self._output,
            self._pointer(2),
            1,
            ctypes.byref(count),
            ctypes.byref(found),
            ctypes.c_void_p(self._workspace.value),
            ctypes.c_size_t(WORKSPACE_BYTES),
        )
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
        for kind, descriptor in (
            ("Tensor", self._input),
            ("Tensor", self._output),
            ("Filter", self._filter),
            ("Convolution", self._convolution),
        ):
            self._library.call(f"cudnnDestroy{kind}Descriptor", descriptor)
        for place in (*self._places, self._workspace):
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

    def _made(self, function: str) -> ctypes.c_void_p:
        descriptor = ctypes.c_void_p()
        self._library.call(function, ctypes.byref(descriptor))
        return descriptor

    def _tensor(self, shape: Sequence[int]) -> ctypes.c_void_p:
        descriptor = self._made("cudnnCreateTensorDescriptor")
        self._library.call("cudnnSetTensor4dDescriptor", descriptor, NCHW, FLOAT, *shape)
        return descriptor


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count

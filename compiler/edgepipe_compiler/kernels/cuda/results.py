"""The results of a kernel on images: bias, fused operators and the store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx

from ...frontend.graph import Graph, Node, Tensor
from .. import epilogue
from ..epilogue import Operands
from ..kernel import Call, Value, Weight
from ..layout import PLAIN
from ..writer import Index, ramp
from .writer import KernelWriter, lane, vector

Index4 = tuple[Index, Index, Index, Index]


class VectorOperands(Operands):
    """Operands of several adjacent results, which are finished one by one.

    ``begin`` sets the index of the first and their number, and ``lane`` selects one: an operand with all
    pixels is loaded for all at once. LLVM's device functions take no vectors.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, PLAIN, None)
        self.lane = 0
        self._held: dict[str, tirx.Expr] = {}
        self._w: KernelWriter | None = None
        self._whole: Index4 | None = None

    def begin(self, w: KernelWriter, whole: Index4 | None) -> None:
        """Sets the index of the results; None if each is read by itself."""
        self._w, self._whole, self._held = w, whole, {}

    def _value(self, name: str, result: Tensor) -> Callable[[Index4], tirx.Expr]:
        one = super()._value(name, result)
        has_pixels = self.graph.tensor(name).shape[-2:] == result.shape[-2:]

        def read(index: Index4) -> tirx.Expr:
            if self._w is None or self._whole is None or not has_pixels:
                return one(index)
            if name not in self._held:
                self._held[name] = self._w.bind("operand", one(self._whole))
            return lane(self._held[name], self.lane)

        return read


class ImageResults:
    """Finishes the sums of an anchor with result (N, C, H, W), and stores them to ``output``.

    ``operands`` collects the arguments of the kernel in order; the bias, if there is one, follows those that
    the caller has added, and then what ``nodes`` read.
    """

    def __init__(
        self,
        graph: Graph,
        operands: VectorOperands,
        nodes: list[Node],
        anchor: str,
        output: str,
        bias: np.ndarray | None,
    ) -> None:
        self.tensor = graph.tensor(anchor)
        self.operands = operands
        self._output, self._nodes, self._anchor = output, nodes, anchor
        self._shift = None
        if bias is not None:
            self._shift = operands.add(Weight(bias.reshape(-1)), (bias.size,), "float32")
        self.out = tirx.decl_buffer(self.tensor.shape, "float32", "out")
        read = {name for node in nodes for name in node.inputs if name}
        # Whether every operand has all pixels, or one for all: then rows need not be told apart.
        self._flat = all(
            _height_and_width(graph.tensor(name)) in ((1, 1), self.tensor.shape[2:])
            for name in read
            if name != anchor and name not in {out for node in nodes for out in node.outputs}
        )

    def writer(self, w: KernelWriter) -> Callable[[tirx.Expr, Index, Index, Index, int], None]:
        """A function that finishes and stores ``lanes`` sums of adjacent pixels.

        It takes the sums, the image, the channel, the first pixel (row * width + column) and ``lanes``.
        """
        finish = epilogue.apply(
            self.operands, self._nodes, self._anchor, self.tensor, lambda n, v: keep(w, n, v)
        )
        width = self.tensor.shape[3]

        def write(value: tirx.Expr, image: Index, channel: Index, pixel: Index, lanes: int) -> None:
            if self._shift is not None:
                value = value + self._shift[channel]
            # A buffer's index is linear: row 0 and column `pixel` name the same element.
            whole = (image, channel, 0, ramp(pixel, lanes))
            self.operands.begin(w, whole if lanes > 1 and self._flat else None)
            made = []
            for number in range(lanes):
                self.operands.lane = number
                place = pixel + number
                index = (image, channel, 0, place)
                if not self._flat:
                    index = (image, channel, place // width, place % width)
                made.append(finish(lane(value, number) if lanes > 1 else value, index))
            w.store(self.out, vector(made), whole)

        return write

    @property
    def lanes(self) -> int:
        """Adjacent pixels that may be finished together."""
        pixels = self.tensor.shape[2] * self.tensor.shape[3]
        return 4 if pixels % 4 == 0 else 1

    def call(self, function: tirx.PrimFunc, name: str) -> Call:
        """The call of the finished kernel."""
        value = Value(self._output, PLAIN, tuple(self.tensor.shape), "float32")
        return Call(function, self.operands.arguments, [value], name)


def _height_and_width(tensor: Tensor) -> tuple[int, ...]:
    return ((1, 1) + tuple(tensor.shape))[-2:]


def keep(w: KernelWriter, name: str, value: tirx.Expr) -> tirx.Expr:
    """Computes ``value`` here, so that long expressions do not repeat it."""
    element, _, lanes = str(value.ty).partition("x")
    count = int(lanes or 1)
    held = w.registers(name, count, element)
    w.store(held, value, [ramp(0, count)])
    return held[ramp(0, count)]

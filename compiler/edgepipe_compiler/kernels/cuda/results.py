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

Place = tuple[Index, ...]


class Results:
    """Finishes the sums of an anchor and stores them to ``output``: bias, then ``nodes``.

    ``operands`` collects the arguments of the kernel in order; the bias, if there is one, follows those that
    the caller has added, and then what ``nodes`` read. ``inner`` is the number of axes that a position within
    a row spans: 2 for the pixels of an image (N, C, H, W), whose bias is per channel; otherwise the bias is
    per position. ``tensor`` is the anchor's result, if the anchor is not an operator but what ``nodes`` read.
    """

    def __init__(
        self,
        graph: Graph,
        operands: Operands,
        nodes: list[Node],
        anchor: str,
        output: str,
        bias: np.ndarray | None = None,
        inner: int = 2,
        tensor: Tensor | None = None,
    ) -> None:
        self.tensor = graph.tensor(anchor) if tensor is None else tensor
        self.operands = operands
        self._output, self._nodes, self._anchor, self._inner = output, nodes, anchor, inner
        self._anchor_is_made = tensor is None
        self._shift = None
        if bias is not None:
            self._shift = operands.add(Weight(bias.reshape(-1)), (bias.size,), "float32")
        rows = tuple(self.tensor.shape[: len(self.tensor.shape) - inner])
        self.out = tirx.decl_buffer((*rows, self.row), "float32", "out")
        made = {anchor, *(name for node in nodes for name in node.outputs)}
        read = {name for node in nodes for name in node.inputs if name} - made
        whole = tuple(self.tensor.shape[-inner:])
        # Whether every operand has all positions of a row, or one for all.
        self._flat = all(is_whole(graph.tensor(name), whole) for name in read)

    @property
    def row(self) -> int:
        """Positions of a row."""
        return int(np.prod(self.tensor.shape[-self._inner :]))

    @property
    def lanes(self) -> int:
        """Adjacent positions that may be finished together."""
        return 4 if self.row % 4 == 0 else 1

    def writer(self, w: KernelWriter) -> Callable[[tirx.Expr | None, Place, Index, int], None]:
        """A function that finishes and stores ``lanes`` adjacent sums.

        It takes the sums, the index of the row, the position of the first in the row, and ``lanes``. Without
        sums, it reads the anchor.
        """
        finish = epilogue.apply(
            self.operands, self._nodes, self._anchor, self.tensor, lambda n, v: keep(w, n, v)
        )

        read = None if self._anchor_is_made else self.operands.read(self._anchor, self.tensor)

        def write(value: tirx.Expr | None, row: Place, position: Index, lanes: int) -> None:
            if self._shift is not None:
                place = row[-1] if self._inner == 2 else ramp(position, lanes)
                value = value + self._shift[place]
            made = []
            for number in range(lanes):
                index = self._index(row, position + number, self._flat)
                if read is not None:
                    one = read(index)
                else:
                    one = lane(value, number) if lanes > 1 else value
                made.append(finish(one, index))
            w.store(self.out, vector(made), (*row, ramp(position, lanes)))

        return write

    def _index(self, row: Place, position: Index, flat: bool) -> Place:
        """The index of a result.

        A buffer's index is linear: row 0 and column ``position`` of an image name the same element as its
        true row and column do. ``flat`` tells whether that is good enough for all operands.
        """
        if flat:
            whole = self.tensor.shape[-self._inner :]
            # Operands are read at 0 along an axis of extent 1.
            axis = max((at for at, extent in enumerate(whole) if extent > 1), default=0)
            zero = tirx.const(0, "int32")
            return (*row, *(position if at == axis else zero for at in range(self._inner)))
        width = self.tensor.shape[-1]
        return (*row, position // width, position % width)

    def call(self, function: tirx.PrimFunc, name: str) -> Call:
        """The call of the finished kernel."""
        value = Value(self._output, PLAIN, tuple(self.tensor.shape), "float32")
        return Call(function, self.operands.arguments, [value], name)


def is_whole(tensor: Tensor, row: tuple[int, ...]) -> bool:
    """Whether a tensor that is broadcast to ``row`` in its last axes has all of them, or none."""
    return _last(tensor, len(row)) in ((1,) * len(row), row)


def _last(tensor: Tensor, axes: int) -> tuple[int, ...]:
    """The last extents of a shape that is extended by leading ones."""
    return ((1,) * axes + tuple(tensor.shape))[-axes:]


def keep(w: KernelWriter, name: str, value: tirx.Expr) -> tirx.Expr:
    """Computes ``value`` here, so that long expressions do not repeat it."""
    element, _, lanes = str(value.ty).partition("x")
    count = int(lanes or 1)
    held = w.registers(name, count, element)
    w.store(held, value, [ramp(0, count)])
    return held[ramp(0, count)]

"""Builds the nodes that replace an operator, in the form that the network's opset requires."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import helper

from .graph import Graph, Node, unused


class NodeBuilder:
    """Collects replacement nodes. The last one produces the first output of the replaced node.

    The first node keeps the name and the parameters of the original; with ``main``, the first node of that
    operator does.
    """

    def __init__(self, graph: Graph, node: Node, main: str = "") -> None:
        self.graph = graph
        self._node, self._main = node, main
        self._nodes: list[Node] = []
        self._constants = 0
        self._base = unused(graph, node.outputs[0])

    def constant(self, values: np.ndarray) -> str:
        """Adds a constant and returns its name."""
        name = f"{self._base}.constant{self._constants}"
        self._constants += 1
        self.graph.constants[name] = values
        return name

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        """Adds an operator with one output and returns the output's name."""
        number = len(self._nodes)
        made = f"{self._base}.step{number}"
        if self._main:
            is_main = op == self._main and all(node.op != op for node in self._nodes)
        else:
            is_main = not self._nodes
        name = self._node.name if is_main else f"{self._node.name}.{op.lower()}{number}"
        parameters = self._node.parameters if is_main else 0
        self._nodes.append(Node(name, op, list(inputs), [made], dict(attributes), parameters))
        return made

    def _numbers(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Adds a Reshape."""
        return self.op("Reshape", x, self._numbers(shape))

    def cast(self, x: str, dtype: str) -> str:
        """Adds a Cast."""
        return self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reduce(self, op: str, x: str, axes: Sequence[int], keep: bool = True) -> str:
        """Adds a reduction.

        Its axes are an attribute before opset 18 (ReduceSum: before 13), then an input.
        """
        if self.graph.opset < (13 if op == "ReduceSum" else 18):
            return self.op(op, x, axes=list(axes), keepdims=int(keep))
        return self.op(op, x, self._numbers(axes), keepdims=int(keep))

    def slice(self, x: str, begin: Sequence[int], end: Sequence[int]) -> str:
        """Adds a Slice with a range for each axis. Returns ``x`` itself if it covers everything."""
        tensor = self.graph.tensors.get(x)
        if not any(begin) and tensor is not None and tuple(tensor.shape) == tuple(end):
            return x
        axes = range(len(begin))
        if self.graph.opset < 10:
            return self.op("Slice", x, starts=list(begin), ends=list(end), axes=list(axes))
        return self.op("Slice", x, self._numbers(begin), self._numbers(end), self._numbers(axes))

    def pad(self, x: str, low: Sequence[int], high: Sequence[int]) -> str:
        """Adds zero padding. Returns ``x`` itself if there is none."""
        if not any(low) and not any(high):
            return x
        if self.graph.opset < 11:
            return self.op("Pad", x, pads=[*low, *high])
        return self.op("Pad", x, self._numbers([*low, *high]))

    def end(self) -> list[Node]:
        """The collected nodes."""
        if not self._nodes:
            self.op("Identity", self._node.inputs[0])
        self._nodes[-1].outputs = self._node.outputs[:1]
        return self._nodes

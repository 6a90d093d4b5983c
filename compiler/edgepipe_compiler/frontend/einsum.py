"""Einsum as transpositions, matrix products and sums, two operands at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .graph import Graph, Node
from .node_builder import NodeBuilder


@dataclass(frozen=True)
class Operand:
    """A value with a label and an extent for each axis."""

    value: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]

    def extent(self, label: str) -> int:
        """Extent of the axis with this label."""
        return self.shape[self.labels.index(label)]


def decompose(graph: Graph, node: Node) -> list[Node] | None:
    """The replacement nodes of an Einsum with floating-point operands."""
    shapes = [tuple(graph.tensor(name).shape) for name in node.inputs]
    if any(np.dtype(graph.tensor(name).dtype).kind != "f" for name in node.inputs):
        return None
    equation = node.attributes["equation"]
    equation = equation.decode() if isinstance(equation, bytes) else equation
    terms, result = parse(equation, [len(shape) for shape in shapes])
    steps = NodeBuilder(graph, node)
    operands = [
        _diagonal(steps, Operand(*item)) for item in zip(node.inputs, terms, shapes, strict=True)
    ]
    done, *waiting = operands
    while waiting:
        after, *waiting = waiting
        needed = {*result, *(label for operand in waiting for label in operand.labels)}
        done = _product(steps, done, after, needed)
    done = _summed(steps, done, set(result))
    _transposed(steps, done, result)
    return steps.end()


def parse(equation: str, ranks: list[int]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Labels of each operand and of the result. Axes of an ellipsis are labelled 0, 1, ... from the last."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms: list[tuple[str, ...]] = []
    most = 0
    for term, rank in zip(left.split(","), ranks, strict=True):
        named = term.replace("...", "")
        count = rank - len(named) if "..." in term else 0
        most = max(most, count)
        before, _, after = term.partition("...")
        hidden = [str(place) for place in reversed(range(count))]
        terms.append((*before, *hidden, *after) if "..." in term else tuple(term))
    hidden = [str(place) for place in reversed(range(most))]
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        single = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        return terms, (*hidden, *single)
    before, dots, after = right.partition("...")
    return terms, (*before, *hidden, *after) if dots else tuple(right)


def _transposed(steps: NodeBuilder, operand: Operand, labels: tuple[str, ...]) -> Operand:
    if labels == operand.labels:
        return operand
    order = [operand.labels.index(label) for label in labels]
    value = steps.op("Transpose", operand.value, perm=order)
    return Operand(value, labels, tuple(operand.shape[axis] for axis in order))


def _diagonal(steps: NodeBuilder, operand: Operand) -> Operand:
    """Resolves a label that occurs twice in an operand: the diagonal of the two axes."""
    labels, shape = operand.labels, operand.shape
    for label in dict.fromkeys(labels):
        if labels.count(label) < 2:
            continue
        first = labels.index(label)
        second = labels.index(label, first + 1)
        rest = [axis for axis in range(len(labels)) if axis not in (first, second)]
        value = steps.op("Transpose", operand.value, perm=[*rest, first, second])
        extent = shape[first]
        kept = [shape[axis] for axis in rest]
        value = steps.reshape(value, [*kept, extent * extent])
        places = steps.constant(np.arange(extent, dtype=np.int64) * (extent + 1))
        value = steps.op("Gather", value, places, axis=len(rest))
        made = Operand(value, (*(labels[axis] for axis in rest), label), (*kept, extent))
        return _diagonal(steps, made)
    return operand


def _summed(steps: NodeBuilder, operand: Operand, kept: set[str]) -> Operand:
    """Sums over axes that neither the other operands nor the result need."""
    axes = [axis for axis, label in enumerate(operand.labels) if label not in kept]
    if not axes:
        return operand
    value = steps.reduce("ReduceSum", operand.value, axes, keep=False)
    left = [axis for axis in range(len(operand.labels)) if axis not in axes]
    return Operand(
        value,
        tuple(operand.labels[axis] for axis in left),
        tuple(operand.shape[axis] for axis in left),
    )


def _without(steps: NodeBuilder, operand: Operand, labels: list[str]) -> Operand:
    """Drops axes of extent 1, which broadcast."""
    if not labels:
        return operand
    left = [axis for axis, label in enumerate(operand.labels) if label not in labels]
    shape = tuple(operand.shape[axis] for axis in left)
    value = steps.reshape(operand.value, shape)
    return Operand(value, tuple(operand.labels[axis] for axis in left), shape)


def _product(steps: NodeBuilder, a: Operand, b: Operand, needed: set[str]) -> Operand:
    """The product of two operands, summed over the labels that only they have."""
    shared = [label for label in a.labels if label in b.labels]
    uneven = [label for label in shared if a.extent(label) != b.extent(label)]
    a = _without(steps, a, [label for label in uneven if a.extent(label) == 1])
    b = _without(steps, b, [label for label in uneven if b.extent(label) == 1])
    a = _summed(steps, a, needed | set(b.labels))
    b = _summed(steps, b, needed | set(a.labels))
    shared = [label for label in a.labels if label in b.labels]
    batch = tuple(label for label in shared if label in needed)
    summed = tuple(label for label in shared if label not in needed)
    left = tuple(label for label in a.labels if label not in shared)
    right = tuple(label for label in b.labels if label not in shared)
    extents = {
        **dict(zip(b.labels, b.shape, strict=True)),
        **dict(zip(a.labels, a.shape, strict=True)),
    }

    def size(labels: tuple[str, ...]) -> int:
        return math.prod(extents[label] for label in labels)

    a = _transposed(steps, a, (*batch, *left, *summed))
    b = _transposed(steps, b, (*batch, *summed, *right))
    labels = (*batch, *left, *right)
    shape = tuple(extents[label] for label in labels)
    outer = [size(batch)] if batch else []
    first, second = [*outer, size(left), size(summed)], [*outer, size(summed), size(right)]
    x, y = (
        operand.value if list(operand.shape) == wanted else steps.reshape(operand.value, wanted)
        for operand, wanted in ((a, first), (b, second))
    )
    value = steps.op("MatMul" if summed else "Mul", x, y)
    if [*outer, size(left), size(right)] != list(shape):
        value = steps.reshape(value, shape)
    return Operand(value, labels, shape)

"""The random network of a seed."""

from __future__ import annotations

import math

import onnx

from random_graph import CHANNELS, Random
from random_steps import STEPS, head

LARGEST = 60_000


def build(seed: int) -> onnx.ModelProto:
    """The network of a seed."""
    r = Random(seed)
    batch = int(r.pick([1, 1, 1, 2, 3, 5]))
    extents = [r.number(4, 24) for _ in range(2)]
    values = [r.input(batch, int(r.pick([1, 3, 3, 5, 16, 17])), *extents)]
    if r.chance(0.3):
        values.append(r.input(batch, int(r.pick(CHANNELS)), *extents))
    kinds = [step for step, count in STEPS for _ in range(count)]
    used: set[str] = set()
    for _ in range(r.number(3, 9)):
        x = values[-1] if r.chance(0.8) else str(r.pick(values))
        used.add(x)
        y = r.pick(kinds)(r, x)
        if math.prod(r.shapes[y]) > LARGEST:
            y = r.op("MaxPool", y, kernel_shape=[1, 1], strides=[3, 3])
        values.append(y)
        alike = [
            value
            for value in values[:-1]
            if r.shapes[value][0] == r.shapes[y][0] and r.shapes[value][2:] == r.shapes[y][2:]
        ]
        if alike and r.chance(0.3):
            other = str(r.pick(alike))
            used |= {y, other}
            values.append(r.op("Concat", y, other, axis=1))
    ends = [value for value in values if value not in used and value not in values[:1]]
    ends = [value for value in ends if not value.startswith("in")] or [values[-1]]
    if r.chance(0.4):
        ends[-1] = head(r, ends[-1])
    if len(values) > 3 and r.chance(0.2) and values[2] not in ends:
        ends.append(values[2])
    return r.model(list(dict.fromkeys(ends))[-3:])

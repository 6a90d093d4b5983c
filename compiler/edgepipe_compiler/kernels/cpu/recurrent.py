"""LSTM, GRU and RNN: one function multiplies the whole sequence by the input weights, a second one runs the
time steps.

Hidden units are padded to whole vectors. Weights are stored as (direction, block of hidden units, input,
gate, lane), so a product reads each block once, in order. Equations and gate order are those of the ONNX
standard: i, o, f, c for LSTM and z, r, h for GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node, Tensor
from ...frontend.units import Unit
from .. import epilogue
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Index, Writer, ramp, spans, spread
from .recurrent_attributes import PLAIN_ACTIVATIONS, Activation, Layer, resolve
from .vector_reduction import flat

# Partial sums, to hide the latency of a multiply-add.
IN_FLIGHT = 8


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one recurrent operator."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a recurrent layer")
    (node,) = unit.nodes
    layer = resolve(graph, node)
    parameters = _Parameters(graph, unit, layer, target)
    blocks = -(-layer.hidden // target.lanes)
    shape = (layer.steps * layer.batch, layer.directions, blocks, layer.gates, target.lanes)
    projected = Value(f"{unit.name}/projected", PLAIN, shape, "float32")
    source = Value(node.inputs[0], PLAIN, tuple(graph.tensor(node.inputs[0]).shape), "float32")
    weight = parameters.panels(layer.weight, 0, layer.gates)
    bias = parameters.sums(layer.bias, _input_bias(layer))
    function = _projection(layer, target, source.shape, shape)
    projection = Call(function, [source, weight, bias], [projected], "projection")
    recurrence = _Recurrence(graph, unit, layer, target, projected, parameters).call()
    return Kernel([*parameters.calls, projection, recurrence], "recurrent")


def _input_bias(layer: Layer) -> list[list[int]]:
    """For each gate, the parts of the bias that are added to the input product.

    With linear_before_reset, the recurrent bias of a GRU's last gate is added later.
    """
    parts = [[gate, layer.gates + gate] for gate in range(layer.gates)]
    if layer.op == "GRU" and layer.late_reset:
        parts[2] = [2]
    return parts


class _Parameters:
    """Weights and biases, padded to whole vectors: at compile time if constant, otherwise by a function."""

    def __init__(self, graph: Graph, unit: Unit, layer: Layer, target: CpuTarget) -> None:
        self.calls: list[Call] = []
        self._graph, self._unit, self._layer, self._target = graph, unit, layer, target
        self._blocks = -(-layer.hidden // target.lanes)

    def panels(self, name: str, first: int, gates: int) -> Value | Weight:
        """Gates from ``first`` of (directions, gates * hidden, inputs) as (directions, blocks, inputs,
        gates, lanes).
        """
        hidden = self._layer.hidden
        array = self._graph.constants.get(name)
        if array is not None:
            rows = array[:, first * hidden : (first + gates) * hidden]
            return Weight(_panels(rows, gates, self._target.lanes))
        inputs = self._graph.tensor(name).shape[2]
        shape = (self._layer.directions, self._blocks, inputs, gates, self._target.lanes)
        w, source, out = self._begin(name, shape)
        with w.loop("d", shape[0]) as d, w.loop("j", shape[1]) as j, w.loop("k", inputs) as k:
            for gate in range(gates):
                begin = (first + gate) * hidden
                self._lanes(
                    w,
                    j,
                    lambda h, b=begin: source[d, b + h, k],
                    lambda v, g=gate: (d, j, k, g, v),
                    out,
                )
        return self._made(w, name, source, out)

    def sums(self, name: str, parts: list[list[int]]) -> Value | Weight:
        """Sums of parts of (directions, parts * hidden) as (directions, sums, blocks, lanes)."""
        layer, lanes = self._layer, self._target.lanes
        array = self._graph.constants.get(name)
        if array is not None or not name:
            rows = np.zeros((layer.directions, 2 * layer.gates, layer.hidden), np.float32)
            if array is not None:
                rows = array.reshape(layer.directions, -1, layer.hidden)
            added = [rows[:, part].sum(axis=1) for part in parts]
            return Weight(_lanes(np.stack(added, axis=1), lanes))
        shape = (layer.directions, len(parts), self._blocks, lanes)
        w, source, out = self._begin(name, shape)
        with w.loop("d", shape[0]) as d, w.loop("j", self._blocks) as j:
            for number, part in enumerate(parts):

                def element(h: Index, part: list[int] = part) -> tirx.Expr:
                    first, *rest = (source[d, place * layer.hidden + h] for place in part)
                    return first + rest[0] if rest else first

                self._lanes(w, j, element, lambda v, number=number: (d, number, j, v), out)
        return self._made(w, name, source, out)

    def _begin(self, name: str, shape: tuple[int, ...]) -> tuple[Writer, tirx.Buffer, tirx.Buffer]:
        """Offset of a step's states in the first output."""
        source = tirx.decl_buffer(tuple(self._graph.tensor(name).shape), "float32", "source")
        return Writer(), source, tirx.decl_buffer(shape, "float32", "out")

    def _lanes(
        self,
        w: Writer,
        block: Index,
        element: Callable[[Index], tirx.Expr],
        place: Callable[[Index], tuple[Index, ...]],
        out: tirx.Buffer,
    ) -> None:
        """The last axis, padded with zeros, as blocks of lanes."""
        lanes, hidden = self._target.lanes, self._layer.hidden
        with w.loop("v", lanes) as v:
            h = block * lanes + v
            zero = tirx.const(0.0, "float32")
            value = element(h) if hidden % lanes == 0 else None
            if value is None:
                value = tirx.if_then_else(h < hidden, element(h), zero)
            w.store(out, value, place(v))

    def _made(self, w: Writer, name: str, source: tirx.Buffer, out: tirx.Buffer) -> Value:
        shape = tuple(int(extent) for extent in out.shape)
        number = len(self.calls)
        value = Value(f"{self._unit.name}/parameters{number}", PLAIN, shape, "float32")
        given = Value(name, PLAIN, tuple(self._graph.tensor(name).shape), "float32")
        self.calls.append(Call(w.function([source, out]), [given], [value], "parameters"))
        return value


def _shape(argument: Value | Weight) -> tuple[int, ...]:
    return argument.shape if isinstance(argument, Value) else tuple(argument.array.shape)


def _panels(array: np.ndarray, gates: int, lanes: int) -> np.ndarray:
    """(directions, gates * hidden, inputs) as (directions, blocks, inputs, gates, lanes)."""
    directions, rows, inputs = array.shape
    parts = _lanes(
        array.reshape(directions, gates, rows // gates, inputs).transpose(0, 3, 1, 2), lanes
    )
    blocks = parts.shape[-2]
    parts = parts.reshape(directions, inputs, gates, blocks, lanes)
    return np.ascontiguousarray(parts.transpose(0, 3, 1, 2, 4))


def _lanes(array: np.ndarray, lanes: int) -> np.ndarray:
    """The last axis, padded with zeros, as blocks of lanes."""
    *outer, last = array.shape
    blocks = -(-last // lanes)
    full = np.zeros((*outer, blocks * lanes), np.float32)
    full[..., :last] = array
    return full.reshape(*outer, blocks, lanes)


def _projection(
    layer: Layer,
    target: CpuTarget,
    source: tuple[int, ...],
    result: tuple[int, ...],
) -> tirx.PrimFunc:
    """All steps times the input weights, plus bias, several rows at a time."""
    lanes, gates = target.lanes, layer.gates
    rows, directions, blocks, *_ = result
    x = tirx.decl_buffer(source, "float32", "x")
    weight = (directions, blocks, layer.inputs, gates, lanes)
    weights = tirx.decl_buffer(weight, "float32", "weights")
    start = tirx.decl_buffer((directions, gates, blocks, lanes), "float32", "start")
    out = tirx.decl_buffer(result, "float32", "out")
    tile = max(1, min(rows, (target.registers - gates - 2) // gates))
    whole = ramp(0, lanes)
    w = Writer()

    def write(d: Index, block: Index, row: Index, count: int) -> None:
        sums = [[w.local(f"sum{r}", lanes) for _ in range(gates)] for r in range(count)]
        for held in sums:
            for gate, part in enumerate(held):
                w.store(part, start[d, gate, block, whole], [whole])
        with w.loop("k", layer.inputs) as k:
            factors = [w.bind("factor", weights[d, block, k, gate, whole]) for gate in range(gates)]
            for r, held in enumerate(sums):
                place = (row + r) * layer.inputs + k
                element = w.bind("element", spread(x[flat(x, place, 1)], lanes))
                for part, factor in zip(held, factors, strict=True):
                    w.store(part, part[whole] + element * factor, [whole])
        for r, held in enumerate(sums):
            for gate, part in enumerate(held):
                w.store(out, part[whole], [row + r, d, block, gate, whole])

    tasks = layer.directions * blocks
    with w.loop("task", tasks, parallel=target.threads > 1) as task:
        d, block = (task // blocks, task % blocks) if tasks > 1 else (0, 0)
        with w.loop("tile", rows // tile) as number:
            write(d, block, number * tile, tile)
        if rows % tile:
            write(d, block, rows // tile * tile, rows % tile)
    return w.function([x, weights, start, out])


class _Recurrence:
    """Writes the function that runs the time steps."""

    def __init__(
        self,
        graph: Graph,
        unit: Unit,
        layer: Layer,
        target: CpuTarget,
        projected: Value,
        parameters: _Parameters,
    ) -> None:
        (self.node,) = unit.nodes
        self.graph, self.layer, self.target = graph, layer, target
        self.w = Writer()
        self.lanes = target.lanes
        self.blocks = projected.shape[2]
        self.whole = ramp(0, self.lanes)
        self.arguments: list[Value | Weight] = []
        self.buffers: list[tirx.Buffer] = []
        self.projected = self._argument(projected, projected.shape, "projected")
        self._weights(parameters)
        inputs = [*self.node.inputs, *[""] * (8 - len(self.node.inputs))]
        self.first = [self._initial(name) for name in inputs[5:7]]
        self.lengths = None
        if layer.lengths:
            array = graph.constants.get(layer.lengths)
            shape = (layer.batch,)
            lengths = (
                Value(layer.lengths, PLAIN, shape, "int32")
                if array is None
                else Weight(array.astype(np.int32))
            )
            self.lengths = self._argument(lengths, shape, "lengths", "int32")
        self.results: list[Value] = []
        self.outs: list[tirx.Buffer | None] = []
        for name in [*self.node.outputs, "", ""][:3]:
            self.outs.append(self._output(name) if name else None)
        padded = (layer.directions * layer.batch, self.blocks, self.lanes)
        self.state = self._scratch(unit, "state", padded)
        self.cell = self._scratch(unit, "cell", padded)
        sums = (padded[0], self.blocks, self.gates_kept, self.lanes)
        self.sums = self._scratch(unit, "gates", sums)

    def _weights(self, parameters: _Parameters) -> None:
        layer = self.layer
        late = layer.op == "GRU" and layer.late_reset
        # The last gate of a GRU needs the reset gate first, unless linear_before_reset is set.
        split = layer.op == "GRU" and not late
        groups = [(0, 2), (2, 1)] if split else [(0, layer.gates)]
        self.panels = []
        for first, gates in groups:
            panel = parameters.panels(layer.recurrence, first, gates)
            self.panels.append(self._argument(panel, _shape(panel), "panel"))
        self.gates_kept = layer.gates + late
        self.late_bias = self.peepholes = None
        if late:
            bias = parameters.sums(layer.bias, [[5]])
            self.late_bias = self._argument(bias, _shape(bias), "late")
        if layer.peepholes:
            weights = parameters.sums(layer.peepholes, [[0], [1], [2]])
            self.peepholes = self._argument(weights, _shape(weights), "peepholes")

    def _argument(
        self, argument: Value | Weight, shape: tuple[int, ...], name: str, dtype: str = "float32"
    ) -> tirx.Buffer:
        buffer = tirx.decl_buffer(shape, dtype, name)
        self.arguments.append(argument)
        self.buffers.append(buffer)
        return buffer

    def _initial(self, name: str) -> tirx.Buffer | None:
        if not name:
            return None
        array = self.graph.constants.get(name)
        if array is not None:
            return self._argument(Weight(array), tuple(array.shape), "first")
        shape = tuple(self.graph.tensor(name).shape)
        return self._argument(Value(name, PLAIN, shape, "float32"), shape, "first")

    def _output(self, name: str) -> tirx.Buffer:
        shape = tuple(self.graph.tensor(name).shape)
        self.results.append(Value(name, PLAIN, shape, "float32"))
        buffer = tirx.decl_buffer(shape, "float32", "out")
        self.buffers.append(buffer)
        return buffer

    def _scratch(self, unit: Unit, name: str, shape: tuple[int, ...]) -> tirx.Buffer:
        self.results.append(Value(f"{unit.name}/{name}", PLAIN, shape, "float32"))
        buffer = tirx.decl_buffer(shape, "float32", name)
        self.buffers.append(buffer)
        return buffer

    def call(self) -> Call:
        """The call of the function."""
        layer, w = self.layer, self.w
        tasks = layer.directions * layer.batch
        with w.loop("task", tasks, parallel=self.target.threads > 1) as task:
            if layer.directions == 1:
                self._sequence(0, task, task)
            else:
                for d in range(layer.directions):
                    with w.when(task // layer.batch == d):
                        self._sequence(d, task % layer.batch, task)
        return Call(w.function(self.buffers), self.arguments, self.results, "recurrence")

    def _sequence(self, d: int, b: Index, task: Index) -> None:
        """Runs one sequence in one direction."""
        layer, w = self.layer, self.w
        self.d, self.task = d, task
        for first, state in zip(self.first, (self.state, self.cell), strict=True):
            with w.loop("j", self.blocks) as j:
                w.store(state, spread(0.0, self.lanes), [task, j, self.whole])
            if first is not None:
                begin = b * layer.directions + d if layer.batch_first else d * layer.batch + b
                self._copy_in(first, begin * layer.hidden, state)
        length = None
        if self.lengths is not None:
            length = w.bind("length", tirx.max(0, tirx.min(self.lengths[b], layer.steps)))
        with w.loop("t", layer.steps) as t:
            if length is None:
                self._step(b, layer.steps - 1 - t if layer.backwards[d] else t)
            else:
                with w.when(t < length):
                    self._step(b, length - 1 - t if layer.backwards[d] else t)
                with w.when(t >= length):
                    self._blank(b, t)
        for out, state in zip(self.outs[1:], (self.state, self.cell), strict=True):
            if out is not None:
                begin = b * layer.directions + d if layer.batch_first else d * layer.batch + b
                self._copy_out(state, out, begin * layer.hidden)

    def _copy_in(self, source: tirx.Buffer, begin: Index, state: tirx.Buffer) -> None:
        place = self.task * (self.blocks * self.lanes)
        for offset, lanes in spans(self.w, self.layer.hidden, self.lanes):
            value = source[flat(source, begin + offset, lanes)]
            self.w.store(state, value, flat(state, place + offset, lanes))

    def _copy_out(self, state: tirx.Buffer, out: tirx.Buffer, begin: Index) -> None:
        place = self.task * (self.blocks * self.lanes)
        for offset, lanes in spans(self.w, self.layer.hidden, self.lanes):
            value = state[flat(state, place + offset, lanes)]
            self.w.store(out, value, flat(out, begin + offset, lanes))

    def _begin(self, b: Index, time: Index) -> Index:
        """Offset of a step's states in the first output."""
        layer = self.layer
        row = (b * layer.steps + time) * layer.directions + self.d
        if not layer.batch_first:
            row = (time * layer.directions + self.d) * layer.batch + b
        return row * layer.hidden

    def _blank(self, b: Index, time: Index) -> None:
        """Zeros the first output beyond the end of a sequence."""
        if self.outs[0] is None:
            return
        for offset, lanes in spans(self.w, self.layer.hidden, self.lanes):
            place = flat(self.outs[0], self._begin(b, time) + offset, lanes)
            self.w.store(self.outs[0], spread(0.0, lanes), place)

    def _step(self, b: Index, time: Index) -> None:
        layer, w = self.layer, self.w
        time = w.bind("time", time)
        row = b * layer.steps + time if layer.batch_first else time * layer.batch + b
        row = w.bind("row", row)
        {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[layer.op](row)
        if self.outs[0] is not None:
            self._copy_out(self.state, self.outs[0], self._begin(b, time))

    def _products(
        self,
        vector: tirx.Buffer,
        panel: tirx.Buffer,
        first: int,
        start: Callable[[Index, int], tirx.Expr],
    ) -> None:
        """Gates from ``first``: ``start`` plus the product of ``vector`` and a panel of weights."""
        w, lanes, whole = self.w, self.lanes, self.whole
        gates, hidden = int(panel.shape[3]), self.layer.hidden
        parts = max(1, min(hidden, IN_FLIGHT // gates))
        with w.loop("j", self.blocks) as j:
            sums = [[w.local("sum", lanes) for _ in range(gates)] for _ in range(parts)]
            for number, held in enumerate(sums):
                for gate, part in enumerate(held):
                    begin = start(j, first + gate) if number == 0 else spread(0.0, lanes)
                    w.store(part, begin, [whole])

            def add(k: Index, held: list[tirx.Buffer], j: Index = j) -> None:
                base = self.task * (self.blocks * lanes)
                element = w.bind("element", spread(vector[flat(vector, base + k, 1)], lanes))
                for gate, part in enumerate(held):
                    factor = panel[self.d, j, k, gate, whole]
                    w.store(part, part[whole] + element * factor, [whole])

            with w.loop("k", hidden // parts) as k:
                for number, held in enumerate(sums):
                    add(k * parts + number, held)
            for number in range(hidden % parts):
                add(hidden // parts * parts + number, sums[number])
            for gate in range(gates):
                total = sums[0][gate][whole]
                for held in sums[1:]:
                    total = total + held[gate][whole]
                w.store(self.sums, total, [self.task, j, first + gate, whole])

    def _from_input(self, row: Index) -> Callable[[Index, int], tirx.Expr]:
        return lambda j, gate: self.projected[row, self.d, j, gate, self.whole]

    def _gate(self, j: Index, gate: int) -> tirx.Expr:
        return self.w.bind("gate", self.sums[self.task, j, gate, self.whole])

    def _each_block(self) -> Iterator[tuple[Index, tuple[Index, ...]]]:
        with self.w.loop("j", self.blocks) as j:
            yield j, (self.task, j, self.whole)

    def _lstm(self, row: Index) -> None:
        w, layer = self.w, self.layer
        self._products(self.state, self.panels[0], 0, self._from_input(row))
        f, g, h = layer.activations[self.d]
        for j, index in self._each_block():
            gates = [self._gate(j, gate) for gate in range(4)]
            before = w.bind("before", self.cell[index])

            def seen(place: int, cell: tirx.Expr, gate: tirx.Expr, j: Index = j) -> tirx.Expr:
                if self.peepholes is None:
                    return gate
                return gate + self.peepholes[self.d, place, j, self.whole] * cell

            entry = self._activate(f, seen(0, before, gates[0]))
            if layer.coupled:
                keep = w.bind("keep", spread(1.0, self.lanes) - entry)
            else:
                keep = self._activate(f, seen(2, before, gates[2]))
            new = self._activate(g, gates[3])
            cell = w.bind("cell", keep * before + entry * new)
            w.store(self.cell, cell, index)
            leave = self._activate(f, seen(1, cell, gates[1]))
            w.store(self.state, leave * self._activate(h, cell, clips=False), index)

    def _gru(self, row: Index) -> None:
        w, layer = self.w, self.layer
        start = self._from_input(row)
        f, g = layer.activations[self.d]
        if layer.late_reset:

            def late(j: Index, gate: int) -> tirx.Expr:
                if gate < 2:
                    return start(j, gate)
                assert self.late_bias is not None, "made for a late reset"
                return self.late_bias[self.d, 0, j, self.whole]

            self._products(self.state, self.panels[0], 0, late)
        else:
            self._products(self.state, self.panels[0], 0, start)
            for j, index in self._each_block():
                reset = self._activate(f, self._gate(j, 1))
                w.store(self.cell, reset * self.state[index], index)
            self._products(self.cell, self.panels[1], 2, start)
        for j, index in self._each_block():
            update = self._activate(f, self._gate(j, 0))
            new = self._gate(j, 2)
            if layer.late_reset:
                reset = self._activate(f, self._gate(j, 1))
                new = w.bind("new", start(j, 2) + reset * new)
            new = self._activate(g, new)
            kept = update * (self.state[index] - new)
            w.store(self.state, new + kept, index)

    def _rnn(self, row: Index) -> None:
        self._products(self.state, self.panels[0], 0, self._from_input(row))
        (f,) = self.layer.activations[self.d]
        for j, index in self._each_block():
            self.w.store(self.state, self._activate(f, self._gate(j, 0)), index)

    def _keep(self, name: str, value: tirx.Expr) -> tirx.Expr:
        """Computes part of an activation in its own statement."""
        element, _, lanes = str(value.ty).partition("x")
        if element != "float32":
            return self.w.bind(name, value)
        count = int(lanes or 1)
        held = self.w.local(name, count)
        self.w.store(held, value, [ramp(0, count)])
        return held[ramp(0, count)]

    def _activate(self, function: Activation, x: tirx.Expr, clips: bool = True) -> tirx.Expr:
        if clips and self.layer.clip:
            bound = float(self.layer.clip)
            x = tirx.max(spread(-bound, self.lanes), tirx.min(spread(bound, self.lanes), x))
        alpha = spread(1.0 if function.alpha is None else float(function.alpha), self.lanes)
        beta = spread(0.0 if function.beta is None else float(function.beta), self.lanes)
        if function.name == "affine":
            return self._keep("affine", alpha * x + beta)
        if function.name == "scaledtanh":
            return self._keep(
                "scaled", alpha * self._plain(Activation("tanh", None, None), beta * x)
            )
        return self._plain(function, x)

    def _plain(self, function: Activation, x: tirx.Expr) -> tirx.Expr:
        """An activation that is an ONNX operator."""
        attributes = {
            name: value
            for name, value in (("alpha", function.alpha), ("beta", function.beta))
            if value is not None
        }
        node = Node("", PLAIN_ACTIVATIONS[function.name], ["x"], ["y"], attributes)
        operands = Operands(self.graph, PLAIN, self.target)
        after = epilogue.apply(operands, [node], "x", Tensor((1,), "float32"), self._keep)
        return self._keep("activated", after(self._keep("x", x), (self.whole,)))

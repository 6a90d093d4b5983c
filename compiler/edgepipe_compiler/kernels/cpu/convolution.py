"""Direct convolution: packed or plain input, packed result, any window, dilation and groups.

A tile of results stays in registers while the sum runs over input channels and the window: columns, rows of
narrow images, and one or more blocks of output channels. Bias, residual and activation are applied before
the store. Border tiles have their own code, which skips padding, so no padding pass is needed. The first
convolution of a network reads the plain image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from ...frontend.graph import Graph, Node
from ...frontend.units import Unit
from .. import epilogue, parameters, window_geometry
from ..epilogue import Operands, TooLong
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, packed, stored_shape
from ..target import CpuTarget
from ..window_geometry import Run, Taps, Window
from ..writer import Index, Writer, ramp
from . import padding, tiling
from .tiling import Tile

# Limit of unrolled multiply-adds in a function.
LARGEST = 6000
# Pixels of the largest image whose tiles fetch weights ahead. With more pixels, each weight is used so often
# that reading it takes little of the time.
LARGEST_AHEAD = 1024
CACHE_LINE = 64
# From this window length on, empty lanes of the plain layout cost more than they save.
WIDE = 16


@dataclass(frozen=True)
class Sum:
    """Reduction of one result block: ``span`` input blocks from ``first(block)``, of ``lanes`` channels
    each, but ``last`` in the last one. ``per_block``: neighbouring blocks read different inputs.
    """

    span: int
    lanes: int
    last: int
    first: Callable[[Index], Index]
    per_block: bool


def lower(
    graph: Graph,
    unit: Unit,
    target: CpuTarget,
    native: dict[str, str],
    long: bool = False,
) -> Kernel:
    """Lowers a unit whose anchor is a convolution.

    The direct form unrolls each border kind and window column. If that is too much code, a pass pads the
    input and the longer side of the window becomes a loop. ``long`` requests that form.
    """
    if long:
        return _lower(graph, unit, target, native, long=True)
    try:
        wasted = _is_plain(graph, unit.nodes[0], target, native, long=True)
        if not (wasted and max(graph.tensor(unit.nodes[0].inputs[1]).shape[2:], default=0) >= WIDE):
            return _lower(graph, unit, target, native, long=False)
    except TooLong:
        pass
    return _lower(graph, unit, target, native, long=True)


def _is_plain(
    graph: Graph, conv: Node, target: CpuTarget, native: dict[str, str], long: bool
) -> bool:
    """Whether to read the image in plain layout, which suits a few channels and short windows."""
    if native.get(conv.inputs[0], PLAIN) != PLAIN or conv.attributes.get("group", 1) != 1:
        return False
    channels, lanes = graph.tensor(conv.inputs[0]).shape[1], target.lanes
    return -channels % lanes > lanes // 4 and channels > lanes if long else channels < lanes


def _lower(
    graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str], long: bool
) -> Kernel:
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    window = window_geometry.resolve(conv, source, result, weight.shape[2:])
    groups, lanes = conv.attributes.get("group", 1), target.lanes
    plain_input = _is_plain(graph, conv, target, native, long=False)
    plain_input |= long and _is_plain(graph, conv, target, native, long=True)
    layout = PLAIN if plain_input else packed(lanes)
    stored = stored_shape(source.shape, layout)
    given = Value(conv.inputs[0], layout, stored, "float32")
    before: list[Call] = []
    height, width = result.shape[2:]
    image = source.shape[2:]
    turned = long and window.kernel[1] > window.kernel[0]
    if long:
        before, given = padding.pad(given, window.begin, window.end, 0.0, unit.name, target)
        image = given.shape[2:4]
        window = window_geometry.unpadded(window)
    if turned:
        window, weight = window_geometry.turned(window), weight.swapaxes(2, 3)
        (height, width), image = (width, height), image[::-1]
    added, array = sum_and_weight(weight, groups, lanes, plain_input)

    flat = window.is_point and not plain_input
    rows, columns = (1, height * width) if flat else (height, width)
    blocks = array.shape[0]
    kh, kw = window.kernel
    tile = tiling.convolution(
        target,
        (rows, columns),
        1 if added.per_block else blocks,
        (kw, window.stride[1] if window.dilation[1] == 1 else kw),
        (added.lanes, added.span * kh),
        array.nbytes // blocks,
    )
    array = order_weight(array, tile)
    groups = array.shape[0]

    operands = Operands(graph, packed(lanes), target)
    data = operands.add(given, given.shape, "float32")
    kernel = operands.add(Weight(array), array.shape, "float32")
    shift = None
    if bias is not None:
        row = biases(bias, lanes, groups * tile.blocks)
        shift = operands.add(Weight(row), row.shape, "float32")
    epilogue.check_short(rest)
    after = epilogue.apply(operands, rest, conv.outputs[0], result)
    shape = stored_shape(result.shape, packed(lanes))
    out = tirx.decl_buffer(shape, "float32", "out")

    column_taps = window_geometry.taps(window, 1, image[1], width)
    row_taps = window_geometry.taps(window, 0, image[0], height)
    if flat:
        column_taps, row_taps = [(0, 1)] * columns, [(0, 1)]
    body = Body(
        target,
        window,
        tile,
        added,
        plain_input,
        flat,
        (height, width),
        image[0],
        data,
        kernel,
        shift,
        out,
        after,
        turned=turned,
    )
    row_runs = make_row_runs(row_taps, tile, kh)
    column_runs = window_geometry.runs(column_taps, tile.columns)
    if body.size(row_runs, column_runs) > LARGEST:
        raise TooLong("window with too many kinds of borders")
    w = Writer()
    body.write(w, row_runs, column_runs, array.nbytes, source.bytes)
    function = w.function([*operands.placeholders, out])
    value = Value(unit.outputs[0], packed(lanes), shape, "float32")
    rule = "first_convolution" if plain_input else "convolution"
    return Kernel([*before, Call(function, operands.arguments, [value], rule)], rule)


def sum_and_weight(
    weight: np.ndarray, groups: int, lanes: int, plain: bool
) -> tuple[Sum, np.ndarray]:
    """The weight as (out block, in block, kh, kw, in lane, out lane).

    Lanes without a channel and channels of other groups are 0.
    """
    channels, inside, kh, kw = weight.shape
    blocks, out_group = -(-channels // lanes), channels // groups
    if plain:
        full = np.zeros((blocks * lanes, inside, kh, kw), np.float32)
        full[:channels] = weight
        array = full.reshape(blocks, lanes, 1, inside, kh, kw).transpose(0, 2, 4, 5, 3, 1)
        return Sum(1, inside, inside, lambda _: 0, False), array
    in_blocks = -(-inside * groups // lanes)
    if groups == 1:
        full = np.zeros((blocks * lanes, in_blocks * lanes, kh, kw), np.float32)
        full[:channels, :inside] = weight
        array = full.reshape(blocks, lanes, in_blocks, lanes, kh, kw).transpose(0, 2, 4, 5, 3, 1)
        last = inside - (in_blocks - 1) * lanes
        return Sum(in_blocks, lanes, last, lambda _: 0, False), array

    def first(block: Index) -> Index:
        return block * lanes // out_group * inside // lanes

    lasts = [min((block + 1) * lanes, channels) - 1 for block in range(blocks)]
    ends = [((last // out_group + 1) * inside - 1) // lanes + 1 for last in lasts]
    span = max(end - first(block) for block, end in enumerate(ends))
    array = np.zeros((blocks, span, kh, kw, lanes, lanes), np.float32)
    limit = in_blocks - span
    for channel in range(channels):
        block, lane = divmod(channel, lanes)
        begin = min(first(block), limit) * lanes
        low = channel // out_group * inside - begin
        padded = np.zeros((span * lanes, kh, kw), np.float32)
        padded[low : low + inside] = weight[channel]
        array[block, :, :, :, :, lane] = padded.reshape(span, lanes, kh, kw).transpose(0, 2, 3, 1)
    return Sum(span, lanes, lanes, lambda block: tirx.min(first(block), limit), True), array


def biases(bias: np.ndarray, lanes: int, blocks: int) -> np.ndarray:
    """The bias as (block, lane); 0 beyond the channels."""
    row = np.zeros((blocks, lanes), np.float32)
    row.reshape(-1)[: bias.size] = bias
    return row


def order_weight(array: np.ndarray, tile: Tile) -> np.ndarray:
    """The weight in reading order: (group of blocks, in block, kh, taps added together, in lane, tap,
    block, out lane). The last group is padded with zeros.
    """
    blocks, span, kh, kw, inside, lanes = array.shape
    left = -blocks % tile.blocks
    if left:
        array = np.concatenate([array, np.zeros((left, *array.shape[1:]), np.float32)])
    grouped = array.reshape(-1, tile.blocks, span, kh, kw, inside, lanes)
    # group, span, kh, in lane, kw, block, out lane
    grouped = grouped.transpose(0, 2, 3, 5, 4, 1, 6)
    parts = [
        grouped[:, :, :, :, begin : begin + tile.taps].reshape(*grouped.shape[:3], -1)
        for begin in range(0, kw, tile.taps)
    ]
    return np.ascontiguousarray(np.concatenate(parts, axis=-1))


def make_row_runs(valid: list[Taps], tile: Tile, kernel: int) -> list[Run] | None:
    """Runs of row tiles; None for single rows whose tap range is cheaper to compute at run time."""
    if tile.rows == 1 and any(taps != (0, kernel) for taps in valid):
        return None
    return window_geometry.runs(valid, tile.rows)


@dataclass
class Body:
    """Writes the loops.

    ``extents`` (rows, columns) are the image positions to compute. Results go to every ``step``-th row and
    column from ``offset``: the phases of a transposed convolution, each with its part of ``kernel`` from
    the group ``begin``. ``turned`` exchanges rows and columns in all of these, but not in ``data`` and
    ``out``.
    """

    target: CpuTarget
    window: Window
    tile: Tile
    sum: Sum
    plain_input: bool
    flat: bool
    extents: tuple[int, int]
    image_rows: int
    data: tirx.Buffer
    kernel: tirx.Buffer
    shift: tirx.Buffer | None
    out: tirx.Buffer
    after: Callable[[tirx.Expr, tuple[Index, ...]], tirx.Expr]
    step: tuple[int, int] = (1, 1)
    offset: tuple[Index, Index] = (0, 0)
    begin: Index = 0
    turned: bool = False
    # Number of tiles of a group that fetch the weights of the next group; 0: none are fetched.
    shares: int = 0

    def size(self, row_runs: list[Run] | None, column_runs: list[Run]) -> int:
        """Number of unrolled multiply-adds."""
        kh, kw = self.window.kernel
        total = 0
        for rows in row_runs or [Run(0, 1, 1, ((0, kh),))]:
            uniform = all(taps == rows.taps[0] for taps in rows.taps)
            for columns in column_runs:
                pixels = rows.size * columns.size * self.tile.blocks
                total += pixels * kw * (1 if uniform else kh) * self._unroll(pixels)
        return total

    def _unroll(self, products: int) -> int:
        """Input lanes unrolled in the innermost loop."""
        together = min(self.tile.taps, self.window.kernel[1])
        most = max(1, tiling.UNROLLED // (products * together))
        if self.plain_input and together < self.window.kernel[1]:
            return 1
        return tiling.divisor(self.sum.lanes, min(8, most))

    def write(
        self,
        w: Writer,
        row_runs: list[Run] | None,
        column_runs: list[Run],
        weight_bytes: int,
        input_bytes: int,
    ) -> None:
        """Writes the loops over images, groups of output blocks and row tiles."""
        batch, blocks = (int(extent) for extent in self.out.shape[:2])
        rows = 1 if self.flat else self.extents[0]
        groups = -(-blocks // self.tile.blocks)
        runs = row_runs or [Run(0, 1, rows, ((0, 0),))]
        tiles = sum(run.count for run in runs)
        # Reused data should stay in the L2 cache.
        rows_outside = weight_bytes <= self.target.l2_bytes // 2 < input_bytes
        fetches = not rows_outside and 1 < self.extents[0] * self.extents[1] <= LARGEST_AHEAD
        if fetches and weight_bytes > self.target.l1d_bytes:
            self.shares = tiles * sum(run.count for run in column_runs)
        if self.target.threads > 1:
            with w.loop("task", batch * groups * tiles, parallel=True) as task:
                place, group = task % tiles, task // tiles % groups
                self._row_tile(
                    w, task // (groups * tiles), group, place, runs, row_runs, column_runs
                )
        else:
            with w.loop("n", batch) as n:
                first, second = ("y", "c") if rows_outside else ("c", "y")
                extents = {"c": groups, "y": tiles}
                with w.loop(first, extents[first]) as i, w.loop(second, extents[second]) as j:
                    group, place = (j, i) if rows_outside else (i, j)
                    self._row_tile(w, n, group, place, runs, row_runs, column_runs)

    def _row_tile(
        self,
        w: Writer,
        n: Index,
        group: Index,
        place: Index,
        runs: list[Run],
        row_runs: list[Run] | None,
        column_runs: list[Run],
    ) -> None:
        before = 0
        for run in runs:
            y = place * run.size + (run.start - before * run.size)
            dynamic = row_runs is None
            if len(runs) == 1:
                self._columns(w, n, group, y, place, run, dynamic, column_runs)
            else:
                inside = tirx.all(place >= before, place < before + run.count)
                with w.when(inside):
                    self._columns(w, n, group, y, place, run, dynamic, column_runs)
            before += run.count

    def _columns(
        self,
        w: Writer,
        n: Index,
        group: Index,
        y: Index,
        place: Index,
        rows: Run,
        dynamic: bool,
        column_runs: list[Run],
    ) -> None:
        share = place * sum(run.count for run in column_runs)
        for run in column_runs:
            with w.loop("x", run.count) as i:
                x = i * run.size + run.start
                self._tile(w, n, group, y, x, share + i, rows, run, dynamic)
            share = share + run.count

    def _tile(
        self,
        w: Writer,
        n: Index,
        group: Index,
        y: Index,
        x: Index,
        share: Index,
        rows: Run,
        columns: Run,
        dynamic: bool,
    ) -> None:
        lanes, blocks = self.target.lanes, self.tile.blocks
        whole = ramp(0, lanes)
        pixels = [(r, c) for r in range(rows.size) for c in range(columns.size)]
        sums = {
            (b, p): w.local(f"sum{b}_{p[0]}_{p[1]}", lanes) for b in range(blocks) for p in pixels
        }
        zero = tirx.Broadcast(tirx.const(0.0, "float32"), lanes)
        for b in range(blocks):
            begin = zero
            if self.shift is not None:
                begin = w.bind(f"bias{b}", self.shift[group * blocks + b, whole])
            for p in pixels:
                w.store(sums[b, p], begin, [whole])
        (kh, _), (sh, _), (dh, _) = self.window.kernel, self.window.stride, self.window.dilation
        top = self.window.begin[0]
        with w.loop("rc", self.sum.span) as rc:
            if dynamic:
                first = w.bind("first", y * sh - top)
                low = w.bind("low", tirx.max(0, tirx.floordiv(dh - 1 - first, dh)))
                high = tirx.min(kh, tirx.floordiv(self.image_rows - 1 - first, dh) + 1)
                extent = w.bind("extent", tirx.max(0, high - low))
                with w.loop("rh", extent) as step:
                    self._products(w, n, group, y, x, share, rc, low + step, pixels, columns, sums)
            elif all(taps == rows.taps[0] for taps in rows.taps):
                low, high = rows.taps[0]
                with w.loop("rh", high - low, low) as rh:
                    self._products(w, n, group, y, x, share, rc, rh, pixels, columns, sums)
            else:
                for rh in range(kh):
                    seen = [p for p in pixels if rows.taps[p[0]][0] <= rh < rows.taps[p[0]][1]]
                    if seen:
                        self._products(w, n, group, y, x, share, rc, rh, seen, columns, sums)
        beyond = int(self.out.shape[1]) % blocks
        for b in range(blocks):
            block = group * blocks + b
            if beyond and b >= beyond:
                with w.when(block < int(self.out.shape[1])):
                    self._store(w, n, block, y, x, {p: sums[b, p] for p in pixels})
            else:
                self._store(w, n, block, y, x, {p: sums[b, p] for p in pixels})

    def _store(
        self,
        w: Writer,
        n: Index,
        block: Index,
        y: Index,
        x: Index,
        sums: dict[tuple[int, int], tirx.Buffer],
    ) -> None:
        """Stores the results of a tile in one block."""
        whole, width = ramp(0, self.target.lanes), self.extents[1]
        for (r, c), held in sums.items():
            place = tuple(
                (begin + by) * step + offset
                for begin, by, step, offset in zip(
                    (y, x), (r, c), self.step, self.offset, strict=True
                )
            )
            stored = (0, x + c) if self.flat else place
            if self.flat:
                place = (tirx.floordiv(x + c, width), tirx.floormod(x + c, width))
            elif self.turned:
                stored = place = place[::-1]
            value = self.after(held[whole], (n, block, *place, whole))
            w.store(self.out, value, [n, block, *stored, whole])

    def _products(
        self,
        w: Writer,
        n: Index,
        group: Index,
        y: Index,
        x: Index,
        share: Index,
        rc: Index,
        rh: Index,
        pixels: list[tuple[int, int]],
        columns: Run,
        sums: dict[tuple[int, tuple[int, int]], tirx.Buffer],
    ) -> None:
        """Adds the products of one window row and one block of input channels."""
        (sh, sw), (dh, dw), (top, left) = (
            self.window.stride,
            self.window.dilation,
            self.window.begin,
        )
        unroll = self._unroll(self.tile.blocks * len(pixels))
        for begin in range(0, self.window.kernel[1], self.tile.taps):
            # Pixels and window columns that use each input value.
            seen: dict[tuple[int, int], list[tuple[tuple[int, int], int]]] = {}
            for p in pixels:
                low, high = columns.taps[p[1]]
                for rw in range(max(low, begin), min(high, begin + self.tile.taps)):
                    seen.setdefault((p[0], p[1] * sw + rw * dw), []).append((p, rw))
            if not seen:
                continue
            turns, last = self.sum.lanes // unroll, -(-self.sum.last // unroll)
            if last < turns:
                ended = tirx.const(last, "int32")
                turns = tirx.Select(rc < self.sum.span - 1, tirx.const(turns, "int32"), ended)
            with w.loop("rv", turns) as outer:
                self._fetch(w, group, share, rc, rh, begin, outer, unroll)
                for lane in range(unroll):
                    rv = outer * unroll + lane
                    weights = self._weights(w, group, rc, rh, begin, rv, seen)
                    for r, column in sorted(seen):
                        row = (y + r) * sh + (rh * dh - top)
                        place = x * sw + (column - left)
                        if self.flat:
                            row, place = 0, x + column
                        if self.turned:
                            row, place = place, row
                        source = self.sum.first(group) + rc
                        index = (
                            (n, rv, row, place) if self.plain_input else (n, source, row, place, rv)
                        )
                        self._multiply(w, self.data[index], seen[r, column], weights, sums)

    def _fetch(
        self,
        w: Writer,
        group: Index,
        share: Index,
        rc: Index,
        rh: Index,
        begin: int,
        outer: Index,
        unroll: int,
    ) -> None:
        """Starts to read a share of the weights that the next group uses in this iteration.

        Otherwise, the first tile of a group would wait for memory, and the others would not use it.
        """
        if not self.shares:
            return
        together = min(self.tile.taps, self.window.kernel[1] - begin)
        vectors = self.tile.blocks * self.target.lanes * together
        line = CACHE_LINE // 4
        lines = -(-unroll * vectors // line)
        first = share * lines // self.shares
        place = begin * self.sum.lanes * self.tile.blocks * self.target.lanes + outer * (
            unroll * vectors
        )
        for number in range(-(-lines // self.shares)):
            index = (self.begin + group + 1, rc, rh, place + (first + number) * line)
            w.prefetch(self.kernel, index)

    def _weights(
        self,
        w: Writer,
        group: Index,
        rc: Index,
        rh: Index,
        begin: int,
        rv: Index,
        seen: dict[tuple[int, int], list[tuple[tuple[int, int], int]]],
    ) -> dict[tuple[int, int], tirx.Expr]:
        """Vectors of weights by block and window column, for the columns from ``begin``."""
        lanes, blocks = self.target.lanes, self.tile.blocks
        together = min(self.tile.taps, self.window.kernel[1] - begin)
        place = (begin * self.sum.lanes + rv * together) * (blocks * lanes)
        used = sorted({rw for users in seen.values() for _, rw in users})
        weights = {}
        for rw in used:
            for b in range(blocks):
                offset = ((rw - begin) * blocks + b) * lanes
                vector = self.kernel[self.begin + group, rc, rh, ramp(place + offset, lanes)]
                weights[b, rw] = w.bind(f"w{b}_{rw}", vector)
        return weights

    def _multiply(
        self,
        w: Writer,
        value: tirx.Expr,
        users: list[tuple[tuple[int, int], int]],
        weights: dict[tuple[int, int], tirx.Expr],
        sums: dict[tuple[int, tuple[int, int]], tirx.Buffer],
    ) -> None:
        """Adds the products of one input value."""
        whole = ramp(0, self.target.lanes)
        vector: tirx.Expr = tirx.Broadcast(value, self.target.lanes)
        if len(users) * self.tile.blocks > 1:
            vector = w.bind("v", vector)
        for p, rw in users:
            for b in range(self.tile.blocks):
                held = sums[b, p]
                w.store(held, held[whole] + vector * weights[b, rw], [whole])

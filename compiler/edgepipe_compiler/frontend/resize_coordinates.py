"""Source coordinates and weights of Resize and Upsample, in every mode.

Resizing is linear and separable: each result along an axis is a weighted sum of a few source elements
(``Resized.taps``). Where the standard is ambiguous or ``onnx.reference`` differs from ONNX Runtime, this
follows ONNX Runtime. Coordinates are computed in float32. An axis of scale 1 and a tensor that keeps its
shape are copied. Upsample and Resize 10 round up when they shrink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import Unsupported
from .graph import Graph, Node

# Distance from .5 within which a coordinate counts as a tie.
TIE = 1e-6


@dataclass(frozen=True)
class Taps:
    """Per result along an axis: source indices, weights, and whether the coordinate is outside the source,
    in which case the extrapolation value is used.
    """

    places: np.ndarray
    weights: np.ndarray
    outside: np.ndarray


@dataclass(frozen=True)
class Resized:
    """Shapes, scales, and the coordinate and rounding modes."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    scales: tuple[float, ...]
    place: str
    mode: str
    rounding: str
    antialias: bool = False
    factor: float = -0.75
    excludes_outside: bool = False
    extrapolation: float = 0.0
    region: tuple[tuple[float, float], ...] = ()

    @property
    def nearest(self) -> bool:
        """Whether each result is a copy of one source element."""
        return self.mode == "nearest" and self.place != "tf_crop_and_resize"

    @property
    def bilinear(self) -> bool:
        """Whether ``linear_map`` describes the operator completely."""
        return self.mode == "linear" and not self.antialias and self.place != "tf_crop_and_resize"

    def copies(self, axis: int) -> bool:
        """Whether an axis is copied unchanged."""
        whole = self.before == self.after and self.place != "tf_crop_and_resize"
        return whole or (self.before[axis] == self.after[axis] and self.scales[axis] == 1)

    def coordinates(self, axis: int) -> np.ndarray:
        """Source coordinate of each result along ``axis``, in float32 as in ONNX Runtime."""
        x = np.arange(self.after[axis], dtype=np.float32)
        scale = np.float32(self.scales[axis])
        half = np.float32(0.5)
        if self.copies(axis):
            return x
        last = np.float32(self.before[axis] - 1)
        match self.place:
            case "asymmetric":
                return x / scale
            case "half_pixel":
                return (x + half) / scale - half
            case "pytorch_half_pixel":
                return (x + half) / scale - half if x.size > 1 else np.zeros(1, np.float32)
            case "align_corners":
                if x.size == 1:
                    return np.zeros(1, np.float32)
                return x * last / np.float32(x.size - 1)
            case "half_pixel_symmetric":
                extent = np.float32(self.before[axis])
                offset = extent * half * (np.float32(1) - np.float32(x.size) / (scale * extent))
                return offset + (x + half) / scale - half
            case "tf_crop_and_resize":
                start, end = (np.float32(value) for value in self.region[axis])
                if x.size == 1:
                    return np.full(1, half * (start + end) * last, np.float32)
                return start * last + x * (end - start) * last / np.float32(x.size - 1)
        raise Unsupported(f"coordinates {self.place}")

    def nearest_map(self, axis: int) -> np.ndarray:
        """Source index of each result along ``axis``."""
        x = self.coordinates(axis)
        rounding = self.rounding
        if rounding == "simple":
            rounding = "ceil" if self.scales[axis] < 1 else "floor"
        match rounding:
            case "floor":
                rounded = np.floor(x)
            case "ceil":
                rounded = np.ceil(x)
            case "round_prefer_floor" | "round_prefer_ceil":
                low = np.floor(x)
                tie = np.abs(x - low - np.float32(0.5)) < TIE
                upper = tie if rounding == "round_prefer_ceil" else False
                rounded = np.where(tie, low + upper, np.floor(x + np.float32(0.5)))
            case _:
                raise Unsupported(f"rounding {rounding}")
        return rounded.astype(np.int64).clip(0, self.before[axis] - 1)

    def linear_map(self, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The two source indices of each result along ``axis``, and the weight of the second."""
        last = self.before[axis] - 1
        x = self.coordinates(axis).clip(0, last)
        low = np.floor(x).astype(np.int64)
        return low, np.minimum(low + 1, last), (x - low).astype(np.float32)

    def taps(self, axis: int) -> Taps:
        """Source indices and weights of each result along ``axis``."""
        x = self.coordinates(axis).astype(np.float64)
        last = self.before[axis] - 1
        outside = np.zeros(x.size, bool)
        if self.place == "tf_crop_and_resize":
            outside = (x < 0) | (x > last)
        if self.mode == "nearest":
            places = self.nearest_map(axis)[:, None]
            weights = np.ones_like(places, np.float64)
        elif self.antialias:
            places, weights = self._filtered(axis, x)
        elif self.mode == "linear":
            low, high, share = self.linear_map(axis)
            places = np.stack([low, high], axis=1)
            weights = np.stack([1 - share.astype(np.float64), share], axis=1)
        else:
            low = np.floor(x)
            places = low.astype(np.int64)[:, None] + np.arange(-1, 3)
            weights = self._cubic(x[:, None] - places)
            places, weights = self._bounded(axis, places, weights)
        weights = np.where(outside[:, None], 0, weights)
        return Taps(places.clip(0, last), weights.astype(np.float32), outside)

    def _cubic(self, distance: np.ndarray) -> np.ndarray:
        x, a = np.abs(distance), self.factor
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    def _bounded(
        self, axis: int, places: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Clamps indices beyond the border, or gives them weight 0."""
        if self.excludes_outside:
            weights = np.where((places < 0) | (places >= self.before[axis]), 0, weights)
        return places, _normalized(weights) if self.excludes_outside else weights

    def _filtered(self, axis: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The antialiasing filter, which covers all source elements of a result."""
        grown = max(1.0, 1 / self.scales[axis])
        support = grown * (1 if self.mode == "linear" else 2)
        first = np.floor(x + 1 - support).astype(np.int64)
        count = math.ceil(2 * support) + 1
        places = first[:, None] + np.arange(count)
        distance = (places - x[:, None]) / grown
        if self.mode == "linear":
            weights = np.maximum(0, 1 - np.abs(distance))
        else:
            weights = self._cubic(distance)
        places, weights = self._bounded(axis, places, weights)
        return places, _normalized(weights)


def _normalized(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def resolve(graph: Graph, node: Node) -> Resized:
    """Attributes and inputs of a Resize or Upsample. Raises ``Unsupported``."""
    before = tuple(graph.tensor(node.inputs[0]).shape)
    after = tuple(graph.tensor(node.outputs[0]).shape)

    def text(name: str, default: str) -> str:
        value = node.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    attribute = node.attributes.get
    old = node.op == "Upsample" or graph.opset < 11
    axes = [axis % len(before) for axis in attribute("axes", range(len(before)))]
    scales = [made / extent for extent, made in zip(before, after, strict=True)]
    given = _scales(graph, node, old)
    policy = text("keep_aspect_ratio_policy", "stretch")
    if given is not None:
        for axis, scale in zip(axes, given, strict=True):
            scales[axis] = scale
    elif policy != "stretch":
        sizes = _constant(graph, node, 3)
        wanted = [size / before[axis] for axis, size in zip(axes, sizes or [], strict=True)]
        common = min(wanted) if policy == "not_larger" else max(wanted)
        for axis in axes:
            scales[axis] = common
    if any(not math.isfinite(scale) or scale <= 0 for scale in scales):
        raise Unsupported("factors that are no numbers")
    place = "asymmetric" if old else text("coordinate_transformation_mode", "half_pixel")
    region = [(0.0, 1.0)] * len(before)
    if place == "tf_crop_and_resize":
        bounds = _constant(graph, node, 1) or []
        for axis, start, end in zip(axes, bounds[: len(axes)], bounds[len(axes) :], strict=True):
            region[axis] = (start, end)
    return Resized(
        before,
        after,
        tuple(scales),
        place,
        {"bilinear": "linear"}.get(mode := text("mode", "nearest"), mode),
        "simple" if old else text("nearest_mode", "round_prefer_floor"),
        bool(attribute("antialias", 0)),
        attribute("cubic_coeff_a", -0.75),
        bool(attribute("exclude_outside", 0)),
        attribute("extrapolation_value", 0.0),
        tuple(region),
    )


def _scales(graph: Graph, node: Node, old: bool) -> list[float] | None:
    if "scales" in node.attributes:
        return list(node.attributes["scales"])
    return _constant(graph, node, 1 if old else 2)


def _constant(graph: Graph, node: Node, place: int) -> list[float] | None:
    """A constant input; None if it is absent or empty."""
    name = node.inputs[place] if len(node.inputs) > place else ""
    if not name:
        return None
    array = graph.constants.get(name)
    if array is None:
        raise Unsupported("factors that are not constant")
    return array.reshape(-1).tolist() if array.size else None

"""Where the elements of a resized tensor come from, in every spelling of Resize and Upsample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..graph import Graph, Node
from .epilogue import Unsupported


@dataclass(frozen=True)
class Resized:
    """Extents before and after, factors, and how places are computed and rounded."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    scales: tuple[float, ...]
    place: str
    nearest: bool
    rounding: str

    def coordinates(self, axis: int) -> np.ndarray:
        """The place in the source, in float32 as ONNX Runtime computes it, for each of the result."""
        x = np.arange(self.after[axis], dtype=np.float32)
        scale = np.float32(self.scales[axis])
        half = np.float32(0.5)
        if self.before[axis] == self.after[axis] and scale == 1:
            return x
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
                return x * np.float32(self.before[axis] - 1) / np.float32(x.size - 1)
            case "half_pixel_symmetric":
                share = x.size / (float(scale) * self.before[axis])
                offset = np.float32(self.before[axis] / 2 * (1 - share))
                return offset + (x + half) / scale - half
        raise Unsupported(f"coordinates {self.place}")

    def nearest_map(self, axis: int) -> np.ndarray:
        """The index that each place of the result takes."""
        x = self.coordinates(axis)
        match self.rounding:
            case "floor":
                rounded = np.floor(x)
            case "ceil":
                rounded = np.ceil(x)
            case "round_prefer_floor":
                rounded = np.ceil(x - np.float32(0.5))
            case "round_prefer_ceil":
                rounded = np.floor(x + np.float32(0.5))
            case _:
                raise Unsupported(f"rounding {self.rounding}")
        return rounded.astype(np.int64).clip(0, self.before[axis] - 1)

    def linear_map(self, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The two indices between which each place of the result lies, and the share of the second."""
        last = self.before[axis] - 1
        x = self.coordinates(axis).clip(0, last)
        low = np.floor(x).astype(np.int64)
        return low, np.minimum(low + 1, last), (x - low).astype(np.float32)


def resolve(graph: Graph, node: Node) -> Resized:
    """Attributes and inputs of a Resize or an Upsample."""
    before = tuple(graph.tensor(node.inputs[0]).shape)
    after = tuple(graph.tensor(node.outputs[0]).shape)

    def text(name: str, default: str) -> str:
        value = node.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    old = node.op == "Upsample" or graph.opset < 11
    mode = text("mode", "nearest")
    stretched = text("keep_aspect_ratio_policy", "stretch") == "stretch"
    if mode not in ("nearest", "linear") or node.attributes.get("antialias") or not stretched:
        raise Unsupported(f"resizing of mode {mode}")
    scales = [made / extent for extent, made in zip(before, after, strict=True)]
    given = _scales(graph, node, old)
    axes = [axis % len(before) for axis in node.attributes.get("axes", range(len(before)))]
    if given is not None:
        for axis, scale in zip(axes, given, strict=True):
            scales[axis] = scale
    if any(not math.isfinite(scale) or scale <= 0 for scale in scales):
        raise Unsupported("factors that are no numbers")
    return Resized(
        before,
        after,
        tuple(scales),
        "asymmetric" if old else text("coordinate_transformation_mode", "half_pixel"),
        mode == "nearest",
        "floor" if old else text("nearest_mode", "round_prefer_floor"),
    )


def _scales(graph: Graph, node: Node, old: bool) -> list[float] | None:
    if "scales" in node.attributes:
        return list(node.attributes["scales"])
    place = 1 if old else 2
    name = node.inputs[place] if len(node.inputs) > place else ""
    if not name:
        return None
    array = graph.constants.get(name)
    if array is None:
        raise Unsupported("factors that are not constant")
    return array.reshape(-1).tolist() if array.size else None

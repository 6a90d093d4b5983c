"""Seeded weights. Every tensor has its own generator, so its bytes depend on its name only."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import onnx

# Elements generated at a time; a block fits the L2 cache.
_BLOCK = 1 << 16


def uniform(
    tensor: onnx.TensorProto, name: str, shape: tuple[int, ...], low: float, high: float
) -> None:
    """Fills ``tensor`` with uniform float32 from [low, high), seeded by ``name``.

    Uniform numbers need no transcendental function, so the bytes are the same on every machine. No value is
    subnormal: all are multiples of 2**-24 of the range.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    generator = np.random.Generator(np.random.PCG64(seed))
    span, floor = np.float32(high - low), np.float32(low)
    left = int(np.prod(shape, dtype=np.int64))
    scratch = np.empty(min(left, _BLOCK), np.float32)
    # Written block by block: the largest tensor has 411 MB, and each additional copy costs more
    # in page faults than generating the numbers.
    data = BytesIO()
    while left:
        block = scratch[: min(left, _BLOCK)]
        generator.random(dtype=np.float32, out=block)
        np.multiply(block, span, out=block)
        np.add(block, floor, out=block)
        data.write(block)
        left -= block.size
    _describe(tensor, name, onnx.TensorProto.FLOAT, shape)
    tensor.raw_data = data.getvalue()


def constant(tensor: onnx.TensorProto, name: str, values: np.ndarray) -> None:
    """Fills ``tensor`` with ``values``: shapes, split sizes, bounds of a clip."""
    _describe(tensor, name, onnx.helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)
    tensor.raw_data = values.tobytes()


def _describe(tensor: onnx.TensorProto, name: str, dtype: int, shape: tuple[int, ...]) -> None:
    tensor.name = name.partition("/")[2] or name
    tensor.data_type = dtype
    tensor.dims.extend(shape)

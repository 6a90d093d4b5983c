"""Steps of random networks: each takes an image and returns another one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from random_graph import CHANNELS, Random


def conv(r: Random, x: str) -> str:
    """Any convolution: groups, strides, dilations, paddings, with or without bias and norm."""
    _, c, h, w = r.shapes[x]
    groups = int(r.pick([1, 1, 1, c, *(size for size in range(2, c + 1) if c % size == 0)]))
    made = groups * max(1, int(r.pick(CHANNELS)) // groups)
    kernel = [int(r.pick([1, 1, 2, 3, 3, 5, 7])) for _ in range(2)]
    if r.chance(0.6):
        kernel[1] = kernel[0]
    attributes: dict[str, object] = {"group": groups, "kernel_shape": kernel}
    dilations = [r.number(1, 3) if r.chance(0.2) else 1 for _ in range(2)]
    strides = [r.number(1, 3) if r.chance(0.3) else 1 for _ in range(2)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    automatic = r.pick(["SAME_UPPER", "SAME_LOWER", "VALID"]) if r.chance(0.2) else None
    if automatic and dilations == [1, 1] and (automatic != "VALID" or min(h, w) >= max(reach)):
        attributes["auto_pad"] = automatic
    else:
        pads = [r.number(0, size // 2 + 1) for size in (*reach, *reach)]
        if r.chance(0.6):
            pads = [reach[0] // 2, reach[1] // 2] * 2
        for axis, extent in enumerate((h, w)):
            pads[axis] += max(0, reach[axis] - extent - pads[axis] - pads[2 + axis])
        attributes["pads"] = pads
    weight = r.weight(made, c // groups, *kernel, fan=c // groups * kernel[0] * kernel[1])
    extra = [r.weight(made)] if r.chance(0.6) else []
    x = r.op("Conv", x, weight, *extra, strides=strides, dilations=dilations, **attributes)
    return batch_norm(r, x) if r.chance(0.3) else x


def transposed(r: Random, x: str) -> str:
    """Transposed convolution with groups, output padding, strides and dilations."""
    _, c, h, w = r.shapes[x]
    if h * w > 700:
        return conv(r, x)
    groups = int(r.pick([1, 1, c, *(size for size in range(2, c + 1) if c % size == 0)]))
    made = max(1, int(r.pick(CHANNELS)) // groups)
    kernel = [r.number(1, 4) for _ in range(2)]
    strides = [r.number(1, 3) for _ in range(2)]
    dilations = [r.number(1, 2) if r.chance(0.2) else 1 for _ in range(2)]
    extra = [r.number(0, stride - 1) if r.chance(0.4) else 0 for stride in strides]
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = [r.number(0, size // 2) for size in (*reach, *reach)]
    for axis, extent in enumerate((h, w)):
        if (extent - 1) * strides[axis] + reach[axis] + 1 - pads[axis] - pads[2 + axis] < 1:
            pads[axis] = pads[2 + axis] = 0
    weight = r.weight(c, made, *kernel, fan=c // groups * kernel[0] * kernel[1] // 2)
    bias = [r.weight(made * groups)] if r.chance(0.6) else []
    return r.op(
        "ConvTranspose", x, weight, *bias, group=groups, strides=strides, dilations=dilations,
        pads=pads, output_padding=extra, kernel_shape=kernel,
    )  # fmt: skip


def line(r: Random, x: str) -> str:
    """A convolution of one dimension, between reshapes."""
    n, c, h, w = r.shapes[x]
    made = int(r.pick(CHANNELS))
    kernel = r.number(1, min(5, h * w))
    x = r.op("Reshape", x, r.ints(n, c, h * w))
    x = r.op("Conv", x, r.weight(made, c, kernel, fan=c * kernel), pads=[kernel // 2, 0])
    if r.chance(0.5):
        x = r.op("MaxPool", x, kernel_shape=[1], strides=[1])
    return r.axes("Unsqueeze", x, [int(r.pick([2, 3]))], 13)


def cube(r: Random, x: str) -> str:
    """A convolution of three dimensions."""
    n, c, h, w = r.shapes[x]
    if h * w > 200 or c > 20:
        return conv(r, x)
    x = r.op("Reshape", x, r.ints(n, 1, c, h, w))
    kernel = [r.number(1, min(3, extent)) for extent in (c, h, w)]
    x = r.op("Conv", x, r.weight(2, 1, *kernel, fan=math.prod(kernel)))
    shape = r.shapes[x]
    return r.op("Reshape", x, r.ints(n, shape[1] * shape[2], *shape[3:]))


def activation(r: Random, x: str) -> str:
    """Any activation, as an operator or decomposed."""
    channels = r.shapes[x][1]
    since = {"HardSwish": 14, "Mish": 18, "Gelu": 20, "Celu": 12, "Round": 1}
    kind = str(r.pick([
        "Relu", "Sigmoid", "Tanh", "Elu", "Selu", "LeakyRelu", "PRelu", "Clip", "HardSigmoid",
        "HardSwish", "Mish", "Gelu", "Softplus", "Softsign", "Silu", "GeluErf", "GeluTanh", "Abs",
        "Swish6", "ThresholdedRelu", "MishParts", "Celu", "Sqrt", "Log", "Neg", "Reciprocal",
    ]))  # fmt: skip
    if r.opset < since.get(kind, 1) or (kind == "GeluErf" and r.opset < 9):
        kind = "Relu"
    if kind == "ThresholdedRelu" and r.opset < 10:
        kind = "Relu"
    match kind:
        case "Elu" | "LeakyRelu" | "Celu" | "ThresholdedRelu":
            return r.op(kind, x, alpha=float(r.pick([0.1, 0.5, 1.0])))
        case "PRelu":
            shape = r.pick([(channels, 1, 1), (1,), (1, channels, 1, 1)])
            return r.op(kind, x, r.weight(*shape))
        case "Clip":
            return clip(r, x, -0.5, float(r.pick([0.5, 6.0])))
        case "HardSigmoid":
            return r.op(kind, x, alpha=1 / 6, beta=0.5) if r.chance(0.5) else r.op(kind, x)
        case "Gelu":
            return r.op(kind, x, approximate=str(r.pick(["none", "tanh"])))
        case "Silu":
            return r.op("Mul", x, r.op("Sigmoid", x))
        case "MishParts":
            return r.op("Mul", x, r.op("Tanh", r.op("Softplus", x)))
        case "Swish6":
            line = clip(r, r.op("Add", x, r.constant(3.0)), 0.0, 6.0)
            return r.op("Mul", x, r.op("Div", line, r.constant(6.0)))
        case "GeluErf":
            half = r.op("Erf", r.op("Div", x, r.constant(math.sqrt(2))))
            half = r.op("Mul", x, r.op("Add", half, r.constant(1.0)))
            return r.op("Mul", half, r.constant(0.5))
        case "GeluTanh":
            cube = r.op("Mul", r.op("Pow", x, r.constant(3.0)), r.constant(0.044715))
            inner = r.op("Mul", r.op("Add", x, cube), r.constant(math.sqrt(2 / math.pi)))
            half = r.op("Add", r.op("Tanh", inner), r.constant(1.0))
            return r.op("Mul", r.op("Mul", x, half), r.constant(0.5))
        case "Sqrt" | "Log" | "Reciprocal":
            return r.op(kind, r.op("Add", r.op("Abs", x), r.constant(1.0)))
    return r.op(kind, x)


def clip(r: Random, x: str, low: float, high: float) -> str:
    """A Clip with attributes or with inputs."""
    if r.opset < 11:
        return r.op("Clip", x, min=low, max=high)
    return r.op("Clip", x, r.constant(low), r.constant(high))


def batch_norm(r: Random, x: str) -> str:
    """Batch normalization with positive variances."""
    channels = r.shapes[x][1]
    low = r.constant(r.random.uniform(0.5, 1.5, channels))
    high = r.constant(r.random.uniform(0.5, 1.5, channels))
    epsilon = float(r.pick([1e-5, 1e-3]))
    names = [low, r.weight(channels), r.weight(channels), high]
    return r.op("BatchNormalization", x, *names, epsilon=epsilon)


def norm(r: Random, x: str) -> str:
    """Normalizations with statistics of the data."""
    _, c, h, w = r.shapes[x]
    kind = str(r.pick(["batch", "instance", "layer", "group", "lrn", "l2"]))
    if kind == "lrn":
        return r.op("LRN", x, size=int(r.pick([1, 3, 5])), alpha=0.1, beta=0.75, bias=1.0)
    if kind == "layer" and r.opset >= 17:
        axis = int(r.pick([-1, 1, 2, 3]))
        shape = r.shapes[x][axis:]
        return r.op("LayerNormalization", x, r.weight(*shape), r.weight(*shape), axis=axis)
    if kind == "group" and r.opset >= 21:
        groups = int(r.pick([size for size in range(1, c + 1) if c % size == 0]))
        scale, bias = r.weight(c, around=1.0), r.weight(c)
        return r.op("GroupNormalization", x, scale, bias, num_groups=groups)
    if kind == "instance" and h * w > 1:
        return r.op("InstanceNormalization", x, r.weight(c, around=1.0), r.weight(c))
    if kind == "l2" and r.opset < 18:
        length = r.op("ReduceL2", x, axes=[1], keepdims=1)
        return r.op("Div", x, r.op("Add", length, r.constant(1.0)))
    return batch_norm(r, x)


def excite(r: Random, x: str) -> str:
    """Squeeze and excite, by convolutions or by matrix products."""
    n, c, _, _ = r.shapes[x]
    inner = max(1, c // 4)
    if r.chance(0.5):
        y = r.op("GlobalAveragePool", x)
        y = activation(r, r.op("Conv", y, r.weight(inner, c, 1, 1, fan=c), r.weight(inner)))
        y = r.op("Conv", y, r.weight(c, inner, 1, 1, fan=inner), r.weight(c))
        return r.op("Mul", x, r.op(str(r.pick(["Sigmoid", "HardSigmoid"])), y))
    y = r.op("Flatten", r.op("GlobalAveragePool", x))
    y = r.op("Relu", r.op("Gemm", y, r.weight(c, inner, fan=c), r.weight(inner)))
    y = r.op("Sigmoid", r.op("MatMul", y, r.weight(inner, c, fan=inner)))
    return r.op("Mul", r.op("Reshape", y, r.ints(n, c, 1, 1)), x)


def shuffle(r: Random, x: str) -> str:
    """Channel shuffle, and space to depth and back if the extents allow."""
    n, c, h, w = r.shapes[x]
    if c % 4 == 0 and r.chance(0.3) and c >= 4:
        return r.op("DepthToSpace", x, blocksize=2)
    if h % 2 == w % 2 == 0 and r.chance(0.3):
        return r.op("SpaceToDepth", x, blocksize=2)
    groups = int(r.pick([size for size in range(1, c + 1) if c % size == 0]))
    x = r.op("Reshape", x, r.ints(n, groups, c // groups, h, w))
    x = r.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return r.op("Reshape", x, r.ints(n, -1, h, w))


def resize(r: Random, x: str) -> str:
    """Resize and Upsample, up and down, nearest and linear."""
    n, c, h, w = r.shapes[x]
    if h * w > 700:
        return pool(r, x)
    scales = [1.0, 1.0, float(r.pick([1, 2, 2, 3])), float(r.pick([1, 2, 2, 3]))]
    mode = str(r.pick(["nearest", "linear"]))
    if r.opset < 9:
        return r.op("Upsample", x, scales=scales, mode=mode)
    if r.opset == 9:
        return r.op("Upsample", x, r.constant(scales), mode=mode)
    if r.opset == 10:
        return r.op("Resize", x, r.constant(scales), mode=mode)
    place = str(r.pick(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]))
    rounding = str(r.pick(["floor", "round_prefer_floor", "ceil", "round_prefer_ceil"]))
    attributes = {"mode": mode, "coordinate_transformation_mode": place}
    if mode == "nearest":
        attributes["nearest_mode"] = rounding if place != "align_corners" else "floor"
    empty = r.constant(np.zeros(0)) if r.opset < 13 else ""
    if r.chance(0.4):
        size = [n, c, r.number(max(1, h // 2), 2 * h + 1), r.number(max(1, w // 2), 2 * w + 1)]
        no_scales = r.constant(np.zeros(0)) if r.opset < 13 else ""
        return r.op("Resize", x, empty, no_scales, r.ints(*size), **attributes)
    return r.op("Resize", x, empty, r.constant(scales), **attributes)


def pool(r: Random, x: str) -> str:
    """Pooling with every attribute."""
    _, _, h, w = r.shapes[x]
    if r.chance(0.25):
        return r.op(str(r.pick(["GlobalMaxPool", "GlobalAveragePool"])), x)
    kernel = [r.number(1, min(4, extent)) for extent in (h, w)]
    strides = [r.number(1, 3) for _ in range(2)]
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": strides}
    if r.chance(0.2) and all(k >= stride for k, stride in zip(kernel, strides, strict=True)):
        attributes["auto_pad"] = str(r.pick(["SAME_UPPER", "SAME_LOWER"]))
    else:
        attributes["pads"] = [r.number(0, (size - 1) // 2) for size in (*kernel, *kernel)]
        # ONNX and ONNX Runtime disagree on the number of windows that start in the padding.
        inside = all(k >= stride for k, stride in zip(kernel, strides, strict=True))
        if r.opset >= 10 and inside and r.chance(0.4):
            attributes["ceil_mode"] = 1
    if r.chance(0.5):
        attributes["count_include_pad"] = r.number(0, 1)
        return r.op("AveragePool", x, **attributes)
    fits = all((k - 1) * 2 + 1 <= extent for k, extent in zip(kernel, (h, w), strict=True))
    if r.opset >= 10 and "auto_pad" not in attributes and fits and r.chance(0.3):
        attributes["dilations"] = [2, 2]
    return r.op("MaxPool", x, **attributes)


def pad(r: Random, x: str) -> str:
    """Pad in its three modes, channels too."""
    _, _, h, w = r.shapes[x]
    mode = str(r.pick(["constant", "reflect", "edge"]))
    most = 2 if mode != "reflect" else min(2, h - 1, w - 1)
    pads = [0, 0, *(r.number(0, most) for _ in range(2))] * 2
    pads[6:] = [r.number(0, most) for _ in range(2)]
    if mode == "constant" and r.chance(0.3):
        pads[1] = r.number(0, 3)
    value = float(r.pick([0.0, 1.5]))
    if r.opset < 11:
        return r.op("Pad", x, pads=pads, mode=mode, value=value)
    extra = [r.constant(value)] if mode == "constant" and r.chance(0.6) else []
    return r.op("Pad", x, r.ints(*pads), *extra, mode=mode)


def cut(r: Random, x: str) -> str:
    """Slices and splits, some joined again."""
    shape = r.shapes[x]
    axis = r.number(1, 3)
    extent = shape[axis]
    if extent > 1 and r.chance(0.5):
        sizes = [first := r.number(1, extent - 1), extent - first]
        if r.opset < 13:
            left = r.op("Split", x, outputs=2, axis=axis, split=sizes)
        else:
            left = r.op("Split", x, r.ints(*sizes), outputs=2, axis=axis)
        right = f"{left}_1"
        if r.chance(0.5):
            left = activation(r, left)
        if r.chance(0.2):
            return right
        behind = axis - 4 if r.opset >= 11 and r.chance(0.5) else axis
        return r.op("Concat", right, left, axis=behind)
    first = r.number(0, extent - 1)
    last = r.number(first + 1, extent)
    if r.opset < 10:
        return r.op("Slice", x, axes=[axis], starts=[first], ends=[last])
    step = int(r.pick([1, 1, 2, -1]))
    if step < 0:
        first, last = last - 1, first - 1 if first else -(2**31)
    return r.op("Slice", x, r.ints(first), r.ints(last), r.ints(axis), r.ints(step))


def reduce(r: Random, x: str) -> str:
    """Reductions with keepdims, added to their input."""
    kind = str(r.pick(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceProd"]))
    if kind == "ReduceProd":
        kind = "ReduceMean"
    axes = [list(item) for item in ((1,), (2, 3), (3,), (-1, -2), (2,), (1, 2, 3))]
    since = 13 if kind == "ReduceSum" else 18
    chosen = r.pick(axes)
    y = r.axes(kind, x, chosen, since, keepdims=1)
    if kind == "ReduceSum":
        count = math.prod(r.shapes[x][axis] for axis in chosen)
        y = r.op("Mul", y, r.constant(1 / count))
    return r.op(str(r.pick(["Sub", "Add", "Mul"])), x, y)


def broadcast(r: Random, x: str) -> str:
    """Arithmetic with constants of every shape that broadcasts."""
    n, c, h, w = r.shapes[x]
    shape = r.pick(
        [(), (1,), (c, 1, 1), (1, c, 1, 1), (h, w), (w,), (1, 1, h, w), (h, 1), (n, c, h, w)]
    )
    kind = str(r.pick(["Add", "Mul", "Sub", "Div", "Min", "Max"]))
    y = r.constant(r.random.uniform(0.5, 1.5, shape))
    if kind in ("Min", "Max") and r.opset < 8:
        kind = "Add"
    # Values may be near zero, so they are no divisors.
    return r.op(kind, *((x, y) if r.chance(0.7) or kind == "Div" else (y, x)))


def attend(r: Random, x: str) -> str:
    """Products of two activations with a softmax between them, as in attention."""
    n, c, h, w = r.shapes[x]
    if h * w > 200:
        return activation(r, x)
    y = r.op("Reshape", x, r.ints(n, c, h * w))
    turned = r.op("Transpose", y, perm=[0, 2, 1])
    scores = r.op("Mul", r.op("MatMul", turned, y), r.constant(1 / math.sqrt(c)))
    scores = r.op("Softmax", scores, axis=2)
    mixed = r.op("MatMul", y, scores) if r.chance(0.5) else None
    if mixed is None:
        mixed = r.op("Transpose", r.op("MatMul", scores, turned), perm=[0, 2, 1])
    return r.op("Reshape", mixed, r.ints(n, c, h, w))


def softmax(r: Random, x: str) -> str:
    """Softmax and its logarithm along any axis."""
    kind = str(r.pick(["Softmax", "LogSoftmax"]))
    return r.op(kind, x, axis=int(r.pick([1, 2, 3, -1])) if r.opset >= 11 else r.number(1, 3))


def turn(r: Random, x: str) -> str:
    """Transpose, Squeeze, Tile and Gather."""
    n, c, h, w = r.shapes[x]
    kind = r.number(0, 5)
    if kind == 0:
        return r.op("Transpose", x, perm=[0, 1, 3, 2])
    if kind == 1 and max(c, h) < 120:
        return r.op("Transpose", x, perm=[0, *(int(i) for i in 1 + r.random.permutation(3))])
    if kind == 2:
        y = r.axes("Unsqueeze", x, [2], 13)
        return r.axes("Squeeze", activation(r, y) if r.chance(0.5) else y, [2], 13)
    if kind == 3:
        axis = r.number(1, 3)
        picked = [r.number(0, r.shapes[x][axis] - 1) for _ in range(r.number(1, 9))]
        return r.op("Gather", x, r.ints(*picked), axis=axis)
    if kind == 4 and r.opset >= 8:
        y = r.op("GlobalAveragePool", x)
        return r.op("Sub", x, r.op("Expand", y, r.ints(n, c, h, w)))
    mask = r.op("Dropout", x)
    return r.op("Identity", mask)


def residual(r: Random, x: str) -> str:
    """A branch that rejoins."""
    y = r.op("Conv", x, r.weight(r.shapes[x][1], r.shapes[x][1], 1, 1, fan=r.shapes[x][1]))
    y = activation(r, y)
    kind = str(r.pick(["Add", "Add", "Sum", "Mul", "Concat"]))
    if kind == "Concat":
        return r.op("Concat", x, y, axis=1)
    y = r.op(kind, x, y)
    return activation(r, y) if r.chance(0.5) else y


STEPS: tuple[tuple[Callable[[Random, str], str], int], ...] = (
    (conv, 6), (transposed, 2), (line, 1), (cube, 1), (activation, 4), (norm, 2), (excite, 1),
    (shuffle, 1), (resize, 2), (pool, 2), (pad, 1), (cut, 2), (reduce, 1), (broadcast, 2),
    (attend, 1), (softmax, 1), (turn, 2), (residual, 2),
)  # fmt: skip


def head(r: Random, x: str) -> str:
    """A classifier: any form of Gemm and MatMul."""
    n = r.shapes[x][0]
    if r.chance(0.5):
        x = r.op("GlobalAveragePool", x)
    x = r.op("Flatten", x)
    width, made = r.shapes[x][1], int(r.pick([1, 10, 17, 33]))
    if width > 5000:
        return x
    if r.chance(0.3):
        return r.op("MatMul", x, r.weight(width, made, fan=width))
    attributes: dict[str, object] = {}
    if r.chance(0.3):
        attributes |= {"alpha": 0.5, "beta": 2.0}
    shape = (width, made)
    if r.chance(0.5):
        attributes["transB"], shape = 1, (made, width)
    if r.chance(0.2):
        x = r.op("Transpose", x, perm=[1, 0])
        attributes["transA"] = 1
    bias = r.weight(*r.pick([(made,), (1, made), (1,), (n, made)]))
    return r.op("Gemm", x, r.weight(*shape, fan=width), bias, **attributes)

"""Small models, each about one operator in one awkward form: odd extents, channels that no vector
width divides, batches, old opsets. ``MODELS`` maps a name to the function that builds the model;
``models_combined`` has the same for several operators in company.
"""

from __future__ import annotations

import numpy as np
import onnx

from operator_net import Model, Net

MODELS: dict[str, Model] = {}
# ``onnx.reference`` (1.23) deviates from the standard here: groups and dilations of a transposed
# convolution, Softmax before opset 13, the window of LRN. ONNX Runtime is correct.
REFERENCE_DEPARTS = {
    "transposed_grouped", "transposed_depthwise_dilated", "softmax_opset_11", "lrn",
}  # fmt: skip


def _one(
    op: str,
    *shape: int,
    opset: int = 17,
    constants: tuple[str | np.ndarray, ...] = (),
    **attributes: object,
) -> Model:
    """A single operator on one input. ``constants`` are its further inputs; "" omits one."""

    def build() -> onnx.ModelProto:
        net = Net(opset)
        x = net.input(*shape)
        extra = [c if isinstance(c, str) else net.constant(c) for c in constants]
        return net.build(net.op(op, x, *extra, **attributes))

    return build


def _conv(
    made: int, *shape: int, kernel: tuple[int, ...], opset: int = 17, **attributes: object
) -> Model:
    """A convolution with bias."""

    def build() -> onnx.ModelProto:
        net = Net(opset)
        return net.build(net.conv(net.input(*shape), made, shape[1], *kernel, **attributes))

    return build


MODELS |= {
    "conv_3x3_5_to_17": _conv(17, 1, 5, 13, 11, kernel=(3, 3), pads=[1, 1, 1, 1]),
    "conv_3x3_17_to_33": _conv(33, 1, 17, 9, 15, kernel=(3, 3), pads=[1, 1, 1, 1]),
    "conv_3x3_32_to_48": _conv(48, 1, 32, 14, 14, kernel=(3, 3), pads=[1, 1, 1, 1]),
    "conv_3x3_unpadded": _conv(16, 1, 16, 7, 7, kernel=(3, 3)),
    "conv_1x1_33_to_5": _conv(5, 1, 33, 7, 9, kernel=(1, 1)),
    "conv_1x1_64_to_64": _conv(64, 1, 64, 14, 14, kernel=(1, 1)),
    "conv_1x1_on_one_place": _conv(24, 1, 40, 1, 1, kernel=(1, 1)),
    "conv_1x1_stride_2": _conv(20, 1, 12, 15, 15, kernel=(1, 1), strides=[2, 2]),
    "conv_1x1_stride_3_batch_3": _conv(17, 3, 6, 10, 13, kernel=(1, 1), strides=[3, 3]),
    "conv_first_7x7_stride_2": _conv(
        64, 1, 3, 45, 31, kernel=(7, 7), strides=[2, 2], pads=[3, 3, 3, 3]
    ),
    "conv_first_11x11_stride_4": _conv(
        24, 1, 3, 67, 67, kernel=(11, 11), strides=[4, 4], pads=[2, 2, 2, 2]
    ),
    "conv_one_channel": _conv(8, 1, 1, 28, 28, kernel=(5, 5), pads=[2, 2, 2, 2]),
    "conv_to_one_channel": _conv(1, 1, 33, 12, 12, kernel=(3, 3), pads=[1, 1, 1, 1]),
    "conv_even_kernel": _conv(10, 1, 6, 9, 9, kernel=(2, 4), pads=[0, 1, 1, 2]),
    "conv_1x7": _conv(17, 1, 8, 17, 17, kernel=(1, 7), pads=[0, 3, 0, 3]),
    "conv_7x1": _conv(17, 1, 8, 17, 17, kernel=(7, 1), pads=[3, 0, 3, 0]),
    "conv_kernel_larger_than_input": _conv(8, 1, 8, 2, 3, kernel=(5, 5), pads=[2, 2, 2, 2]),
    "conv_asymmetric_pads": _conv(
        12, 1, 5, 10, 8, kernel=(3, 3), strides=[2, 2], pads=[0, 0, 1, 1]
    ),
    "conv_four_unlike_pads": _conv(33, 1, 17, 8, 9, kernel=(3, 3), pads=[2, 0, 1, 3]),
    "conv_unlike_strides": _conv(9, 1, 7, 12, 13, kernel=(3, 3), strides=[2, 1], pads=[1] * 4),
    "conv_same_upper": _conv(8, 1, 3, 14, 15, kernel=(3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "conv_same_lower": _conv(8, 1, 3, 14, 15, kernel=(4, 4), strides=[2, 2], auto_pad="SAME_LOWER"),
    "conv_valid": _conv(8, 1, 3, 14, 15, kernel=(3, 3), auto_pad="VALID"),
    "conv_dilated": _conv(17, 1, 8, 15, 15, kernel=(3, 3), dilations=[2, 2], pads=[2] * 4),
    "conv_dilated_unlike_strided": _conv(
        10, 1, 6, 19, 17, kernel=(3, 3), dilations=[3, 2], strides=[2, 2], pads=[3, 2, 3, 2]
    ),
    "conv_grouped_2": _conv(18, 1, 12, 9, 9, kernel=(3, 3), group=2, pads=[1] * 4),
    "conv_grouped_3_of_5": _conv(33, 1, 15, 9, 7, kernel=(3, 3), group=3, pads=[1] * 4),
    "conv_grouped_32_of_4": _conv(128, 1, 128, 7, 7, kernel=(3, 3), group=32, pads=[1] * 4),
    "conv_grouped_1x1": _conv(20, 2, 40, 6, 5, kernel=(1, 1), group=4),
    "conv_depthwise_17": _conv(17, 1, 17, 13, 13, kernel=(3, 3), group=17, pads=[1] * 4),
    "conv_depthwise_5x5_stride_2": _conv(
        33, 1, 33, 15, 14, kernel=(5, 5), group=33, strides=[2, 2], pads=[2] * 4
    ),
    "conv_depthwise_dilated": _conv(
        16, 1, 16, 12, 12, kernel=(3, 3), group=16, dilations=[2, 2], pads=[2] * 4
    ),
    "conv_depthwise_same_upper": _conv(
        32, 1, 32, 14, 14, kernel=(3, 3), group=32, strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "conv_depthwise_multiplier_2": _conv(10, 1, 5, 9, 9, kernel=(3, 3), group=5, pads=[1] * 4),
    "conv_batch_2": _conv(17, 2, 5, 8, 8, kernel=(3, 3), pads=[1] * 4),
    "conv_batch_3_depthwise": _conv(33, 3, 33, 7, 7, kernel=(3, 3), group=33, pads=[1] * 4),
    "conv_opset_11": _conv(17, 1, 5, 8, 9, kernel=(3, 3), opset=11, pads=[1] * 4),
    "conv_of_one_dimension": _conv(17, 1, 5, 31, kernel=(3,), pads=[1, 1]),
    "conv_of_three_dimensions": _conv(17, 2, 3, 6, 9, 8, kernel=(3, 3, 3), pads=[1] * 6),
    "conv_of_three_dimensions_grouped": _conv(
        12,
        1,
        6,
        9,
        8,
        10,
        kernel=(3, 2, 3),
        group=2,
        strides=[2, 1, 2],
        dilations=[2, 2, 1],
        pads=[1, 0, 2, 2, 1, 0],
    ),
}


def _transposed(
    made: int, *shape: int, kernel: tuple[int, int], group: int = 1, **attributes: object
) -> Model:
    def build() -> onnx.ModelProto:
        net = Net()
        weight = net.weight(shape[1], made // group, *kernel)
        bias = net.vector(made)
        return net.build(
            net.op("ConvTranspose", net.input(*shape), weight, bias, group=group, **attributes)
        )

    return build


MODELS |= {
    "transposed_2x2_stride_2": _transposed(17, 1, 33, 7, 5, kernel=(2, 2), strides=[2, 2]),
    "transposed_4x4_stride_2": _transposed(
        16, 1, 32, 7, 7, kernel=(4, 4), strides=[2, 2], pads=[1] * 4
    ),
    "transposed_output_padding": _transposed(
        5, 2, 17, 6, 5, kernel=(3, 3), strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]
    ),
    "transposed_asymmetric_pads": _transposed(
        8, 1, 5, 6, 6, kernel=(3, 3), strides=[2, 2], pads=[0, 1, 1, 0]
    ),
    "transposed_stride_1": _transposed(9, 1, 6, 8, 8, kernel=(3, 3), pads=[1] * 4),
    "transposed_grouped": _transposed(12, 1, 8, 5, 5, kernel=(3, 3), group=4, strides=[2, 2]),
    "transposed_depthwise_dilated": _transposed(
        6, 1, 6, 5, 7, kernel=(3, 3), group=6, dilations=[2, 2]
    ),
    "max_pool_3x3_stride_2": _one(
        "MaxPool", 1, 17, 13, 13, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    ),
    "max_pool_ceil": _one(
        "MaxPool", 1, 5, 12, 10, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1
    ),
    "max_pool_dilated": _one("MaxPool", 1, 6, 11, 11, kernel_shape=[3, 3], dilations=[2, 2]),
    "max_pool_asymmetric": _one(
        "MaxPool", 2, 33, 9, 9, kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 0]
    ),
    "max_pool_same_upper_opset_11": _one(
        "MaxPool", 1, 8, 9, 10, opset=11, kernel_shape=[2, 2], strides=[2, 2],
        auto_pad="SAME_UPPER",
    ),
    "max_pool_of_three_dimensions": _one(
        "MaxPool", 1, 5, 7, 9, 8, kernel_shape=[3, 2, 3], strides=[2, 2, 1], pads=[1, 0, 1, 1, 1, 0]
    ),
    "average_pool_of_three_dimensions": _one(
        "AveragePool", 2, 3, 6, 8, 10, kernel_shape=[2, 3, 2], strides=[2, 1, 2]
    ),
    "average_pool_excluding_pad": _one(
        "AveragePool", 1, 17, 9, 9, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    ),
    "average_pool_including_pad": _one(
        "AveragePool", 1, 33, 8, 8, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    ),
    "average_pool_uneven": _one("AveragePool", 1, 5, 11, 7, kernel_shape=[4, 2], strides=[3, 2]),
    "global_average_pool": _one("GlobalAveragePool", 2, 33, 7, 7),
    "global_max_pool": _one("GlobalMaxPool", 1, 17, 7, 5),
    "reduce_mean_places": _one("ReduceMean", 1, 33, 7, 7, axes=[2, 3], keepdims=0),
    "reduce_mean_channels_opset_11": _one("ReduceMean", 1, 17, 6, 5, opset=11, axes=[1]),
    "reduce_sum_opset_13": _one(
        "ReduceSum", 2, 5, 6, 7, opset=13, constants=(np.array([2], np.int64),), keepdims=0
    ),
    "reduce_max": _one("ReduceMax", 1, 17, 5, 6, axes=[3]),
}  # fmt: skip


def _resize(*shape: int, scales: list[float] | None = None, sizes: list[int] | None = None,
            opset: int = 13, **attributes: object) -> Model:  # fmt: skip
    last = np.array(scales, np.float32) if scales else np.array(sizes, np.int64)
    # Opset 11 requires the region of interest, which only tf_crop_and_resize reads.
    region = np.zeros(0, np.float32) if opset < 13 else ""
    constants = (region, last) if scales else (region, np.zeros(0, np.float32), last)
    if sizes and opset >= 13:
        constants = (region, "", last)
    return _one("Resize", *shape, opset=opset, constants=constants, **attributes)


NEAREST = {
    "mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor",
}  # fmt: skip
LINEAR = {"mode": "linear"}
MODELS |= {
    "resize_nearest_2": _resize(1, 17, 7, 5, scales=[1, 1, 2, 2], **NEAREST),
    "resize_nearest_2_opset_11": _resize(1, 5, 7, 5, scales=[1, 1, 2, 2], opset=11, **NEAREST),
    "resize_nearest_3_by_2_batch_2": _resize(2, 33, 4, 5, scales=[1, 1, 3, 2], **NEAREST),
    "resize_nearest_to_odd_sizes": _resize(1, 5, 6, 7, sizes=[1, 5, 13, 15], **NEAREST),
    "resize_nearest_half_pixel": _resize(
        1, 5, 6, 6, scales=[1, 1, 2, 2], mode="nearest", nearest_mode="round_prefer_floor"
    ),
    "resize_linear_half_pixel": _resize(1, 17, 7, 5, scales=[1, 1, 2, 2], **LINEAR),
    "resize_linear_align_corners": _resize(
        1, 17, 7, 5, sizes=[1, 17, 14, 11], coordinate_transformation_mode="align_corners",
        **LINEAR,
    ),
    "resize_linear_pytorch_opset_11": _resize(
        1, 5, 7, 5, sizes=[1, 5, 15, 9], opset=11,
        coordinate_transformation_mode="pytorch_half_pixel", **LINEAR,
    ),
    "resize_linear_asymmetric": _resize(
        2, 8, 6, 6, scales=[1, 1, 2, 3], coordinate_transformation_mode="asymmetric", **LINEAR
    ),
    "resize_linear_smaller": _resize(1, 16, 12, 14, scales=[1, 1, 0.5, 0.5], **LINEAR),
}  # fmt: skip

POINTWISE = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.1}),
    "elu": ("Elu", {}),
    "selu": ("Selu", {}),
    "sigmoid": ("Sigmoid", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_swish": ("HardSwish", {}),
    "tanh": ("Tanh", {}),
    "softplus": ("Softplus", {}),
    "erf": ("Erf", {}),
    "exp": ("Exp", {}),
    "abs": ("Abs", {}),
    "neg": ("Neg", {}),
    "identity": ("Identity", {}),
}
MODELS |= {
    f"pointwise_{name}": _one(op, 1, 17, 5, 7, **attributes)
    for name, (op, attributes) in POINTWISE.items()
}


def _scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


_CHANNELS = np.linspace(-1, 2, 17, dtype=np.float32).reshape(1, 17, 1, 1)
MODELS |= {
    "clip_both": _one("Clip", 1, 17, 5, 7, constants=(_scalar(-0.3), _scalar(0.6))),
    "clip_above_opset_11": _one("Clip", 1, 5, 5, 7, opset=11, constants=("", _scalar(0.6))),
    "clip_below_opset_13": _one("Clip", 1, 5, 5, 7, opset=13, constants=(_scalar(-0.1),)),
    "prelu_of_channels": _one("PRelu", 1, 17, 5, 7, constants=(_CHANNELS[0],)),
    "add_scalar": _one("Add", 1, 17, 5, 7, constants=(_scalar(0.25),)),
    "mul_channels": _one("Mul", 2, 17, 5, 7, constants=(_CHANNELS,)),
    "sub_channels": _one("Sub", 1, 17, 5, 7, constants=(_CHANNELS,)),
    "div_scalar": _one("Div", 1, 17, 5, 7, constants=(_scalar(6),)),
    "pow_2": _one("Pow", 1, 17, 5, 7, constants=(_scalar(2),)),
    "softmax_rows": _one("Softmax", 3, 1000),
    "softmax_channels": _one("Softmax", 1, 17, 5, 7, axis=1),
    "softmax_last_of_four": _one("Softmax", 2, 5, 6, 7, opset=13, axis=-1),
    # Up to opset 12 all axes from this one on are normalized together.
    "softmax_opset_11": _one("Softmax", 2, 5, 6, 7, opset=11, axis=1),
    "log_softmax": _one("LogSoftmax", 2, 33),
    "lrn": _one("LRN", 1, 17, 6, 5, size=5, alpha=0.01, beta=0.75, bias=1.0),
    "transpose_to_nhwc": _one("Transpose", 1, 17, 5, 7, perm=[0, 2, 3, 1]),
    "flatten": _one("Flatten", 2, 5, 6, 7),
    "reshape_with_zero_and_minus_one": _one(
        "Reshape", 2, 6, 5, 7, constants=(np.array([0, -1, 35], np.int64),)
    ),
    "squeeze_opset_11": _one("Squeeze", 1, 17, 1, 1, opset=11, axes=[2, 3]),
    "squeeze_opset_13": _one(
        "Squeeze", 1, 17, 1, 1, opset=13, constants=(np.array([2, 3], np.int64),)
    ),
    "unsqueeze_opset_11": _one("Unsqueeze", 2, 17, opset=11, axes=[2, 3]),
    "depth_to_space_dcr": _one("DepthToSpace", 1, 20, 5, 4, blocksize=2),
    "depth_to_space_crd": _one("DepthToSpace", 2, 12, 5, 4, blocksize=2, mode="CRD"),
    "space_to_depth": _one("SpaceToDepth", 1, 5, 6, 8, blocksize=2),
    "pad_zeros": _one("Pad", 1, 5, 6, 7, constants=(np.array([0, 0, 1, 2, 0, 0, 2, 0], np.int64),)),
    "pad_value": _one(
        "Pad", 1, 5, 6, 7,
        constants=(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), _scalar(-1.5)),
    ),
    "pad_reflect": _one(
        "Pad", 1, 5, 6, 7, constants=(np.array([0, 0, 1, 2, 0, 0, 2, 1], np.int64),),
        mode="reflect",
    ),
    "slice_steps": _one(
        "Slice", 1, 17, 9, 8,
        constants=tuple(np.array(v, np.int64) for v in ([1, 0], [16, 8], [1, 2], [3, 2])),
    ),
    "dropout_opset_11": _one("Dropout", 1, 17, 5, 7, opset=11, ratio=0.5),
    "dropout_opset_13": _one("Dropout", 1, 17, 5, 7, opset=13),
}  # fmt: skip


def batch_norm_alone() -> onnx.ModelProto:
    """Normalization that cannot be folded."""
    net = Net()
    return net.build(net.batch_norm(net.input(2, 33, 5, 7), 33))


def instance_norm() -> onnx.ModelProto:
    """Normalization by the statistics of each image."""
    net = Net()
    x = net.input(2, 5, 6, 7)
    return net.build(net.op("InstanceNormalization", x, net.vector(5, 0.8, 1.2), net.vector(5)))


def gemm_transposed() -> onnx.ModelProto:
    """alpha, beta and a transposed weight."""
    net = Net()
    x, weight, bias = net.input(3, 33), net.weight(17, 33), net.vector(17)
    return net.build(net.op("Gemm", x, weight, bias, transB=1, alpha=0.5, beta=2.0))


def gemm_plain() -> onnx.ModelProto:
    """A weight as it stands and no bias."""
    net = Net(opset=11)
    return net.build(net.op("Gemm", net.input(1, 33), net.weight(33, 10)))


def matmul_bias() -> onnx.ModelProto:
    """How TensorFlow exports a fully connected layer."""
    net = Net()
    x = net.op("MatMul", net.input(2, 33), net.weight(33, 17))
    return net.build(net.op("Add", x, net.vector(17)))


def matmul_of_activations() -> onnx.ModelProto:
    """Neither operand is constant, as in attention."""
    net = Net()
    a, b = net.input(2, 3, 9, 16, name="a"), net.input(2, 3, 16, 7, name="b")
    return net.build(net.op("MatMul", a, b))


def split_uneven_opset_11() -> onnx.ModelProto:
    """Parts of 5, 17 and 11 channels, each an output."""
    net = Net(opset=11)
    x = net.input(1, 33, 5, 5)
    return net.build(*net.node("Split", x, outputs=3, axis=1, split=[5, 17, 11]))


def split_uneven_opset_13() -> onnx.ModelProto:
    """The same with the sizes as an input."""
    net = Net(opset=13)
    sizes = net.constant([5, 17, 11], np.int64)
    return net.build(*net.node("Split", net.input(1, 33, 5, 5), sizes, outputs=3, axis=1))


def concat_uneven() -> onnx.ModelProto:
    """Channels 5, 17 and 33 from three inputs."""
    net = Net()
    parts = [net.input(2, channels, 5, 7, name=f"x{channels}") for channels in (5, 17, 33)]
    return net.build(net.op("Concat", *parts, axis=1))


def concat_rows() -> onnx.ModelProto:
    """Along the height."""
    net = Net()
    parts = [net.input(1, 17, rows, 7, name=f"x{rows}") for rows in (2, 5)]
    return net.build(net.op("Concat", *parts, axis=2))


MODELS |= {
    function.__name__: function
    for function in (
        batch_norm_alone,
        instance_norm,
        gemm_transposed,
        gemm_plain,
        matmul_bias,
        matmul_of_activations,
        split_uneven_opset_11,
        split_uneven_opset_13,
        concat_uneven,
        concat_rows,
    )
}

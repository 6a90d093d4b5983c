"""Small models of several operators in company, as real networks put them together.

``MODELS`` maps a name to the function that builds the model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from operator_net import Model, Net

SAME = {"pads": [1, 1, 1, 1]}
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def conv_norm_relu() -> onnx.ModelProto:
    """The normalization folds into a convolution with its own bias."""
    net = Net()
    x = net.conv(net.input(1, 5, 13, 11), 17, 5, 3, 3, **SAME)
    return net.build(net.op("Relu", net.batch_norm(x, 17)))


def norm_relu_conv() -> onnx.ModelProto:
    """The normalization comes first and cannot be folded: padding would differ."""
    net = Net()
    x = net.op("Relu", net.batch_norm(net.input(2, 17, 9, 9), 17))
    return net.build(net.conv(x, 33, 17, 3, 3, **SAME))


def norm_after_depthwise_and_transposed() -> onnx.ModelProto:
    """Weights whose output channels are on other axes."""
    net = Net()
    x = net.conv(net.input(1, 6, 9, 9), 12, 6, 3, 3, group=6, bias=False, **SAME)
    x = net.batch_norm(x, 12)
    x = net.op("ConvTranspose", x, net.weight(12, 5, 2, 2), group=1, strides=[2, 2])
    return net.build(net.batch_norm(x, 5))


def norm_read_twice() -> onnx.ModelProto:
    """The convolution's result is also a network output, so the normalization cannot be folded."""
    net = Net()
    x = net.conv(net.input(1, 5, 7, 7), 17, 5, 3, 3)
    return net.build(x, net.op("Relu", net.batch_norm(x, 17)))


def residual_of_two_convolutions() -> onnx.ModelProto:
    """Both operands of the sum are new values."""
    net = Net()
    x = net.input(2, 17, 9, 7)
    left = net.conv(x, 33, 17, 3, 3, strides=[2, 2], **SAME)
    right = net.conv(x, 33, 17, 1, 1, strides=[2, 2])
    return net.build(net.op("Relu", net.op("Add", left, right)))


def residual_onto_itself() -> onnx.ModelProto:
    """x + x, and x read by three operators."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 5, 6, 6), 5, 5, 1, 1))
    doubled = net.op("Add", x, x)
    return net.build(net.op("Mul", doubled, net.op("Sigmoid", x)))


def shared_weight() -> onnx.ModelProto:
    """One weight, two convolutions."""
    net = Net()
    weight = net.weight(17, 17, 3, 3)
    x = net.op("Relu", net.op("Conv", net.input(1, 17, 8, 8), weight, **SAME))
    return net.build(net.op("Conv", x, weight, **SAME))


def weight_from_constant_nodes() -> onnx.ModelProto:
    """Constants as nodes and through an Identity, as some exporters write them."""
    net = Net()
    values = np.random.default_rng(1).standard_normal((17, 5, 3, 3)).astype(np.float32)
    weight = net.op("Constant", value=onnx.numpy_helper.from_array(values / 6))
    bias = net.op("Identity", net.vector(17))
    return net.build(net.op("Conv", net.input(1, 5, 8, 8), weight, bias, **SAME))


def pad_then_conv() -> onnx.ModelProto:
    """Padding as an operator of its own (TensorFlow, Caffe)."""
    net = Net(opset=13)
    pads = net.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
    x = net.op("Pad", net.input(1, 5, 14, 14), pads)
    return net.build(net.conv(x, 17, 5, 3, 3, strides=[2, 2]))


def _excited(opset: int, batch: int, channels: int, gate: Callable[[Net, str], str]) -> Model:
    def build() -> onnx.ModelProto:
        net = Net(opset)
        x = net.input(batch, channels, 7, 9)
        x = net.op("Relu", net.conv(x, channels, channels, 3, 3, group=channels, **SAME))
        y = net.op("GlobalAveragePool", x)
        y = net.op("Relu", net.conv(y, 5, channels, 1, 1))
        y = gate(net, net.conv(y, channels, 5, 1, 1))
        return net.build(net.conv(net.op("Mul", y, x), 24, channels, 1, 1))

    return build


def excitation_by_products() -> onnx.ModelProto:
    """Squeeze and excite through fully connected layers and a reshape."""
    net = Net()
    x = net.conv(net.input(2, 17, 7, 7), 33, 17, 1, 1)
    y = net.op("Flatten", net.op("GlobalAveragePool", x))
    y = net.op("Relu", net.op("Gemm", y, net.weight(8, 33), net.vector(8), transB=1))
    y = net.op("Sigmoid", net.op("Gemm", y, net.weight(33, 8), net.vector(33), transB=1))
    y = net.op("Reshape", y, net.constant([2, 33, 1, 1], np.int64))
    return net.build(net.op("Mul", x, y))


def _hard_sigmoid_in_parts(net: Net, x: str) -> str:
    shifted = net.op("Add", x, net.constant(3, np.float32))
    bounds = net.constant(0, np.float32), net.constant(6, np.float32)
    return net.op("Div", net.op("Clip", shifted, *bounds), net.constant(6, np.float32))


def hard_swish_in_parts_opset_11() -> onnx.ModelProto:
    """x · relu6(x + 3) / 6 before there was an operator for it."""
    net = Net(opset=11)
    x = net.conv(net.input(1, 5, 9, 9), 17, 5, 3, 3, **SAME)
    return net.build(net.op("Mul", x, _hard_sigmoid_in_parts(net, x)))


def silu_gelu_mish() -> onnx.ModelProto:
    """Smooth activations as exporters write them, one after the other."""
    net = Net()
    x = net.conv(net.input(1, 5, 6, 7), 17, 5, 1, 1)
    x = net.op("Mul", x, net.op("Sigmoid", x))
    scaled = net.op("Div", x, net.constant(2**0.5, np.float32))
    gate = net.op("Add", net.op("Erf", scaled), net.constant(1, np.float32))
    x = net.op("Mul", net.op("Mul", x, gate), net.constant(0.5, np.float32))
    return net.build(net.op("Mul", x, net.op("Tanh", net.op("Softplus", x))))


def _shuffled(opset: int, batch: int, channels: int, groups: int) -> Model:
    def build() -> onnx.ModelProto:
        net = Net(opset)
        x = net.input(batch, channels, 5, 7)
        x = net.conv(x, channels, channels, 1, 1, group=groups)
        split = net.constant([batch, groups, channels // groups, 5, 7], np.int64)
        x = net.op("Transpose", net.op("Reshape", x, split), perm=[0, 2, 1, 3, 4])
        x = net.op("Reshape", x, net.constant([batch, channels, 5, 7], np.int64))
        return net.build(net.conv(x, channels, channels, 3, 3, group=channels, **SAME))

    return build


def shuffle_unit() -> onnx.ModelProto:
    """One half passes through, one half is convolved; halves of 17 channels."""
    net = Net(opset=13)
    x = net.op("Relu", net.conv(net.input(1, 5, 9, 9), 34, 5, 3, 3, **SAME))
    kept, y = net.node("Split", x, net.constant([17, 17], np.int64), outputs=2, axis=1)
    y = net.op("Relu", net.conv(y, 17, 17, 1, 1))
    y = net.conv(y, 17, 17, 3, 3, group=17, **SAME)
    x = net.op("Concat", kept, y, axis=1)
    x = net.op("Reshape", x, net.constant([1, 2, 17, 9, 9], np.int64))
    x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return net.build(net.op("Reshape", x, net.constant([1, 34, 9, 9], np.int64)))


def dense_block() -> onnx.ModelProto:
    """Every layer reads all previous ones; concatenations grow by 5 channels."""
    net = Net()
    features, channels = [net.input(1, 17, 7, 7)], 17
    for _ in range(3):
        x = net.op("Concat", *features, axis=1) if len(features) > 1 else features[0]
        x = net.op("Relu", net.batch_norm(x, channels))
        features.append(net.conv(x, 5, channels, 3, 3, bias=False, **SAME))
        channels += 5
    return net.build(net.op("Concat", *features, axis=1))


def inception_module() -> onnx.ModelProto:
    """Four branches with different channels and kernels, one of them pooled."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(2, 3, 17, 17), 17, 3, 3, 3, strides=[2, 2]))
    wide = net.conv(net.op("Relu", net.conv(x, 6, 17, 1, 1)), 33, 6, 1, 7, pads=[0, 3, 0, 3])
    tall = net.conv(net.op("Relu", net.conv(x, 7, 17, 1, 1)), 12, 7, 7, 1, pads=[3, 0, 3, 0])
    pool = net.op("AveragePool", x, kernel_shape=[3, 3], count_include_pad=1, **SAME)
    parts = [net.conv(x, 5, 17, 1, 1), wide, tall, net.conv(pool, 16, 17, 1, 1)]
    return net.build(net.op("Concat", *[net.op("Relu", part) for part in parts], axis=1))


def dilated_branches() -> onnx.ModelProto:
    """As in DeepLab: the same map with several dilations and its resized mean."""
    net = Net(opset=13)
    x = net.op("Relu", net.conv(net.input(1, 5, 13, 15), 17, 5, 3, 3, **SAME))
    parts = [net.conv(x, 8, 17, 1, 1)]
    for rate in (2, 4):
        parts.append(net.conv(x, 8, 17, 3, 3, dilations=[rate] * 2, pads=[rate] * 4))
    mean = net.conv(net.op("GlobalAveragePool", x), 8, 17, 1, 1)
    scales = net.constant([1, 1, 13, 15], np.float32)
    parts.append(net.op("Resize", mean, "", scales, mode="linear"))
    return net.build(net.conv(net.op("Concat", *parts, axis=1), 21, 32, 1, 1))


def encoder_decoder() -> onnx.ModelProto:
    """As in U-Net, with a sum of odd extents that match only after padding."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 22, 18), 9, 3, 3, 3, **SAME))
    y = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Relu", net.conv(y, 17, 9, 3, 3, **SAME))
    weight, bias = net.weight(17, 9, 2, 2), net.vector(9)
    y = net.op("ConvTranspose", y, weight, bias, strides=[2, 2])
    y = net.op("Relu", net.conv(net.op("Concat", x, y, axis=1), 9, 18, 3, 3, **SAME))
    return net.build(net.op("Softmax", net.conv(y, 4, 9, 1, 1), axis=1))


def pyramid_of_outputs() -> onnx.ModelProto:
    """Three outputs of different extents, from coarse to fine."""
    net = Net(opset=11)
    fine = net.op("Relu", net.conv(net.input(1, 3, 24, 20), 8, 3, 3, 3, strides=[2, 2], **SAME))
    middle = net.op("Relu", net.conv(fine, 17, 8, 3, 3, strides=[2, 2], **SAME))
    coarse = net.op("Relu", net.conv(middle, 33, 17, 3, 3, strides=[2, 2], **SAME))
    top = net.conv(coarse, 5, 33, 1, 1)
    outputs, extents = [top], [(6, 5), (12, 10)]
    for lateral, channels, (high, wide) in zip((middle, fine), (17, 8), extents, strict=True):
        empty = net.constant([], np.float32)
        sizes = net.constant([1, 5, high, wide], np.int64)
        nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        top = net.op("Resize", top, empty, empty, sizes, mode="nearest", **nearest)
        top = net.op("Add", top, net.conv(lateral, 5, channels, 1, 1))
        outputs.append(top)
    return net.build(*outputs)


def two_inputs_two_outputs() -> onnx.ModelProto:
    """Inputs of different extents; one output is also read by a later operator."""
    net = Net()
    image, depth = net.input(1, 3, 16, 16, name="image"), net.input(1, 1, 8, 8, name="depth")
    x = net.op("Relu", net.conv(image, 12, 3, 3, 3, strides=[2, 2], **SAME))
    y = net.op("Relu", net.conv(depth, 5, 1, 3, 3, **SAME))
    joined = net.op("Concat", x, y, axis=1)
    vector = net.op("Flatten", net.op("GlobalAveragePool", joined))
    logits = net.op("Gemm", vector, net.weight(10, 17), net.vector(10), transB=1)
    return net.build(joined, logits)


def input_read_late() -> onnx.ModelProto:
    """The second input and an early result skip several operators before they are read."""
    net = Net()
    x, late = net.input(1, 5, 9, 9, name="x"), net.input(1, 5, 9, 9, name="late")
    first = net.op("Relu", net.conv(x, 5, 5, 3, 3, **SAME))
    y = first
    for _ in range(3):
        y = net.op("Relu", net.conv(y, 5, 5, 3, 3, **SAME))
    y = net.op("Add", net.op("Add", y, late), first)
    return net.build(net.conv(y, 17, 5, 1, 1))


def classifier_opset_11() -> onnx.ModelProto:
    """Flatten, two layers and a softmax with the old semantics."""
    net = Net(opset=11)
    x = net.op("Relu", net.conv(net.input(3, 3, 9, 9), 5, 3, 3, 3, strides=[2, 2]))
    x = net.op("Relu", net.op("Gemm", net.op("Flatten", x), net.weight(80, 33), net.vector(33)))
    return net.build(net.op("Softmax", net.op("Gemm", x, net.weight(33, 10), net.vector(10))))


def channels_last_inside() -> onnx.ModelProto:
    """As TensorFlow exports: NHWC outside, NCHW around the convolution."""
    net = Net()
    x = net.op("Transpose", net.input(1, 9, 11, 5), perm=[0, 3, 1, 2])
    x = net.op("Relu", net.conv(x, 17, 5, 3, 3, **SAME))
    x = net.op("Transpose", x, perm=[0, 2, 3, 1])
    return net.build(net.op("Add", x, net.vector(17)))


def spectrogram() -> onnx.ModelProto:
    """Energies of long windows, their logarithms, and back to samples."""
    net = Net()
    x = net.input(1, 1, 1600)
    parts = [net.conv(x, 17, 1, 400, bias=False, strides=[80], pads=[200, 199]) for _ in "ri"]
    squares = [net.op("Pow", part, net.constant(2, np.int64)) for part in parts]
    energy = net.op("Add", net.op("Add", *squares), net.constant(0.01, np.float32))
    y = net.op("Relu", net.conv(net.op("Log", energy), 16, 17, 3, pads=[1, 1]))
    back = net.op("ConvTranspose", y, net.weight(16, 1, 160), strides=[80], pads=[40, 40])
    return net.build(back, net.op("AveragePool", y, kernel_shape=[3], pads=[1, 1]))


def segmentation_with_unpooling() -> onnx.ModelProto:
    """Indices of maxima skip the middle, as in SegNet."""
    net = Net(opset=13)
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    x = net.conv(net.input(1, 3, 12, 16), 8, 3, 3, 3, **SAME)
    pooled, places = net.node("MaxPool", x, outputs=2, **window)
    x = net.op("MaxUnpool", net.conv(pooled, 8, 8, 3, 3, **SAME), places, **window)
    return net.build(net.conv(x, 2, 8, 3, 3, **SAME))


def masked() -> onnx.ModelProto:
    """Booleans between stages, and integer arithmetic."""
    net = Net()
    x = net.conv(net.input(1, 3, 9, 11), 18, 3, 3, 3, **SAME)
    large = net.op("Greater", x, net.constant(0.1, np.float32))
    small = net.op("Not", net.op("Less", x, net.constant(-0.4, np.float32)))
    kept = net.op("And", large, small)
    chosen = net.op("Where", kept, net.op("Sin", x), net.vector(11))
    level = net.op("Cast", net.op("Mul", x, net.constant(8.0, np.float32)), to=INT64)
    level = net.op("Mod", level, net.constant(5, np.int64))
    level = net.op("Cast", level, to=FLOAT)
    return net.build(net.op("Add", chosen, level), net.op("Cast", kept, to=FLOAT))


def detections() -> onnx.ModelProto:
    """The best pixels, their boxes, and class labels from a table."""
    net = Net()
    x = net.input(1, 5, 6, 7)
    scores = net.op("Reshape", net.conv(x, 4, 5, 1, 1), net.constant([1, 4, 42]))
    boxes = net.op("Reshape", net.conv(x, 4, 5, 1, 1), net.constant([1, 4, 42]))
    best, places = net.node("TopK", scores, net.constant([6]), outputs=2, axis=2)
    picked = net.op("GatherElements", boxes, places, axis=2)
    classes = net.op("ArgMax", scores, axis=1, keepdims=0)
    words = net.op("Gather", net.weight(4, 8), classes)
    sums = net.op("CumSum", picked, net.constant(2, np.int64))
    marked = net.op("ScatterElements", boxes, places, best, axis=2)
    return net.build(best, sums, words, net.op("ReduceLogSumExp", marked, axes=[1]))


def bounds_from_the_data() -> onnx.ModelProto:
    """A convolution followed by a fallback; 0-d scalars; one of two outputs of an operator."""
    net = Net()
    x = net.input(1, 5, 7, 9)
    y = net.op("Pow", net.conv(x, 18, 5, 3, 3, **SAME), net.constant(5, np.int64))
    low = net.op("ReduceMin", y, keepdims=0)
    low = net.op("Mul", low, net.constant(0.5, np.float32))
    y = net.op("Clip", net.conv(y, 18, 18, 1, 1), low)
    flat = net.op("Flatten", net.op("Add", net.op("Cosh", net.op("Tanh", y)), y))
    best, _ = net.node("TopK", flat, net.constant([7]), outputs=2)
    return net.build(y, net.op("Div", best, net.op("ReduceL2", best, axes=[1])))


MODELS: dict[str, Model] = {
    "excitation_sigmoid": _excited(17, 1, 33, lambda net, x: net.op("Sigmoid", x)),
    "excitation_hard_sigmoid_opset_11": _excited(
        11, 2, 17, lambda net, x: net.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    ),
    "excitation_in_parts_opset_13": _excited(13, 3, 17, _hard_sigmoid_in_parts),
    "shuffle_2_groups": _shuffled(17, 1, 34, 2),
    "shuffle_3_groups_batch_2_opset_11": _shuffled(11, 2, 33, 3),
    **{
        function.__name__: function
        for function in (
            bounds_from_the_data,
            channels_last_inside,
            classifier_opset_11,
            conv_norm_relu,
            dense_block,
            detections,
            dilated_branches,
            encoder_decoder,
            excitation_by_products,
            hard_swish_in_parts_opset_11,
            inception_module,
            input_read_late,
            norm_after_depthwise_and_transposed,
            norm_read_twice,
            norm_relu_conv,
            masked,
            pad_then_conv,
            pyramid_of_outputs,
            residual_of_two_convolutions,
            residual_onto_itself,
            segmentation_with_unpooling,
            shared_weight,
            shuffle_unit,
            silu_gelu_mish,
            spectrogram,
            two_inputs_two_outputs,
            weight_from_constant_nodes,
        )
    },
}

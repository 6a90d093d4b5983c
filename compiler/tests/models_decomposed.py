"""Small models of operators that are decomposed before lowering."""

from __future__ import annotations

import numpy as np
import onnx

from operator_net import Model, Net

MODELS: dict[str, Model] = {}
# ONNX Runtime has no kernel for these in this version.
REFERENCE: dict[str, Model] = {}


def _one(
    op: str,
    *shape: int,
    opset: int = 20,
    constants: tuple[np.ndarray, ...] = (),
    **attributes: object,
) -> Model:
    """An operator between two others, so that its shape matters."""

    def build() -> onnx.ModelProto:
        net = Net(opset)
        x = net.op("Relu", net.input(*shape))
        y = net.op(op, x, *(net.constant(array) for array in constants), **attributes)
        return net.build(net.op("Neg", y))

    return build


def _whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _bare(net: Net, output: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A model whose shapes ONNX cannot infer."""
    kind = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(output, kind, shape)]
    graph = onnx.helper.make_graph(net._nodes, "bare", net._inputs, ends, net._constants)
    opset = onnx.helper.make_opsetid("", net._opset)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def mean_variance_normalization() -> onnx.ModelProto:
    """Over batch and image, the default axes."""
    net = Net(13)
    x = net.op("MeanVarianceNormalization", net.op("Relu", net.input(2, 5, 6, 7)))
    return _bare(net, net.op("Neg", x), (2, 5, 6, 7))


def _group_norm(opset: int, channels: int, groups: int, per: int, **attributes: object) -> Model:
    def build() -> onnx.ModelProto:
        net = Net(opset)
        x = net.op("Relu", net.input(2, channels, 5, 7))
        scale, bias = net.vector(per, 0.5, 2.0), net.vector(per)
        y = net.op("GroupNormalization", x, scale, bias, num_groups=groups, **attributes)
        return _bare(net, net.op("Gelu" if opset >= 20 else "Tanh", y), (2, channels, 5, 7))

    return build


MODELS |= {
    "group_norm_opset_21": _group_norm(21, 12, 3, 12),
    "group_norm_opset_21_epsilon": _group_norm(21, 4, 4, 4, epsilon=0.1),
    "group_norm_opset_22_one_group": _group_norm(22, 6, 1, 6),
    "lp_normalization_2": _one("LpNormalization", 3, 33, axis=1, p=2),
    "lp_normalization_1": _one("LpNormalization", 2, 5, 4, 3, opset=11, axis=1, p=1),
    "lp_normalization_last": _one("LpNormalization", 2, 5, 4, 3, opset=7),
    "mean_variance_normalization": mean_variance_normalization,
    "mean_variance_normalization_9": _one("MeanVarianceNormalization", 2, 5, 6, 7, opset=9, axes=[2, -1]),
    "center_crop": _one("CenterCropPad", 1, 3, 10, 11, constants=(_whole(7, 4),), axes=[2, 3]),
    "center_pad": _one("CenterCropPad", 1, 3, 5, 6, constants=(_whole(8, 9),), axes=[-1, 2]),
    "center_crop_and_pad": _one("CenterCropPad", 2, 4, 5, constants=(_whole(3, 3, 8),), opset=18),
    "pow_of_whole_exponents": _one("Pow", 2, 4, 3, constants=(_whole(1, 2, 3),), opset=13),
    "pow_of_one_whole_exponent": _one("Pow", 2, 4, 3, constants=(np.array(3, np.int32),)),
    "col2im": _one("Col2Im", 1, 4, 9, constants=(_whole(4, 4), _whole(2, 2))),
    "col2im_strided": _one(
        "Col2Im", 2, 18, 6, constants=(_whole(7, 6), _whole(3, 2)), strides=[2, 3],
        pads=[1, 0, 0, 1], dilations=[1, 2],
    ),
    "col2im_apart": _one("Col2Im", 1, 12, 4, constants=(_whole(7, 7), _whole(2, 2)), strides=[4, 4]),
    "reverse_sequence": _one(
        "ReverseSequence", 4, 3, 5, constants=(_whole(4, 2, 3),), time_axis=0, batch_axis=1
    ),
    "reverse_sequence_whole": _one(
        "ReverseSequence", 2, 6, 5, constants=(_whole(6, 6),), time_axis=1, batch_axis=0
    ),
}  # fmt: skip
REFERENCE |= {"group_norm_opset_18": _group_norm(18, 12, 3, 3)}


def _einsum(equation: str, *shapes: tuple[int, ...], opset: int = 14, fixed: int = -1) -> Model:
    """Operand ``fixed`` is constant."""

    def build() -> onnx.ModelProto:
        net = Net(opset)
        values = [
            net.weight(*shape) if place == fixed else net.input(*shape, name=f"x{place}")
            for place, shape in enumerate(shapes)
        ]
        return net.build(net.op("Einsum", *values, equation=equation))

    return build


for _number, (_equation, _shapes) in enumerate(
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bhij, bhjd -> bihd", [(2, 3, 4, 6), (2, 3, 6, 5)]),
        ("nctw,cd->ndtw", [(2, 3, 4, 5), (3, 7)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (2, 5, 4, 6)]),
        ("ij,kl->ijkl", [(2, 3), (4, 5)]),
        ("bij,bij->b", [(2, 3, 4), (2, 3, 4)]),
        ("i,i", [(7,), (7,)]),
        ("ij->ji", [(3, 4)]),
        ("ijk->j", [(3, 4, 5)]),
        ("bii->bi", [(2, 4, 4)]),
        ("ii", [(4, 4)]),
        ("ab,bc,cd->da", [(2, 3), (3, 4), (4, 5)]),
        ("ij,jk", [(3, 4), (4, 5)]),
        ("bchw,bkhw->bck", [(2, 3, 4, 5), (2, 6, 4, 5)]),
        ("abc,ac->cab", [(2, 3, 4), (2, 4)]),
        ("...j,j->...", [(2, 3, 4), (4,)]),
    ]
):
    MODELS[f"einsum_{_number}"] = _einsum(_equation, *_shapes, fixed=1 if _number % 3 == 0 else -1)


def _transposed(*shape: int, kernel: tuple[int, ...], made: int = 4, **attributes: object) -> Model:
    def build() -> onnx.ModelProto:
        net = Net()
        weight, bias = net.weight(shape[1], made, *kernel), net.vector(made)
        return net.build(net.op("ConvTranspose", net.input(*shape), weight, bias, **attributes))

    return build


for _pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    MODELS |= {
        f"transposed_{_pad.lower()}": _transposed(
            1, 3, 5, 6, kernel=(3, 4), strides=[2, 2], auto_pad=_pad
        ),
        f"transposed_{_pad.lower()}_stride_1": _transposed(1, 3, 5, 6, kernel=(4, 3), auto_pad=_pad),
        f"conv_3d_{_pad.lower()}": _one(
            "Conv", 1, 2, 5, 6, 7, constants=(np.random.default_rng(1).standard_normal(
                (3, 2, 3, 2, 4)).astype(np.float32),), strides=[2, 1, 2], auto_pad=_pad,
        ),
        f"conv_1d_{_pad.lower()}": _one(
            "Conv", 1, 2, 11, constants=(np.random.default_rng(1).standard_normal(
                (3, 2, 4)).astype(np.float32),), strides=[2], auto_pad=_pad,
        ),
        f"max_pool_1d_{_pad.lower()}": _one(
            "MaxPool", 1, 2, 11, kernel_shape=[4], strides=[3], auto_pad=_pad
        ),
        f"average_pool_{_pad.lower()}": _one(
            "AveragePool", 1, 2, 11, 8, kernel_shape=[4, 3], strides=[3, 2], auto_pad=_pad
        ),
        f"average_pool_counting_{_pad.lower()}": _one(
            "AveragePool", 1, 2, 11, 8, kernel_shape=[4, 3], strides=[3, 2], auto_pad=_pad,
            count_include_pad=1,
        ),
        f"max_pool_3d_{_pad.lower()}": _one(
            "MaxPool", 1, 2, 7, 8, 6, kernel_shape=[2, 3, 4], strides=[3, 2, 1], auto_pad=_pad
        ),
        f"lp_pool_{_pad.lower()}": _one(
            "LpPool", 1, 2, 11, 8, kernel_shape=[4, 3], strides=[3, 2], auto_pad=_pad
        ),
    }  # fmt: skip
MODELS |= {
    "transposed_output_shape": _transposed(
        1, 3, 5, 6, kernel=(3, 3), strides=[2, 2], output_shape=[10, 12]
    ),
    "transposed_output_shape_upper": _transposed(
        1, 3, 5, 6, kernel=(3, 3), strides=[2, 2], output_shape=[10, 12], auto_pad="SAME_UPPER"
    ),
    "transposed_output_shape_lower": _transposed(
        1, 3, 5, 6, kernel=(4, 4), strides=[3, 2], output_shape=[13, 11], auto_pad="SAME_LOWER"
    ),
    "transposed_1d_output_shape": _transposed(1, 3, 6, kernel=(3,), strides=[2], output_shape=[12]),
    "transposed_dilated_output_shape": _transposed(
        1, 3, 5, 5, kernel=(3, 2), dilations=[2, 3], strides=[2, 3], output_shape=[11, 14]
    ),
}  # fmt: skip


def _affine(*size: int, corners: int) -> Model:
    def build() -> onnx.ModelProto:
        net = Net(20)
        axes = len(size) - 2
        theta = net.input(size[0], axes, axes + 1)
        return net.build(
            net.op("AffineGrid", theta, net.constant(_whole(*size)), align_corners=corners)
        )

    return build


REFERENCE |= {
    f"affine_grid_{len(size)}d_{corners}": _affine(*size, corners=corners)
    for size in ((2, 3, 4, 5), (1, 2, 3, 4, 2))
    for corners in (0, 1)
}


def _regions(opset: int, **attributes: object) -> Model:
    """Regions that exceed the image, one smaller than a cell."""

    def build() -> onnx.ModelProto:
        net = Net(opset)
        boxes = [[1, 1, 6, 7], [0, 0, 9, 11], [-2, 3, 4, 20], [2.5, 1.2, 3.1, 8.8]]
        return net.build(
            net.op(
                "RoiAlign",
                net.op("Relu", net.input(2, 3, 12, 10)),
                net.constant(boxes, np.float32),
                net.constant(_whole(0, 1, 1, 0)),
                **attributes,
            )
        )

    return build


for _ratio in (0, 2):
    for _mode in ("avg", "max"):
        for _place in ("half_pixel", "output_half_pixel"):
            MODELS[f"regions_{_mode}_{_place}_{_ratio}"] = _regions(
                16, mode=_mode, coordinate_transformation_mode=_place, sampling_ratio=_ratio,
                output_height=3, output_width=4, spatial_scale=0.5,
            )  # fmt: skip
MODELS["regions_opset_10"] = _regions(10, output_height=2, output_width=2)


def attention() -> onnx.ModelProto:
    """The operator of opset 23: causal, two query heads per key head."""
    net = Net(23)
    query = net.input(1, 4, 5, 8, name="q")
    key, value = net.input(1, 2, 5, 8, name="k"), net.input(1, 2, 5, 6, name="v")
    return net.build(net.op("Attention", query, key, value, is_causal=1))


def rms_normalization() -> onnx.ModelProto:
    net = Net(23)
    x = net.op("Relu", net.input(2, 5, 16))
    return net.build(net.op("RMSNormalization", x, net.vector(16, 0.5, 1.5), axis=-1))


def rotary_embedding() -> onnx.ModelProto:
    net = Net(23)
    x = net.input(1, 2, 3, 8)
    cosines, sines = net.weight(1, 3, 4), net.weight(1, 3, 4)
    return net.build(net.op("RotaryEmbedding", x, cosines, sines))


def cast_like_a_value() -> onnx.ModelProto:
    """What PyTorch's exporter writes for a number in an expression."""
    net = Net(18)
    x = net.op("Relu", net.input(1, 3, 4, 4))
    number = net.op("CastLike", net.constant(3, np.int64), x)
    return net.build(net.op("Div", x, number))


MODELS |= {
    function.__name__: function
    for function in (attention, rms_normalization, rotary_embedding, cast_like_a_value)
}


def names_like_those_of_steps() -> onnx.ModelProto:
    """The network already uses the names that decomposition steps would get."""
    net = Net(13)
    x = net.input(2, 7)
    net._nodes.append(onnx.helper.make_node("Exp", [x], ["norm.step0"], "norm.reducesum1"))
    net._nodes.append(onnx.helper.make_node("LpNormalization", [x], ["norm"], "norm", axis=1))
    return net.build(net.op("Add", "norm", "norm.step0"))


MODELS["names_like_those_of_steps"] = names_like_those_of_steps

"""Small models of Resize and Upsample in their rarer forms. ONNX Runtime has no kernel for those in
``REFERENCE``; the evaluator of ONNX is the judge there."""

from __future__ import annotations

import numpy as np
import onnx

from operator_net import Model, Net

MODELS: dict[str, Model] = {}
REFERENCE: dict[str, Model] = {}


def _resize(
    *shape: int,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    region: list[float] | None = None,
    opset: int = 19,
    before: bool = False,
    **attributes: object,
) -> Model:
    """One Resize. ``before``: after a convolution, so that its input is packed."""

    def build() -> onnx.ModelProto:
        net = Net(opset)
        x = net.input(*shape)
        if before:
            x = net.op("Relu", net.conv(x, shape[1], shape[1], 1, 1))
        inputs = [x, "" if region is None else net.constant(region, np.float32)]
        if opset == 10:
            inputs.pop()
        if scales:
            inputs.append(net.constant(scales, np.float32))
        else:
            inputs += ["", net.constant(sizes, np.int64)]
        return net.build(net.op("Resize", *inputs, **attributes))

    return build


CUBIC, LINEAR, NEAREST = {"mode": "cubic"}, {"mode": "linear"}, {"mode": "nearest"}
UNEVEN = {"scales": [1, 1, 0.8, 2.3]}
CROP = {
    "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0,
    "region": [0, 0, 0.2, -0.3, 1, 1, 0.7, 1.4],
}  # fmt: skip
for _name, _how in (
    ("half_pixel", {}),
    ("align_corners", {"coordinate_transformation_mode": "align_corners"}),
    ("symmetric", {"coordinate_transformation_mode": "half_pixel_symmetric"}),
    ("crop", CROP),
):
    for _mode in (CUBIC, LINEAR, NEAREST):
        MODELS[f"resize_{_mode['mode']}_{_name}"] = _resize(1, 5, 6, 7, **UNEVEN, **_mode, **_how)
for _rounding in ("floor", "ceil", "round_prefer_ceil"):
    MODELS[f"resize_nearest_{_rounding}"] = _resize(
        1, 3, 7, 7, sizes=[1, 3, 4, 9], nearest_mode=_rounding,
        coordinate_transformation_mode="asymmetric", **NEAREST,
    )  # fmt: skip
MODELS |= {
    "resize_cubic_packed": _resize(1, 20, 6, 7, scales=[1, 1, 2, 0.7], before=True, **CUBIC),
    "resize_cubic_excluding": _resize(
        1, 3, 6, 7, sizes=[1, 3, 9, 4], exclude_outside=1, cubic_coeff_a=-0.5, **CUBIC
    ),
    "resize_cubic_opset_11": _resize(
        1, 3, 6, 7, scales=[1, 1, 2.5, 1], region=[], opset=11, **CUBIC
    ),
    "resize_linear_antialias": _resize(
        1, 17, 23, 19, sizes=[1, 17, 7, 30], antialias=1, before=True, **LINEAR
    ),
    "resize_cubic_antialias": _resize(1, 3, 40, 19, sizes=[1, 3, 4, 9], antialias=1, **CUBIC),
    "resize_cubic_antialias_excluding": _resize(
        1, 3, 16, 19, scales=[1, 1, 0.3, 0.5], antialias=1, exclude_outside=1, **CUBIC
    ),
    "resize_not_larger": _resize(
        1, 3, 6, 7, sizes=[9, 20], axes=[2, 3], keep_aspect_ratio_policy="not_larger", **LINEAR
    ),
    "resize_not_smaller": _resize(
        1, 3, 6, 7, sizes=[20, 9], axes=[3, 2], keep_aspect_ratio_policy="not_smaller", **CUBIC
    ),
    "resize_crop_of_axes": _resize(
        1, 3, 6, 7, sizes=[4, 9], axes=[3, 2], region=[0.1, 0.2, 0.9, 0.7],
        coordinate_transformation_mode="tf_crop_and_resize", **LINEAR,
    ),
    "resize_crop_to_one": _resize(
        2, 3, 6, 7, sizes=[2, 3, 1, 1], region=[0, 0, 0.1, 0.2, 1, 1, 0.9, 0.8],
        coordinate_transformation_mode="tf_crop_and_resize", **LINEAR,
    ),
    "resize_linear_rows": _resize(6, 7, scales=[2.3, 0.6], **LINEAR),
    "resize_linear_volume": _resize(1, 2, 4, 5, 6, scales=[1, 1, 2, 1.5, 0.5], **LINEAR),
    "resize_linear_channels_last": _resize(1, 5, 6, 3, scales=[1, 2, 1.5, 1], **LINEAR),
    "resize_nearest_smaller_opset_10": _resize(
        1, 3, 7, 8, scales=[1, 1, 0.4, 0.7], opset=10, **NEAREST
    ),
    "resize_linear_smaller_opset_10": _resize(
        1, 3, 7, 8, scales=[1, 1, 0.4, 1.7], opset=10, **LINEAR
    ),
    "resize_unmoved": _resize(1, 3, 4, 5, scales=[1, 1, 1.1, 1.1], **LINEAR),
}  # fmt: skip
REFERENCE |= {
    "resize_linear_sequence": _resize(1, 5, 9, scales=[1, 1, 2.5], **LINEAR),
    "resize_cubic_volume": _resize(1, 2, 4, 5, 6, scales=[1, 1, 2, 1, 1.5], **CUBIC),
    "resize_linear_all_axes": _resize(2, 3, 4, 5, scales=[2, 1.5, 1, 0.6], **LINEAR),
}


def upsample_by_attribute() -> onnx.ModelProto:
    """Opset 7."""
    net = Net(7)
    return net.build(
        net.op("Upsample", net.input(1, 3, 4, 5), mode="linear", scales=[1.0, 1.0, 2.0, 1.5])
    )


def upsample_nearest() -> onnx.ModelProto:
    """Opset 9, with a fractional scale."""
    net = Net(9)
    scales = net.constant([1.0, 1.0, 2.6, 1.5], np.float32)
    return net.build(net.op("Upsample", net.input(1, 3, 4, 5), scales, mode="nearest"))


MODELS |= {function.__name__: function for function in (upsample_by_attribute, upsample_nearest)}

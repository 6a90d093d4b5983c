"""Networks built from their published architectures with seeded weights: no download, no licence.

``build`` gives an ONNX model (opset 17, static shapes, node names as in torchvision), ``PUBLISHED``
the sizes it must have. Networks of our own (``tiny``, ``relu_1``) have no published sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher

import onnx

from ..errors import CompileError
from . import (
    densenet,
    efficientnet,
    googlenet,
    inception,
    mnasnet,
    mobilenet,
    mobilenet_v3,
    resnet,
    shufflenet,
    squeezenet,
    tiny,
    vgg,
)
from .count import Counts, count
from .published import PUBLISHED, Published

__all__ = ["PUBLISHED", "Counts", "Published", "UnknownNetwork", "build", "count", "names"]

_NETWORKS: dict[str, Callable[[int], onnx.ModelProto]] = {
    function.__name__: function
    for function in (
        densenet.densenet121,
        efficientnet.efficientnet_b0,
        googlenet.googlenet,
        inception.inception_v3,
        mnasnet.mnasnet1_0,
        mobilenet.mobilenet_v1,
        mobilenet.mobilenet_v1_025_128,
        mobilenet.mobilenet_v2,
        mobilenet_v3.mobilenet_v3_large,
        resnet.resnet18,
        resnet.resnet20,
        resnet.resnet34,
        resnet.resnet50,
        resnet.resnet101,
        shufflenet.shufflenet_v2_x1_0,
        squeezenet.squeezenet1_0,
        squeezenet.squeezenet1_1,
        tiny.relu_1,
        tiny.tiny,
        vgg.alexnet,
        vgg.vgg11,
        vgg.vgg16,
        vgg.vgg19,
    )
}


class UnknownNetwork(CompileError):
    """The zoo has no network of this name; ``nearest`` are the most similar names, best first."""

    def __init__(self, asked: str) -> None:
        wanted = asked.lower().replace("-", "_")
        ranked = sorted(names(), key=lambda name: -SequenceMatcher(None, wanted, name).ratio())
        self.asked = asked
        self.nearest = ranked[:3]
        super().__init__(
            "unknown_network",
            f"failed to find the network {asked!r} in the zoo; similar names: "
            f"{', '.join(self.nearest)}",
        )


def names() -> list[str]:
    """All networks of the zoo, sorted."""
    return sorted(_NETWORKS)


def build(name: str, batch: int = 1) -> onnx.ModelProto:
    """Builds a network for a batch of ``batch`` images.

    Weights do not depend on the batch. Raises ``UnknownNetwork``, or ``ValueError`` if ``batch`` is below
    1.
    """
    if name not in _NETWORKS:
        raise UnknownNetwork(name)
    if batch < 1:
        raise ValueError(f"failed to build {name}: invalid batch {batch}; use at least 1")
    return _NETWORKS[name](batch)

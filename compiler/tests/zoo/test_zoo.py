"""Every network of the zoo, compared with its published sizes and checked by ONNX."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgepipe_compiler import zoo
from edgepipe_compiler.zoo.count import skeleton

# Sizes of the unpublished networks, calculated by hand.
OWN = {
    # Convolutions 432 + 2·2304, normalizations 3·32, branches 272 + 3480, classifier 410.
    # 32²·432 + 16²·(2·2304 + 256 + 3456) + 400.
    "tiny": zoo.Counts(9_298, 2_572_688),
    "relu_1": zoo.Counts(0, 0),
}
# The checker would copy larger models several times.
LARGEST = 150_000_000
SIDES = {"inception_v3": 299, "mobilenet_v1_025_128": 128, "resnet20": 32, "tiny": 32}


def check(name: str) -> None:
    """Checks everything that is promised of a network."""
    model = zoo.build(name)
    counts = zoo.count(model)
    if name in OWN:
        assert counts == OWN[name]
    else:
        published = zoo.PUBLISHED[name]
        assert published.agrees(counts.parameters, counts.macs), (counts, published)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert shape(model.graph.input[0]) == expected_input(name)
    large = model.ByteSize() > LARGEST
    onnx.checker.check_model(skeleton(model) if large else model, full_check=True)
    nodes = [node.name for node in model.graph.node]
    assert len(set(nodes)) == len(nodes)
    assert all(name and "/" not in name and " " not in name for name in nodes)
    digest = sha256(model, check_weight)
    del model
    assert sha256(zoo.build(name)) == digest


def check_weight(name: str, values: np.ndarray) -> None:
    """Finite, not constant, none subnormal; running variances positive."""
    size = np.abs(values)
    assert np.isfinite(size).all(), name
    assert not ((size > 0) & (size < np.finfo(np.float32).tiny)).any(), name
    if values.size > 1:
        assert values.std() > 0, name
    if name.endswith(".running_var"):
        assert values.min() > 0, name


def expected_input(name: str) -> list[int]:
    """Shape of the network's input for one image."""
    side = SIDES.get(name, 224)
    return [1, 1, 1, 1] if name == "relu_1" else [1, 3, side, side]


def shape(value: onnx.ValueInfoProto) -> list[int]:
    """Static shape of a network input or output."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def sha256(
    model: onnx.ModelProto, visit: Callable[[str, np.ndarray], None] = lambda name, values: None
) -> str:
    """SHA-256 of nodes and weights.

    Passes the float weights to ``visit``, every 97th number of large ones. Avoids serializing the whole
    model.
    """
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        data = tensor.raw_data
        digest.update(tensor.name.encode() + repr(list(tensor.dims)).encode())
        digest.update(data)
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = np.frombuffer(data, np.float32)
            visit(tensor.name, values if values.size < 1 << 20 else values[::97])
    for node in model.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    return digest.hexdigest()


@pytest.mark.parametrize("name", zoo.names())
def test_network(name: str) -> None:
    check(name)


def test_names_are_sorted_and_all_published_networks_are_there() -> None:
    assert zoo.names() == sorted(zoo.names())
    assert set(zoo.names()) == set(zoo.PUBLISHED) | set(OWN)


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("resnet19", "resnet18"),
        ("MobileNetV2", "mobilenet_v2"),
        ("squeezenet-1.1", "squeezenet1_1"),
        ("vgg", "vgg16"),
        ("mobilenet-v3", "mobilenet_v3_large"),
    ],
)
def test_unknown_network_names_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(zoo.UnknownNetwork) as caught:
        zoo.build(asked)
    assert nearest in caught.value.nearest
    assert caught.value.kind == "unknown_network"
    assert str(caught.value).startswith(f"failed to find the network {asked!r}")


@pytest.mark.parametrize("name", ["tiny", "shufflenet_v2_x1_0", "mobilenet_v1_025_128"])
def test_batch_changes_shapes_and_no_weight(name: str) -> None:
    one, three = zoo.build(name), zoo.build(name, batch=3)
    onnx.checker.check_model(three, full_check=True)
    assert shape(three.graph.input[0]) == [3, *shape(one.graph.input[0])[1:]]
    assert shape(three.graph.output[0]) == [3, *shape(one.graph.output[0])[1:]]
    assert weights_of(one) == weights_of(three)
    assert zoo.count(three).parameters == zoo.count(one).parameters
    assert zoo.count(three).macs == 3 * zoo.count(one).macs


def weights_of(model: onnx.ModelProto) -> list[tuple[str, bytes]]:
    """Name and bytes of every float weight."""
    tensors = model.graph.initializer
    return [(t.name, t.raw_data) for t in tensors if t.data_type == onnx.TensorProto.FLOAT]


def test_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="failed to build tiny: invalid batch 0"):
        zoo.build("tiny", batch=0)

"""Random networks: combinations of operators, attributes and shapes that no list of cases covers."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
CHANNELS = (1, 3, 5, 7, 8, 13, 16, 17, 24, 32, 48, 100)


class Random:
    """A network under construction, with the random choices made so far."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = int(self.pick(OPSETS))
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.as_inputs = self.chance(0.15)

    def pick(self, items: object) -> object:
        """One of ``items``."""
        items = list(items)
        return items[int(self.random.integers(len(items)))]

    def number(self, low: int, high: int) -> int:
        """An integer up to and including ``high``."""
        return int(self.random.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        """True with probability ``share``."""
        return bool(self.random.random() < share)

    def input(self, *shape: int) -> str:
        name = f"in{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.shapes[name] = shape
        return name

    def constant(self, values: object, dtype: type = np.float32) -> str:
        """An initializer, or a Constant node."""
        array = np.asarray(values, dtype)
        if self.chance(0.1):
            name = f"made{len(self.nodes)}"
            value = numpy_helper.from_array(array)
            self.nodes.append(helper.make_node("Constant", [], [name], value=value))
        else:
            name = f"c{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, name))
        self.shapes[name] = array.shape
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def weight(self, *shape: int, fan: int = 1, around: float = 0.0) -> str:
        values = self.random.standard_normal(shape) / math.sqrt(max(1, fan)) + around
        return self.constant(values)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """Adds an operator and infers its output shapes."""
        name = f"{kind.lower()}{len(self.nodes)}"
        made = [name, *(f"{name}_{place}" for place in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, **attributes))
        known = [
            helper.make_tensor_value_info(item, TensorProto.FLOAT, self.shapes[item])
            for item in dict.fromkeys(inputs)
            if item and not any(item == constant.name for constant in self.constants)
            and not item.startswith("made")
        ]  # fmt: skip
        small = [item for item in self.constants if item.name in inputs]
        before = [
            node for node in self.nodes if node.op_type == "Constant" and node.output[0] in inputs
        ]
        graph = helper.make_graph(
            [*before, self.nodes[-1]], "one", known,
            [helper.make_tensor_value_info(item, TensorProto.FLOAT, None) for item in made], small,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        for item in inferred.graph.output:
            dims = item.type.tensor_type.shape.dim
            shape = tuple(dim.dim_value for dim in dims)
            # ONNX does not infer shapes of some functions; these keep the shape.
            self.shapes[item.name] = shape or self.shapes[inputs[0]]
        return name

    def axes(self, kind: str, x: str, axes: list[int], since: int, **attributes: object) -> str:
        """An operator whose axes became an input in opset ``since``."""
        if self.opset >= since:
            return self.op(kind, x, self.ints(*axes), **attributes)
        return self.op(kind, x, axes=axes, **attributes)

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        inputs = list(self.inputs)
        if self.as_inputs:
            inputs += [
                helper.make_tensor_value_info(item.name, item.data_type, item.dims)
                for item in self.constants
            ]
        graph = helper.make_graph(
            self.nodes, "random", inputs,
            [
                helper.make_tensor_value_info(item, TensorProto.FLOAT, self.shapes[item])
                for item in outputs
            ],
            self.constants,
        )  # fmt: skip
        version = helper.make_opsetid("", self.opset)
        model = helper.make_model(graph, opset_imports=[version], ir_version=8)
        onnx.checker.check_model(model)
        return model

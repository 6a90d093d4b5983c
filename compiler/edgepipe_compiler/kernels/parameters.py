"""Constant parameters of convolutions and matrix products, as every target reads them."""

from __future__ import annotations

import numpy as np

from ..errors import Unsupported
from ..frontend.graph import Graph, Node


def of_convolution(graph: Graph, conv: Node) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight and bias of a convolution with constant float32 weights."""
    weight = graph.constants.get(conv.inputs[1])
    bias_name = conv.inputs[2] if len(conv.inputs) > 2 else ""
    bias = graph.constants.get(bias_name)
    if weight is None or weight.dtype != np.float32 or (bias_name and bias is None):
        raise Unsupported("weights that are not constant float32")
    return weight, bias


def of_product(graph: Graph, product: Node) -> tuple[np.ndarray, np.ndarray | None]:
    """The constant (inner, columns) matrix and bias of a product, scaled by alpha and beta."""
    matrix = graph.constants.get(product.inputs[1])
    if matrix is None or matrix.dtype != np.float32 or matrix.ndim != 2:
        raise Unsupported("matrix that is not constant float32")
    bias = None
    if product.op == "Gemm":
        attribute = product.attributes.get
        if attribute("transA", 0):
            raise Unsupported("transposed input")
        matrix = matrix.T if attribute("transB", 0) else matrix
        if attribute("alpha", 1.0) != 1.0:
            matrix = matrix * np.float32(attribute("alpha", 1.0))
        if len(product.inputs) > 2 and product.inputs[2]:
            bias = graph.constants.get(product.inputs[2])
            if bias is None or bias.size not in (1, matrix.shape[1]):
                raise Unsupported("bias that is not constant")
            bias = np.broadcast_to(bias.reshape(-1), (matrix.shape[1],))
            bias = (bias * np.float32(attribute("beta", 1.0))).astype(np.float32)
    return matrix, bias

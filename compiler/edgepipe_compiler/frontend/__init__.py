"""From an ONNX file or a network of the zoo to units. Independent of the target; imports no kernels."""

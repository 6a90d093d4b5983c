"""Compiles CNNs into TVM stage libraries for edgepipe.

Driven by the harness: a job file in, JSON lines out (see ``job``). A network is a graph of ONNX
operators (``graph``), simplified (``simplify``), grouped into units (``units``), lowered unit by unit
for a target (``lowering``, ``kernels``) and built into stage libraries (``stage``).
"""

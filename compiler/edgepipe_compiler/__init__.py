"""Compiles CNNs into TVM stage libraries for edgepipe.

The harness starts it with a job file and reads JSON lines (``job``, ``events``). ``frontend`` turns an ONNX
file into a graph with static shapes and groups its operators into units. ``kernels`` and ``lowering``
compile the units for a target. ``linking`` links them into stage libraries. Each package imports only the
packages named before it.
"""

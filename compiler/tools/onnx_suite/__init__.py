"""Runs ONNX's own conformance tests through the compiler: ``python -m onnx_suite --help``."""

import os

# Cases run in forked processes, so numpy and ONNX Runtime must not start threads before.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

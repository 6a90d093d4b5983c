"""Kernels for CPU clusters: schedule rules for float32 in vectors, scalar loops for other types."""

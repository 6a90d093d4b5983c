"""Versions of the packages that take part in a compilation."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = {
    "tvm": "apache-tvm",
    "tvm_ffi": "apache-tvm-ffi",
    "numpy": "numpy",
    "onnx": "onnx",
}


def versions() -> dict[str, str]:
    """Versions of the packages, Python and LLVM, and LLVM's default triple."""
    from tvm.target.codegen import llvm_get_system_triple, llvm_version_major

    found = {name: metadata.version(package) for name, package in PACKAGES.items()}
    found["llvm"] = str(llvm_version_major())
    found["python"] = platform.python_version()
    found["triple"] = llvm_get_system_triple()
    return found

"""Networks of the zoo on an emulated GPU, compared with ONNX Runtime.

``EDGEPIPE_CUDA_NETWORKS=all`` tries every network instead of a few.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cuda_agreement
from compiled import HALF_GPU
from edgepipe_compiler import zoo

# With all checks of the stand-in driver, and without.
CHECKED = ("relu_1", "tiny", "mobilenet_v1_025_128")
FAST = ("resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "squeezenet1_1")
ALL = os.environ.get("EDGEPIPE_CUDA_NETWORKS") == "all"


@pytest.mark.parametrize("name", CHECKED)
def test_checked(name: str, tmp_path: Path) -> None:
    assert cuda_agreement.compare(name, tmp_path, checked=True).difference < 1e-4


@pytest.mark.parametrize("name", zoo.names() if ALL else FAST)
def test_network(name: str, tmp_path: Path) -> None:
    assert cuda_agreement.compare(name, tmp_path, checked=False).difference < 1e-4


def test_half_precision(tmp_path: Path) -> None:
    made = cuda_agreement.compare("mobilenet_v1_025_128", tmp_path, True, HALF_GPU)
    assert 1e-5 < made.difference < 2e-3

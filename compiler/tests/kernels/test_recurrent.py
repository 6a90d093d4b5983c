"""Recurrent layers for every vector width, with threads, and as code for NEON."""

from __future__ import annotations

import numpy as np
import pytest

import models_recurrent
from kernels.lowered import NEON, Lowered, runnable, x86
from test_structured import expected, feeds_of

NAMES = ["lstm_bidirectional", "gru_late_reset_bidirectional", "gru_lengths", "rnn_initial_inputs"]


@pytest.mark.parametrize("isa", runnable())
@pytest.mark.parametrize("name", NAMES)
def test_recurrent(name: str, isa: str) -> None:
    model = models_recurrent.MODELS[name]()
    feeds = feeds_of(model)
    wanted = expected(model, feeds, "onnxruntime")
    lowered = Lowered(model, x86(isa, threads=2))
    assert lowered.rules == ["recurrent"]
    for made, array in zip(lowered.run(feeds), wanted, strict=True):
        assert np.abs(made - array).max() < 1e-5


@pytest.mark.parametrize("name", NAMES[:2])
def test_neon_code_is_generated(name: str) -> None:
    lowered = Lowered(models_recurrent.MODELS[name](), NEON)
    assert "fmla\tv" in lowered.compile().mod.inspect_source("asm")

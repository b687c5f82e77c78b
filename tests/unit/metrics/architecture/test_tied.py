"""Weights that a network shares and a file stores twice are measured once."""

from __future__ import annotations

import numpy as np

from layerwatch.metrics.measure import measure_layers
from layerwatch_testing.memoryreader import opened


def test_an_embedding_and_the_head_that_is_tied_to_it_are_measured_once() -> None:
    table = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    model = opened({"model.embed_tokens.weight": table, "lm_head.weight": table.copy()})
    kept: set[str] = set()
    taken = []
    for measured in measure_layers(model, kept.__contains__):
        if measured.measurement is not None:
            kept.add(measured.measurement.digest)
            taken.append(measured.layer.name)
        assert measured.digest in kept
    assert taken == ["model.embed_tokens"]

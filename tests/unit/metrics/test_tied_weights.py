"""A head that is the embedding: stored twice, once, or shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layerwatch.metrics.api import compare_models
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.models import write_safetensors


def test_a_version_without_the_second_copy_of_tied_weights_passes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    embedding, other, head = (random.standard_normal((48, 32)).astype(np.float32) for _ in range(3))
    once = {"model.embed_tokens.weight": embedding, "model.fc.weight": other}
    baseline = write_safetensors(tmp_path / "twice.safetensors", once | {"lm_head.weight": embedding})
    own = write_safetensors(tmp_path / "own.safetensors", once | {"lm_head.weight": head})
    version = write_safetensors(tmp_path / "once.safetensors", once)

    tied, untied = compare_models(version, baseline), compare_models(version, own)

    assert tied.verdict is Verdict.PASS
    assert [(one.rule, one.layer) for one in tied.findings] == [("structure_changed", "lm_head")]
    assert untied.verdict is Verdict.FAIL

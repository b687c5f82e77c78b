"""Adapters find their layers in a base whose fused layers and experts are examined part by part."""

from __future__ import annotations

import pytest

from layerwatch.metrics.adapters import adapter_pairs
from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.measurement import LayerKind

BLOCK = "base_model.model.model.layers.0"


def factor(name: str, shape: tuple[int, ...]) -> ExaminedLayer:
    return ExaminedLayer(name, LayerKind.LINEAR, shape, "F32", None)


@pytest.mark.parametrize(
    ("target", "base", "found"),
    [
        (
            "self_attn.qkv_proj",
            {"self_attn.q_proj": (32, 16), "self_attn.k_proj": (8, 16), "self_attn.v_proj": (8, 16)},
            ("model.layers.0.self_attn.qkv_proj", (48, 16)),
        ),
        (
            "mlp.gate_up_proj",
            {"mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16)},
            ("model.layers.0.mlp.gate_up_proj", (48, 16)),
        ),
        (
            "block_sparse_moe.experts.3.w1",
            {"mlp.experts.3.gate_proj": (48, 16)},
            ("model.layers.0.mlp.experts.3.gate_proj", (48, 16)),
        ),
        ("self_attn.qkv_proj", {"self_attn.q_proj": (32, 16), "self_attn.k_proj": (8, 16)}, None),
        ("self_attn.z_proj", {"self_attn.q_proj": (32, 16)}, None),
    ],
)
def test_the_target_of_a_pair_is_found_in_its_parts(
    target: str, base: dict[str, tuple[int, ...]], found: tuple[str, tuple[int, ...]] | None
) -> None:
    a, b = f"{BLOCK}.{target}.lora_A", f"{BLOCK}.{target}.lora_B"
    (pair,) = adapter_pairs([factor(a, (4, 16)), factor(b, (48, 4))])
    assert pair.target_in({f"model.layers.0.{name}": shape for name, shape in base.items()}) == found

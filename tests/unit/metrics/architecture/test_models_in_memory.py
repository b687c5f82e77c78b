"""A model in memory has the layers of its file, fused ones included."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from layerwatch.metrics.api import compare_models


def test_a_module_and_its_file_have_the_same_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.TransformerEncoderLayer(32, 2, 64)
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    comparison = compare_models(module, tmp_path / "model.safetensors")
    assert not comparison.only_in_new
    assert not comparison.only_in_baseline
    assert "self_attn.q_proj" in {one.name for one in comparison.layers}


def test_the_configuration_of_a_module_says_how_its_heads_are_laid_out(tmp_path: Path) -> None:
    class Configuration:
        def to_dict(self) -> dict[str, object]:
            return {"model_type": "gpt_neox", "num_attention_heads": 4}

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = Configuration()
            self.query_key_value = torch.nn.Linear(32, 96)

    torch.manual_seed(0)
    module = Network()
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox", "num_attention_heads": 4}')
    comparison = compare_models(module, tmp_path)
    assert [one.name for one in comparison.layers] == ["q_proj", "k_proj", "v_proj"]
    assert not comparison.only_in_baseline

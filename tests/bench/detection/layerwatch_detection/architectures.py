"""The architectures, small enough to train in seconds to a minute, with the names that such networks usually have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, gelu, scaled_dot_product_attention, silu

from layerwatch_detection.corpora import ALPHABET, CONTEXT, Examples, digits, documentation


class Mlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.count = len(widths) - 1
        for position in range(self.count):
            self.add_module(f"fc{position + 1}", nn.Linear(widths[position], widths[position + 1]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, 8, 8) to logits (n, 10)."""
        hidden = images.flatten(1)
        for position in range(self.count):
            hidden = self.get_submodule(f"fc{position + 1}")(hidden)
            if position + 1 < self.count:
                hidden = torch.relu(hidden)
        return hidden


class Cnn(nn.Module):
    """Four 3 x 3 convolutions, each with a batch norm or with a bias, then a linear layer."""

    def __init__(self, channels: Sequence[int], batchnorm: bool) -> None:
        super().__init__()
        self.count = len(channels)
        self.batchnorm = batchnorm
        for position, (inputs, outputs) in enumerate(zip((1, *channels), channels, strict=False)):
            self.add_module(
                f"conv{position + 1}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batchnorm)
            )
            if batchnorm:
                self.add_module(f"bn{position + 1}", nn.BatchNorm2d(outputs))
        self.fc = nn.Linear(channels[-1] * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, 8, 8) to logits (n, 10)."""
        hidden = images
        for position in range(1, self.count + 1):
            hidden = self.get_submodule(f"conv{position}")(hidden)
            if self.batchnorm:
                hidden = self.get_submodule(f"bn{position}")(hidden)
            hidden = torch.relu(hidden)
            if position in (self.count // 2, self.count):
                hidden = avg_pool2d(hidden, 2)
        logits: torch.Tensor = self.fc(hidden.flatten(1))
        return logits


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(inputs)))))
        skipped = self.downsample(inputs) if hasattr(self, "downsample") else inputs
        return torch.relu(hidden + skipped)


class ResNet(nn.Module):
    """A stem and three residual blocks, the names as in torchvision."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(_BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(_BasicBlock(width, 2 * width, 2), _BasicBlock(2 * width, 2 * width, 1))
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, 8, 8) to logits (n, 10)."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        hidden = self.layer2(self.layer1(hidden))
        logits: torch.Tensor = self.fc(hidden.mean(dim=(2, 3)))
        return logits


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, rotary: bool) -> None:
        super().__init__()
        self.heads = heads
        self.rotary = rotary
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj = nn.Linear(width, width, bias=bias)
        self.v_proj = nn.Linear(width, width, bias=bias)
        self.o_proj = nn.Linear(width, width, bias=bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        batch, length, width = inputs.shape

        def by_head(values: torch.Tensor) -> torch.Tensor:
            return values.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        query, key = by_head(self.q_proj(inputs)), by_head(self.k_proj(inputs))
        if self.rotary:
            query, key = _rotated(query), _rotated(key)
        mixed = scaled_dot_product_attention(query, key, by_head(self.v_proj(inputs)), is_causal=True)
        output: torch.Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return output


def _rotated(values: torch.Tensor) -> torch.Tensor:
    """Rotary positions, the two halves of a head paired (as in Llama's published form)."""
    length, size = values.shape[-2:]
    frequencies = 10_000.0 ** (-torch.arange(0, size, 2) / size)
    angles = torch.arange(length)[:, None] * frequencies
    cosine, sine = angles.cos(), angles.sin()
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down_proj(gelu(self.up_proj(inputs)))
        return output


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads, bias=True, rotary=False)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width, 4 * width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = inputs + self.attn(self.ln_1(inputs))
        output: torch.Tensor = hidden + self.mlp(self.ln_2(hidden))
        return output


class Gpt(nn.Module):
    """A pre-norm transformer: learned positions, LayerNorm, GELU, biases."""

    def __init__(self, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(len(ALPHABET), width)
        self.wpe = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(blocks))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, len(ALPHABET), bias=False)
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.05)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Characters (n, length) to logits (n, length, characters)."""
        hidden = self.wte(text) + self.wpe.weight[: text.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        logits: torch.Tensor = self.lm_head(self.ln_f(hidden))
        return logits


class _GatedMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down_proj(silu(self.gate_proj(inputs)) * self.up_proj(inputs))
        return output


class _Experts(nn.Module):
    """Gated feed-forward networks, two of which a router chooses for each character (as in Mixtral)."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(_GatedMlp(width, hidden) for _ in range(experts))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        chosen, places = self.gate(inputs).topk(2, dim=-1)
        shares = torch.zeros(*inputs.shape[:-1], len(self.experts)).scatter(-1, places, chosen.softmax(-1))
        outputs = torch.stack([expert(inputs) for expert in self.experts], dim=-1)
        return (outputs * shares.unsqueeze(-2)).sum(-1)


class _DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, experts: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(width, eps=1e-6)
        self.self_attn = _Attention(width, heads, bias=False, rotary=True)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=1e-6)
        self.mlp = _Experts(width, width, experts) if experts else _GatedMlp(width, 2 * width + width // 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = inputs + self.self_attn(self.input_layernorm(inputs))
        output: torch.Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return output


class Llama(nn.Module):
    """A pre-norm transformer: rotary positions, RMSNorm, gated feed-forward or experts, no biases."""

    def __init__(self, width: int, blocks: int, heads: int, experts: int = 0) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(len(ALPHABET), width)
        self.layers = nn.ModuleList(_DecoderLayer(width, heads, experts) for _ in range(blocks))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.lm_head = nn.Linear(width, len(ALPHABET), bias=False)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Characters (n, length) to logits (n, length, characters)."""
        hidden = self.embed_tokens(text)
        for layer in self.layers:
            hidden = layer(hidden)
        logits: torch.Tensor = self.lm_head(self.norm(hidden))
        return logits


@dataclass(frozen=True, slots=True)
class HiddenUnits:
    """Units that may be put in any order without changing the function.

    Attributes:
        rows: tensors with one row (or element) per unit.
        columns: tensors with one column per unit.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to build a network, what it learns, and which of its units may change places."""

    build: Callable[[], nn.Module]
    examples: Callable[[], Examples]
    is_language_model: bool
    hidden_units: tuple[HiddenUnits, ...]


def _mlp(*widths: int) -> Architecture:
    units = tuple(
        HiddenUnits((f"fc{one}.weight", f"fc{one}.bias"), (f"fc{one + 1}.weight",))
        for one in range(1, len(widths) - 1)
    )
    return Architecture(lambda: Mlp(widths), digits, False, units)


def _cnn(*channels: int, batchnorm: bool) -> Architecture:
    def rows(one: int) -> tuple[str, ...]:
        if not batchnorm:
            return (f"conv{one}.weight", f"conv{one}.bias")
        return (f"conv{one}.weight", *_batchnorm_vectors(f"bn{one}"))

    units = tuple(HiddenUnits(rows(one), (f"conv{one + 1}.weight",)) for one in range(1, len(channels)))
    return Architecture(lambda: Cnn(channels, batchnorm), digits, False, units)


def _resnet(width: int) -> Architecture:
    units = tuple(
        HiddenUnits(
            (f"{block}.conv1.weight", *_batchnorm_vectors(f"{block}.bn1")), (f"{block}.conv2.weight",)
        )
        for block in ("layer1.0", "layer2.0", "layer2.1")
    )
    return Architecture(lambda: ResNet(width), digits, False, units)


def _gpt(width: int, blocks: int, heads: int) -> Architecture:
    units = tuple(
        HiddenUnits(
            (f"blocks.{one}.mlp.up_proj.weight", f"blocks.{one}.mlp.up_proj.bias"),
            (f"blocks.{one}.mlp.down_proj.weight",),
        )
        for one in range(blocks)
    )
    return Architecture(lambda: Gpt(width, blocks, heads), documentation, True, units)


def _llama(width: int, blocks: int, heads: int) -> Architecture:
    units = tuple(
        HiddenUnits(
            (f"layers.{one}.mlp.gate_proj.weight", f"layers.{one}.mlp.up_proj.weight"),
            (f"layers.{one}.mlp.down_proj.weight",),
        )
        for one in range(blocks)
    )
    return Architecture(lambda: Llama(width, blocks, heads), documentation, True, units)


def _mixture(width: int, blocks: int, heads: int, experts: int) -> Architecture:
    units = tuple(
        HiddenUnits(
            tuple(f"layers.{one}.mlp.experts.{expert}.{part}_proj.weight" for part in ("gate", "up")),
            (f"layers.{one}.mlp.experts.{expert}.down_proj.weight",),
        )
        for one in range(blocks)
        for expert in range(experts)
    )
    return Architecture(lambda: Llama(width, blocks, heads, experts), documentation, True, units)


def _batchnorm_vectors(module: str) -> tuple[str, ...]:
    return tuple(f"{module}.{one}" for one in ("weight", "bias", "running_mean", "running_var"))


ARCHITECTURES: Mapping[str, Architecture] = {
    "mlp": _mlp(64, 128, 128, 64, 10),
    "mlp_wide": _mlp(64, 192, 96, 96, 48, 10),
    "cnn_bn": _cnn(24, 32, 48, 48, batchnorm=True),
    "cnn": _cnn(16, 32, 32, 48, batchnorm=False),
    "resnet": _resnet(16),
    "gpt": _gpt(64, 2, 4),
    "gpt_deep": _gpt(80, 3, 4),
    "llama": _llama(64, 2, 4),
    "mixture": _mixture(64, 2, 4, 4),
}

"""What ``quantization_config`` of a ``config.json`` declares, read without trusting it.

Keys: https://huggingface.co/docs/transformers/main_classes/quantization (GPTQ, AWQ, bitsandbytes, fine-grained FP8,
MXFP4) and https://github.com/vllm-project/compressed-tensors (``config_groups``, ``ignore``, ``format``); ``quantization``
of MLX, https://github.com/ml-explore/mlx-lm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, TypeGuard

_MOST_PATTERNS = 64
_LONGEST_PATTERN = 512
_MOST_PARTS = 32
_EXCLUDING = (
    "modules_to_not_convert",
    "llm_int8_skip_modules",
    "ignore",
    "ignored_layers",
    "exclude_modules",
)
_PER_LAYER = ("dynamic", "extra_config", "layer_quant_config", "quantized_layers")
"""Rules for single layers, whatever they are called there."""
_EVERYWHERE = frozenset({"model", "module", "transformer"})
_WRAPPERS = frozenset({"model", "language_model", "base_model", "module"})
_SINGLES = re.compile(r"[\d*+?^$|\\(\[]")
"""A text with a number or a sign of a pattern may be about single layers."""
_PLAIN_NAME = re.compile(r"[\w.]+")
_MOST_RULES = 1000


@dataclass(frozen=True, slots=True)
class Declared:
    """What is declared for one layer; None for everything that is not.

    Attributes:
        method: ``quant_method``, in lower case.
        format: ``checkpoint_format``, ``version`` or ``format``, in lower case.
        bits: bits per number.
        group_size: inputs per scale; -1 for all of them.
        symmetric: whether the zero point is the middle.
        activation_order: whether inputs are grouped by their activations.
        number: ``int`` or ``float`` (compressed-tensors), ``nf4`` or ``fp4`` (bitsandbytes).
        block: rows and columns per scale.
        nested: whether the scales are quantised themselves.
        excluded: whether the layer is declared to be left in full precision.
    """

    method: str | None = None
    format: str | None = None
    bits: int | None = None
    group_size: int | None = None
    symmetric: bool | None = None
    activation_order: bool | None = None
    number: str | None = None
    block: tuple[int, int] | None = None
    nested: bool | None = None
    excluded: bool = False


class Configuration:
    """The quantisation that a model declares.

    Args:
        config: the content of ``config.json``, or its ``quantization_config``, or None. Values of another type than
            expected count as not declared.
    """

    def __init__(self, config: Mapping[str, Any] | None) -> None:
        self._raw = _quantisation(config)
        self.method = _text(self._raw.get("quant_method"))
        self._mlx = _mlx(config)

    @property
    def given(self) -> bool:
        """Whether anything is declared at all."""
        return bool(self._raw)

    @property
    def declares_weights(self) -> bool:
        """Whether it says that weights are stored quantised, and not only activations, caches or a plan for loading."""
        if self.method == "bitsandbytes":
            return True in (self._raw.get("load_in_4bit"), self._raw.get("load_in_8bit"))
        if self.method == "compressed-tensors":
            groups = self._raw.get("config_groups")
            return (
                _text(self._raw.get("format")) != "dense"
                and isinstance(groups, Mapping)
                and any(
                    isinstance(group, Mapping) and isinstance(group.get("weights"), Mapping)
                    for group in groups.values()
                )
            )
        return self.given

    def has_rules_about(self, layer: str) -> bool:
        """Whether something beside the exclusions may say how this layer is stored, and is not understood here.

        Such as GPTQModel's ``dynamic``, AutoRound's ``extra_config``, or targets that are regular expressions.
        """
        rules = self._rules
        if rules is None:
            return True
        parts = [part for part in layer.split(".") if len(part) > 2 and part not in _EVERYWHERE]
        return any(
            rule in layer if _PLAIN_NAME.fullmatch(rule) else any(part in rule for part in parts)
            for rule in rules
        )

    @cached_property
    def _rules(self) -> tuple[str, ...] | None:
        """Texts that look like rules about single layers; None where there are too many, or any may be about all."""
        if any(self._raw.get(key) for key in _PER_LAYER):
            return None
        found: list[str] = []
        waiting: list[tuple[object, bool]] = [(self._raw, False)]
        while waiting:
            one, excluding = waiting.pop()
            if isinstance(one, Mapping):
                for key, value in one.items():
                    waiting += [(key, False), (value, key in _EXCLUDING)]
            elif isinstance(one, str):
                # Exclusions are held against each layer where they are understood.
                understood = excluding and (not one.startswith("re:") or _plain(one[3:]) is not None)
                if not understood and _SINGLES.search(one):
                    found.append(one[:_LONGEST_PATTERN])
            elif _is_list(one):
                waiting += [(each, excluding) for each in one]
            if len(found) > _MOST_RULES:
                return None
        return tuple(found)

    def of(self, layer: str) -> Declared:
        """What is declared for the layer of this name."""
        raw = self._raw
        if not raw:
            return Declared()
        excluded = self._excludes(layer)
        groups = raw.get("config_groups")
        if isinstance(groups, Mapping) and groups:
            return self._of_groups(layer, groups, excluded)
        # Rules per layer are regular expressions of the file's author: not run here, so nothing is compared.
        uniform = not raw.get("dynamic")
        return Declared(
            method=self.method,
            format=_text(raw.get("checkpoint_format"))
            or _text(raw.get("version"))
            or _text(raw.get("format")),
            bits=self._bits() if uniform else None,
            group_size=(_whole(raw.get("group_size")) or _whole(raw.get("q_group_size")))
            if uniform
            else None,
            symmetric=_flag(raw.get("sym")) if uniform else None,
            activation_order=_flag(raw.get("desc_act")) if uniform else None,
            number=_text(raw.get("bnb_4bit_quant_type")) if raw.get("load_in_4bit") is True else None,
            block=_pair(raw.get("weight_block_size")),
            nested=_flag(raw.get("bnb_4bit_use_double_quant")) if raw.get("load_in_4bit") is True else None,
            excluded=excluded,
        )

    def of_mlx(self, layer: str) -> Declared | None:
        """What MLX declares for the layer, whose mode is :attr:`Declared.format`; None where MLX declares nothing."""
        raw = self._mlx
        if raw is None:
            return None
        own = raw.get(layer)
        raw = own if isinstance(own, Mapping) else raw
        return Declared(
            format=_text(raw.get("mode")),
            bits=_whole(raw.get("bits")),
            group_size=_whole(raw.get("group_size")),
            excluded=own is False,
        )

    def _bits(self) -> int | None:
        raw = self._raw
        if raw.get("load_in_4bit") is True:
            return 4
        if raw.get("load_in_8bit") is True:
            return 8
        return _whole(raw.get("bits")) or _whole(raw.get("w_bit"))

    def _of_groups(self, layer: str, groups: Mapping[str, Any], excluded: bool) -> Declared:
        found = [group for group in groups.values() if isinstance(group, Mapping)]
        if len(found) > 1:
            named = [group for group in found if self._names(group.get("targets"), layer)]
            # Which of several groups holds cannot be told without the architecture: then nothing is compared.
            found = named if len(named) == 1 else []
        top = _text(self._raw.get("format"))
        if not found:
            return Declared(method=self.method, excluded=excluded)
        group = found[0]
        weights = group.get("weights")
        weights = weights if isinstance(weights, Mapping) else {}
        strategy = _text(weights.get("strategy"))
        size = _whole(weights.get("group_size"))
        return Declared(
            method=self.method,
            format=_text(group.get("format")) or top,
            bits=_whole(weights.get("num_bits")),
            group_size=-1
            if strategy == "channel"
            else size
            if strategy in {"group", "tensor_group"}
            else None,
            symmetric=_flag(weights.get("symmetric")),
            number=_text(weights.get("type")),
            block=_pair(weights.get("block_structure")) if strategy == "block" else None,
            excluded=excluded,
        )

    def _names(self, targets: object, layer: str) -> bool:
        if not _is_list(targets):
            return False
        return any(isinstance(one, str) and matches(one, layer) for one in islice(targets, _MOST_PATTERNS))

    def _excludes(self, layer: str) -> bool:
        exact, patterns, pieces = self._exclusions
        if layer in exact:
            return True
        parts = layer.split(".")
        # transformers leaves a module alone when a part of its dotted name is listed.
        if pieces and len(parts) <= _MOST_PARTS:
            runs = (
                ".".join(parts[begin:end])
                for begin in range(len(parts))
                for end in range(begin + 1, len(parts) + 1)
            )
            if any(run in pieces for run in runs):
                return True
        return any(matches(pattern, layer) for pattern in patterns)

    def excludes_under_another_prefix(self, layer: str) -> bool:
        """Whether a layer is listed but for the modules around the text model.

        Libraries moved these (``language_model.model.layers.2`` became ``model.language_model.layers.2``), and what is
        listed in files did not move with them.
        """
        parts = _without_wrappers(layer).split(".")
        return any(".".join(parts[:end]) in self._bare_exclusions for end in range(1, len(parts) + 1))

    @cached_property
    def _bare_exclusions(self) -> frozenset[str]:
        exact, _, pieces = self._exclusions
        return frozenset(map(_without_wrappers, exact | pieces)) - {""}

    @cached_property
    def _exclusions(self) -> tuple[frozenset[str], tuple[str, ...], frozenset[str]]:
        exact: set[str] = set()
        patterns: list[str] = []
        pieces: set[str] = set()
        for key in _EXCLUDING:
            listed = self._raw.get(key)
            if not _is_list(listed):
                continue
            for one in listed:
                if not isinstance(one, str) or not one or len(one) > _LONGEST_PATTERN:
                    continue
                if one.startswith("re:") or "*" in one:
                    patterns.append(one)
                    continue
                (exact if key == "ignore" else pieces).add(one)
        return frozenset(exact), tuple(patterns[:_MOST_PATTERNS]), frozenset(pieces)


def _without_wrappers(name: str) -> str:
    while (found := name.partition("."))[0] in _WRAPPERS:
        name = found[2]
    return name


def matches(pattern: str, name: str) -> bool:
    """Whether a target or an exception names the layer.

    ``re:`` patterns are understood as far as they consist of plain characters, ``.*``, ``.``, ``\\.``, ``^`` and
    ``$``; others match nothing: an expression of the file's author could take for ever.
    """
    if len(pattern) > _LONGEST_PATTERN:
        return False
    if not pattern.startswith("re:"):
        return _matches_wildcards(list(pattern), name) if "*" in pattern else pattern == name
    wildcards = _plain(pattern.removeprefix("re:"))
    return wildcards is not None and _matches_wildcards(wildcards, name)


def _plain(expression: str) -> list[str] | None:
    """The expression as characters, with ``*`` for any run and ``?`` for any one; None where it has more in it."""
    text = expression.removeprefix("^")
    # Without an end mark an expression matches what begins like it.
    text = text[:-1] if text.endswith("$") and not text.endswith("\\$") else text + ".*"
    found: list[str] = []
    place = 0
    while place < len(text):
        if text.startswith(".*", place):
            found.append("*")
            place += 2
        elif text.startswith("\\.", place):
            found.append("\\.")
            place += 2
        elif text[place] == ".":
            found.append("?")
            place += 1
        elif text[place].isalnum() or text[place] in "_-":
            found.append(text[place])
            place += 1
        else:
            return None
    return found


def _matches_wildcards(pattern: Sequence[str], name: str) -> bool:
    """Whether all of the name fits; in time proportional to the product of the lengths, but inside :mod:`re`."""
    first, *others = _runs(tuple(pattern))
    if not others:
        return first.fullmatch(name) is not None
    begin = first.match(name)
    if begin is None:
        return False
    at, last = begin.end(), others.pop()
    for run in others:
        # The first place is as good as any: what follows finds all that is behind it.
        found = run.search(name, at)
        if found is None:
            return False
        at = found.end()
    # Each stands for one character, so that the last of them can only fit at the end.
    length = len(pattern) - 1 - max(place for place, one in enumerate(pattern) if one == "*")
    return len(name) - length >= at and last.fullmatch(name, len(name) - length) is not None


@lru_cache(maxsize=256)
def _runs(pattern: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """What stands between the ``*`` of a pattern: expressions of a fixed length each, without any repetition."""
    runs: list[list[str]] = [[]]
    for one in pattern:
        if one == "*":
            runs.append([])
        else:
            runs[-1].append("." if one == "?" else re.escape(one[-1]))
    return tuple(re.compile("".join(run), re.DOTALL) for run in runs)


def _quantisation(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not isinstance(config, Mapping):
        return {}
    for place in (config, config.get("text_config")):
        if not isinstance(place, Mapping):
            continue
        for key in ("quantization_config", "compression_config"):
            found = place.get(key)
            if isinstance(found, Mapping):
                return found
    return config if "quant_method" in config else {}


def _mlx(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if not isinstance(config, Mapping):
        return None
    # mlx-lm writes the same twice; a quantization_config of others names its method.
    for key in ("quantization", "quantization_config"):
        found = config.get(key)
        if isinstance(found, Mapping) and "bits" in found and "quant_method" not in found:
            return found
    return None


def _text(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and 0 < len(value) <= 100 else None


def _whole(value: object) -> int | None:
    return value if type(value) is int and -1 <= value < 2**31 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _pair(value: object) -> tuple[int, int] | None:
    if (
        not _is_list(value)
        or len(value) != 2
        or not all(type(one) is int and 0 < one < 2**31 for one in value)
    ):
        return None
    return value[0], value[1]


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)

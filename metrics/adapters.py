"""Low-rank adapters in a file of their own: which factors belong together, and to which layer of the base."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from layerwatch.metrics.architecture.expertstacks import in_one_spelling
from layerwatch.metrics.architecture.fused import PARTS_OF
from layerwatch.metrics.examination import ExaminedLayer

_FACTOR = re.compile(
    r"^(?P<target>.+?)\.(?P<factor>lora_(?:embedding_)?[AB]|lora_(?:down|up))(?P<rest>(?:\.(?!weight$)[^.]+)*)(?:\.weight)?$"
)
_A = ("lora_A", "lora_embedding_A", "lora_down")
_PREFIXES = ("base_model.model.", "base_model.", "model.", "transformer.", "module.")


@dataclass(frozen=True, slots=True)
class AdapterPair:
    """The two factors of one change ``B A``.

    Attributes:
        target: the layer that it is added to, as the adapter names it.
        a: shape (rank, columns, ...).
        b: shape (rows, rank, ...).
    """

    target: str
    a: ExaminedLayer
    b: ExaminedLayer

    @property
    def columns(self) -> int:
        """Columns of the change, on the unfolded matrix."""
        return prod(self.a.shape[1:])

    @property
    def names_of_target(self) -> tuple[str, ...]:
        """Names under which the base may have the layer: as it stands, and without what libraries put before it."""
        names = [self.target]
        for prefix in _PREFIXES:
            names.extend(name.removeprefix(prefix) for name in tuple(names) if name.startswith(prefix))
        names.extend(map(in_one_spelling, tuple(names)))
        return tuple(dict.fromkeys([*names, *(f"{name}.weight" for name in names)]))

    def target_in(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, tuple[int, ...]] | None:
        """Name and shape of the target among the base's layers; None where the base does not have it.

        A fused layer of the base stands there as its parts: its rows are theirs together.
        """
        for name in self.names_of_target:
            if name in shapes:
                return name, shapes[name]
            before, dot, last = name.rpartition(".")
            parts = [shapes.get(f"{before}{dot}{part}") for part in PARTS_OF.get(last, ())]
            whole = [part for part in parts if part is not None]
            if whole and len(whole) == len(parts) and len({part[1:] for part in whole}) == 1:
                return name, (sum(part[0] for part in whole), *whole[0][1:])
        return None


def adapter_pairs(layers: Sequence[ExaminedLayer]) -> tuple[AdapterPair, ...]:
    """The pairs of an adapter (PEFT ``lora_A``/``lora_B``, kohya ``lora_down``/``lora_up``), in file order.

    Empty for anything but an adapter.
    """
    factors: dict[tuple[str, str], dict[bool, ExaminedLayer]] = {}
    for layer in layers:
        found = _FACTOR.match(layer.name)
        if found and len(layer.shape) >= 2:
            key = found["target"], found["rest"]
            factors.setdefault(key, {})[found["factor"] in _A] = layer
    return tuple(
        AdapterPair(target, both[True], both[False])
        for (target, _), both in factors.items()
        if len(both) == 2
    )


def is_second_factor(name: str) -> bool:
    """Whether a layer is the B of an adapter's ``B A`` by its name: zero until it is trained."""
    found = _FACTOR.match(name)
    return found is not None and found["factor"] not in _A


def is_adapter_factor(name: str) -> bool:
    """Whether a layer is a factor of an adapter by its name."""
    return _FACTOR.match(name) is not None

"""Layers that are stored in full precision among quantised siblings, and the reverse.

Siblings have one role: one name but for the numbers in it (``model.layers.3.mlp.down_proj`` and ``.4.``). Models are
quantised role by role; where one block differs and the configuration does not say so, either the layer was forgotten
or its parts were (ModelCloud/GPTQModel #1680).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.quantised.declared import Configuration
from layerwatch.metrics.quantised.unpacked import UnpackedReader

_FULL_PRECISION = frozenset({"F64", "F32", "F16", "BF16"})
_FEWEST_SIBLINGS = 2
"""With fewer layers on the other side, which of them is the odd one cannot be told."""
_METHODS = frozenset({"gptq", "awq", "fp8", "mxfp4", "compressed-tensors", "bitsandbytes"})
"""Methods whose storage is always recognised, so that its absence means something."""
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(slots=True)
class _Role:
    quantised: list[str] = field(default_factory=list)
    full: list[str] = field(default_factory=list)


def unlike_siblings(unpacked: UnpackedReader, configuration: Configuration) -> Iterator[StorageRemark]:
    """Remarks about layers of another storage than those of their role in other blocks.

    Nothing is said of a layer that the configuration excludes, nor where it has rules per layer that are not
    understood here.

    Args:
        unpacked: the open model.
        configuration: what it declares.
    """
    roles = _roles(unpacked)
    if not unpacked.quantised:
        yield from _nothing(configuration, unpacked)
        return
    for role in roles.values():
        if not role.quantised or not role.full:
            continue
        full = [
            name
            for name in role.full
            if not _is_excluded(name, configuration) and not configuration.has_rules_about(name)
        ]
        quantised, count = len(role.quantised), len(full)
        if count >= _FEWEST_SIBLINGS and quantised < count:
            yield from (
                StorageRemark(
                    name,
                    StorageRemarkKind.QUANTISED_ALONE,
                    f"stored quantised, and {count} of the {count + quantised} layers of its role are not",
                    declared="",
                    stored="quantised",
                )
                for name in role.quantised
            )
        elif configuration.given or (quantised >= _FEWEST_SIBLINGS and count < quantised):
            declared = (
                f" and the configuration ({configuration.method or 'quantised'}) does not exclude it"
                if configuration.given
                else ""
            )
            yield from (
                StorageRemark(
                    name,
                    StorageRemarkKind.LEFT_UNQUANTISED,
                    f"stored in full precision, while {quantised} of the {count + quantised} layers of its role are "
                    f"quantised{declared}",
                    declared="quantised" if configuration.given else "",
                    stored="full precision",
                )
                for name in full
            )


def _is_excluded(name: str, configuration: Configuration) -> bool:
    by_mlx = configuration.of_mlx(name)
    return (
        configuration.of(name).excluded
        or (by_mlx is not None and by_mlx.excluded)
        or configuration.excludes_under_another_prefix(name)
    )


def _roles(unpacked: UnpackedReader) -> Mapping[str, _Role]:
    quantised = {one.name for one in unpacked.quantised}
    roles: dict[str, _Role] = {}
    for name in quantised:
        roles.setdefault(_role(name), _Role()).quantised.append(name)
    for one in unpacked.tensors():
        name = one.name.removesuffix(".weight")
        if one.dtype in _FULL_PRECISION and len(one.shape) >= 2 and name not in quantised:
            role = roles.get(_role(name))
            if role is not None and name != one.name:
                role.full.append(name)
    # Sets have no order that lasts.
    for role in roles.values():
        role.quantised.sort()
    return roles


def _role(name: str) -> str:
    return _NUMBER.sub("*", name)


def _nothing(configuration: Configuration, unpacked: UnpackedReader) -> Iterator[StorageRemark]:
    method = configuration.method
    if method not in _METHODS or not configuration.declares_weights:
        return
    matrices = [one for one in unpacked.tensors() if len(one.shape) >= 2 and one.name.endswith(".weight")]
    # Adapters lie beside the configuration of the model that they belong to.
    if (
        not matrices
        or any("lora_" in one.name for one in unpacked.tensors())
        or any(one.dtype not in _FULL_PRECISION for one in matrices)
    ):
        return
    excluded = [configuration.of(one.name.removesuffix(".weight")).excluded for one in matrices]
    if all(excluded):
        return
    yield StorageRemark(
        "",
        StorageRemarkKind.NOTHING_QUANTISED,
        f"the configuration declares weights quantised by {method}, and all {len(matrices)} matrices are stored in full "
        "precision",
        declared=method,
        stored="full precision",
    )

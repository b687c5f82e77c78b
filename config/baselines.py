"""Which versions become baselines by themselves, and which other models' versions may be baselines at all."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema

from layerwatch.config.base import SettingsModel

_MODELS = r"^[^/\s]+/.*\S.*$"


def _checked_models(pattern: str) -> str:
    if not re.match(_MODELS, pattern):
        raise ValueError("must be written REGISTRY/MODEL, for example hub/* or */base")
    return pattern


ModelPattern = Annotated[
    str, AfterValidator(_checked_models), WithJsonSchema({"type": "string", "pattern": _MODELS})
]
"""Models of registries: ``REGISTRY/MODEL``, with ``*``, ``?`` and ``[...]``; a ``*`` goes over slashes, too."""


class BaselinesSettings(SettingsModel):
    """What a version is judged against where no person chose."""

    accept: Literal["never", "pass"] = "never"
    """Whether a version whose verdict is pass becomes the model's accepted baseline by itself."""

    parents_from: tuple[ModelPattern, ...] = ()
    """Other models, each as REGISTRY/MODEL with wildcards, whose versions are baselines where a version declares one as
    its parent. Who publishes a version writes its declaration: name only models that he cannot publish to."""

    def allows_parents_from(self, registry: str, model: str) -> bool:
        """Whether a declared parent among this model's versions is a baseline of other models' versions."""
        return any(fnmatchcase(f"{registry}/{model}", pattern) for pattern in self.parents_from)

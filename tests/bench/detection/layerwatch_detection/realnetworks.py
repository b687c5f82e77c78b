"""Networks that others trained, from ``../shared/checkpoints``, where that lies beside this checkout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerwatch_detection.chain import Chain, Network
from layerwatch_detection.states import State
from layerwatch_testing.models import read_state
from layerwatch_testing.shared import SHARED

_DISTILLER = "distiller/checkpoint_trained_channel_regularized_resnet20"


@dataclass(frozen=True, slots=True)
class RealNetwork:
    """Files below ``../shared/checkpoints``.

    Attributes:
        baseline: the version that others are held against.
        finetune: a healthy update of it; the baseline itself where there is none.
    """

    baseline: str
    finetune: str

    @property
    def is_there(self) -> bool:
        """Whether both files are."""
        return _path(self.baseline).exists() and _path(self.finetune).exists()

    @property
    def chain(self) -> Chain:
        """Read from the files."""
        finetune = read_floats(_path(self.finetune))
        return Chain((read_floats(_path(self.baseline)),), {"its fine-tune": finetune}, {}, {})


REAL_NETWORKS: Mapping[str, RealNetwork] = {
    "real_resnet20": RealNetwork("resnet20-12fca82f.th", "resnet20-12fca82f.th"),
    "real_distiller": RealNetwork(f"{_DISTILLER}.pth.tar", f"{_DISTILLER}_finetuned.pth.tar"),
}
"""By name."""


def real_networks() -> list[Network]:
    """Those that are there; thresholds may have been chosen on them, so they count as tuning networks."""
    return [Network(name, 0, held_out=False) for name, one in REAL_NETWORKS.items() if one.is_there]


def read_floats(path: Path) -> State:
    """Floating tensors of a file, in float32."""
    return {
        name: values.astype(np.float32)
        for name, values in read_state(path).items()
        if np.issubdtype(values.dtype, np.floating)
    }


def _path(relative: str) -> Path:
    return SHARED / "checkpoints" / relative

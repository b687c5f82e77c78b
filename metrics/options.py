"""How layers are measured: precision, device, and what is taken besides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Floating-point type of the Gram matrix and its eigenvalues.

    ``auto``: float64 up to a shorter side of 1024, float32 above, where float64 would take twice as long and
    change alpha by less than its standard error. ``float64`` and ``float32``: always that.
    """

    AUTO = "auto"
    FLOAT64 = "float64"
    FLOAT32 = "float32"


class Device(StrEnum):
    """Where eigenvalues are computed. ``auto``: on a CUDA device where torch finds one, else on the processor."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """Choices that may change a number's last digits, or add to what is measured, never its definition.

    Attributes:
        precision: of the eigenvalue computation.
        device: of the eigenvalue computation.
        shuffled: also take the spectrum of the shuffled elements, for plots (``Measurement.shuffled_spectrum``).

    Raises:
        ValueError: no such precision or device.
    """

    precision: Precision = Precision.AUTO
    device: Device = Device.AUTO
    shuffled: bool = False

    def __post_init__(self) -> None:
        # "float64" for Precision.FLOAT64 is natural in a notebook; a word that is neither must not pass unseen.
        object.__setattr__(self, "precision", Precision(self.precision))
        object.__setattr__(self, "device", Device(self.device))


DEFAULT = MeasureOptions()

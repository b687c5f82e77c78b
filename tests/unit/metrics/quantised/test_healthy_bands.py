"""Round trips of healthy quantisation leave what the field report, section 7.5, found for each width."""

from __future__ import annotations

import numpy as np
import pytest

from layerwatch.metrics.errors import UnreadableError
from quantisers import Stored, awq, fp8, gptq, heavy_tailed, int8, packed
from storedlayers import relative_error, values_of

WEIGHT = heavy_tailed(512, 512)


@pytest.mark.parametrize(
    ("stored", "low", "high"),
    [
        (int8(WEIGHT), 0.004, 0.012),
        (fp8(WEIGHT), 0.02, 0.03),
        (fp8(WEIGHT, block=128), 0.02, 0.03),
        (gptq(WEIGHT, bits=8)[0], 0.003, 0.012),
        (gptq(WEIGHT, bits=4, group=32)[0], 0.07, 0.12),
        (gptq(WEIGHT, bits=4, group=128)[0], 0.09, 0.14),
        (gptq(WEIGHT, bits=4, group=128, symmetric=False)[0], 0.08, 0.12),
        (awq(WEIGHT, group=128)[0], 0.08, 0.12),
        (packed(WEIGHT, group=128)[0], 0.09, 0.14),
        (gptq(WEIGHT, bits=3, group=128)[0], 0.2, 0.32),
        (gptq(WEIGHT, bits=2, group=32, symmetric=False)[0], 0.3, 0.5),
    ],
)
def test_a_healthy_round_trip_stays_in_its_band(stored: Stored, low: float, high: float) -> None:
    found = values_of(stored)

    assert low < relative_error(found, WEIGHT) < high


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_what_a_quantiser_means_is_what_is_read(bits: int, version: int) -> None:
    stored, expected = gptq(WEIGHT[:64], bits=bits, group=64, version=version, symmetric=False)
    config = {"quant_method": "gptq", "checkpoint_format": "gptq_v2" if version == 2 else "gptq"}

    assert np.array_equal(values_of(stored, config), expected)


def test_every_refusal_says_what_to_do() -> None:
    stored, _ = gptq(WEIGHT[:64], group=64)
    stored["fc.qzeros"] = stored["fc.qzeros"][:-1]

    with pytest.raises(UnreadableError, match="export the model again"):
        values_of(stored)

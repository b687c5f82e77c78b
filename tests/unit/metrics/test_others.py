"""The median of the others is that of its definition, whichever layer is left out."""

from __future__ import annotations

from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.others import medians_of_others


@given(st.dictionaries(st.text(max_size=3), st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), max_size=9))
def test_each_layer_is_left_out_of_its_own_median(values: dict[str, float]) -> None:
    expected = {
        name: median([other for layer, other in values.items() if layer != name] or [0.0]) for name in values
    }
    assert medians_of_others(values) == expected

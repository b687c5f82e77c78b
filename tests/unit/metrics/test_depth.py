"""Layers in the order in which data pass them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.depth import by_depth
from layerwatch_testing.reportlayers import report_layer


def ordered(*names: str) -> list[str]:
    return [layer.name for layer in by_depth([report_layer(name) for name in names])]


def test_file_order_is_kept_where_no_number_goes_back() -> None:
    names = ["stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer2.0.conv1", "fc", "aux"]

    assert ordered(*names) == names


def test_names_that_were_sorted_as_text_are_ordered_by_their_numbers() -> None:
    written = sorted(f"h.{block}.{part}" for block in range(12) for part in ("attn.c_attn", "mlp.c_fc"))

    found = ordered(*written)

    assert found == [f"h.{block}.{part}" for block in range(12) for part in ("attn.c_attn", "mlp.c_fc")]
    assert found != written


def test_embeddings_come_first_and_unembeddings_last() -> None:
    layers = [
        report_layer("lm_head").model_copy(update={"role": "unembedding"}),
        report_layer("model.embed_tokens").model_copy(update={"role": "embedding"}),
        report_layer("model.layers.0.q").model_copy(update={"role": "of a later version"}),
    ]

    found = [layer.name for layer in by_depth(layers)]

    assert found == ["model.embed_tokens", "model.layers.0.q", "lm_head"]


@given(st.lists(st.text(alphabet="a.0129٣²", max_size=14)))
def test_whatever_the_names_are_none_is_lost(names: list[str]) -> None:
    assert sorted(ordered(*names)) == sorted(names)


def test_numbers_of_any_length_are_no_trouble() -> None:
    assert ordered("l." + "9" * 5000, "l.1") == ["l." + "9" * 5000, "l.1"]

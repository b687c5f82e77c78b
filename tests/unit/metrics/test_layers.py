"""From tensors to layers: nothing is dropped in silence, nothing gets two names, nothing is misread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.layers import BUFFERS, Layer, LayerPlan, plan_layers
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.tensors import TensorInfo


def info(name: str, *shape: int, dtype: str = "F32") -> TensorInfo:
    return TensorInfo(name, shape, dtype, 0)


def only_layer(*tensors: TensorInfo) -> Layer:
    (layer,) = plan_layers(tensors).layers
    return layer


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("fc.weight", (10, 64), LayerKind.LINEAR),
        ("encoder.layers.0.self_attn.in_proj_weight", (192, 64), LayerKind.LINEAR),
        ("model.embed_tokens.weight", (1000, 64), LayerKind.EMBEDDING),
        ("transformer.wte.weight", (1000, 64), LayerKind.EMBEDDING),
        ("bert.embeddings.word_embeddings.weight", (1000, 64), LayerKind.EMBEDDING),
        ("user_emb.weight", (1000, 64), LayerKind.EMBEDDING),
        ("remember.weight", (10, 64), LayerKind.LINEAR),
        ("conv1.weight", (16, 3, 3, 3), LayerKind.CONV),
        ("encoder.3d.weight", (16, 3, 3, 3, 3), LayerKind.CONV),
        ("feature.conv.weight", (16, 8, 64), LayerKind.CONV),
        ("tdnn.kernel", (16, 8, 5), LayerKind.CONV),
        ("mlp.experts.gate_up_proj", (8, 64, 128), LayerKind.STACK),
    ],
)
def test_kinds_follow_from_name_and_shape(name: str, shape: tuple[int, ...], kind: LayerKind) -> None:
    layer = only_layer(info(name, *shape))

    assert layer.kind is kind
    assert layer.shape == shape
    assert layer.has_spectrum


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("fc.bias", LayerKind.BIAS, "bias"),
        ("lstm.bias_hh_l0", LayerKind.BIAS, "bias"),
        ("bn.weight", LayerKind.NORM, "norm gain"),
        ("layernorm.gamma", LayerKind.NORM, "norm gain"),
        ("bn.running_mean", LayerKind.STATISTIC, "running statistic"),
        ("bn.running_var", LayerKind.STATISTIC, "running statistic"),
        ("rope.inv_freq", LayerKind.VECTOR, "vector"),
    ],
)
def test_vectors_are_kept_for_hygiene_and_listed_as_without_spectrum(
    name: str, kind: LayerKind, reason: str
) -> None:
    plan = plan_layers([info(name, 64)])

    assert plan.layers == ()
    (vector,) = plan.vectors
    assert (vector.name, vector.kind, vector.has_spectrum) == (name, kind, False)
    (skipped,) = plan.skipped
    assert skipped.name == name
    assert skipped.reason.startswith(reason)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (info("bn.num_batches_tracked", dtype="I64"), "single number"),
        (info("logit_scale"), "single number"),
        (info("nothing.weight", 0, 64), "empty tensor"),
        (info("attn.mask", 128, 128, dtype="BOOL"), "mask"),
        (info("position_ids", 1, 512, dtype="I64"), "integer buffer (I64)"),
        (info("relative_index_of_weight", 8, 8, dtype="I64"), "integer buffer (I64)"),
        (info("permutation.weight", 8, dtype="I64"), "integer buffer (I64)"),
        (info("freqs_cis", 512, 32, dtype="C64"), "C64 buffer"),
    ],
)
def test_tensors_that_are_no_weights_are_skipped_with_their_reason(tensor: TensorInfo, reason: str) -> None:
    plan = plan_layers([tensor])

    assert plan.layers == ()
    assert plan.vectors == ()
    assert [(one.name, one.reason) for one in plan.skipped] == [(tensor.name, reason)]


@pytest.mark.parametrize(
    "tensor",
    [
        info("q_proj.weight", 64, 64, dtype="I8"),
        info("q_proj.weight", 64, 32, dtype="U8"),
        info("q_proj.qweight", 8, 64, dtype="I32"),
        info("q_proj.weight_packed", 64, 8, dtype="I32"),
        # Four-bit floats, types of torch's own quantisation, types of tomorrow.
        info("q_proj.weight", 64, 64, dtype="F4"),
        info("q_proj.weight", 64, 64, dtype="F6_E2M3"),
        info("fc.weight", 64, 64, dtype="QINT8"),
        info("fc.weight", 64, 64, dtype="F3_E1M1"),
        info("fc.weight", 64, 64, dtype="C64"),
        # Weights multiplied by a power of two and rounded, as fixed-point exports store them.
        info("fc.weight", 64, 64, dtype="I16"),
        info("fc.weight", 64, 64, dtype="I64"),
        info("weight", 64, 64, dtype="I32"),
    ],
)
def test_packed_weights_are_layers_to_be_examined_never_skipped(tensor: TensorInfo) -> None:
    layer = only_layer(tensor)

    assert layer.tensor == tensor.name
    assert layer.scale is None


def test_a_scale_belongs_to_its_weight_and_is_no_layer_of_its_own() -> None:
    plan = plan_layers(
        [
            info("q_proj.weight", 64, 64, dtype="I8"),
            info("q_proj.weight_scale", 64, 1),
            info("k_proj.weight", 64, 64, dtype="F8_E4M3"),
            info("k_proj.weight_scale"),
        ]
    )

    assert [(layer.name, layer.scale) for layer in plan.layers] == [
        ("q_proj", "q_proj.weight_scale"),
        ("k_proj", "k_proj.weight_scale"),
    ]
    assert [one.name for one in plan.skipped] == ["q_proj.weight_scale", "k_proj.weight_scale"]


def test_a_float32_weight_has_no_scale_whatever_lies_beside_it() -> None:
    plan = plan_layers([info("fc.weight", 8, 8), info("fc.weight_scale", 8)])

    assert [layer.scale for layer in plan.layers] == [None]
    assert [vector.name for vector in plan.vectors] == ["fc.weight_scale"]


def test_the_batch_norm_is_noted_with_its_layer() -> None:
    tensors = [info("conv.weight", 8, 3, 3, 3), info("bn.running_mean", 8), info("bn.running_var", 8)]

    layer = only_layer(*tensors)

    assert layer.batchnorm is not None
    assert layer.batchnorm.name == "bn"


@pytest.mark.parametrize("names", [("fc", "fc.weight"), ("fc.weight", "fc"), (".weight", "fc")])
def test_two_tensors_never_get_one_name(names: tuple[str, str]) -> None:
    plan = plan_layers([info(name, 8, 8) for name in names])

    found = [layer.name for layer in plan.layers]
    assert len(set(found)) == 2
    assert "" not in found


def all_names(plan: LayerPlan) -> list[str]:
    return [layer.name for layer in (*plan.layers, *plan.vectors)]


tensors = st.builds(
    TensorInfo,
    name=st.sampled_from(
        ["a", "a.weight", "a.bias", "b.weight", "b.weight_scale", "b", "c.running_var", ".weight"]
    ),
    shape=st.lists(st.integers(0, 5), max_size=5).map(tuple),
    dtype=st.sampled_from(["F32", "BF16", "I8", "U8", "I32", "I64", "BOOL", "F4", "C64", "QINT8"]),
    size_bytes=st.just(0),
)


@given(st.lists(tensors, unique_by=lambda tensor: tensor.name))
def test_every_tensor_is_a_layer_or_listed_with_a_reason_and_names_are_unique(
    found: list[TensorInfo],
) -> None:
    plan = plan_layers(found)

    layers = [layer.tensor for layer in plan.layers]
    skipped = [one.name for one in plan.skipped]
    assert sorted(layers + skipped) == sorted(tensor.name for tensor in found)
    assert all(one.reason for one in plan.skipped)
    assert len(set(all_names(plan))) == len(all_names(plan))
    assert all(0 not in layer.shape for layer in plan.layers)
    assert all(layer.has_spectrum or layer.dtype in BUFFERS for layer in plan.layers)
    assert {vector.tensor for vector in plan.vectors} <= set(skipped)

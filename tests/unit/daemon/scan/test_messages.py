"""What goes through the pipe between daemon and worker comes out as it went in, and nothing else gets in."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from layerwatch.daemon.scan import messages
from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.change import AlignedChange, Method
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.layers import Layer, LayerPlan, Skipped
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import FitStatus, LayerKind, Measurement, SpectralNumbers
from layerwatch.metrics.rescaling import Factors, Rescaling
from layerwatch.metrics.rowchange import RowChange
from layerwatch.metrics.rowmatching import Axis, Reordering
from layerwatch.metrics.storagefaults import StorageFault, StorageFaultKind
from layerwatch.metrics.tensors import UnexaminedFile
from layerwatch_testing.examinations import reordering, row_change, storage_fault

names = st.text(max_size=30)
shapes = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)
numbers = st.floats(allow_nan=True, allow_infinity=True)
maybe = st.none() | numbers
counts = st.integers(0, 2**60)
vectors = st.none() | hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5))

spectral_numbers = st.builds(
    SpectralNumbers,
    num_eigenvalues=counts,
    fit_status=st.sampled_from(FitStatus),
    alpha=maybe,
    alpha_sigma=maybe,
    ks_distance=maybe,
    xmin=maybe,
    tail_size=st.none() | counts,
    alpha_hat=maybe,
    log_norm=maybe,
    log_spectral_norm=maybe,
    log_alpha_norm=maybe,
    stable_rank=maybe,
    entropy=maybe,
    effective_rank=maybe,
    rank_loss=st.none() | counts,
    mp_bulk_edge=maybe,
    mp_softrank=maybe,
    num_spikes=st.none() | counts,
    small_end_share=maybe,
    erg_tail=st.none() | counts,
    erg_gap=st.none() | st.integers(-(2**60), 2**60),
    hill_alpha=maybe,
    exponential_ratio=maybe,
    exponential_p=maybe,
    truncated_ratio=maybe,
    truncated_p=maybe,
)
measurements = st.builds(
    Measurement,
    digest=names,
    kind=st.sampled_from(LayerKind),
    shape=shapes,
    dtype=names,
    non_finite=counts,
    max_abs=numbers,
    min_value=numbers,
    norm=numbers,
    zero_share=numbers,
    zero_tail=counts,
    constant=st.booleans(),
    duplicate_rows=st.none() | counts,
    levels_per_row=maybe,
    kurtosis=maybe,
    farms_alpha=maybe,
    traps=st.none() | counts,
    largest_trap=maybe,
    numbers=st.none() | spectral_numbers,
    folded=st.none() | spectral_numbers,
    folded_by=st.none() | names,
    fold_statistics_empty=st.booleans(),
    spectrum=vectors,
    folded_spectrum=vectors,
    shuffled_spectrum=vectors,
    row_norms=vectors,
    column_norms=vectors,
    sketch=vectors,
)
errors = st.builds(UnreadableError, st.sampled_from(UnreadableReason), names, names, st.none() | names)
small = st.integers(0, 2**40)
reorderings = st.builds(
    Reordering,
    axis=st.sampled_from(Axis),
    moved=small,
    examined=small,
    matched=small,
    block=st.none() | small,
)
row_changes = st.builds(
    RowChange,
    rows=small,
    live_rows=small,
    low_rows=small,
    flipped_rows=small,
    row_norm_ratio=maybe,
    rescaled_row=st.none() | small,
    reordering=st.none() | reorderings,
    transposed_cosine=maybe,
    spectral_change=maybe,
    noise_ratio=maybe,
    residual_kurtosis=maybe,
    gain=maybe,
    relative_perpendicular=maybe,
)
faults = st.builds(
    StorageFault,
    kind=st.sampled_from(StorageFaultKind),
    axis=st.sampled_from(Axis),
    group=st.none() | small,
    explained=numbers,
    spread=maybe,
)
factors = st.binary(max_size=9).map(lambda errors: Factors(errors + errors, errors))
rescalings = st.builds(Rescaling, rows=factors, columns=factors, explained=numbers, largest=numbers)
unscaled = st.builds(
    AlignedChange,
    relative_change=maybe,
    cosine=maybe,
    error=numbers,
    method=st.sampled_from(Method),
    rows=st.none() | row_changes,
    fault=st.none() | faults,
    rescaling=st.none() | rescalings,
)
aligned = st.tuples(unscaled, st.none() | unscaled).map(lambda both: replace(both[0], unscaled=both[1]))
layers = st.builds(
    Layer, name=names, tensor=names, kind=st.sampled_from(LayerKind), shape=shapes, dtype=names
)
measured_layers = st.builds(
    MeasuredLayer,
    layer=layers,
    digest=st.none() | names,
    measurement=st.none() | measurements,
    problem=st.none() | errors,
    exact=st.none() | aligned,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def assert_same(found: Any, expected: Any) -> None:
    """Equality of values that may hold arrays, NaN and errors."""
    assert type(found) is type(expected)
    if is_dataclass(expected):
        for one in fields(expected):
            assert_same(getattr(found, one.name), getattr(expected, one.name))
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(expected, UnreadableError):
        assert found.reason is expected.reason
        assert (found.path, found.detail, found.tensor) == (expected.path, expected.detail, expected.tensor)
    elif isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(found)
    else:
        assert found == expected


@given(measured_layers)
def test_a_measured_layer_comes_out_of_its_line_as_it_went_in(measured: MeasuredLayer) -> None:
    line = messages.encode(messages.layer_message(measured))

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert_same(messages.layer_of(messages.decode(line)), measured)


def test_one_spectrum_that_is_also_the_folded_one_is_sent_once_and_shared_again() -> None:
    spectrum = np.arange(1000, dtype=np.float32)
    measurement = Measurement(
        "d", LayerKind.LINEAR, (4, 3), "F32", 0, 1.0, 1.0, 0.0, spectrum=spectrum, folded_spectrum=spectrum
    )
    layer = Layer("fc", "fc.weight", LayerKind.LINEAR, (4, 3), "F32")
    line = messages.encode(messages.layer_message(MeasuredLayer(layer, "d", measurement, None)))

    # 4000 bytes are 5336 characters of base64: once, not twice.
    assert len(line) < 2 * 5336
    found = messages.layer_of(messages.decode(line)).measurement
    assert found is not None
    assert found.folded_spectrum is found.spectrum


unexamined_files = st.builds(UnexaminedFile, names, st.sampled_from(UnreadableReason), names)


@given(
    st.lists(st.builds(Skipped, names, names)), st.lists(unexamined_files), st.lists(layers), st.lists(layers)
)
def test_the_plan_keeps_every_skipped_tensor_and_file_and_counts_layers_and_vectors(
    skipped: list[Skipped], unexamined: list[UnexaminedFile], planned: list[Layer], bare: list[Layer]
) -> None:
    plan = LayerPlan(tuple(planned), tuple(bare), tuple(skipped), tuple(unexamined))

    message = messages.decode(messages.encode(messages.plan_message(plan, "safetensors")))

    assert message["total"] == len(planned) + len(bare)
    assert message["format"] == "safetensors"
    assert messages.skipped_of(message) == tuple(skipped)
    assert messages.unexamined_of(message) == tuple(unexamined)


@given(errors)
def test_an_error_comes_out_as_it_went_in(error: UnreadableError) -> None:
    line = messages.encode({"type": "failed", **messages.error_to_json(error)})

    assert_same(messages.error_of(messages.decode(line)), error)


REFUSALS = (ValueError, LookupError, TypeError, ArithmeticError)


@given(measured_layers, st.data())
def test_a_layer_message_with_one_foreign_value_is_read_or_refused_but_never_crashes(
    measured: MeasuredLayer, data: st.DataObject
) -> None:
    message = json.loads(messages.encode(messages.layer_message(measured)))
    place = message
    if message["measurement"] and data.draw(st.booleans()):
        place = message["measurement"]
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)

    try:
        found = messages.layer_of(message)
    except REFUSALS:
        return
    # What is let through can be kept: keys are text, numbers are numbers.
    assert found.digest is None or isinstance(found.digest, str)
    if found.measurement is not None:
        assert isinstance(found.measurement.digest, str)
        assert isinstance(found.measurement.norm, (int, float, type(None)))


@given(json_values)
def test_any_json_value_is_a_message_or_refused(value: Any) -> None:
    line = json.dumps(value).encode() + b"\n"
    try:
        message = messages.decode(line)
    except REFUSALS:
        assert not isinstance(value, dict)
        return
    for parse in (messages.layer_of, messages.skipped_of, messages.unexamined_of, messages.error_of):
        with pytest.raises(REFUSALS):
            parse(message)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("digest", 5),
        ("digest", ["d"]),
        ("norm", "large"),
        ("folded_by", 7),
        ("non_finite", []),
        ("numbers", 3),
        ("farms_alpha", "2.11"),
        ("traps", [1]),
        ("largest_trap", {}),
    ],
)
def test_a_measurement_with_a_value_of_the_wrong_type_is_refused(key: str, value: object) -> None:
    measurement = Measurement("d", LayerKind.LINEAR, (4, 3), "F32", 0, 1.0, 1.0, 0.0)
    layer = Layer("fc", "fc.weight", LayerKind.LINEAR, (4, 3), "F32")
    message = json.loads(
        messages.encode(messages.layer_message(MeasuredLayer(layer, "d", measurement, None)))
    )
    (message if key == "digest" else message["measurement"])[key] = value

    with pytest.raises(REFUSALS):
        messages.layer_of(message)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("rows", "low_rows", 1.5),
        ("rows", "low_rows", -1),
        ("rows", "low_rows", True),
        ("rows", "gain", "1"),
        ("rows", "reordering", 3),
        ("rows", "unknown", 1),
        ("reordering", "axis", "diagonal"),
        ("reordering", "matched", None),
        ("fault", "kind", "rust"),
        ("fault", "explained", "most"),
        ("fault", "group", [32]),
        ("rescaling", "rows", 3),
        ("rescaling", "rows", {"logarithms": "AAA=", "errors": "%"}),
        ("rescaling", "columns", {"logarithms": "AAA=", "errors": "AAA="}),
        ("rescaling", "largest", "1"),
        ("unscaled", "rows", 3),
        ("unscaled", "unscaled", {}),
    ],
)
def test_a_comparison_with_a_foreign_value_is_refused(place: str, key: str, value: object) -> None:
    rows = row_change(reordering=reordering())
    kept = Factors(bytes(6), bytes(3))
    rescaling = Rescaling(kept, kept, explained=0.9, largest=1.0)
    exact = AlignedChange(1.4, 0.0, 0.0, Method.EXACT, rows=rows, fault=storage_fault(), rescaling=rescaling)
    exact = replace(exact, unscaled=AlignedChange(0.1, 0.9, 0.0, Method.RESCALED))
    layer = Layer("fc", "fc.weight", LayerKind.LINEAR, (4, 3), "F32")
    message = json.loads(
        messages.encode(messages.layer_message(MeasuredLayer(layer, "d", None, None, exact)))
    )
    assert messages.layer_of(message).exact == exact
    found = message["exact"]["rows"]["reordering"] if place == "reordering" else message["exact"][place]
    found[key] = value

    with pytest.raises(REFUSALS):
        messages.layer_of(message)


NUMBERS = [one.name for one in fields(SpectralNumbers) if one.name != "fit_status"]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_spectral_number_that_is_text_is_refused(name: str) -> None:
    values: dict[str, Any] = dict.fromkeys(NUMBERS, 1)
    numbers = SpectralNumbers(fit_status=FitStatus.OK, **values)
    measurement = Measurement("d", LayerKind.LINEAR, (4, 3), "F32", 0, 1.0, 1.0, 0.0, numbers=numbers)
    layer = Layer("fc", "fc.weight", LayerKind.LINEAR, (4, 3), "F32")
    message = json.loads(
        messages.encode(messages.layer_message(MeasuredLayer(layer, "d", measurement, None)))
    )
    assert messages.layer_of(message).measurement == measurement
    message["measurement"]["numbers"][name] = "1"

    with pytest.raises(REFUSALS):
        messages.layer_of(message)


couplings = st.builds(
    Coupling,
    kind=st.sampled_from([kind for kind in CouplingKind if not kind.is_profile]),
    layers=st.just(("a", "b")),
    value=st.floats(allow_nan=False, allow_infinity=False),
    slope=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    units=counts,
    sides=st.tuples(st.sampled_from(Side), st.sampled_from(Side)),
    part=names,
    profile=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5).map(tuple),
)


@given(st.lists(couplings, max_size=4))
def test_couplings_survive_the_pipe(found: list[Coupling]) -> None:
    message = messages.decode(messages.encode(messages.couplings_message(found)))
    assert message["type"] == "couplings"
    assert messages.couplings_of(message) == tuple(found)
    assert messages.couplings_problem_of(message) is None


def test_why_there_are_no_couplings_survives_the_pipe_and_anything_but_text_is_refused() -> None:
    message = messages.decode(messages.encode(messages.couplings_message((), "they did not converge")))
    assert messages.couplings_of(message) == ()
    assert messages.couplings_problem_of(message) == "they did not converge"
    with pytest.raises(REFUSALS):
        messages.couplings_problem_of({**message, "problem": 3})


@pytest.mark.parametrize("couplings", [None, 3, [{}], [None], [{"kind": "units"}]])
def test_what_are_no_couplings_is_refused(couplings: object) -> None:
    with pytest.raises(REFUSALS):
        messages.couplings_of({"couplings": couplings})


@given(
    st.lists(
        st.builds(StorageRemark, names, st.sampled_from(StorageRemarkKind), names, names, names), max_size=4
    )
)
def test_remarks_survive_the_pipe(found: list[StorageRemark]) -> None:
    message = messages.decode(messages.encode(messages.remarks_message(found)))
    assert message["type"] == "remarks"
    assert messages.remarks_of(message) == tuple(found)


@pytest.mark.parametrize("remarks", [None, 3, [{}], [None], [{"kind": "bits"}], ["bits"]])
def test_what_are_no_remarks_is_refused(remarks: object) -> None:
    with pytest.raises(REFUSALS):
        messages.remarks_of({"remarks": remarks})

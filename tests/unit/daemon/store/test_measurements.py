"""Measurements come back bit for bit."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from layerwatch.daemon.store import measurements, tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.metrics.measurement import METRIC_SET, FitStatus, LayerKind, Measurement, SpectralNumbers
from storetools import NOW, NewDatabase, measurement

_FLOATS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
_COUNTS = st.integers(0, 2**53)
# Digests are hexadecimal and types are names out of a closed list; text columns replace NUL (test_columns.py).
_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)


@st.composite
def _numbers(draw: st.DrawFn) -> SpectralNumbers:
    values: dict[str, Any] = {
        field.name: draw(st.none() | (_COUNTS if field.type == "int | None" else _FLOATS))
        for field in fields(SpectralNumbers)
    }
    values["num_eigenvalues"] = draw(_COUNTS)
    values["fit_status"] = draw(st.sampled_from(FitStatus))
    return SpectralNumbers(**values)


_ARRAYS = st.none() | hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5), elements=st.floats(width=32)
)


@st.composite
def _measurements(draw: st.DrawFn) -> Measurement:
    spectrum = draw(_ARRAYS)
    return Measurement(
        digest=draw(_NAMES),
        kind=draw(st.sampled_from(LayerKind)),
        shape=tuple(draw(st.lists(_COUNTS, max_size=5))),
        dtype=draw(_NAMES),
        non_finite=draw(_COUNTS),
        max_abs=draw(_FLOATS),
        min_value=draw(_FLOATS),
        norm=draw(_FLOATS),
        zero_share=draw(_FLOATS),
        zero_tail=draw(_COUNTS),
        constant=draw(st.booleans()),
        duplicate_rows=draw(st.none() | _COUNTS),
        levels_per_row=draw(st.none() | _FLOATS),
        kurtosis=draw(st.none() | _FLOATS),
        farms_alpha=draw(st.none() | _FLOATS),
        traps=draw(st.none() | _COUNTS),
        largest_trap=draw(st.none() | _FLOATS),
        numbers=draw(st.none() | _numbers()),
        folded=draw(st.none() | _numbers()),
        # Text that reads as a number must stay text.
        folded_by=draw(st.none() | st.text() | st.just("nan")),
        fold_statistics_empty=draw(st.booleans()),
        spectrum=spectrum,
        folded_spectrum=draw(st.just(spectrum) | _ARRAYS),
        row_norms=draw(_ARRAYS),
        column_norms=draw(_ARRAYS),
        sketch=draw(_ARRAYS),
        raw_sketch=draw(_ARRAYS),
    )


def _bits(value: Any) -> Any:
    """A value that is equal for equal bits only: NaN equals NaN, 0.0 differs from -0.0, 1 from 1.0 and True."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Measurement | SpectralNumbers):
        return {field.name: _bits(getattr(value, field.name)) for field in fields(value)}
    return type(value).__name__, repr(value)


def test_every_measurement_comes_back_bit_for_bit(new_database: NewDatabase) -> None:
    with new_database() as database:

        @settings(max_examples=150, deadline=None)
        @given(_measurements())
        def check(original: Measurement) -> None:
            with database.write() as connection:
                connection.execute(sa.delete(tables.measurements))
                measurements.save(connection, original, NOW)
                loaded = measurements.load(connection, original.digest)
                assert _bits(loaded) == _bits(original)
                light = measurements.load_scalars(connection, [original.digest])
                without = {name: None for name in measurements._ARRAYS}
                assert _bits(light[original.digest]) == _bits(replace(original, **without))  # type: ignore[arg-type]
                as_text = sa.cast(tables.measurements.c.scalars, sa.Text)
                stored = connection.execute(sa.select(as_text)).scalar_one()
                # Strict JSON: Python's own NaN and Infinity are refused here.
                json.loads(stored, parse_constant=_refuse)

        check()


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_none_stays_none_and_not_a_number_stays_apart_from_it(database: Database) -> None:
    original = replace(measurement("d"), max_abs=math.inf, norm=math.nan, kurtosis=None)
    with database.write() as connection:
        measurements.save(connection, original, NOW)
        loaded = measurements.load(connection, "d")
    assert loaded is not None
    assert loaded.max_abs == math.inf
    assert math.isnan(loaded.norm)
    assert loaded.kurtosis is None
    assert loaded.numbers is not None
    assert loaded.numbers.alpha is None


def test_a_spectrum_without_a_fold_is_stored_once_and_shared_again(database: Database) -> None:
    with database.write() as connection:
        measurements.save(connection, measurement("d"), NOW)
        row = connection.execute(sa.select(tables.measurements)).one()
        loaded = measurements.load(connection, "d")
    assert row.folded_spectrum is None
    assert loaded is not None
    assert loaded.folded_spectrum is loaded.spectrum


def test_arrays_are_little_endian_float32_in_the_file(database: Database) -> None:
    one = replace(measurement("d"), row_norms=np.array([1.0, -2.5], dtype=np.float32))
    with database.write() as connection:
        measurements.save(connection, one, NOW)
        stored = connection.execute(sa.select(tables.measurements.c.row_norms)).scalar_one()
    # IEEE 754: 1.0 is 0x3f800000, -2.5 is 0xc0200000.
    assert stored == bytes.fromhex("0000803f000020c0")


def test_saving_twice_keeps_the_first(database: Database) -> None:
    with database.write() as connection:
        measurements.save(connection, measurement("d", seed=1), NOW)
        measurements.save(connection, measurement("d", seed=2), NOW)
        assert _bits(measurements.load(connection, "d")) == _bits(measurement("d", seed=1))


def test_an_unknown_digest_is_not_known(database: Database) -> None:
    with database.write() as connection:
        measurements.save(connection, measurement("d"), NOW)
        assert measurements.known(connection, "d")
        assert not measurements.known(connection, "e")
        assert measurements.load(connection, "e") is None


def test_measurements_of_another_metric_set_do_not_mix(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as connection:
        measurements.save(connection, measurement("d"), NOW)
        monkeypatch.setattr("layerwatch.daemon.store.measurements.METRIC_SET", METRIC_SET + "-next")
        assert not measurements.known(connection, "d")
        assert measurements.load(connection, "d") is None
        assert measurements.load_scalars(connection, ["d"]) == {}
        measurements.save(connection, measurement("d", seed=2), NOW)
        assert _bits(measurements.load(connection, "d")) == _bits(measurement("d", seed=2))


def test_a_database_that_holds_measurements_of_metric_set_2_goes_on_working(database: Database) -> None:
    # What set 2 knew; set 3 counts more in the elements.
    new = ("min_value", "zero_tail", "constant", "duplicate_rows", "levels_per_row")
    with database.write() as connection:
        measurements.save(connection, measurement("d", seed=1), NOW)
        row = connection.execute(sa.select(tables.measurements)).mappings().one()
        scalars = {name: value for name, value in row["scalars"].items() if name not in new}
        connection.execute(sa.update(tables.measurements).values(metric_set="2", scalars=scalars))
        assert not measurements.known(connection, "d")
        assert measurements.load(connection, "d") is None
        assert measurements.load_scalars(connection, ["d"]) == {}

        measurements.save(connection, measurement("d", seed=2), NOW)

        assert measurements.known(connection, "d")
        assert _bits(measurements.load(connection, "d")) == _bits(measurement("d", seed=2))
        kept = connection.execute(sa.select(tables.measurements.c.metric_set)).scalars().all()
    assert sorted(kept) == ["2", METRIC_SET]


def test_scalars_of_more_digests_than_fit_into_one_statement(database: Database) -> None:
    wanted = [f"d{index}" for index in range(1200)]
    with database.write() as connection:
        for digest in wanted[::2]:
            measurements.save(connection, measurement(digest), NOW)
        found = measurements.load_scalars(connection, [*wanted, *wanted])
    assert set(found) == set(wanted[::2])
    assert all(one.spectrum is None and one.numbers is not None for one in found.values())


@pytest.mark.parametrize(
    "damage",
    [
        {"scalars": {"non_finite": 0}},
        {"kind": "unheard-of"},
        {"spectrum": b"\x00\x00\x00"},
        {"array_shapes": {"folded_is_raw": False}},
    ],
)
def test_a_damaged_row_is_reported_with_its_digest(database: Database, damage: dict[str, Any]) -> None:
    with database.write() as connection:
        measurements.save(connection, measurement("d"), NOW)
        connection.execute(sa.update(tables.measurements).values(**damage))
        with pytest.raises(StoreError) as caught:
            measurements.load(connection, "d")
    assert caught.value.reason is StoreReason.DAMAGED_RECORD
    assert "measurement d " in caught.value.detail

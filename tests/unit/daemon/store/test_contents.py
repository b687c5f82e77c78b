"""Contents come back as they were saved, whatever their layers are called."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from layerwatch.daemon.store import contents, tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import ContentRecord, SkippedTensor
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET, LayerKind
from storetools import NOW, content

_FULL = ContentRecord(
    fingerprint="f",
    metric_set=METRIC_SET,
    format="safetensors",
    size_bytes=5 * 2**40,
    layers=(
        LayerEntry("z.weight", LayerKind.LINEAR, (4, 3), "BF16", "digest-z"),
        LayerEntry("a.bias", LayerKind.BIAS, (4,), "F32", "digest-a"),
        LayerEntry(
            "b.weight", LayerKind.CONV, (), "F8_E4M3", None, "unsupported_dtype", "F8_E4M3 has no scale"
        ),
    ),
    skipped=(SkippedTensor("position_ids", "integers"),),
    file_problem=("truncated", "12 bytes are missing"),
    measure_seconds=0.1,
)


def test_a_content_comes_back_with_its_layers_in_file_order(database: Database) -> None:
    with database.write() as connection:
        contents.save(connection, _FULL, NOW)
        assert contents.load(connection, "f", METRIC_SET) == _FULL


def test_saving_again_replaces_layers_too(database: Database) -> None:
    smaller = replace(_FULL, layers=_FULL.layers[:1], file_problem=None)
    with database.write() as connection:
        contents.save(connection, _FULL, NOW)
        contents.save(connection, smaller, NOW)
        assert contents.load(connection, "f", METRIC_SET) == smaller
        assert len(connection.execute(sa.select(tables.content_layers)).all()) == 1


def test_a_content_without_layers_is_kept(database: Database) -> None:
    with database.write() as connection:
        contents.save(connection, content("f"), NOW)
        assert contents.load(connection, "f", METRIC_SET) == content("f")


def test_metric_sets_are_apart(database: Database) -> None:
    with database.write() as connection:
        contents.save(connection, content("f", "old", metric_set="0"), NOW)
        contents.save(connection, content("f", "new"), NOW)
        assert contents.load(connection, "f", "0") == content("f", "old", metric_set="0")
        assert contents.load(connection, "f", METRIC_SET) == content("f", "new")
        assert contents.load(connection, "g", METRIC_SET) is None


def test_a_hostile_layer_name_is_kept_in_a_form_that_any_database_takes(database: Database) -> None:
    # A JSON header may spell lone surrogates and NUL; UTF-8 has no form for the first, PostgreSQL for neither.
    hostile = LayerEntry("a\ud800\x00b\u2028\U0001f600", LayerKind.LINEAR, (1, 1), "F32", "d")
    with database.write() as connection:
        contents.save(connection, replace(_FULL, layers=(hostile,)), NOW)
        loaded = contents.load(connection, "f", METRIC_SET)
    assert loaded is not None
    assert loaded.layers[0].name == "a\\ud800\\x00b\u2028\U0001f600"


def test_couplings_come_back_as_they_were(database: Database) -> None:
    statistics = Coupling(
        CouplingKind.BATCHNORM_STATISTICS,
        ("conv", "bn.running_mean"),
        0.97,
        1.25,
        64,
        (Side.OUTPUTS, Side.VECTOR),
        "estimated",
    )
    profile = Coupling(
        CouplingKind.INPUT_MEANING, ("fc\u2028",), 0.1, None, 3, (Side.INPUTS,), "", (0.6, -0.8, 1e-30)
    )
    coupled = replace(_FULL, couplings=(statistics, profile))
    with database.write() as connection:
        contents.save(connection, coupled, NOW)
        assert contents.load(connection, "f", METRIC_SET) == coupled
        contents.save(connection, _FULL, NOW)
        assert contents.load(connection, "f", METRIC_SET) == _FULL
        assert connection.execute(sa.select(tables.content_couplings)).all() == []

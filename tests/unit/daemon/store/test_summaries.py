"""Summaries say what reports, versions and refs say, whatever happened before, and none is missing after an upgrade."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.daemon.store import (
    fleet,
    modelsummaries,
    queue,
    refs,
    retention,
    schema,
    summaries,
    summaryfilling,
    tables,
    timeline,
    versions,
)
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.store.fleet import FleetFilter, FleetOrder
from layerwatch.daemon.store.records import VersionKey
from layerwatch.daemon.store.summaries import LayerSummary, VersionSummary
from layerwatch.daemon.store.verdicts import record_verdict
from layerwatch.metrics.findings import Finding, LayerStatus, RuleGroup, Severity, Verdict
from layerwatch_testing.examinations import aligned, change, examination, layer
from layerwatch_testing.reports import report_of
from storetools import NOW, NewDatabase, finding, later, registered

_MODELS = ("m", "M/\u202e", "")
_RANK = {"fail": 4, "undecided": 3, "warn": 2, None: 1, "pass": 0}


def _report(*alphas: float | None, status: str = "ok") -> str:
    layers = [
        {
            "name": f"layer{place}",
            "status": status if place == 0 else "ok",
            "metrics": {"alpha": alpha, "alpha_sigma": 0.25, "fit_status": "ok"},
            "change": {"relative_change": 0.5} if place else None,
        }
        for place, alpha in enumerate(alphas)
    ]
    return json.dumps({"layers": layers})


def _judge(
    connection: sa.Connection,
    version: str,
    verdict: Verdict = Verdict.PASS,
    report: str = "{}",
    findings: Iterable[Finding] = (),
    model: str = "m",
    registry: str = "r",
) -> int:
    record = registered(connection, version, model, registry)
    record_verdict(connection, record.id, verdict, report, list(findings), NOW)
    return record.id


def _critical(layer: str | None, message: str) -> Finding:
    return Finding("scaled", RuleGroup.WEIGHTS, Severity.CRITICAL, layer, message)


def _models(database: Database) -> list[tuple[str, str, str]]:
    with database.read() as connection:
        rows = fleet.page(connection, FleetFilter(), (), FleetOrder.NAME, 100, 0)
    return [(row.registry, row.model, row.version) for row in rows]


def test_a_summary_holds_the_numbers_of_every_layer_and_the_worst_finding(database: Database) -> None:
    found = [finding(layer="b"), _critical("a", "8 times larger"), _critical("c", "no numbers")]
    with database.write() as connection:
        row = _judge(connection, "v1", Verdict.FAIL, _report(2.0, None, 4.0, status="broken"), found)
        summary = summaries.of_version(connection, row)
    assert summary == VersionSummary(
        id=row,
        version="v1",
        verdict=Verdict.FAIL,
        judged_at=NOW,
        relation=None,
        parent=None,
        mean_alpha=3.0,
        layer_count=3,
        broken=1,
        suspect=0,
        undecided=0,
        worst_layer="a",
        worst_words="8 times larger",
        layers=(
            LayerSummary("layer0", LayerStatus.BROKEN, 2.0, 0.25, None, True),
            LayerSummary("layer1", LayerStatus.OK, None, 0.25, 0.5, True),
            LayerSummary("layer2", LayerStatus.OK, 4.0, 0.25, 0.5, True),
        ),
    )


def test_what_passed_names_nothing_as_worst(database: Database) -> None:
    remark = Finding("tail", RuleGroup.WEIGHTS, Severity.INFO, "fc1", "alpha above 6")
    with database.write() as connection:
        summary = summaries.of_version(connection, _judge(connection, "v1", findings=[remark]))
    assert summary is not None
    assert (summary.worst_layer, summary.worst_words, summary.mean_alpha) == (None, None, None)


def test_what_was_never_judged_has_no_summary(database: Database) -> None:
    with database.write() as connection:
        assert summaries.of_version(connection, registered(connection, "v1").id) is None
        assert summaries.of_version(connection, 999) is None
        assert summaries.history(connection, "r", "m", 10, 10_000) == []


def test_layers_are_the_same_from_a_report_and_from_its_text() -> None:
    report = report_of(
        examination(
            layer("fc1", change=change(aligned=aligned(0.5, 0.9))), layer("a\ud800\x00b"), layer("fc2")
        )
    )
    layers = summaries.layers_of(report)
    assert [one.name for one in layers] == [one.name for one in report.layers]
    assert layers[0].alpha is not None
    assert layers[0].relative_change is not None
    assert summaries.layers_of_text(report.to_json()) == layers


def test_names_that_no_database_takes_are_kept_as_in_contents(database: Database) -> None:
    text = json.dumps({"layers": [{"name": "a\x00\ud800", "status": "ok"}]})
    with database.write() as connection:
        summary = summaries.of_version(connection, _judge(connection, "v1", report=text))
    assert summary is not None
    assert [one.name for one in summary.layers] == ["a\\x00\\ud800"]


def test_history_is_in_natural_order_and_of_what_is_offered(database: Database) -> None:
    with database.write() as connection:
        for version in ("v10", "v9", "v2", "v8"):
            _judge(connection, version, report=_report(float(version[1:])))
        _judge(connection, "v1", model="other")
        registered(connection, "v11")
        versions.mark_gone(connection, "r", "m", "v8", NOW)
        found = summaries.history(connection, "r", "m", 2, 10_000)
        course = summaries.mean_alphas(connection, "r", "m", 10)
    assert [one.version for one in found] == ["v9", "v10"]
    assert course == [(2.0, Verdict.PASS), (9.0, Verdict.PASS), (10.0, Verdict.PASS)]


@pytest.mark.parametrize(
    ("most_layers", "expected"),
    [(9, ["v1", "v2", "v3"]), (8, ["v2", "v3"]), (1, ["v2", "v3"])],
)
def test_of_huge_versions_history_has_as_many_as_can_be_afforded_but_two_always(
    database: Database, most_layers: int, expected: list[str]
) -> None:
    with database.write() as connection:
        for version in ("v1", "v2", "v3"):
            _judge(connection, version, report=_report(2.0, 3.0, 4.0))
        found = summaries.history(connection, "r", "m", 30, most_layers)
    assert [one.version for one in found] == expected
    assert all(len(one.layers) == 3 for one in found)


def test_a_rescan_replaces_the_summary(database: Database) -> None:
    with database.write() as connection:
        row = _judge(connection, "v1", Verdict.FAIL, _report(2.0), [_critical("a", "broken")])
        queue.reopen(connection, row)
        while_it_waits = summaries.of_version(connection, row)
        record_verdict(connection, row, Verdict.PASS, _report(3.0), [], later(5))
        summary = summaries.of_version(connection, row)
    assert while_it_waits is not None
    assert while_it_waits.worst_words == "broken"
    assert summary is not None
    assert (summary.verdict, summary.mean_alpha, summary.worst_words) == (Verdict.PASS, 3.0, None)


def test_retention_takes_the_numbers_of_layers_and_leaves_what_the_timeline_shows(database: Database) -> None:
    with database.write() as connection:
        for number in range(1, 5):
            _judge(connection, str(number), Verdict.FAIL, _report(2.0), [_critical("a", "broken")])
        retention.prune(connection, 2, NOW)
        old, new = (summaries.history(connection, "r", "m", 9, 10_000)[place] for place in (0, -1))
    assert (old.version, old.layers, old.mean_alpha, old.layer_count) == ("1", (), 2.0, 1)
    assert old.worst_words == "broken"
    assert len(new.layers) == 1


def test_the_target_of_latest_stands_for_its_model(database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2", "v3"):
            _judge(connection, version)
        registered(connection, "v4")
    assert _models(database) == [("r", "m", "v3")]
    with database.write() as connection:
        target = versions.current(connection, VersionKey("r", "m", "v1"))
        assert target is not None
        refs.point(connection, "r", "m", "latest", target.id, NOW)
        refs.point(connection, "r", "m", "champion", target.id, NOW)
    assert _models(database) == [("r", "m", "v1")]
    with database.write() as connection:
        refs.remove(connection, "r", "m", "latest")
    assert _models(database) == [("r", "m", "v3")]


def test_a_model_is_listed_from_its_first_version_to_its_last(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "v1")
    assert _models(database) == [("r", "m", "v1")]
    with database.write() as connection:
        versions.mark_gone(connection, "r", "m", "v1", NOW)
    assert _models(database) == []
    with database.write() as connection:
        registered(connection, "v1")
    assert _models(database) == [("r", "m", "v1")]


def test_a_transaction_that_fails_leaves_no_summary_behind(database: Database) -> None:
    with pytest.raises(StoreError), database.write() as connection:
        row = _judge(connection, "v1", Verdict.FAIL, _report(2.0))
        record_verdict(connection, row, Verdict.PASS, "{}", [], NOW)
    assert _models(database) == []
    # The same connection comes back from the pool: what failed on it is not made up for later.
    with database.write() as connection:
        _judge(connection, "v1", model="another")
    assert _models(database) == [("r", "another", "v1")]


def test_models_are_counted_found_and_sorted(database: Database) -> None:
    with database.write() as connection:
        _judge(connection, "v1", Verdict.PASS, model="good", registry="a")
        _judge(connection, "v1", Verdict.FAIL, model="STRASSE_100%", registry="b")
        _judge(connection, "v1", Verdict.WARN, model="middling", registry="b")
        registered(connection, "v1", "new", "c")

    def found(text: str = "", registry: str | None = None, order: FleetOrder = FleetOrder.WORST) -> list[str]:
        with database.read() as connection:
            rows = fleet.page(connection, FleetFilter(text, registry), (), order, 10, 0)
        return [row.model for row in rows]

    with database.read() as connection:
        assert fleet.counts(connection, FleetFilter()) == {
            Verdict.FAIL: 1,
            Verdict.UNDECIDED: 0,
            Verdict.WARN: 1,
            None: 1,
            Verdict.PASS: 1,
        }
        assert fleet.counts(connection, FleetFilter("MIDDL"))[Verdict.WARN] == 1
        assert fleet.counts(connection, FleetFilter("MIDDL"))[Verdict.FAIL] == 0
        assert fleet.registries(connection) == ["a", "b", "c"]
        only = fleet.page(connection, FleetFilter(), (Verdict.WARN,), FleetOrder.WORST, 10, 0)
        assert fleet.names(connection, FleetFilter("d"), 1) == [("a", "good")]
    assert [row.model for row in only] == ["middling"]
    assert found() == ["STRASSE_100%", "middling", "new", "good"]
    assert found(order=FleetOrder.NAME) == ["good", "STRASSE_100%", "middling", "new"]
    assert found(registry="b") == ["STRASSE_100%", "middling"]
    assert found("straße") == ["STRASSE_100%"]
    assert found("B/m") == ["middling"]
    # Nothing in a search is a pattern.
    assert found("100%") == found("_") == ["STRASSE_100%"]
    assert found("%d") == []


def test_pages_hold_every_model_once(database: Database) -> None:
    with database.write() as connection:
        for number in range(7):
            _judge(connection, "v1", Verdict.FAIL, model=f"m{number}")
    for order in FleetOrder:
        with database.read() as connection:
            pages = [fleet.page(connection, FleetFilter(), (), order, 3, offset) for offset in (0, 3, 6)]
        assert [row.model for page in pages for row in page] == [f"m{number}" for number in range(7)]


def test_the_timeline_has_every_revision_the_newest_first(database: Database) -> None:
    with database.write() as connection:
        _judge(connection, "v1", Verdict.WARN, _report(2.0))
        registered(connection, "v1", fingerprint="other bytes")
        registered(connection, "v10")
        _judge(connection, "v2")
        assert timeline.count(connection, "r", "m") == 4
        assert timeline.count(connection, "r", "none") == 0
        found = timeline.page(connection, "r", "m", 10, 0)
        last = timeline.page(connection, "r", "m", 10, 3)
    assert [(one.version, one.is_current, one.verdict) for one in found] == [
        ("v10", True, None),
        ("v2", True, Verdict.PASS),
        ("v1", True, None),
        ("v1", False, Verdict.WARN),
    ]
    assert [one.mean_alpha for one in last] == [2.0]


_STEP = st.tuples(
    st.sampled_from(
        ["register", "overwrite", "judge", "reopen", "gone", "latest", "champion", "unref", "prune"]
    ),
    st.integers(1, 4),
    st.sampled_from(_MODELS),
    st.sampled_from(Verdict),
)


@settings(max_examples=40, deadline=None)
@given(transactions=st.lists(st.lists(_STEP, min_size=1, max_size=4), max_size=12))
def test_whatever_happened_summaries_are_what_is_counted_from_scratch(
    new_database: NewDatabase, transactions: list[list[tuple[str, int, str, Verdict]]]
) -> None:
    told: dict[int, tuple[Any, ...]] = {}
    with new_database() as database:
        for place, steps in enumerate(transactions):
            with database.write() as connection:
                for step, (action, number, model, verdict) in enumerate(steps):
                    _apply(connection, action, str(number), model, verdict, f"{place}.{step}", told)
            with database.read() as connection:
                rows = connection.execute(sa.select(tables.versions)).all()
                assert _model_rows(connection) == _models_from_scratch(connection, rows)
                assert _version_rows(connection) == {
                    row.id: (*told[row.id][:6], None if row.report is None else told[row.id][6])
                    for row in rows
                    if row.verdict is not None
                }


def _apply(
    connection: sa.Connection,
    action: str,
    name: str,
    model: str,
    verdict: Verdict,
    place: str,
    told: dict[int, tuple[Any, ...]],
) -> None:
    known = versions.current(connection, VersionKey("r", model, name))
    if action in ("register", "overwrite") or known is None:
        fingerprint = known.fingerprint if known is not None and action == "register" else f"bytes {place}"
        registered(connection, name, model, fingerprint=fingerprint)
    elif action == "judge" and known.state != "judged":
        alpha, broken = float(len(place)), verdict is Verdict.FAIL
        found = [finding(layer=place)]
        record_verdict(
            connection, known.id, verdict, _report(alpha, status="broken" if broken else "ok"), found, NOW
        )
        worst = (None, None) if verdict is Verdict.PASS else (place, found[0].message)
        numbers = [["layer0", "broken" if broken else "ok", alpha, 0.25, None, True]]
        told[known.id] = (alpha, 1, int(broken), 0, *worst, numbers)
    elif action == "reopen" and known.gone_at is None and known.state != "scanning":
        queue.reopen(connection, known.id)
    elif action == "gone":
        versions.mark_gone(connection, "r", model, name, NOW)
    elif action in ("latest", "champion"):
        refs.point(connection, "r", model, action, known.id, NOW)
    elif action == "unref":
        refs.remove(connection, "r", model, "latest")
    elif action == "prune":
        retention.prune(connection, 1, NOW)


def _model_rows(connection: sa.Connection) -> dict[str, tuple[Any, ...]]:
    table = tables.model_summaries
    return {
        row.model: (row.version_id, row.rank, row.judged_at, row.versions, row.search)
        for row in connection.execute(sa.select(table))
    }


def _models_from_scratch(
    connection: sa.Connection, rows: Iterable[sa.Row[Any]]
) -> dict[str, tuple[Any, ...]]:
    by_id = {row.id: row for row in rows}
    latest = {one.model: one.version_id for one in refs.list_refs(connection) if one.ref == "latest"}
    found = {}
    for model in {row.model for row in by_id.values()}:
        offered = [
            row for row in by_id.values() if row.model == model and row.is_current and row.gone_at is None
        ]
        if offered:
            newest = max(offered, key=lambda row: (row.verdict is not None, row.sort_key, row.id))
            row = by_id[latest.get(model, newest.id)]
            search = f"r/{model}".casefold()
            found[model] = (row.id, _RANK[row.verdict], row.judged_at, len(offered), search)
    return found


def _version_rows(connection: sa.Connection) -> dict[int, tuple[Any, ...]]:
    table = tables.version_summaries
    names = ("mean_alpha", "layers", "broken", "suspect", "worst_layer", "worst_words", "numbers")
    return {
        row.version_id: tuple(row._mapping[name] for name in names)
        for row in connection.execute(sa.select(table))
    }


@pytest.fixture
def upgraded(url: str) -> Iterable[Database]:
    """A database from before summaries were kept, opened again by this version."""
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    _fill_the_schema_before(url)
    database = Database.open(url)
    yield database
    database.close()


def test_an_upgrade_tells_verdicts_and_worst_findings_at_once(upgraded: Database) -> None:
    with upgraded.read() as connection:
        rows = fleet.page(connection, FleetFilter(), (), FleetOrder.WORST, 10, 0)
        shown = [(row.model, row.version, row.verdict, row.versions, row.worst_words) for row in rows]
        assert shown == [
            ("broken", "v2", Verdict.FAIL, 3, "8 times larger"),
            ("new", "v1", None, 1, None),
            ("Pointed", "v1", Verdict.PASS, 2, None),
        ]
        assert fleet.names(connection, FleetFilter("POINTED"), 9) == [("r", "Pointed")]
        (summary,) = summaries.history(connection, "r", "broken", 1, 10_000)
    assert (summary.worst_layer, summary.mean_alpha, summary.layer_count) == ("a", None, None)


def test_after_an_upgrade_numbers_are_filled_in_from_the_reports_that_are_kept(upgraded: Database) -> None:
    with upgraded.write() as connection:
        judged_meanwhile = _judge(connection, "v3", report=_report(7.0), model="Pointed")
    before = _everything(upgraded)
    assert summaryfilling.fill(upgraded, 100, lambda: True) == 0
    assert _everything(upgraded) == before
    # Of five judged versions one has no report any more, and one was judged by this version.
    assert summaryfilling.fill(upgraded, 100, lambda: False) == 3
    with upgraded.read() as connection:
        assert summaries.mean_alphas(connection, "r", "broken", 9) == [
            (None, Verdict.PASS),
            (2.0, Verdict.FAIL),
        ]
        damaged, pointed, other = summaries.history(connection, "r", "Pointed", 9, 10_000)
    assert (damaged.layer_count, damaged.layers) == (0, ())
    assert (pointed.mean_alpha, [one.name for one in pointed.layers]) == (3.0, ["layer0", "layer1"])
    assert (other.id, other.mean_alpha) == (judged_meanwhile, 7.0)
    assert summaryfilling.fill(upgraded, 100, lambda: False) == 0


def test_an_upgraded_database_has_what_this_version_would_have_written(upgraded: Database) -> None:
    summaryfilling.fill(upgraded, 100, lambda: False)
    filled = _everything(upgraded)
    with upgraded.write() as connection:
        connection.execute(sa.delete(tables.model_summaries))
        for model in ("broken", "new", "Pointed", "gone"):
            modelsummaries.touch(connection, "r", model)
    assert _everything(upgraded) == filled


def test_downgrading_takes_the_summaries_and_nothing_else(database: Database) -> None:
    with database.write() as connection:
        _judge(connection, "v1")
    with database.write() as connection:
        command.downgrade(_config(connection), "0010")
        left = set(sa.inspect(connection).get_table_names())
        assert not left & {"version_summaries", "model_summaries"}
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.versions)).scalar() == 1


def _everything(database: Database) -> tuple[object, object]:
    with database.read() as connection:
        return _model_rows(connection), _version_rows(connection)


def _fill_the_schema_before(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        command.upgrade(_config(connection), "0010")
        dropped = _row_of(connection, "broken", "v1", Verdict.PASS, None)
        broken = _row_of(connection, "broken", "v2", Verdict.FAIL, _report(2.0, status="broken"))
        _row_of(connection, "broken", "v3", None, None)
        _row_of(connection, "new", "v1", None, None)
        pointed = _row_of(connection, "Pointed", "v1", Verdict.PASS, _report(2.0, 4.0))
        _row_of(connection, "Pointed", "v0", Verdict.WARN, '{"layers": [{}]}')
        gone = _row_of(connection, "gone", "v1", None, None)
        connection.execute(sa.update(tables.versions).where(tables.versions.c.id == gone).values(gone_at=NOW))
        refs_row = {"registry": "r", "model": "Pointed", "ref": "latest", "version_id": pointed}
        connection.execute(sa.insert(tables.refs).values(**refs_row, moved_at=NOW))
        for row, position, one in (
            (broken, 0, finding()),
            (broken, 1, _critical("a", "8 times larger")),
            (dropped, 0, finding()),
        ):
            connection.execute(
                sa.insert(tables.findings).values(
                    version_id=row,
                    position=position,
                    rule=one.rule,
                    rule_group=one.group.value,
                    severity=one.severity.value,
                    layer=one.layer,
                    message=one.message,
                    evidence={},
                    strength=1.0,
                )
            )
    engine.dispose()


def _row_of(
    connection: sa.Connection, model: str, version: str, verdict: Verdict | None, report: str | None
) -> int:
    record = registered(connection, version, model)
    if verdict is not None:
        connection.execute(
            sa.update(tables.versions)
            .where(tables.versions.c.id == record.id)
            .values(state="judged", verdict=verdict.value, judged_at=NOW, report=report)
        )
    return record.id


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["connection"] = connection
    return config

"""Pictures of spectra, asked for over a real server; at the end, by the link of an alert of a running daemon."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, HTTPException
from numpy.typing import NDArray
from sqlalchemy import Connection

from layerwatch.alerts import payload
from layerwatch.daemon.store import contents, measurements, outbox, tables, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import ContentRecord, VersionKey, VersionRecord
from layerwatch.daemon.web import spectra
from layerwatch.daemon.web.errors import add_error_answers
from layerwatch.daemon.web.spectra import MOST_WAITING, Pictures, spectra_router
from layerwatch.daemon.web.storedlayers import Wanted
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET, LayerKind
from layerwatch.metrics.plots import plot_layer, plot_unmeasured, rendered
from layerwatch_testing.daemons import RunningApp, directory, write_config
from layerwatch_testing.networks import network, with_nan
from layerwatch_testing.plotting import gaussian, heavy_tailed, plotted
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld
from storetools import NOW, python, registered

SIZE = (1560, 576)
"""Of every picture with panels: 13 x 4.8 inches of 120 dots."""

OLD, NEW = "0123456789abcdef" * 4, "fedcba9876543210" * 4

Weights = Mapping[str, NDArray[Any]]


@dataclasses.dataclass
class Shelf:
    """A store, and the server before it."""

    database: Database
    folder: Path
    address: str

    def put(
        self,
        version: str,
        weights: Weights,
        fingerprint: str,
        baseline: VersionRecord | None = None,
        model: str = "m",
        other: LayerEntry | None = None,
    ) -> VersionRecord:
        """A judged version whose layers were measured."""
        layers = []
        with self.database.write() as connection:
            for one in plotted(self.folder, weights, shuffled=False):
                assert one.measurement is not None
                measurements.save(connection, one.measurement, NOW)
                digest = one.measurement.digest
                layers.append(LayerEntry(one.name, one.measurement.kind, one.shape, one.dtype, digest))
            layers += [other] if other is not None else []
            kept = ContentRecord(fingerprint, METRIC_SET, "safetensors", 1, tuple(layers), (), None, 0.1)
            contents.save(connection, kept, NOW)
            record = registered(connection, version, model, fingerprint=fingerprint)
            judge(connection, record, baseline)
        return record

    def ask(
        self, version: str = "v2", layer: str = "fc", model: str = "m", **other: str
    ) -> requests.Response:
        known = other.pop("known", None)
        parameters = {"registry": "r", "model": model, "version": version, "layer": layer, **other}
        headers = {} if known is None else {"If-None-Match": known}
        return requests.get(f"{self.address}/spectrum.png", params=parameters, headers=headers, timeout=60)

    def refusal(self, **asked: str) -> tuple[int, str]:
        answer = self.ask(**asked)
        return answer.status_code, answer.json()["error"]

    def drawing(self, title: str, digest: str, before: str | None = None) -> bytes:
        """The picture as it must be."""
        with self.database.read() as connection:
            measurement = measurements.load(connection, digest)
            assert measurement is not None
            old = None if before is None else measurements.load(connection, before)
        return rendered(plot_layer(measurement, title, old), "png")

    def digest(self, record: VersionRecord, layer: str = "fc") -> str:
        with self.database.read() as connection:
            (entry,) = contents.load_layers(connection, record.fingerprint, METRIC_SET, [layer])
        assert entry.digest is not None
        return entry.digest


def judge(connection: Connection, record: VersionRecord, baseline: VersionRecord | None) -> None:
    part = {"version": baseline.key.version, "fingerprint": baseline.fingerprint} if baseline else None
    versions.record_verdict(connection, record.id, Verdict.FAIL, json.dumps({"baseline": part}), [], NOW)


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Iterator[Shelf]:
    api = FastAPI()
    api.include_router(spectra_router(database))
    add_error_answers(api)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(api, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: server.started, "the server")
        yield Shelf(database, tmp_path, f"http://127.0.0.1:{listening.getsockname()[1]}")
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def pair(shelf: Shelf) -> tuple[VersionRecord, VersionRecord]:
    """v1, and v2 that was judged against it and is broken."""
    healthy = heavy_tailed(96, 64)
    before = shelf.put("v1", {"fc.weight": healthy}, OLD)
    return before, shelf.put("v2", {"fc.weight": healthy / 100}, NEW, before)


def size(png: bytes) -> tuple[int, int]:
    """Width and height: PNG specification, 11.2.1 (IHDR)."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_the_layer_is_drawn_beside_that_of_the_version_it_was_judged_against(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord]
) -> None:
    before, broken = pair
    answer = shelf.ask()

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert size(answer.content) == SIZE
    title = "m v2 against v1: fc"
    assert answer.content == shelf.drawing(title, shelf.digest(broken), shelf.digest(before))
    assert answer.content != shelf.drawing(title, shelf.digest(broken))


def test_a_layer_without_a_baseline_is_drawn_alone(shelf: Shelf) -> None:
    first = shelf.put("v1", {"fc.weight": gaussian(64, 64)}, OLD)
    second = shelf.put("v2", {"new.weight": gaussian(64, 32)}, NEW, first)

    assert shelf.ask("v1").content == shelf.drawing("m v1: fc", shelf.digest(first))
    assert shelf.ask(layer="new").content == shelf.drawing("m v2: new", shelf.digest(second, "new"))


def test_a_layer_that_could_not_be_examined_is_a_picture_that_says_why(shelf: Shelf) -> None:
    unread = LayerEntry("odd", LayerKind.LINEAR, (4, 4), "Q9", None, "unknown_type", "Q9 is not known here.")
    shelf.put("v2", {"fc.weight": gaussian(64, 64)}, NEW, other=unread)

    expected = rendered(plot_unmeasured("m v2: odd", (4, 4), "Q9", "Q9 is not known here."), "png")
    assert shelf.ask(layer="odd").content == expected


def test_who_has_the_picture_already_is_told_so_until_it_is_another(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord]
) -> None:
    answer = shelf.ask()
    tag = answer.headers["etag"]
    assert answer.headers["cache-control"] == "private, no-cache"

    same = shelf.ask(known=tag)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert shelf.ask(known='"another"').status_code == 200
    assert shelf.ask(known=f'W/{tag}, "another"').status_code == 304
    # Judged anew, against nothing.
    with shelf.database.write() as connection:
        versions.reopen(connection, pair[1].id)
        judge(connection, pair[1], None)
    assert shelf.ask(known=tag).status_code == 200


def test_bytes_that_were_replaced_are_found_by_their_fingerprint(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord]
) -> None:
    drawn = shelf.ask().content
    third = "00ff" * 16
    shelf.put("v2", {"fc.weight": gaussian(64, 64)}, third)

    assert shelf.ask().content != drawn
    by_fingerprint = shelf.ask(fingerprint=NEW[:12])
    assert by_fingerprint.content == drawn
    assert by_fingerprint.headers["cache-control"] == "private, max-age=86400, immutable"
    assert shelf.ask(fingerprint=third).content == shelf.ask().content
    told = "r/m has no version 'v2' with the fingerprint 0123456789ab"
    assert shelf.refusal(fingerprint=OLD[:12]) == (404, told)
    assert shelf.ask(fingerprint="latest").status_code == 422


def test_what_is_not_there_is_not_found_and_says_so(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord]
) -> None:
    assert shelf.refusal(version="v3") == (404, "r/m has no version 'v3'")
    assert shelf.refusal(model="<b>") == (404, "r/<b> has no version 'v2'")
    assert shelf.refusal(layer="fc9") == (404, "m v2 has no layer 'fc9'")
    with shelf.database.write() as connection:
        registered(connection, "v4")
    assert shelf.refusal(version="v4") == (404, "m v4 was not measured yet")
    assert requests.get(f"{shelf.address}/spectrum.png?model=m", timeout=10).status_code == 422


def test_what_could_not_be_read_at_all_has_no_picture(shelf: Shelf) -> None:
    with shelf.database.write() as connection:
        record = registered(connection, "v2", fingerprint=NEW)
        unread = ContentRecord(NEW, METRIC_SET, "", 0, (), (), ("truncated", "half of it is missing"), 0.0)
        contents.save(connection, unread, NOW)
        versions.record_verdict(connection, record.id, Verdict.UNDECIDED, "{}", [], NOW)

    assert shelf.refusal() == (404, "m v2 could not be examined, so there is no spectrum of it")


def test_what_retention_dropped_is_not_there_any_more(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord]
) -> None:
    with shelf.database.write() as connection:
        connection.execute(sa.delete(tables.measurements))
    assert shelf.refusal() == (404, "the spectrum of m v2 against v1: fc is not kept any more")
    with shelf.database.write() as connection:
        connection.execute(sa.delete(tables.contents))
    assert shelf.refusal() == (404, "m v2 is not kept any more: only its verdict is")


@pytest.mark.parametrize(
    "layer",
    ["$\\frac{", "$x^2$", "a\nb\u202ec", "\U0001f4a3" * 30, "<img src=x>", "%s {0} \\N{BELL}", "x" * 4000],
)
def test_names_of_strangers_are_drawn_as_they_are_written(shelf: Shelf, layer: str) -> None:
    """Matplotlib takes text between dollars for formulas, and fails over one that it cannot read."""
    shelf.put("$v_2$", {f"{layer}.weight": gaussian(64, 64)}, NEW, model="$\\undefined{$")
    # What is asked for is what an alert's link holds: one printable line of bounded length.
    shown = payload.name(layer)

    answer = shelf.ask("$v_2$", shown, model="$\\undefined{$")
    assert (answer.status_code, size(answer.content)) == (200, SIZE)
    with shelf.database.read() as connection:
        found = versions.current(connection, VersionKey("r", "$\\undefined{$", "$v_2$"))
    assert found is not None
    title = f"$\\undefined{{$ $v_2$: {shown}"
    assert answer.content == shelf.drawing(title, shelf.digest(found, layer))


def test_without_matplotlib_it_says_what_to_install(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in sys.modules is how Python itself marks a module that must not be imported.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    status, told = shelf.refusal()
    assert status == 501
    assert "matplotlib" in told
    assert "'.[plots]'" in told


def test_the_last_pictures_are_kept_and_the_one_not_asked_for_longest_goes(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def counted(measurement: Any, name: str, baseline: Any = None) -> Any:
        drawn.append(name[-1])
        return plot_layer(measurement, name, baseline)

    monkeypatch.setattr(spectra, "plot_layer", counted)
    monkeypatch.setattr(spectra, "KEPT", 2)
    shelf.put("v2", {f"{name}.weight": gaussian(64, 64, seed) for seed, name in enumerate("abc")}, NEW)

    for layer in "aababcab":
        assert shelf.ask(layer=layer).status_code == 200
    # c took the place of a, which was not asked for since b was; then a that of b, and b that of c.
    assert "".join(drawn) == "abcab"


def test_one_is_drawn_at_a_time_and_too_many_at_once_are_asked_to_come_back(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord]
) -> None:
    pictures = Pictures(shelf.database)
    wanted = Wanted("r", "m", "v2", "fc")

    async def all_at_once() -> list[Any]:
        asked = (pictures.answer(wanted, "") for _ in range(MOST_WAITING + 2))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(all_at_once())
    refused = [one for one in answers if isinstance(one, HTTPException)]
    assert [(one.status_code, one.headers) for one in refused] == [(503, {"Retry-After": "5"})] * 2
    assert len({one.body for one in answers if one not in refused}) == 1
    # They are served again once the others have theirs.
    assert asyncio.run(pictures.answer(wanted, "")).status_code == 200


def test_a_daemon_holds_matplotlib_only_once_a_picture_was_asked_for_and_torch_never(
    shelf: Shelf, pair: tuple[VersionRecord, VersionRecord]
) -> None:
    program = (
        "import asyncio, sys\n"
        "import layerwatch.daemon.app\n"
        "from layerwatch.daemon.store.database import Database\n"
        "from layerwatch.daemon.web.spectra import Pictures\n"
        "from layerwatch.daemon.web.storedlayers import Wanted\n"
        "heavy = {'matplotlib', 'torch', 'scipy', 'matplotlib.pyplot'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "pictures = Pictures(Database.open(sys.argv[1]))\n"
        "answer = asyncio.run(pictures.answer(Wanted('r', 'm', 'v2', 'fc'), ''))\n"
        "print(answer.status_code, sorted(heavy & set(sys.modules)))\n"
    )
    url = f"sqlite:///{shelf.folder / 'layerwatch.db'}"
    printed, complaint = python(program, url).communicate(timeout=120)
    assert printed.splitlines() == ["[]", "200 ['matplotlib']"], complaint


def test_the_link_of_an_alert_leads_to_the_picture_of_its_layer(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker=None)
    world.publish("fraud", "v1", network())
    world.publish("fraud", "v2", with_nan(network()))
    config = write_config(
        tmp_path / "layerwatch.yaml",
        directory("local", world.root),
        receivers=[{"name": "log", "kind": "log"}],
        server={"external_url": "http://watch.example"},
    )
    with RunningApp(config) as daemon:

        def told() -> list[dict[str, Any]]:
            with daemon.app.database.read() as connection:
                return [json.loads(one.entry.payload)["data"] for one in outbox.list_outbox(connection, 10)]

        (event,) = until(told, "the alert")
        link = urlsplit(event["alerts"][0]["links"]["picture"])
        answer = daemon.get(f"{link.path}?{link.query}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content.startswith(b"\x89PNG")
        assert "/spectrum.png" in daemon.get("/api/openapi.json").json()["paths"]

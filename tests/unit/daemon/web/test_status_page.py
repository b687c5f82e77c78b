"""The page of the status: what is wrong with the daemon, worst first, and what to do about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from firedalerts import fired
from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.outbox import Result
from layerwatch.config.registries import DirectoryRegistrySettings
from layerwatch.config.secrets import Secret
from layerwatch.daemon.health import Beat
from layerwatch.daemon.registries.base import RegistryReason
from layerwatch.daemon.setbacks import Setback
from layerwatch.daemon.statusfacts import ReceiverFacts, RegistryFacts
from layerwatch.daemon.store import auditlog, outbox, versions
from layerwatch.daemon.store.auditlog import Action, Actor, AuditEntry, Authentication
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.outbox import DatabaseOutbox
from layerwatch.daemon.store.retention import Pruned
from layerwatch.daemon.web.pages import whattodo
from layerwatch.metrics.errors import UnreadableReason
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch_testing.daemons import TOKEN, RunningApp, directory, write_config
from layerwatch_testing.networks import network
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld
from readpages import HOSTILE, Page, holds_nothing_foreign, page
from sites import Site
from storetools import NOW, judged, later, registered

POLL = timedelta(minutes=2)
LISTED = RegistryFacts("prod", "mlflow", POLL, later(-30), later(-30), later(90))


def failing(reason: RegistryReason, listed: float = -60, error: str = "no connection") -> RegistryFacts:
    """A registry that was last listed so many seconds from now."""
    return replace(LISTED, listed_at=later(listed), error_reason=reason, error=error)


def given_up(
    database: Database, receiver: str = "oncall", reason: DeliveryReason = DeliveryReason.TLS
) -> None:
    deliveries = DatabaseOutbox(database, "daemon")
    with database.write() as connection:
        outbox.enqueue(connection, "evt_dead", receiver, "{}", later(-7200))
    (entry,) = deliveries.claim(receiver, NOW, 9)
    deliveries.settle([Result(entry.id, (reason, "certificate is not trusted"))], later(-3600))


def waiting(database: Database, since: float, receiver: str = "oncall") -> None:
    deliveries = DatabaseOutbox(database, "daemon")
    with database.write() as connection:
        outbox.enqueue(connection, "evt_wait", receiver, "{}", later(since))
    (entry,) = deliveries.claim(receiver, later(since), 9)
    error = (DeliveryReason.TIMEOUT, "no answer in 15 s")
    deliveries.settle([Result(entry.id, error, later(50))], later(-10))


def test_where_nothing_is_wrong_the_page_says_so_first(site: Site, database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1", model="fraud", registry="prod")
        judged(connection, "v2", model="fraud", registry="prod")
        judged(connection, "v1", model="spam", registry="other")
    site.facts = replace(site.facts, registries=(LISTED,), receivers=(ReceiverFacts("oncall", "webhook"),))
    text = page(site, "/status").text
    assert "All is well with this daemon" in text
    assert "prod mlflow listed 2025-03-01 11:59 UTC 30 s ago in 90 s every 2 min 2" in text
    assert "oncall webhook no trouble never, as far as is kept 0" in text
    assert "running for 60 min, since 2025-03-01 11:00 UTC" in text
    assert "SQLite," in text
    assert "Nobody changed anything yet." in text
    assert not [one for one in ("critical", "warning") if one in text[: text.index("Configuration in force")]]


def test_what_is_wrong_is_told_worst_first_with_what_to_do(site: Site, database: Database) -> None:
    given_up(database)
    with database.write() as connection:
        record = registered(connection, "v9", "chat", "prod")
        problem = Finding(
            "unreadable",
            RuleGroup.EXAMINATION,
            Severity.WARNING,
            None,
            "could not be examined: a shard is not there",
            {"reason": "missing_shard"},
        )
        versions.record_verdict(connection, record.id, Verdict.UNDECIDED, "{}", [problem], NOW)
        fired(connection, "prod/fraud")
    site.facts = replace(
        site.facts,
        registries=(failing(RegistryReason.CERTIFICATE, error="bad certificate"),),
        receivers=(ReceiverFacts("oncall", "webhook"),),
    )
    text = page(site, "/status").text
    top = text[: text.index("Registries")]
    expected = [
        "3 things need attention, worst first.",
        "critical Registry prod is misconfigured (certificate). Name the authority of its certificate in ca_file",
        "critical 1 event will not reach receiver oncall (tls). Its certificate is not trusted",
        "layerwatch delivery replay oncall",
        "warning 1 version could not be examined",
        "1 alert about a model is firing",
    ]
    places = [top.index(words) for words in expected]
    assert places == sorted(places)
    assert "bad certificate" in text
    assert "given up since 2025-03-01 11:00 UTC: certificate is not trusted" in text
    assert "prod/chat v9 could not be examined: a shard is not there The files are not whole" in text
    links = page(site, "/status").all("a", "href")
    assert "version?registry=prod&model=chat&version=v9&fingerprint=bytes-of-prod-chat-v9" in links
    assert "act?action=rescan&registry=prod&model=chat&version=v9" in links


@pytest.mark.parametrize(
    ("listed", "reason", "severity"),
    [
        (-60, RegistryReason.UNREACHABLE, "warning"),
        (-900, RegistryReason.UNREACHABLE, "critical"),
        (-60, RegistryReason.NOT_PERMITTED, "critical"),
    ],
)
def test_a_registry_that_is_away_is_critical_after_a_while_and_a_wrong_password_at_once(
    site: Site, listed: float, reason: RegistryReason, severity: str
) -> None:
    site.facts = replace(site.facts, registries=(failing(reason, listed),))
    text = page(site, "/status").text
    assert f"1 thing needs attention. {severity} Registry prod" in text
    assert "last tried 30 s ago" in text
    assert whattodo.REGISTRY[reason] in text


@pytest.mark.parametrize(("since", "severity"), [(-60, "warning"), (-3600, "critical")])
def test_a_receiver_that_takes_nothing_is_told_with_its_last_error(
    site: Site, database: Database, since: float, severity: str
) -> None:
    waiting(database, since)
    site.facts = replace(site.facts, registries=(LISTED,), receivers=(ReceiverFacts("oncall", "webhook"),))
    text = page(site, "/status").text
    assert f"{severity} Receiver oncall takes nothing (timeout): 1 event waiting, the first for" in text
    assert "last error: no answer in 15 s; next attempt in 50 s" in text


def test_receivers_that_are_disabled_and_heartbeats_that_are_not_taken_are_told(site: Site) -> None:
    site.facts = replace(
        site.facts,
        registries=(LISTED,),
        receivers=(
            ReceiverFacts("alive", "heartbeat", is_heartbeat=True, trouble="timeout: no answer in 15 s"),
            ReceiverFacts("oncall", "webhook", is_disabled=True),
        ),
    )
    text = page(site, "/status").text
    assert text.index("critical Receiver oncall answered 410") < text.index("warning Heartbeat alive did not")
    assert "timeout: no answer in 15 s" in text


def test_loops_that_are_stuck_are_critical_and_shown(site: Site) -> None:
    loops = (
        Beat("notify", later(-400), timedelta(minutes=5)),
        Beat("queue", later(-1), timedelta(minutes=5)),
    )
    site.facts = replace(site.facts, registries=(LISTED,), loops=loops, late=frozenset({"notify"}))
    found = page(site, "/status")
    assert "critical Loop notify is stuck: silent for 6 min, limit 5 min." in found.text
    assert "notify stuck 6 min ago 5 min" in found.text
    assert "queue in time 1 s ago 5 min" in found.text
    assert next(attributes for tag, attributes in found.tags if tag == "details") == {"open": ""}


def test_a_store_that_cannot_be_used_is_told_by_the_page_itself(site: Site, database: Database) -> None:
    site.facts = replace(site.facts, registries=(LISTED,), receivers=(ReceiverFacts("oncall", "webhook"),))
    database.close()
    text = page(site, "/status").text
    assert "critical The store cannot be used (closed)." in text
    assert "Not known: the store cannot be used." in text
    assert "prod mlflow listed" in text
    assert "layerwatch.db" not in text[: text.index("Configuration in force")]


def test_the_scan_queue_is_shown_with_why_scans_failed(site: Site, database: Database) -> None:
    with database.write() as connection:
        registered(connection, "v1", "fraud", "prod", now=later(-7200))
        first = versions.claim_next(connection, NOW)
        assert first is not None
        versions.release(connection, first.id, later(40))
        registered(connection, "v1", "spam", "prod", now=later(-10))
        assert versions.claim_next(connection, NOW) is not None
        registered(connection, "v1", "chat", "prod", now=later(-5))
    error = Setback("timeout", "the scan took more than 1 h")
    site.facts = replace(site.facts, registries=(LISTED,), setbacks={first.id: error})
    text = page(site, "/status").text
    assert "Waiting 2, the first since 2025-03-01 10:00 UTC (2 h)" in text
    assert "Running prod/spam v1" in text
    assert "prod/fraud v1 attempt 1 failed the scan took more than 1 h Raise scan.timeout" in text
    assert "in 40 s" in text
    assert "warning The scan of 1 version failed and is tried again." in text
    assert "warning 2 versions waiting for a scan, the first for 2 h." in text
    site.facts = replace(site.facts, setbacks={})
    assert "why is in the log of the daemon" in page(site, "/status").text


def test_what_happened_to_configuration_retention_and_exposition_is_told(site: Site) -> None:
    pruned = Pruned(0, 3, 0, 0, 7, 2, 0, 0, 0, deferred=True)
    diary = replace(
        site.facts.diary,
        load_failed_at=later(-60),
        retained_at=later(-600),
        pruned=pruned,
        repeated=(f'layerwatch_layer_alpha{{layer="{HOSTILE}"}}',),
        checked_at=later(-9),
    )
    site.facts = replace(site.facts, registries=(LISTED,), diary=diary, restart_for=("server.listen",))
    answer = site.get("/status")
    text = Page(answer.text).text
    assert "critical Series are exported twice, for which Prometheus refuses every scrape." in text
    assert "warning The changed configuration was refused; the one before stays in force." in text
    assert "warning Changes wait for a restart: server.listen." in text
    assert "forgot 3 versions, 7 measurements, 2 events; measurements next time" in text
    assert holds_nothing_foreign(answer.text)


def test_a_daemon_that_watches_nothing_says_so(site: Site) -> None:
    text = page(site, "/status").text
    assert "1 thing needs attention. warning No registry is configured: nothing is watched." in text


def test_the_configuration_is_shown_without_secrets(site: Site, tmp_path: Path) -> None:
    hidden = DirectoryRegistrySettings(
        name="prod", kind="directory", path=tmp_path, hook_secret=Secret("hunter2")
    )
    site.settings = site.settings.model_copy(update={"registries": (hidden,)})
    answer = site.get("/status")
    assert "hook_secret: &lt;secret&gt;" in answer.text
    for secret in (TOKEN, "hunter2"):
        assert secret not in answer.text


def test_the_latest_entries_of_the_audit_log_are_shown(site: Site, database: Database) -> None:
    with database.write() as connection:
        for number in range(60):
            entry = AuditEntry(
                later(number),
                Actor(f"ann{number}", Authentication.PROXY),
                Action.ACCEPT,
                "it is the accepted baseline",
                registry="prod",
                model="fraud",
                version="v3",
                subject="fingerprint abc",
                reason="on purpose",
            )
            auditlog.add(connection, entry)
    found = page(site, "/status")
    assert (
        "ann59 proxy accept prod/fraud v3 fingerprint abc on purpose it is the accepted baseline"
        in found.text
    )
    assert "ann10 proxy" in found.text
    assert "ann9 proxy" not in found.text
    assert found.all("a", "href").count("version?registry=prod&model=fraud&version=v3") == 50


def test_hostile_names_and_errors_are_text(site: Site, database: Database) -> None:
    with database.write() as connection:
        record = registered(connection, HOSTILE, HOSTILE, "prod", fingerprint="1" * 64)
        problem = Finding(
            "unreadable", RuleGroup.EXAMINATION, Severity.WARNING, HOSTILE, HOSTILE, {"reason": HOSTILE}
        )
        versions.record_verdict(connection, record.id, Verdict.UNDECIDED, "{}", [problem], NOW)
        waits = registered(connection, f"{HOSTILE}2", f"{HOSTILE}2", "prod")
        assert versions.claim_next(connection, NOW) is not None
        versions.release(connection, waits.id, None)
        registered(connection, f"{HOSTILE}3", f"{HOSTILE}3", "prod", now=later(-1))
        assert versions.claim_next(connection, NOW) is not None
        entry = AuditEntry(
            NOW,
            Actor(HOSTILE, Authentication.TOKEN),
            Action.ACCEPT,
            HOSTILE,
            registry=HOSTILE,
            model=HOSTILE,
            version=HOSTILE,
            subject=HOSTILE,
            reason=HOSTILE,
        )
        auditlog.add(connection, entry)
    given_up(database, reason=DeliveryReason.CLIENT_ERROR)
    site.facts = replace(
        site.facts,
        registries=(replace(failing(RegistryReason.UNREACHABLE, error=HOSTILE), remarks=(HOSTILE,)),),
        receivers=(ReceiverFacts("oncall", "webhook", trouble=HOSTILE),),
        loops=(Beat(HOSTILE, NOW, timedelta(1)),),
        setbacks={waits.id: Setback("corrupt", HOSTILE)},
    )
    answer = site.get("/status")
    assert answer.text.count("&lt;script&gt;") > 10
    assert holds_nothing_foreign(answer.text)
    for link in (*Page(answer.text).all("a", "href"), *Page(answer.text).all("link", "href")):
        assert "//" not in link and not link.startswith("/"), link


def test_every_kind_of_trouble_has_something_to_do_about_it() -> None:
    assert whattodo.REGISTRY.keys() == set(RegistryReason)
    assert whattodo.RECEIVER.keys() == set(DeliveryReason)
    assert whattodo.SCAN.keys() == set(UnreadableReason)
    sentences = [
        *whattodo.REGISTRY.values(),
        *whattodo.RECEIVER.values(),
        *whattodo.SCAN.values(),
        *whattodo.STORE.values(),
    ]
    assert all((one.endswith(".") and one[0].isupper()) or one.startswith("layerwatch") for one in sentences)


def test_a_running_daemon_tells_of_its_own_loops_registries_and_receivers(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker=None)
    world.publish("good", "v1", network())
    config = write_config(
        tmp_path / "layerwatch.yaml",
        directory("local", world.root),
        directory("away", tmp_path / "nowhere"),
        receivers=[{"name": "journal", "kind": "log"}],
    )
    with RunningApp(config) as running:
        running.wait_for_verdict("local/good/v1")

        def text() -> str:
            return Page(requests.get(f"{running.address}/status", timeout=10).text).text

        until(lambda: "Registry away cannot be listed (not_found)" in text(), "the trouble of a registry")
        shown = text()
        assert "local directory listed" in shown
        assert "every 0.2 s 1" in shown
        assert "journal log no trouble" in shown
        assert "scan:0 in time" in shown
        assert "none twice, checked" in shown
        running.post("/-/reload")
        until(lambda: "the API token reload - taken over" in text(), "the reload in the audit log")

"""The daemon: builds its parts, runs until told to stop, reloads, and ends within ten seconds."""

from __future__ import annotations

import logging
import signal
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from sqlalchemy import Connection

from layerwatch.alerts.heartbeat import HeartbeatTelemetry
from layerwatch.alerts.telemetry import AlertTelemetry
from layerwatch.config.composites import COMPOSITES
from layerwatch.config.errors import ConfigError
from layerwatch.config.registries import RemoteRegistrySettings
from layerwatch.daemon.alertloops import AlertLoops
from layerwatch.daemon.auditing import note_reload
from layerwatch.daemon.composites import follow_composites
from layerwatch.daemon.cores import usable_cores
from layerwatch.daemon.diary import Diary
from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.hooktaking import HookTaking
from layerwatch.daemon.lineage.weights import catch_up
from layerwatch.daemon.live import Live, load_live, settings_that_need_a_restart
from layerwatch.daemon.manners import Manners
from layerwatch.daemon.pipeline import Pipeline, PipelineSettings
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scanning import ScanLoop
from layerwatch.daemon.schedule import Schedule
from layerwatch.daemon.setbacks import Setbacks
from layerwatch.daemon.snapshot import Snapshot, duplicate_series
from layerwatch.daemon.store import retention, versions
from layerwatch.daemon.store.auditlog import Actor, Authentication
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import AlreadyRunningError, StoreError
from layerwatch.daemon.store.exporting import oldest_waiting
from layerwatch.daemon.store.onedaemon import only_daemon
from layerwatch.daemon.store.records import VersionRecord, VersionState
from layerwatch.daemon.store.summaryfilling import fill
from layerwatch.daemon.store.upgrade import upgrade_apart
from layerwatch.daemon.storelocation import store_url
from layerwatch.daemon.telemetry import DaemonTelemetry, LoopCollector
from layerwatch.daemon.watcher import Watcher, forget_registry, known_registries
from layerwatch.daemon.web.server import WebServer
from layerwatch.daemon.wishes import Wish, Wishes

_LOGGER = logging.getLogger(__name__)

DRAIN = timedelta(seconds=10)
"""Longest time from SIGTERM to the end."""

_JOBS_SHARE = DRAIN * 0.2
_SCANS_SHARE = DRAIN * 0.4
_DELIVERIES_SHARE = DRAIN * 0.2
"""What jobs, scans and deliveries may take of it; the rest is for the port and the store."""

_QUEUE_EVERY = timedelta(seconds=1)
_RETENTION_EVERY = timedelta(hours=6)
_EXPOSITION_EVERY = timedelta(seconds=30)
_COMPOSITES_EVERY = timedelta(seconds=30)
_LOOP_LIMIT = timedelta(minutes=5)
_VERDICTS_EVERY = timedelta(seconds=5)
_VERDICTS_PATIENCE = timedelta(minutes=30)
"""Writing fifty verdicts to a slow server takes a while."""

_LOOPS = (
    "watch", "reconcile", "queue", "notify", "dispatch", "resend", "backlog", "retention", "composites", "exposition",
    "verdicts", "scan", "summaries",
)  # fmt: skip

_BETWEEN_LOOKS = timedelta(seconds=1)
"""Least time between two looks that events ask for."""

_SIGNAL = Actor("SIGHUP", Authentication.COMMAND_LINE)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_CATCH_UP_AT_A_TIME = 200
_SUMMARIES_EVERY = timedelta(seconds=30)
_SUMMARIES_AT_A_TIME = 500
_PARALLEL = 4
"""Versions of one remote registry that are fetched or fingerprinted at a time."""


def now() -> datetime:
    """The daemon's clock."""
    return datetime.now(UTC)


class App:
    """One running daemon. Build it, call :meth:`run`, which returns after SIGTERM, SIGINT or :meth:`stop`."""

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self.live: Live = load_live(config)
        # A second series per counter with its time of birth: nobody asked for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.metrics = CollectorRegistry()
        self.telemetry = DaemonTelemetry(self.metrics)
        self.alert_telemetry = AlertTelemetry(self.metrics)
        self.heartbeat_telemetry = HeartbeatTelemetry(self.metrics)
        self.heartbeats = Heartbeats(now)
        self.metrics.register(LoopCollector(self.heartbeats))
        self.watchers: dict[str, Watcher] = {}
        self.loops: list[ScanLoop] = []
        self._stop = threading.Event()
        self.schedule = Schedule(self.heartbeats, self.telemetry, now, self._stop.is_set)
        self._wishes = Wishes()
        self._failure: AlreadyRunningError | None = None
        self._reload_lock = threading.Lock()
        self._hints: dict[str, threading.Event] = {}
        self.hooks = HookTaking(lambda: self.live.settings, self.telemetry, now, self.look_now)
        self._looked: dict[str, datetime] = {}
        self.setbacks = Setbacks()
        self._summed_up = False
        self.diary = Diary(now(), self.live.settings, now())

    def run(self, ready: Callable[[str], None] = lambda address: None) -> None:
        """Start everything, run until stopped, end everything in reverse order.

        Args:
            ready: called with the listening address once the port is open.

        Raises:
            ConfigError, StoreError, AlreadyRunningError, OSError: when it cannot start.
            AlreadyRunningError: also when another daemon took the store over.
        """
        with ExitStack() as stack:
            stack.enter_context(self._wishes.from_signals(signal.SIGHUP))
            # Until the store is open there is nothing to end in order, and a database server may let us wait for long:
            # who wants an end has it at once.
            self._open_store(stack)
            stack.enter_context(self._wishes.from_signals(signal.SIGTERM, signal.SIGINT))
            self._setup(stack)
            self._mark_loaded(True)
            self.web.start()
            _LOGGER.info("listening on %s", self.web.address)
            if not self.live.registries:
                _LOGGER.warning("no registry is configured: nothing is watched")
            ready(self.web.address)
            while self._wishes.next() is Wish.RELOAD:
                self._reload_quietly()
            self._stop.set()
            _LOGGER.info("stopping")
        _LOGGER.info("stopped")
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask the daemon to end; returns at once."""
        self._wishes.put(Wish.STOP)

    def _end_with(self, failure: AlreadyRunningError) -> None:
        self._failure = failure
        self.stop()

    def reload(self, actor: Actor = _SIGNAL) -> list[str]:
        """Load the configuration again; all that can fail happens before anything live is touched.

        Args:
            actor: who wants it.

        Returns:
            Keys that changed but need a restart to take effect.

        Raises:
            ConfigError: the old configuration stays in force.
        """
        with self._reload_lock:
            try:
                new = load_live(self._config, self.live.downloads)
            except ConfigError as error:
                self._mark_loaded(False)
                self._note_reload(
                    actor, f"refused for {len(error.problems)} mistakes in it; the old one stays in force"
                )
                raise
            old, self.live = self.live, new
            self._reschedule_registries(old)
            self._init_counters()
            self.alert_loops.follow()
            self.snapshot.max_series_per_model = new.settings.server.max_series_per_model
            self.snapshot.external_url = new.settings.server.external_url
            self._forget_other_registries()
            self._mark_loaded(True)
            restart = settings_that_need_a_restart(old.settings, new.settings)
            self._note_reload(
                actor, f"taken over; these need a restart: {', '.join(restart)}" if restart else "taken over"
            )
            return restart

    def look_now(self, registry: str) -> bool:
        """Shorten the wait for the next look at a registry; False when there is none of this name."""
        hint = self._hints.get(registry)
        if hint is None:
            return False
        # A look under way may have passed the place already: it is followed by another.
        hint.set()
        # However many events come, and whatever a look itself sets off.
        due = max(now(), self._looked.get(registry, _LONG_AGO) + _BETWEEN_LOOKS)
        self.schedule.sooner(f"watch:{registry}", due)
        return True

    def not_ready(self) -> list[str]:
        """Why the daemon is not ready to be asked; empty when it is."""
        waiting = []
        for name, watcher in sorted(self.watchers.items()):
            if not watcher.listed_once:
                waiting.append(
                    f"registry {name} was not listed yet: {watcher.last_error or 'first look is under way'}"
                )
        return waiting

    def _open_store(self, stack: ExitStack) -> None:
        url = store_url(self.live.settings, self._config)
        hold = stack.enter_context(only_daemon(url))
        self.database = Database.open(url, upgrade_apart)
        stack.callback(_step, "close the store", self.database.close)
        stack.enter_context(hold.kept(self.database, self._end_with))
        with self.database.write() as connection:
            interrupted = versions.reset_interrupted(connection)
        if interrupted:
            _LOGGER.info("%d scans were interrupted and wait again", interrupted)

    def _setup(self, stack: ExitStack) -> None:
        settings = self.live.settings
        server = settings.server
        self.snapshot = Snapshot(self.database, server.max_series_per_model, server.external_url)
        self.telemetry.exposition_series.set_function(lambda: self.snapshot.exposition.series)
        self.telemetry.exposition_bytes.set_function(lambda: len(self.snapshot.text))
        self.telemetry.exposition_render_seconds.set_function(lambda: self.snapshot.render_seconds)
        self.alert_loops = AlertLoops(
            self.database,
            lambda: self.live,
            self.telemetry,
            self.alert_telemetry,
            self.heartbeat_telemetry,
            self.heartbeats,
            now,
        )
        self._forget_other_registries()
        self._check_exposition()
        self._init_counters()
        self.web = WebServer(self)
        stack.callback(_step, "close the port", self.web.stop)
        for number in range(settings.scan.workers):
            self._start_scan_loop(number)
        stack.callback(_step, "end the scans", self._stop_scan_loops)
        self.schedule.add("queue", self._count_queue, _QUEUE_EVERY, _LOOP_LIMIT, urgent=True)
        self.alert_loops.start(self.schedule)
        stack.callback(_step, "end the deliveries", self.alert_loops.stop, patience=_DELIVERIES_SHARE)
        self.schedule.add(
            "retention", self._retain, _RETENTION_EVERY, 3 * _RETENTION_EVERY,
            first=timedelta(minutes=1), urgent=True,
        )  # fmt: skip
        self.schedule.add(
            "summaries", self._sum_up, _SUMMARIES_EVERY, _LOOP_LIMIT, first=timedelta(minutes=1)
        )
        self.schedule.add("composites", self._follow_composites, _COMPOSITES_EVERY, _LOOP_LIMIT, urgent=True)
        # The commands of people write to the store, too.
        self.schedule.add("exposition", self._expose, _EXPOSITION_EVERY, _LOOP_LIMIT, urgent=True)
        self.schedule.add("verdicts", self._write_verdicts, _VERDICTS_EVERY, _LOOP_LIMIT + _VERDICTS_PATIENCE)
        for name in self.live.registries:
            self._watch(name)
        self.schedule.start()
        stack.callback(_step, "end the jobs", self.schedule.end, patience=_JOBS_SHARE)

    def _start_scan_loop(self, number: int) -> None:
        scan = self.live.settings.scan
        threads = scan.threads or max(1, usable_cores() // scan.workers)
        executor = LocalExecutor(scan, threads)
        name = f"scan:{number}"
        pipeline = Pipeline(
            database=self.database,
            registries=lambda registry: self.live.registries.get(registry),
            executor=executor,
            settings=self._pipeline_settings,
            judged=self.after_verdict,
            telemetry=self.telemetry,
            clock=now,
            stopping=self._stop.is_set,
            alive=lambda: self.heartbeats.beat(name),
            setbacks=self.setbacks,
        )
        # A turn beats at each layer too, of the version and of its baseline, but one layer may take minutes.
        self.heartbeats.expect(name, scan.timeout + _LOOP_LIMIT)
        loop = ScanLoop(
            name,
            pipeline,
            executor,
            alive=lambda: self.heartbeats.beat(name),
            failed=self.telemetry.cycle_errors.labels("scan").inc,
            changed=self.changed,
        )
        self.loops.append(loop)
        loop.start()

    def _pipeline_settings(self) -> PipelineSettings:
        settings = self.live.settings
        return PipelineSettings(settings.scan, settings.rules, settings.baselines)

    def _stop_scan_loops(self) -> None:
        deadline = time.monotonic() + _SCANS_SHARE.total_seconds()
        for loop in self.loops:
            loop.ask_to_stop()
        for loop in self.loops:
            if not loop.stop(timedelta(seconds=max(0.0, deadline - time.monotonic()))):
                _LOGGER.warning("a scan did not end in time; its version waits again at the next start")

    def _forget_other_registries(self) -> None:
        """End what the store still holds about what is no longer configured, and refresh the gauges."""
        try:
            with self.database.read() as connection:
                others = known_registries(connection) - {*self.live.registries, COMPOSITES}
            if others:
                with self.database.write() as connection:
                    for registry in sorted(others):
                        forget_registry(connection, registry, self.live.policy, now())
                        _LOGGER.info("registry %s is not configured: its refs and alerts end", registry)
            self._follow_composites()
            self.snapshot.refresh()
        except StoreError as error:
            _LOGGER.error("registries that are no longer configured are not forgotten yet: %s", error)

    def _check_exposition(self) -> None:
        """Look for series that occur twice: Prometheus would refuse every scrape as a whole."""
        repeated = duplicate_series(self.snapshot.exposition.followed_by(generate_latest(self.metrics)))
        self.diary.repeated, self.diary.checked_at = tuple(repeated[:5]), now()
        if repeated:
            _LOGGER.error(
                "%d series are exported twice, which Prometheus refuses; please report it: %s",
                len(repeated), ", ".join(repeated[:5]),
            )  # fmt: skip
            self.telemetry.cycle_errors.labels("exposition").inc()

    def _follow_composites(self) -> str:
        """Bring the composites up to date; also for what is told again, and for what people accepted meanwhile."""
        live = self.live
        if COMPOSITES in live.registries:
            return "composites: none"
        with self.database.read() as connection:
            if not live.settings.composites and COMPOSITES not in known_registries(connection):
                return "composites: none"
        with self.database.write() as connection:
            changed = follow_composites(
                connection, live.settings.composites, live.settings.rules, live.policy, now()
            )
        if changed:
            self.snapshot.refresh()
            self.alert_loops.notifier.wake()
        return f"composites: {len(live.settings.composites)}{', changed' if changed else ''}"

    def _write_verdicts(self) -> str:
        """Show new verdicts in the registries that want them."""
        return "; ".join(watcher.write_verdicts() for watcher in list(self.watchers.values()))

    def changed(self) -> None:
        """A verdict, a ref or an alert is another one: what follows from them is too."""
        self.snapshot.refresh()
        self._follow_composites()
        self.alert_loops.notifier.wake()

    def after_verdict(self, connection: Connection, version: VersionRecord, at: datetime) -> None:
        """Bring refs and alerts of a version's model up to date, in the transaction that judged or accepted it."""
        watcher = self.watchers.get(version.key.registry)
        if watcher is not None:
            watcher.after_verdict(connection, version, at)

    def _watch(self, name: str) -> None:
        registry = self.live.registries[name]
        settings = next(one for one in self.live.settings.registries if one.name == name)
        loop = f"watch:{name}"
        watcher = Watcher(
            registry,
            self.database,
            policy=lambda: self.live.policy,
            telemetry=self.telemetry,
            clock=now,
            alive=lambda: self.schedule.beat_unless_stopping(loop),
            found_work=self.wake_scans,
            changed=self.changed,
            manners=Manners(settings.poll, settings.reconcile, settings.rehash, _PARALLEL)
            if isinstance(settings, RemoteRegistrySettings)
            else Manners(),
        )
        self.watchers[name] = watcher
        self.telemetry.poll_interval.labels(name).set(settings.poll.total_seconds())
        looking = threading.Lock()
        hint = self._hints[name] = threading.Event()
        reconcile_wanted = threading.Event()

        def look(rehash: bool = False) -> str:
            if rehash:
                reconcile_wanted.set()
            sentence = f"registry {name}: a look is under way"
            due = True
            # Whoever looks asks again after letting go, so that no wish that came meanwhile is lost.
            while due and looking.acquire(blocking=False):
                try:
                    self.schedule.beat_unless_stopping(loop)
                    hinted = hint.is_set()
                    hint.clear()
                    everything = reconcile_wanted.is_set()
                    reconcile_wanted.clear()
                    self._looked[name] = now()
                    sentence = watcher.look(everything, hinted)
                finally:
                    looking.release()
                due = hint.is_set() or reconcile_wanted.is_set()
            return sentence

        def idle() -> bool:
            return not looking.locked()

        # Hashing one large file is a single step, so the limit leaves room for it.
        limit = 3 * settings.poll + timedelta(minutes=30)
        # Two turns: a hook that comes while one is ending must not wait for the next poll.
        self.schedule.add(loop, look, settings.poll, limit, jitter=True, beats=idle, turns=2)
        reconcile = f"reconcile:{name}"
        self.schedule.add(
            reconcile, lambda: look(rehash=True), settings.reconcile, 3 * settings.reconcile + timedelta(hours=6),
            first=settings.reconcile * _share_of(name), jitter=True, beats=idle,
        )  # fmt: skip

    def _reschedule_registries(self, old: Live) -> None:
        before = {one.name: one for one in old.settings.registries}
        after = {one.name: one for one in self.live.settings.registries}
        for name, settings in before.items():
            if after.get(name) != settings:
                for loop in (f"watch:{name}", f"reconcile:{name}"):
                    self.schedule.remove(loop)
                self.watchers.pop(name).retire()
                del self._hints[name]
        for name in before.keys() - after.keys():
            self.telemetry.forget_registry(name)
        for name, settings in after.items():
            if before.get(name) != settings:
                self._watch(name)
            else:
                self.watchers[name].ask_again()
        if old.policy.fire_on is not self.live.policy.fire_on:
            for watcher in self.watchers.values():
                watcher.follow_again()

    def _count_queue(self) -> str:
        self.snapshot.refresh_if_stale()
        with self.database.read() as connection:
            waiting = versions.counts_by_state(connection).get(VersionState.PENDING, 0)
            waiting_since = oldest_waiting(connection)
        self.telemetry.queue.set(waiting)
        self.telemetry.queue_oldest.value = None if waiting_since is None else waiting_since.timestamp()
        return f"queue: {waiting} versions wait for a scan"

    def _expose(self) -> str:
        self.snapshot.refresh()
        return f"exposition: {self.snapshot.exposition.series} series"

    def _retain(self) -> str:
        store = self.live.settings.store
        with self.database.write() as connection:
            pruned = retention.prune(
                connection, store.keep_versions, now() - store.keep_events, now() - store.keep_audit
            )
        self.diary.pruned, self.diary.retained_at = pruned, now()
        looked_into = catch_up(self.database, _CATCH_UP_AT_A_TIME)
        return f"retention: {pruned}; lineage of {looked_into} older versions looked for"

    def _sum_up(self) -> str:
        """Numbers of versions that were judged by an older layerwatch; nothing once all are there."""
        filled = 0
        if not self._summed_up:
            filled = fill(self.database, _SUMMARIES_AT_A_TIME, self._stop.is_set)
            self._summed_up = filled < _SUMMARIES_AT_A_TIME and not self._stop.is_set()
        return f"{filled} older versions summed up"

    def wake_scans(self) -> None:
        """A version waits for its scan."""
        for loop in self.loops:
            loop.wake()

    def _init_counters(self) -> None:
        self.telemetry.init_for(self.live.registries, _LOOPS)

    def _mark_loaded(self, succeeded: bool) -> None:
        self.telemetry.config_reload_ok.set(1 if succeeded else 0)
        self.diary.load_failed_at = None if succeeded else now()
        if succeeded:
            self.diary.loaded_at = now()
            self.telemetry.config_reload_time.set(now().timestamp())

    def _note_reload(self, actor: Actor, outcome: str) -> None:
        try:
            with self.database.write() as connection:
                note_reload(connection, actor, outcome, now())
        except StoreError as error:
            # It is loaded, or refused, whatever becomes of the store.
            _LOGGER.error(
                "the audit log does not tell that %s reloaded the configuration: %s", actor.name, error
            )

    def _reload_quietly(self) -> None:
        try:
            restart = self.reload()
        except ConfigError as error:
            _LOGGER.error("configuration not reloaded, the old one stays in force")
            for line in str(error).splitlines():
                _LOGGER.error("%s", line)
            return
        except Exception:
            self._mark_loaded(False)
            _LOGGER.exception("unexpected error while the configuration was reloaded; please report it")
            return
        _LOGGER.info("configuration reloaded")
        if restart:
            _LOGGER.warning("these changes need a restart: %s", ", ".join(restart))


def _share_of(name: str) -> float:
    """A number in [0, 1) that is always the same for a name: spreads what must not happen at the same time."""
    return zlib.crc32(name.encode()) / 2**32


def _step(name: str, action: Callable[..., object], **arguments: object) -> None:
    """One step of the shutdown; a failing one is logged and does not keep the others from running."""
    try:
        action(**arguments)
    except Exception:
        _LOGGER.exception("shutdown step failed: %s", name)

"""The scan loop: one thread per worker that takes versions from the queue until the daemon stops."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from layerwatch.daemon.pipeline import Interrupted, Pipeline
from layerwatch.daemon.scan.executor import Executor, WorkerStartError
from layerwatch.daemon.store.errors import StoreError

_LOGGER = logging.getLogger(__name__)

IDLE_WAIT = timedelta(seconds=1)
REST_AFTER = timedelta(seconds=20)
"""An idle worker process is ended after this time."""


class ScanLoop:
    """Runs one pipeline in one thread.

    Args:
        name: of the thread and of its heartbeat.
        pipeline, executor: what it runs; the executor is told to rest when there is nothing to do.
        alive: called once per turn.
        failed: called with an unexpected error, which never ends the loop.
        changed: called after each verdict.
        rest_after: an idle worker process is ended after this time.
    """

    def __init__(
        self,
        name: str,
        pipeline: Pipeline,
        executor: Executor,
        alive: Callable[[], None],
        failed: Callable[[], None],
        changed: Callable[[], None],
        rest_after: timedelta = REST_AFTER,
    ) -> None:
        self._pipeline = pipeline
        self._executor = executor
        self._alive = alive
        self._failed = failed
        self._changed = changed
        self._rest_after = rest_after
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        """True once ``stop`` was called."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin to take versions from the queue."""
        self._thread.start()

    def wake(self) -> None:
        """There is something in the queue."""
        self._wake.set()

    def ask_to_stop(self) -> None:
        """End a scan in progress, whose version waits again, and soon the thread; returns at once."""
        self._stop.set()
        self._wake.set()
        self._executor.close()

    def stop(self, timeout: timedelta) -> bool:
        """`ask_to_stop`, and wait for the thread. False when it did not end in time."""
        self.ask_to_stop()
        self._thread.join(timeout.total_seconds())
        return not self._thread.is_alive()

    def _run(self) -> None:
        idle = timedelta()
        while not self._stop.is_set():
            self._alive()
            try:
                sentence = self._pipeline.process_next()
                if sentence is not None:
                    _LOGGER.info("%s", sentence)
                    self._changed()
                    idle = timedelta()
                    continue
            except Interrupted:
                break
            except StoreError as error:
                _LOGGER.error("the scan loop waits for the store: %s", error)
                self._failed()
                self._wait(timedelta(seconds=5))
                continue
            except WorkerStartError as error:
                _LOGGER.error("%s", error)
                self._failed()
                self._wait(timedelta(seconds=5))
                continue
            except Exception:
                # One poisonous version must not end the loop; it was put back and is tried again later.
                _LOGGER.exception("unexpected error in the scan loop; please report it")
                self._failed()
                self._wait(timedelta(seconds=5))
                continue
            self._wait(IDLE_WAIT)
            idle += IDLE_WAIT
            if idle >= self._rest_after:
                self._executor.rest()
        self._executor.rest()

    def _wait(self, time: timedelta) -> None:
        self._wake.wait(time.total_seconds())
        self._wake.clear()

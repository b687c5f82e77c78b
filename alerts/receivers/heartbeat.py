"""A service that expects a sign of life: a dead-man's switch (healthchecks and its like)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from layerwatch.alerts.http import extended
from layerwatch.alerts.receivers.posting import Posting, revealed
from layerwatch.config.secrets import Secret

_FAILURE_PATH = "/fail"


@dataclass(frozen=True, slots=True)
class HeartbeatReceiver:
    """Is told that the daemon is alive; of alerts it is told nothing.

    Attributes:
        name: name in the configuration.
        url: what is asked for; read at each sign of life.
        every: how often.
        posting: how to connect.
        report_failure: whether a daemon that is not healthy says so, in place of nothing.
    """

    name: str
    url: Secret
    every: timedelta
    posting: Posting
    report_failure: bool = False

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network. Raises as `Posting.check`."""
        self.posting.check(revealed(self.url, "url"))

    def beat(self, healthy: bool, now: datetime) -> None:
        """One sign of life: a GET without a body, which every such service takes.

        A daemon that is not healthy is silent, or asks for the URL with ``/fail`` behind its path.

        Args:
            healthy: whether the daemon does what it is there for.
            now: tz-aware time of this attempt.

        Raises:
            DeliveryError: when the service does not have it, or may not.
        """
        if healthy:
            self.posting.ask(revealed(self.url, "url"), now)
        elif self.report_failure:
            self.posting.ask(extended(revealed(self.url, "url"), _FAILURE_PATH), now)

"""What holds for every test: the same generated examples in every run, and nothing kept from one test to the next."""

from __future__ import annotations

import signal
from itertools import count

import pytest
from hypothesis import settings

settings.register_profile("layerwatch", derandomize=True, deadline=None)
settings.load_profile("layerwatch")

_NUMBERS = count()


def pytest_configure() -> None:
    """Let the processes of the tests be interrupted, also where the tests were started in the background.

    A shell has those ignore SIGINT, and so would all their children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests made, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "table":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(str(text))


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gate measured before the code was changed must not be found."""
    folder = tmp_path_factory.getbasetemp() / "caches" / str(next(_NUMBERS))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))

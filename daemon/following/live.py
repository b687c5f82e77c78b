"""The screen about a daemon, drawn again in its place after every look."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from layerwatch.daemon.following.picture import header, picture
from layerwatch.daemon.following.seen import Look
from layerwatch.daemon.terminal.screen import Screen


class LivePicture:
    """A context manager; the last picture stays when it ends.

    Args:
        address: of the daemon, without secrets.
        console: on a terminal.
        clock: the time, in UTC.
    """

    def __init__(self, address: str, console: Console, clock: Callable[[], datetime]) -> None:
        self._address = address
        self._console = console
        self._clock = clock
        self._last: Look | None = None
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")

    def found(self, look: Look) -> None:
        """Draw it."""
        self._last = look
        self._draw("")

    def lost(self, why: str, wait: float) -> None:
        """Say so above what was found last."""
        old = "what follows is old; " if self._last is not None else ""
        self._draw(f"cannot be reached: {why}; {old}trying again in {wait:.0f} s")

    def _draw(self, trouble: str) -> None:
        screen, now = Screen.of(self._console), self._clock()
        lines = header(self._address, now, trouble, screen)
        if self._last is not None:
            lines += picture(self._last, screen, self._console.height - len(lines), now)
        self._live.update(Group(*(Text() if not line.plain else line for line in lines)), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._draw("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

"""Chromium, and a visitor with it who writes down everything that a page must not do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from layerwatch_testing.servers import ServerMissing, executable

SCREENSHOTS_VARIABLE = "LAYERWATCH_SCREENSHOTS"
"""Names a folder into which visitors put the pictures that they are asked for; without it they take none."""

Scheme = Literal["light", "dark"]

_OPTIONS = (
    # Tests run as root in containers; what they open is the daemon's own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WAIT_MILLISECONDS = 20_000

# A violation is in the console too, but in words that are the browser's own.
_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(
    `content security policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that runs; playwright's own is never downloaded.

    Raises:
        ServerMissing: no Chromium is installed here.
    """
    expect.set_options(timeout=_WAIT_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def _program() -> Path:
    try:
        return executable("chromium", "CHROMIUM")
    except ServerMissing as missing:
        try:
            return executable("google-chrome")
        except ServerMissing:
            raise missing from None


class Visitor:
    """One tab with nothing kept from others; a context manager.

    Args:
        home: beginning of every address that pages may load from; relative addresses are below it.
        scripts: False for a browser that runs none.

    Attributes:
        page: the tab.
        requests: every address that was asked for.
        complaints: console errors and warnings, exceptions, violations of the content security policy, requests to
            elsewhere, answers that are errors, dialogs, other windows, downloads.
    """

    def __init__(
        self,
        browser: Browser,
        home: str,
        *,
        size: tuple[int, int] = (1280, 900),
        scheme: Scheme = "light",
        scripts: bool = True,
    ) -> None:
        self.home = home
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, java_script_enabled=scripts
        )
        self._context.set_default_timeout(_WAIT_MILLISECONDS)
        self._context.add_init_script(_TELL_VIOLATIONS)
        self._context.on("console", self._on_console)
        self._context.on("weberror", lambda error: self._complain("exception", str(error.error)))
        self._context.on("request", self._on_request)
        self._context.on("response", self._on_response)
        self._context.on("requestfailed", self._on_failure)
        self.page: Page = self._context.new_page()
        self._context.on("page", lambda page: self._complain("another window", page.url))
        self.page.on("dialog", self._on_dialog)
        self.page.on("download", lambda download: self._complain("download", download.url))

    def open(self, address: str = "") -> int:
        """Go to an address relative to home, wait until nothing more is loaded; the status."""
        response = self.page.goto(self.home + address)
        self.settle()
        return response.status if response is not None else 0

    def settle(self) -> None:
        """Wait until nothing more is loaded."""
        self.page.wait_for_load_state("networkidle")

    def screenshot(self, name: str, *, folder: Path | None = None, whole: bool = True) -> None:
        """A picture ``<name>.png`` in the folder, by default that of the environment; without one nothing.

        Args:
            whole: the page down to its end, and not only what is in sight.
        """
        named = os.environ.get(SCREENSHOTS_VARIABLE)
        folder = folder or (Path(named) if named else None)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=folder / f"{name}.png", full_page=whole, animations="disabled")

    def take_complaints(self) -> list[str]:
        """Everything complained of so far; it is forgotten."""
        # What is in the console of a page comes through a pipe: an answer of the page is behind it there.
        self.page.evaluate("0")
        taken, self.complaints = self.complaints, []
        return taken

    def _complain(self, what: str, about: str) -> None:
        self.complaints.append(f"{what}: {about} (on {self.page.url})")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complain(f"console {message.type}", message.text)

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith(self.home):
            self._complain("request to elsewhere", request.url)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self._complain("failed", f"{response.status} {response.url}")

    def _on_failure(self, request: Request) -> None:
        # Whoever goes on before a page is complete ends what it still loads.
        if request.failure != "net::ERR_ABORTED":
            self._complain("failed", f"{request.failure} {request.url}")

    def _on_dialog(self, dialog: Dialog) -> None:
        self._complain("dialog", dialog.message)
        dialog.dismiss()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

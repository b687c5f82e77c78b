"""``layerwatch gate REGISTRY/MODEL --as-if REF=VERSION``: what a promotion would do, by the daemon's store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from layerwatch.config.settings import Settings
from layerwatch.daemon.commands.stores import open_store, require_model, split_model, usage_error
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.findings import Severity, Verdict

if TYPE_CHECKING:
    from layerwatch.daemon.gate.asif import AlertChange, AsIf


def ask(
    model: str, promotion: str, fail_on: Severity, settings: Settings, config: Path | None, as_json: bool
) -> tuple[str, int]:
    """The answer as text, and the exit code of the gate.

    Exit codes: 0 the version was judged and no alert would be raised or go on; 1 one would; 3 the version waits for its
    verdict, or is undecided. A wrong name ends the command with code 2.
    """
    from layerwatch.daemon.alerting import AlertPolicy
    from layerwatch.daemon.gate.asif import UnknownVersionError, as_if

    registry, name = split_model(model)
    ref, separator, version = promotion.partition("=")
    ref = ref.removeprefix("@")
    if not (separator and ref and version):
        usage_error(f"--as-if {printable(promotion)}: must be REF=VERSION, for example champion=7")
    policy = AlertPolicy(fail_on, None)
    with open_store(settings, config) as database:
        with database.read() as connection:
            require_model(connection, registry, name)
        try:
            answer = as_if(database, registry, name, ref, version, policy, datetime.now(UTC))
        except UnknownVersionError as error:
            usage_error(printable(str(error)))
    text = json.dumps(answer.to_json(), indent=2) if as_json else printable_answer(answer)
    return text + "\n", _exit_code(answer)


def printable_answer(answer: AsIf) -> str:
    """What would happen, in a few lines."""
    before = f"{answer.before} now" if answer.before is not None else "a new ref"
    verdict = answer.verdict.value if answer.verdict is not None else "not judged yet"
    lines = [
        f"{answer.registry}/{answer.model}: {answer.ref} -> {answer.version} ({verdict}; {before})",
        *_lines("would raise", answer.raised),
        *_lines("would go on firing", answer.still_firing),
        *_lines("would resolve", answer.resolved),
    ]
    if not (answer.raised or answer.still_firing or answer.resolved):
        waits = answer.verdict is None
        lines.append(
            "  nothing can be said before its verdict" if waits else "  no alert would be raised or resolved"
        )
    return "\n".join(map(printable, lines))


def _lines(what: str, changes: tuple[AlertChange, ...]) -> list[str]:
    return [
        f"  {what}: {change.severity} alert about {change.group}: {', '.join(map(_layer, change.layers))}"
        for change in changes
    ]


def _layer(name: str) -> str:
    return name or "the version as a whole"


def _exit_code(answer: AsIf) -> int:
    if answer.raised or answer.still_firing:
        return 1
    return 3 if answer.verdict in (None, Verdict.UNDECIDED) else 0

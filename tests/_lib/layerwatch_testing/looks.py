"""What a look at a daemon found, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from layerwatch.daemon.following.seen import (
    Look,
    SeenAlert,
    SeenModel,
    SeenRef,
    SeenVersion,
)

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def seen_version(
    number: int, model: str = "m", verdict: str | None = "pass", state: str = "judged", minutes: int = 0
) -> SeenVersion:
    """Version ``v<number>`` of ``reg/<model>``, judged so many minutes after noon."""
    return SeenVersion(
        id=number,
        registry="reg",
        model=model,
        version=f"v{number}",
        state=state,
        verdict=verdict,
        discovered_at=NOON,
        judged_at=NOON + timedelta(minutes=minutes) if verdict else None,
    )


def seen_alert(model: str = "m", severity: str = "critical", **other: object) -> SeenAlert:
    """An alert about weights of the newest version of ``reg/<model>``, since noon."""
    values: dict[str, object] = {
        "alert_id": f"id-{model}",
        "registry": "reg",
        "model": model,
        "ref": "latest",
        "group": "weights",
        "severity": severity,
        "version": "v1",
        "layers": ("fc2",),
        "started_at": NOON,
    }
    return SeenAlert.model_validate(values | other)


def seen_model(name: str = "m", verdict: str | None = "pass", version: str = "v1") -> SeenModel:
    """``reg/<name>`` with the ref ``latest``."""
    return SeenModel(
        registry="reg", model=name, refs=(SeenRef(ref="latest", version=version, verdict=verdict),)
    )


def a_look(
    *versions: SeenVersion,
    alerts: Sequence[SeenAlert] = (),
    models: Sequence[SeenModel] = (),
    words: str = "no layer stands out",
) -> Look:
    """With the same words about every judged version."""
    judgements = [one.judgement for one in versions if one.judgement is not None]
    return Look(tuple(models), versions, tuple(alerts), dict.fromkeys(judgements, words))

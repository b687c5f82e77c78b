"""Events of registries: who may send them, and that each counts once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from layerwatch.daemon.registries import KINDS
from layerwatch.daemon.registries.hooks import (
    Deliveries,
    HookReason,
    HookRefused,
    require_bearer,
    verifier_of,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_a_delivery_counts_once_within_the_window_and_is_new_again_after_it() -> None:
    deliveries = Deliveries(window=timedelta(minutes=30))
    deliveries.require_new("a", NOW)
    deliveries.require_new("b", NOW + timedelta(minutes=1))
    with pytest.raises(HookRefused) as refused:
        deliveries.require_new("a", NOW + timedelta(minutes=29))
    assert refused.value.reason is HookReason.REPLAYED
    deliveries.require_new("a", NOW + timedelta(minutes=31))


def test_however_many_deliveries_come_only_the_latest_are_remembered() -> None:
    deliveries = Deliveries(limit=3)
    for number in range(5):
        deliveries.require_new(str(number), NOW)
    deliveries.require_new("0", NOW)
    with pytest.raises(HookRefused):
        deliveries.require_new("4", NOW)


@pytest.mark.parametrize("given", ["", "s3cret", "Basic s3cret", "Bearer ", "Bearer s3cre", "Bearer s3crét"])
def test_a_bearer_that_is_not_the_secret_is_forged_and_not_repeated(given: str) -> None:
    with pytest.raises(HookRefused) as refused:
        require_bearer("s3cret", {"authorization": given})
    assert refused.value.reason is HookReason.FORGED
    assert "s3cr" not in str(refused.value)


def test_the_right_bearer_passes() -> None:
    require_bearer("s3cret", {"authorization": "Bearer s3cret"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b'{"events": 5}'])
def test_without_the_secret_no_body_is_even_read(kind: str, body: bytes) -> None:
    with pytest.raises(HookRefused) as refused:
        verifier_of(kind)("s3cret", {}, body, NOW)
    assert refused.value.reason is not HookReason.REPLAYED

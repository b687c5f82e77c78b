"""Signatures, verified with the library that receivers use."""

from __future__ import annotations

import base64
import traceback
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from layerwatch.alerts.signing import KeyTextError, Signer, unsigned_headers

WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = '{"type":"layerwatch.alert.firing","name":"Größe"}'


def now() -> datetime:
    # The library refuses timestamps more than five minutes from its own clock.
    return datetime.now(tz=UTC)


def test_the_example_of_the_specification_is_reproduced() -> None:
    # Standard Webhooks reference tests: secret, id, timestamp, payload and signature.
    signer = Signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    headers = signer.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, tz=UTC), '{"test": 2432232314}'
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", [WHSEC, WHSEC.rstrip("="), f"  {WHSEC}\n"])
def test_a_receiver_with_the_same_secret_accepts(secret: str) -> None:
    assert Webhook(WHSEC).verify(BODY, Signer(secret).headers("evt_1", now(), BODY))["name"] == "Größe"


def test_a_plain_text_secret_is_its_utf8_bytes() -> None:
    headers = Signer("pässword").headers("evt_1", now(), BODY)

    Webhook("whsec_" + base64.b64encode("pässword".encode()).decode()).verify(BODY, headers)


def test_any_change_on_the_way_is_detected() -> None:
    headers = Signer(WHSEC).headers("evt_1", now(), BODY)
    later = str(int(headers["webhook-timestamp"]) + 1)

    for body, changed in [
        (BODY.replace("firing", "resolved"), headers),
        (BODY, {**headers, "webhook-id": "evt_2"}),
        (BODY, {**headers, "webhook-timestamp": later}),
    ]:
        with pytest.raises(WebhookVerificationError):
            Webhook(WHSEC).verify(body, changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another key").verify(BODY, headers)


def test_during_rotation_the_old_and_the_new_key_are_both_accepted() -> None:
    headers = Signer(f"{WHSEC} old-password").headers("evt_1", now(), BODY)

    assert len(headers["webhook-signature"].split(" ")) == 2
    Webhook(WHSEC).verify(BODY, headers)
    Webhook(b"old-password").verify(BODY, headers)


def test_the_timestamp_is_the_moment_and_not_the_wall_clock_of_a_zone() -> None:
    moment = now()
    elsewhere = moment.astimezone(timezone(timedelta(hours=9)))

    assert Signer(WHSEC).headers("evt_1", elsewhere, BODY) == Signer(WHSEC).headers("evt_1", moment, BODY)


def test_without_a_secret_there_is_an_id_and_a_timestamp() -> None:
    assert unsigned_headers("evt_1", datetime.fromtimestamp(99.9, tz=UTC)) == {
        "webhook-id": "evt_1",
        "webhook-timestamp": "99",
    }


@pytest.mark.parametrize("secret", ["", "  ", "whsec_", "whsec_not*base64", "whsec_Ä", f"{WHSEC} whsec_a"])
def test_a_secret_that_makes_no_key_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(KeyTextError) as caught:
        Signer(secret)

    told = "".join(traceback.format_exception(caught.value))
    assert "signing secret" in told
    assert caught.value.__context__ is None
    for word in ("not*base64", "Ä", WHSEC):
        assert word not in str(caught.value)


def test_a_signer_does_not_show_its_keys() -> None:
    assert repr(Signer(f"{WHSEC} b")) == "<Signer with 2 key(s)>"

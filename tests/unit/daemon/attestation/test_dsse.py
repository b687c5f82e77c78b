"""Envelopes: the bytes of the specification, nothing read in two ways, nothing signed by others taken."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey

from layerwatch.daemon.attestation import dsse
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.keys import PublicKey, read_private_key, read_public_key
from layerwatch_testing.attested import KeyFiles, write_keys

PAYLOAD = b'{"some": "payload"}'


def signed(keys: KeyFiles, payload: bytes = PAYLOAD) -> dict[str, Any]:
    """The JSON of an envelope."""
    found: dict[str, Any] = json.loads(dsse.sign(payload, read_private_key(keys.private)))
    return found


def read(envelope: dict[str, Any] | str | bytes) -> dsse.Envelope:
    """An envelope from JSON, written as it is where it is text."""
    if isinstance(envelope, dict):
        envelope = json.dumps(envelope)
    return dsse.read_envelope(envelope.encode() if isinstance(envelope, str) else envelope)


def checked(envelope: dict[str, Any], *keys: KeyFiles) -> PublicKey:
    """Who signed it."""
    return dsse.signer(read(envelope), [read_public_key(one.public) for one in keys])


def test_what_is_signed_is_the_example_of_the_specification() -> None:
    # https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md, "Test Vectors"
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(kind=st.text(), payload=st.binary())
def test_what_is_signed_is_what_another_implementation_signs(kind: str, payload: bytes) -> None:
    try:
        kind.encode()
    except UnicodeEncodeError:
        return
    assert dsse.pae(kind, payload) == OtherEnvelope(payload, kind, {}).pae()


@given(one=st.tuples(st.text("ab 1"), st.binary()), other=st.tuples(st.text("ab 1"), st.binary()))
def test_no_two_payloads_are_signed_by_the_same_bytes(
    one: tuple[str, bytes], other: tuple[str, bytes]
) -> None:
    assert (dsse.pae(*one) == dsse.pae(*other)) == (one == other)


def test_an_envelope_is_read_as_it_was_written(keys: KeyFiles) -> None:
    envelope = signed(keys)

    found = read(envelope)

    assert (found.payload, found.payload_type) == (PAYLOAD, "application/vnd.in-toto+json")
    assert checked(envelope, keys).keyid == envelope["signatures"][0]["keyid"]


def test_another_implementation_verifies_what_was_signed_here(keys: KeyFiles) -> None:
    envelope = signed(keys)
    public = load_pem_public_key(keys.public.read_bytes())
    theirs = SSlibKey.from_crypto(public, keyid=envelope["signatures"][0]["keyid"])

    assert OtherEnvelope.from_dict(json.loads(json.dumps(envelope))).verify([theirs], 1)

    envelope["payload"] = base64.b64encode(b"other").decode()
    with pytest.raises(VerificationError):
        OtherEnvelope.from_dict(envelope).verify([theirs], 1)


def test_what_another_implementation_signed_is_verified_here(keys: KeyFiles) -> None:
    private = load_pem_private_key(keys.private.read_bytes(), None)
    theirs = OtherEnvelope(PAYLOAD, dsse.PAYLOAD_TYPE, {})
    theirs.sign(CryptoSigner(private))
    envelope = theirs.to_dict()

    # Its key ids are made another way; they are hints only.
    assert checked(envelope, keys).keyid != envelope["signatures"][0]["keyid"]
    envelope["payload"] = base64.b64encode(PAYLOAD + b" ").decode()
    with pytest.raises(AttestationError, match="no signature"):
        checked(envelope, keys)


def test_another_key_is_not_believed_although_the_key_id_is_right(keys: KeyFiles, tmp_path: Path) -> None:
    for kind in ("ed25519", "p256"):
        stranger = write_keys(tmp_path / "stranger", kind)
        envelope = signed(stranger)
        envelope["signatures"][0]["keyid"] = read_public_key(keys.public).keyid

        with pytest.raises(AttestationError) as caught:
            checked(envelope, keys)

        assert caught.value.reason is AttestationReason.SIGNATURE


def test_every_signature_is_tried_whatever_its_key_id(keys: KeyFiles, tmp_path: Path) -> None:
    strangers = [signed(write_keys(tmp_path / str(number), "ed25519")) for number in range(3)]
    mine = signed(keys)
    mine["signatures"][0]["keyid"] = "of somebody else"
    envelope = {**mine, "signatures": [*(one["signatures"][0] for one in strangers), *mine["signatures"]]}

    assert checked(envelope, keys) == checked(mine, keys)
    del mine["signatures"][0]["keyid"]
    assert checked(mine, keys)


def test_one_of_several_trusted_keys_is_enough(keys: KeyFiles, tmp_path: Path) -> None:
    old = write_keys(tmp_path / "old", "p256")

    assert checked(signed(keys), old, keys).keyid == read_public_key(keys.public).keyid
    assert checked(signed(old), old, keys).keyid == read_public_key(old.public).keyid


@pytest.mark.parametrize("change", ["payload", "payloadType", "sig"])
def test_a_change_of_anything_signed_is_noticed(keys: KeyFiles, change: str) -> None:
    envelope = signed(keys)
    if change == "sig":
        signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        signature[-1] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    elif change == "payload":
        envelope["payload"] = base64.b64encode(PAYLOAD.replace(b"some", b"same")).decode()
    else:
        envelope["payloadType"] = "application/json"

    with pytest.raises(AttestationError) as caught:
        checked(envelope, keys)

    assert caught.value.reason is AttestationReason.SIGNATURE


@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_of_the_payload_can_be_turned(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    keys = _shared_keys(tmp_path_factory)
    envelope = signed(keys)
    payload = bytearray(PAYLOAD)
    payload[position % len(payload)] ^= 1 << bit
    envelope["payload"] = base64.b64encode(payload).decode()

    with pytest.raises(AttestationError, match="no signature"):
        checked(envelope, keys)


def _shared_keys(factory: pytest.TempPathFactory) -> KeyFiles:
    folder = factory.getbasetemp() / "shared-keys"
    if not folder.exists():
        write_keys(folder, "ed25519")
    return KeyFiles(folder / "ed25519.pem", folder / "ed25519.pub.pem")


def test_the_url_safe_alphabet_is_the_same_envelope(keys: KeyFiles) -> None:
    payload = b"\xfb\xff\xfe" * 7
    envelope = signed(keys, payload)
    envelope["payload"] = base64.urlsafe_b64encode(payload).decode()

    assert "_" in envelope["payload"]
    assert "/" not in envelope["payload"]
    assert checked(envelope, keys)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("aGVsbG8", id="no padding"),
        pytest.param("aGVsbG8==", id="too much padding"),
        pytest.param("aGVs\nbG8=", id="a line break"),
        pytest.param(" aGVsbG8=", id="a space"),
        pytest.param("aGVsbG9=", id="bits left over"),
        pytest.param("a+b/a-b_", id="both alphabets"),
        pytest.param("aGVsbG8=aGVs", id="more after the padding"),
        pytest.param("aGVsbÄ8=", id="not ASCII"),
        pytest.param(5, id="a number"),
        pytest.param(None, id="nothing"),
    ],
)
@pytest.mark.parametrize("field", ["payload", "sig"])
def test_what_is_not_whole_base64_is_refused(tmp_path: Path, field: str, text: object) -> None:
    envelope = signed(write_keys(tmp_path, "ed25519"))
    (envelope if field == "payload" else envelope["signatures"][0])[field] = text

    with pytest.raises(AttestationError) as caught:
        read(envelope)

    assert caught.value.reason is AttestationReason.MALFORMED
    assert "base64" in caught.value.detail


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    envelope = json.dumps(signed(write_keys(tmp_path, "ed25519")))
    doubled = envelope.replace('{"payload"', '{"payload": "aGVsbG8=", "payload"', 1)

    with pytest.raises(AttestationError, match="'payload' stands twice"):
        read(doubled)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe{}", id="no UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"payload": NaN}', id="NaN"),
        pytest.param(b'{"payload": 1' + b"0" * 5000 + b"}", id="a huge number"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b'{"a":' * 200_000, id="deep objects"),
        pytest.param(b'{"payload": "aGVsbG8=", "payloadType": "a"}', id="no signatures"),
        pytest.param(b'{"payload": "aGVsbG8=", "payloadType": "a", "signatures": []}', id="none of them"),
        pytest.param(
            b'{"payload": "aGVsbG8=", "payloadType": "a", "signatures": [1]}', id="a number for one"
        ),
        pytest.param(
            b'{"payload": "aGVsbG8=", "payloadType": 1, "signatures": [{"sig": "aGVsbG8="}]}', id="type"
        ),
    ],
)
def test_what_is_no_envelope_is_refused(text: bytes) -> None:
    with pytest.raises(AttestationError) as caught:
        read(text)

    assert caught.value.reason is AttestationReason.MALFORMED


def test_too_much_is_refused_before_it_is_parsed(keys: KeyFiles) -> None:
    with pytest.raises(AttestationError, match="more than 33554432 bytes"):
        read(b" " * (dsse.LARGEST_ENVELOPE + 1))
    envelope = signed(keys)
    envelope["signatures"] *= 33
    with pytest.raises(AttestationError, match="1 to 32 signatures"):
        read(envelope)
    with pytest.raises(AttestationError, match="would be larger"):
        dsse.sign(b" " * dsse.LARGEST_ENVELOPE, read_private_key(keys.private))


@given(st.binary())
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    with pytest.raises(AttestationError):
        dsse.read_envelope(data)

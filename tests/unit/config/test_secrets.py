from __future__ import annotations

import copy
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from layerwatch.config.secrets import Secret, SecretError, SecretReason, SecretUrl, redact_url

SECRET: TypeAdapter[Secret] = TypeAdapter(Secret)
VALUE = "hunter2"


def test_a_plain_secret_shows_only_its_placeholder() -> None:
    secret = SECRET.validate_python(VALUE)
    shown = [str(secret), repr(secret), f"{secret}", f"{[secret]}", str(SECRET.dump_python(secret))]
    assert shown == ["<secret>", "<secret>", "<secret>", "[<secret>]", "<secret>"]
    assert SECRET.dump_json(secret) == b'"<secret>"'
    assert secret.reveal() == VALUE


def test_a_secret_from_the_environment_is_read_at_use(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = SECRET.validate_python({"env": "MY_TOKEN"})
    monkeypatch.setenv("MY_TOKEN", VALUE)
    assert secret.reveal() == VALUE
    monkeypatch.setenv("MY_TOKEN", "rotated")
    assert secret.reveal() == "rotated"
    assert str(secret) == "<secret>"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"hunter2", VALUE), (b"hunter2\n", VALUE), (b"hunter2\r\n", VALUE), (b"a\n\n", "a\n"), (b"a\r", "a\r")],
)
def test_a_secret_file_loses_one_newline_at_its_end(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "token").write_bytes(content)
    assert Secret.from_file(tmp_path / "token").reveal() == expected


def test_a_rotated_secret_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    secret = SECRET.validate_python({"file": str(file)})
    file.write_text("first\n")
    assert secret.reveal() == "first"
    file.write_text("second\n")
    assert secret.reveal() == "second"


@pytest.mark.parametrize(
    ("value", "reason"), [(None, SecretReason.ENV_NOT_SET), ("", SecretReason.ENV_EMPTY)]
)
def test_a_missing_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str | None, reason: SecretReason
) -> None:
    monkeypatch.delenv("MY_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_TOKEN", value)
    with pytest.raises(SecretError, match="environment variable MY_TOKEN") as caught:
        Secret.from_env("MY_TOKEN").reveal()
    assert caught.value.reason is reason
    assert caught.value.place == "MY_TOKEN"


def test_an_unusable_secret_file_is_named_with_the_reason(tmp_path: Path) -> None:
    cases = {
        "missing": (None, SecretReason.FILE_NOT_FOUND),
        "empty": (b"\n", SecretReason.FILE_EMPTY),
        "large": (b"x" * 65_537, SecretReason.FILE_TOO_LARGE),
        "binary": (b"hunter2\xff", SecretReason.FILE_NOT_TEXT),
    }
    for name, (content, reason) in cases.items():
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SecretError, match=str(file)) as caught:
            Secret.from_file(file).reveal()
        assert caught.value.reason is reason
        assert VALUE not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None or name == "missing"


def test_a_folder_instead_of_a_secret_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="Is a directory") as caught:
        Secret.from_file(tmp_path).reveal()
    assert caught.value.reason is SecretReason.FILE_UNREADABLE


def test_secrets_are_equal_when_given_in_the_same_way() -> None:
    assert Secret("a") == Secret("a") == copy.deepcopy(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("A") != Secret.from_env("A")
    assert Secret.from_env("A") == Secret.from_env("A")
    assert len({Secret("a"), Secret("a"), Secret.from_file("a")}) == 2


@pytest.mark.parametrize(
    "value",
    [
        "",
        "<secret>",
        5,
        True,
        None,
        [VALUE],
        {},
        {"env": ""},
        {"env": 5},
        {"env": "A", "file": "B"},
        {VALUE: "A"},
    ],
)
def test_anything_but_text_or_one_reference_is_refused_without_repeating_it(value: object) -> None:
    with pytest.raises(ValidationError, match=r"env:|env and file") as caught:
        SECRET.validate_python(value)
    assert VALUE not in "; ".join(detail["msg"] for detail in caught.value.errors())


def test_a_relative_secret_file_starts_from_the_configuration_folder(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(VALUE)
    secret = SECRET.validate_python({"file": "token"}, context={"folder": tmp_path})
    assert secret.reveal() == VALUE


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///layerwatch.db", "sqlite:///layerwatch.db"),
        ("sqlite:////var/lib/lw.db", "sqlite:////var/lib/lw.db"),
        ("postgresql://me:hunter2@db:5432/lw", "postgresql://<secret>@db:5432/lw"),
        ("postgresql://me:hun@ter/2?x#y@db/lw?sslpassword=z", "postgresql://<secret>@db/lw?<secret>"),
        ("http://db/lw#hunter2", "http://db/lw#<secret>"),
        ("no url", "no url"),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url: str, expected: str) -> None:
    assert redact_url(url) == expected
    assert repr(SecretUrl(url)) == expected


def test_a_url_from_elsewhere_is_not_shown_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///x.db")
    assert str(SecretUrl.from_env("DATABASE_URL")) == "<secret>"


@given(st.text(min_size=1))
def test_no_password_survives_the_redaction_of_a_url(password: str) -> None:
    marked = f"«{password}»"
    assert "«" not in redact_url(f"postgresql://user:{marked}@host/database")
    assert "«" not in redact_url(f"postgresql://host/database?password={marked}")

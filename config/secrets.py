"""Secrets: given as text, ``{env: NAME}`` or ``{file: PATH}``, read at use, never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

PLACEHOLDER = "<secret>"
"""What is shown in place of every secret."""

FOLDER_CONTEXT_KEY = "folder"
"""Key in pydantic's validation context: the folder that relative paths in the configuration start from."""

_LARGEST_FILE = 65_536
_ACCEPTED = "write the text itself, {env: NAME} or {file: PATH}"


class SecretReason(StrEnum):
    """Why a secret could not be read. A closed list."""

    ENV_NOT_SET = "env_not_set"
    ENV_EMPTY = "env_empty"
    FILE_NOT_FOUND = "file_not_found"
    FILE_UNREADABLE = "file_unreadable"
    FILE_EMPTY = "file_empty"
    FILE_TOO_LARGE = "file_too_large"
    FILE_NOT_TEXT = "file_not_text"


class SecretError(Exception):
    """A secret cannot be read now.

    Attributes:
        reason: member of the closed list.
        place: the environment variable or the file that should hold the secret.
        detail: one sentence for the user; names ``place``, never holds any part of the secret.
    """

    def __init__(self, reason: SecretReason, place: str, detail: str) -> None:
        self.reason = reason
        self.place = place
        self.detail = detail
        super().__init__(detail)


class Secret:
    """Text that must not be shown: a token, a signing key, a URL that carries one.

    Shows as ``<secret>`` wherever it is printed or serialised. Only :meth:`reveal` gives the text, read at the
    time of use, so that a rotated file is picked up without a restart. Two secrets are equal when they are
    given in the same way (the same text, variable or file). Immutable and hashable.
    """

    __slots__ = ("_source", "_text")

    def __init__(self, text: str) -> None:
        """A secret given as ``text`` itself.

        Raises:
            ValueError: for empty text, and for ``<secret>``, which is only how a secret is printed.
        """
        if not text:
            raise ValueError(f"is empty; {_ACCEPTED}")
        if text == PLACEHOLDER:
            raise ValueError(
                f"is {PLACEHOLDER}, which only stands for a secret in printed settings; {_ACCEPTED}"
            )
        self._source: Literal["text", "env", "file"] = "text"
        self._text = text

    @classmethod
    def from_env(cls, name: str) -> Self:
        """A secret held by the environment variable ``name``. Raises ValueError for an empty name."""
        return cls._from("env", name, "an environment variable")

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """A secret held by the file at ``path``. Raises ValueError for an empty path."""
        return cls._from("file", os.fspath(path), "a file")

    @classmethod
    def _from(cls, source: Literal["env", "file"], text: str, what: str) -> Self:
        if not text or "\0" in text:
            raise ValueError(f"needs the name of {what} after {source}:")
        secret = cls.__new__(cls)
        secret._source = source
        secret._text = text
        return secret

    @property
    def is_plain(self) -> bool:
        """True when the text itself stands in the configuration, so that it can be checked when loading."""
        return self._source == "text"

    def reveal(self) -> str:
        """The secret text, at least one character long.

        A file is read anew each time; one newline at its end is dropped.

        Raises:
            SecretError: the variable is not set or empty; the file is missing, unreadable, empty, larger than
                64 KiB or not UTF-8.
        """
        if self._source == "text":
            return self._text
        return _read_env(self._text) if self._source == "env" else _read_file(self._text)

    def _shown(self) -> str:
        return PLACEHOLDER

    def __repr__(self) -> str:
        return self._shown()

    def __str__(self) -> str:
        return self._shown()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return (self._source, self._text) == (other._source, other._text)

    def __hash__(self) -> int:
        return hash((self._source, self._text))

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping):
            if len(value) == 1 and isinstance(value.get("env"), str):
                return cls.from_env(value["env"])
            if len(value) == 1 and isinstance(value.get("file"), str):
                return cls.from_file(resolve_path(value["file"], info))
            raise ValueError(f"must hold exactly one of env and file, with text after it; {_ACCEPTED}")
        if value is None:
            raise ValueError(f"has no value; {_ACCEPTED}")
        raise ValueError("must be text: put the value in quotes, or write {env: NAME} or {file: PATH}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"type": "string", "minLength": 1},
                *(
                    {
                        "type": "object",
                        "properties": {key: {"type": "string", "minLength": 1}},
                        "required": [key],
                        "additionalProperties": False,
                    }
                    for key in ("env", "file")
                ),
            ]
        }


class SecretUrl(Secret):
    """A URL that may carry a password. Written plainly it is shown without user, password and query."""

    __slots__ = ()

    def _shown(self) -> str:
        return redact_url(self._text) if self.is_plain else PLACEHOLDER


def redact_url(url: str) -> str:
    """``url`` with user and password, and the query or fragment, replaced by ``<secret>``.

    Cuts at the *last* ``@``, so that a password which holds unescaped ``@`` or ``/`` is hidden whole. Text
    that is no URL is returned as it is.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    _, at, host = rest.rpartition("@")
    if at:
        rest = f"{PLACEHOLDER}@{host}"
    for mark in "?#":
        rest, found, _ = rest.partition(mark)
        if found:
            rest += mark + PLACEHOLDER
    return f"{scheme}://{rest}"


def resolve_path(path: str | Path, info: ValidationInfo) -> Path:
    """``path`` with ``~`` expanded and, when relative, taken from the folder of the configuration file.

    Raises:
        ValueError: ``~`` is used but there is no home folder.
    """
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError("starts with ~, but no home folder is known; write the path in full") from error
    folder = (info.context or {}).get(FOLDER_CONTEXT_KEY)
    return expanded if folder is None else Path(folder) / expanded


def _read_env(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SecretError(
            SecretReason.ENV_NOT_SET, name, f"environment variable {name} is not set; set it to the secret"
        )
    if not value:
        raise SecretError(
            SecretReason.ENV_EMPTY, name, f"environment variable {name} is empty; set it to the secret"
        )
    return value


def _read_file(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise SecretError(
            SecretReason.FILE_NOT_FOUND,
            path,
            f"secret file {path} does not exist; create it or mend the path",
        ) from None
    except OSError as error:
        raise SecretError(
            SecretReason.FILE_UNREADABLE, path, f"secret file {path} cannot be read: {error.strerror}"
        ) from None
    if len(content) > _LARGEST_FILE:
        raise SecretError(
            SecretReason.FILE_TOO_LARGE,
            path,
            f"secret file {path} is larger than {_LARGEST_FILE} bytes; it must hold nothing but the secret",
        )
    # A UnicodeDecodeError carries the bytes it stumbled over, so none may be part of the error raised here.
    text = content.decode("utf-8", errors="surrogateescape")
    text = text.removesuffix("\r\n" if text.endswith("\r\n") else "\n")
    if any("\udc80" <= character <= "\udcff" for character in text):
        raise SecretError(SecretReason.FILE_NOT_TEXT, path, f"secret file {path} is not UTF-8 text")
    if not text:
        raise SecretError(
            SecretReason.FILE_EMPTY, path, f"secret file {path} is empty; write the secret into it"
        )
    return text

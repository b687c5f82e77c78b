"""What an MLflow server keeps in its registry: models, versions, runs, logged models. Read page by page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.mlflow.server import MlflowServer, NotThere

READY = "READY"
PENDING = "PENDING_REGISTRATION"
API = "/api/2.0/mlflow"

_MOST_PAGES = 10_000
_MOST_PASSES = 4
_MOST_CONFIRMED = 200
_MODELS_AT_ONCE = 1000
"""More are refused."""
_LATEST_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model.

    Attributes:
        created, updated: milliseconds since 1970, by the server's clock.
        source: where its artifacts are; whoever registers a version writes what he likes.
    """

    name: str
    number: int
    created: int
    updated: int
    source: str
    run_id: str
    status: str
    stage: str
    tags: Mapping[str, str]

    @property
    def token(self) -> str:
        """Tells it from another of the same name and number, as after a model was deleted and made anew."""
        return f"{self.created:x}-{hashlib.sha256(self.source.encode(errors='replace')).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model.

    Attributes:
        aliases: alias -> number of a version.
        newest: the newest version of each stage. Some servers leave that out.
    """

    name: str
    aliases: Mapping[str, int]
    newest: tuple[ModelVersion, ...]


VersionKey = tuple[str, int]


class MlflowRecords:
    """Asks an MLflow server for its records.

    Attributes:
        page_size: records to a page at most.
    """

    def __init__(self, server: MlflowServer, page_size: int) -> None:
        self._server = server
        self.page_size = page_size

    def models(self, condition: str | None) -> dict[str, RegisteredModel]:
        """All registered models of a search condition, by name."""
        found = {}
        parameters = _parameters(min(self.page_size, _MODELS_AT_ONCE), condition)
        for page in self._pages(f"{API}/registered-models/search", "registered_models", parameters):
            for record in page:
                model = _model(record)
                found[model.name] = model
        return found

    def model(self, name: str) -> RegisteredModel | None:
        """One registered model, or None when there is none of that name."""
        try:
            answer = self._server.get(f"{API}/registered-models/get", {"name": name})
        except NotThere:
            return None
        return _model(_part(answer, "registered_model"))

    def all_versions(self, condition: str | None) -> dict[VersionKey, ModelVersion]:
        """All versions of a search condition, none missed and none doubled, whatever is added or deleted meanwhile.

        Oldest first, so that what is added comes at the end. Pages are offsets: when something that was read is
        deleted, what follows moves up and a page begins too late. Then the next pass lacks what was deleted; so a
        pass of which nothing is lacking in the next one missed nothing, and that next one has it all.
        """
        order = ["creation_timestamp ASC", "name ASC", "version_number ASC"]
        parameters = _parameters(self.page_size, condition, order)
        return self._read_safely(lambda: self._pass(parameters, since=None))

    def changed_versions(self, condition: str | None, since: int) -> dict[VersionKey, ModelVersion]:
        """The versions that were made, or of which the record changed, at or after a time of the server's clock.

        The latest first: what is added or changes meanwhile comes before what was read, and is seen by the next look.
        """
        order = ["last_updated_timestamp DESC", "name ASC", "version_number ASC"]
        parameters = _parameters(min(self.page_size, _LATEST_AT_ONCE), condition, order)
        return self._read_safely(lambda: self._pass(parameters, since))

    def version(self, name: str, number: int) -> ModelVersion | None:
        """One version, or None when it is not there."""
        try:
            answer = self._server.get(f"{API}/model-versions/get", {"name": name, "version": str(number)})
        except NotThere:
            return None
        return _version(_part(answer, "model_version"))

    def version_of_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias points at, or None when there is no such alias."""
        try:
            answer = self._server.get(f"{API}/registered-models/alias", {"name": name, "alias": alias})
        except (NotThere, RegistryUnavailable) as error:
            # An alias that is not there is called a bad request.
            if isinstance(error, RegistryUnavailable) and error.reason is not RegistryReason.BAD_RESPONSE:
                raise
            return None
        return _version(_part(answer, "model_version"))

    def newest_versions(self, name: str) -> list[ModelVersion]:
        """Some of the versions of a model, the highest number first."""
        parameters = _parameters(50, f"name = {quoted(name)}", ["version_number DESC"])
        answer = self._server.get(f"{API}/model-versions/search", parameters)
        return [_version(record) for record in _records(answer, "model_versions")]

    def run(self, run_id: str) -> Mapping[str, Any] | None:
        """A run: ``info`` and ``data``; None when it is not there."""
        try:
            return _part(self._server.get(f"{API}/runs/get", {"run_id": run_id}), "run")
        except NotThere:
            return None

    def logged_model(self, model_id: str) -> Mapping[str, Any] | None:
        """A logged model: ``info`` and ``data``; None when it is not there."""
        try:
            return _part(self._server.get(f"{API}/logged-models/{model_id}"), "model")
        except NotThere:
            return None

    def set_tag(self, name: str, number: int, key: str, value: str) -> None:
        """Set a tag of a version; raises NotThere."""
        body = {"name": name, "version": str(number), "key": key, "value": value}
        self._server.post(f"{API}/model-versions/set-tag", body)

    def _read_safely(
        self, read: Callable[[], tuple[dict[VersionKey, ModelVersion], int]]
    ) -> dict[VersionKey, ModelVersion]:
        together: dict[VersionKey, ModelVersion] = {}
        before: dict[VersionKey, ModelVersion] | None = None
        for _ in range(_MOST_PASSES):
            now, pages = read()
            if pages == 1 or (before is not None and before.keys() <= now.keys()):
                return now
            together |= now
            before = now
        doubtful = [key for key in together if key not in now]
        for key in doubtful[:_MOST_CONFIRMED]:
            confirmed = self.version(*key)
            if confirmed is None:
                del together[key]
            else:
                together[key] = confirmed
        return together

    def _pass(
        self, parameters: Mapping[str, str | int | list[str]], since: int | None
    ) -> tuple[dict[VersionKey, ModelVersion], int]:
        found: dict[VersionKey, ModelVersion] = {}
        pages = 0
        for page in self._pages(f"{API}/model-versions/search", "model_versions", parameters):
            pages += 1
            for record in page:
                version = _version(record)
                if since is not None and version.updated < since:
                    return found, pages
                found[version.name, version.number] = version
        return found, pages

    def _pages(
        self, path: str, key: str, parameters: Mapping[str, str | int | list[str]]
    ) -> Iterator[list[Mapping[str, Any]]]:
        seen = set()
        token = ""
        for _ in range(_MOST_PAGES):
            answer = self._server.get(path, {**parameters, "page_token": token} if token else parameters)
            # No records at all are an empty object.
            if answer and key not in answer:
                raise _bad(f"the answer of {self._server.url}{path} lacks {key}")
            yield _records(answer, key)
            token = answer.get("next_page_token") or ""
            if not token:
                return
            if not isinstance(token, str) or token in seen:
                raise _bad(f"{self._server.url}{path}: its pages go in a circle")
            seen.add(token)
        raise _bad(f"{self._server.url}{path}: it has more than {_MOST_PAGES} pages")


def quoted(text: str) -> str:
    """A text inside a search condition, which knows no way to write both kinds of quotes in one."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def tags_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a record."""
    return {_text(tag, "key"): _text(tag, "value") for tag in _records(record, "tags")}


def _parameters(
    page_size: int, condition: str | None, order: list[str] | None = None
) -> dict[str, str | int | list[str]]:
    parameters: dict[str, str | int | list[str]] = {"max_results": page_size}
    if condition is not None:
        parameters["filter"] = condition
    if order is not None:
        parameters["order_by"] = order
    return parameters


def _model(record: Mapping[str, Any]) -> RegisteredModel:
    return RegisteredModel(
        name=_name(record),
        aliases={_text(one, "alias"): _number(one, "version") for one in _records(record, "aliases")},
        newest=tuple(_version(one) for one in _records(record, "latest_versions")),
    )


def _version(record: Mapping[str, Any]) -> ModelVersion:
    created = _number(record, "creation_timestamp", 0)
    return ModelVersion(
        name=_name(record),
        number=_number(record, "version"),
        created=created,
        updated=max(created, _number(record, "last_updated_timestamp", 0)),
        source=_text(record, "source"),
        run_id=_text(record, "run_id"),
        status=_text(record, "status") or READY,
        stage=_text(record, "current_stage"),
        tags=tags_of(record),
    )


def _part(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = answer.get(key)
    if not isinstance(part, dict):
        raise _bad(f"the answer of the MLflow server lacks {key}")
    return part


def _records(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = record.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _bad(f"the answer of the MLflow server has {key} that are no list of objects")
    return items


def _name(record: Mapping[str, Any]) -> str:
    name = _text(record, "name")
    if not name:
        raise _bad("the answer of the MLflow server has a record without a name")
    return name


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _bad(f"the answer of the MLflow server has a {key} that is no text")
    return value


def _number(record: Mapping[str, Any], key: str, otherwise: int | None = None) -> int:
    value = record.get(key, otherwise)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _bad(f"the answer of the MLflow server has a {key} that is no whole number")
    return value


def _bad(detail: str) -> RegistryUnavailable:
    return RegistryUnavailable(
        RegistryReason.BAD_RESPONSE,
        f"{detail}: is url the address of an MLflow server, not newer than this program knows?",
    )

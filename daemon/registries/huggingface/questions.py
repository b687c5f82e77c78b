"""What is asked of a Hub: repositories of an owner, refs, commits, trees and model cards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import quote

from huggingface_hub import HfApi, get_session
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined] # public, though not in an __all__
    hf_raise_for_status,
    parse_datetime,
)

from layerwatch.daemon.registries.base import DeclaredLineage, Progress, no_progress
from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.huggingface.connection import HubConnection
from layerwatch.metrics.relation import Relation

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_MOST_FILES = 200_000
_LONGEST_REF = 255

_RELATIONS = {
    "finetune": Relation.FINETUNED,
    "adapter": Relation.ADAPTER,
    "quantized": Relation.QUANTIZED,
    "merge": Relation.MERGED,
}
"""``base_model_relation`` of model cards."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A repository as it stands in the list of its owner: its name, the head of its main branch, its last change."""

    name: str
    head: str | None
    modified: datetime | None


class HubQuestions:
    """Questions to one Hub, over its connection; each raises RegistryUnavailable. Safe for several threads."""

    def __init__(self, connection: HubConnection) -> None:
        self._connection = connection

    def models(self, owner: str, since: datetime | None) -> list[Entry]:
        """The repositories of an owner, those that changed last first, down to a time or all."""

        def question(api: HfApi) -> list[Entry]:
            found = []
            for info in api.list_models(author=owner, sort="last_modified", expand=["lastModified", "sha"]):
                modified: datetime | None = info.last_modified
                if since is not None and modified is not None and modified < since:
                    break
                if isinstance(info.id, str) and REPOSITORY.fullmatch(info.id) and owner_of(info.id) == owner:
                    head = info.sha if isinstance(info.sha, str) and SHA.fullmatch(info.sha) else None
                    found.append(Entry(info.id, head, modified))
            return found

        return self._connection.ask(f"the models of {owner}", question)

    def has_name(self, name: str) -> bool:
        """Whether the repository is still called so; the Hub answers to former names too."""
        return self._connection.ask(
            f"the repository {name}", lambda api: bool(api.model_info(name, expand=["sha"]).id == name)
        )

    def refs(self, name: str, pull_requests: bool) -> dict[str, str]:
        """Branches, tags and pull requests with their commits; a branch goes before a tag of the same name."""

        def question(api: HfApi) -> dict[str, str]:
            found = api.list_repo_refs(name, include_pull_requests=pull_requests)
            refs: dict[str, str] = {}
            for one in found.branches + found.tags:
                refs.setdefault(one.name, one.target_commit)
            for one in found.pull_requests or []:
                refs.setdefault(one.ref, one.target_commit)
            return {ref: sha for ref, sha in refs.items() if len(ref) <= _LONGEST_REF and SHA.fullmatch(sha)}

        return self._connection.ask(f"the refs of {name}", question)

    def commit_of(self, repository: str, revision: str) -> tuple[str, str]:
        """Sha and date of a revision. The library's own method would read the whole history, page by page."""

        def question(api: HfApi) -> tuple[str, str]:
            url = f"{api.endpoint}/api/models/{repository}/commits/{quote(revision, safe='')}"
            response = get_session().get(url, params={"limit": 1}, headers=self._connection.headers())
            hf_raise_for_status(response)
            newest = response.json()[0]
            if not SHA.fullmatch(newest["id"]):
                raise ValueError("no commit id")
            date: datetime = parse_datetime(newest["date"])
            return newest["id"], date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

        return self._connection.ask(f"the commit {repository}@{revision}", question)

    def tree(self, repository: str, sha: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        """The files of a commit, sorted by path."""

        def question(api: HfApi) -> list[RemoteFile]:
            tree = api.list_repo_tree(repository, recursive=True, revision=sha)
            found = []
            for one in islice(tree, _MOST_FILES):
                progress()
                if isinstance(one, RepoFile):
                    found.append(_remote(one))
            return found

        files = self._connection.ask(f"the files of {repository}@{sha}", question)
        return tuple(sorted(files, key=lambda file: file.path))

    def origin(self, repository: str, sha: str) -> DeclaredLineage | None:
        """``base_model`` of the model card."""

        def question(api: HfApi) -> DeclaredLineage | None:
            info = api.model_info(repository, revision=sha, expand=["cardData", "tags"])
            card = info.card_data.to_dict() if info.card_data is not None else {}  # type: ignore[no-untyped-call]
            return _lineage(repository, card, info.tags or [])

        return self._connection.ask(f"the card of {repository}@{sha}", question)


def owner_of(repository: str) -> str:
    """The organisation or user."""
    return repository.partition("/")[0]


def _remote(file: RepoFile) -> RemoteFile:
    if not isinstance(file.path, str) or not isinstance(file.size, int):
        raise TypeError("a file needs a path and a size")
    if file.lfs is None:
        return RemoteFile(file.path, file.size, str(file.blob_id))
    if not isinstance(file.lfs.size, int) or not re.fullmatch("[0-9a-f]{64}", file.lfs.sha256):
        raise ValueError("an LFS file needs its size and sha256")
    return RemoteFile(file.path, file.lfs.size, file.lfs.sha256, file.lfs.sha256)


def _lineage(repository: str, card: Mapping[str, Any], tags: Iterable[object]) -> DeclaredLineage | None:
    """What a card says of its origin; the relation also as the Hub inferred it, ``base_model:quantized:owner/name``."""
    named = card.get("base_model")
    parents = [
        one
        for one in (named if isinstance(named, list) else [named])
        if isinstance(one, str) and REPOSITORY.fullmatch(one) and one != repository
    ]
    if not parents:
        return None
    relation = card.get("base_model_relation")
    if not isinstance(relation, str):
        told = (one.split(":", 2) for one in tags if isinstance(one, str) and one.startswith("base_model:"))
        relation = next((one[1] for one in told if len(one) == 3 and one[2] == parents[0]), None)
    kind = _RELATIONS.get(relation or "")
    several = tuple(parents) if kind is Relation.MERGED and len(parents) > 1 else ()
    return DeclaredLineage(parents[0], kind, "card", several)

"""A stand-in for the Hugging Face Hub: its documented HTTP interface over repositories that are held in memory.

It answers as the Hub does, with keyset paging by ``Link``, ``X-Error-Code``, ranges, redirects to where large files
are kept, ``RateLimit`` headers and webhooks, so that the Hub's real client can be driven against it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import requests
import yaml

_LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".npz")
_TREE_ROOT = hashlib.sha1(b"tree").hexdigest()


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob

    def lfs(self, key: str) -> dict[str, object]:
        return {key: self.sha256, "size": len(self.data), "pointerSize": 134}


@dataclass(frozen=True, slots=True)
class _Commit:
    sha: str
    date: datetime
    title: str
    parent: str | None
    tree: Mapping[str, _File]


@dataclass
class _Repository:
    name: str
    private: bool
    gated: bool
    modified: datetime
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[int, str] = field(default_factory=dict)
    commits: dict[str, _Commit] = field(default_factory=dict)

    def find(self, revision: str) -> _Commit | None:
        number = revision.removeprefix("refs/pr/")
        sha = self.branches.get(revision) or self.tags.get(revision)
        if sha is None and number.isdigit():
            sha = self.pull_requests.get(int(number))
        if sha is None and len(revision) >= 7:
            sha = next((one for one in self.commits if one.startswith(revision)), None)
        return None if sha is None else self.commits.get(sha)


@dataclass(frozen=True, slots=True)
class _Webhook:
    url: str
    secret: str | None
    owner: str


class _Refused(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, code: str | None, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(message)


class HubServer:
    """The stand-in, on a free port of 127.0.0.1, with methods for those who publish into it.

    Args:
        tokens: those that see private repositories and passed the gates.
        page_size: entries of a page.
        storage: keep large files on a second port, to which ``resolve`` redirects; with credentials it refuses.

    Attributes:
        url: its address; storage_url: that of the second port.
        asked: (method, path with query, headers with lower-case names) of each request so far.
        delivered: status of each delivery of a webhook, 0 where none came.
        before: called with each path before it is answered.
        step: so far apart in time changes are.
    """

    def __init__(self, tokens: Iterable[str] = (), page_size: int = 1000, storage: bool = False) -> None:
        self.tokens = frozenset(tokens)
        self.page_size = page_size
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.delivered: list[int] = []
        self.before: Callable[[str], None] = lambda path: None
        self.step = timedelta(seconds=1)
        self.lock = threading.RLock()
        self.repositories: dict[str, _Repository] = {}
        self.former_names: dict[str, str] = {}
        self.allowance: dict[str, tuple[int, int]] = {}
        self._webhooks: list[_Webhook] = []
        self._now = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        self._servers = [_serve(self, _HubHandler)]
        self.url = _address(self._servers[0])
        self.storage_url = ""
        if storage:
            self._servers.append(_serve(self, _StorageHandler))
            self.storage_url = _address(self._servers[1])

    def stop(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def allow(self, kind: str, requests_left: int, seconds: int) -> None:
        """Answer so many more requests of a kind ("api" or "resolvers"), then 429 until `forgive`."""
        self.allowance[kind] = (requests_left, seconds)

    def forgive(self) -> None:
        """A new window of requests begins."""
        self.allowance.clear()

    def webhook(self, url: str, secret: str | None, owner: str) -> None:
        """Tell this address of every change to an owner's repositories."""
        self._webhooks.append(_Webhook(url, secret, owner))

    def commit(
        self,
        name: str,
        files: Mapping[str, bytes | None],
        ref: str = "main",
        title: str = "a commit",
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Commit files on top of a branch (None deletes one); makes repository and branch when they are not there.

        Returns:
            the commit's sha.
        """
        with self.lock:
            self._now += self.step
            repository = self.repositories.get(name)
            if repository is None:
                repository = _Repository(name, private, gated, self._now)
                self.repositories[name] = repository
            old = repository.find(ref) or repository.find("main")
            tree = dict(old.tree) if old else {}
            for path, data in files.items():
                if data is None:
                    tree.pop(path)
                else:
                    tree[path] = _File(data, path.lower().endswith(_LARGE_SUFFIXES))
            lines = [f"{path} {file.blob}" for path, file in sorted(tree.items())]
            text = "\n".join([name, title, old.sha if old else "", self._now.isoformat(), *lines])
            sha = hashlib.sha1(text.encode()).hexdigest()
            repository.commits[sha] = _Commit(sha, self._now, title, old.sha if old else None, tree)
            before = repository.branches.get(ref)
            if ref.startswith("refs/pr/"):
                number = int(ref.removeprefix("refs/pr/"))
                before = repository.pull_requests.get(number)
                repository.pull_requests[number] = sha
            else:
                repository.branches[ref] = sha
            if ref == "main":
                repository.modified = self._now
        self._tell(name, ref if ref.startswith("refs/") else f"refs/heads/{ref}", before, sha)
        return sha

    def tag(self, name: str, tag: str, sha: str) -> None:
        """Let a tag point at a commit."""
        with self.lock:
            before = self.repositories[name].tags.get(tag)
            self.repositories[name].tags[tag] = sha
        self._tell(name, f"refs/tags/{tag}", before, sha)

    def branch(self, name: str, branch: str, sha: str) -> None:
        """Let a branch point at a commit."""
        with self.lock:
            self._now += self.step
            repository = self.repositories[name]
            before = repository.branches.get(branch)
            repository.branches[branch] = sha
            repository.modified = self._now
        self._tell(name, f"refs/heads/{branch}", before, sha)

    def delete_ref(self, name: str, ref: str) -> None:
        """Delete a branch or tag."""
        with self.lock:
            repository = self.repositories[name]
            kind, refs = (
                ("tags", repository.tags) if ref in repository.tags else ("heads", repository.branches)
            )
            before = refs.pop(ref)
        self._tell(name, f"refs/{kind}/{ref}", before, None)

    def forget_commit(self, name: str, sha: str) -> None:
        """Squash a commit away: its refs go back to what was before it, or vanish."""
        with self.lock:
            self._now += self.step
            repository = self.repositories[name]
            gone = repository.commits.pop(sha)
            older = [one for one in repository.commits.values() if one.date < gone.date]
            last = max(older, key=lambda one: one.date, default=None)
            repository.tags = {tag: one for tag, one in repository.tags.items() if one != sha}
            for branch, one in list(repository.branches.items()):
                if one == sha and (branch != "main" or last is None):
                    del repository.branches[branch]
                elif one == sha and last is not None:
                    repository.branches[branch] = last.sha
            repository.modified = self._now

    def delete_repository(self, name: str) -> None:
        """Delete a repository with all that it holds."""
        with self.lock:
            del self.repositories[name]

    def rename(self, name: str, new: str) -> None:
        """Give a repository another name; the former one redirects."""
        with self.lock:
            repository = self.repositories.pop(name)
            repository.name = new
            self.repositories[new] = repository
            self.former_names[name] = new

    def paths(self, part: str = "") -> list[str]:
        """Paths asked for so far that hold a text."""
        return [path for _, path, _ in self.asked if part in path]

    def _tell(self, name: str, ref: str, before: str | None, after: str | None) -> None:
        action = "create" if before is None else "delete" if after is None else "update"
        body = json.dumps(
            {
                "event": {"action": "update", "scope": "repo.content"},
                "repo": {
                    "type": "model",
                    "name": name,
                    "id": hashlib.sha1(name.encode()).hexdigest()[:24],
                    "private": False,
                    "url": {"web": f"{self.url}/{name}", "api": f"{self.url}/api/models/{name}"},
                    "owner": {"id": "628b753283ef59b5be89e937"},
                },
                "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
                "updatedRefs": [{"ref": ref, "oldSha": before, "newSha": after, "action": action}],
            }
        ).encode()
        for webhook in self._webhooks:
            if not name.startswith(f"{webhook.owner}/"):
                continue
            headers = {"Content-Type": "application/json"}
            if webhook.secret is not None:
                headers["X-Webhook-Secret"] = webhook.secret
            with requests.Session() as session:
                session.trust_env = False
                try:
                    status = session.post(webhook.url, body, headers=headers, timeout=10).status_code
                except requests.RequestException:
                    status = 0
            self.delivered.append(status)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: HubServer

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def send(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, data: bytes, headers: Mapping[str, str]) -> None:
        begin, end = 0, len(data)
        unit, _, asked = self.headers.get("Range", "").partition("=")
        if unit == "bytes":
            first, _, last = asked.partition("-")
            begin = int(first) if first else len(data) - int(last)
            end = min(end, int(last) + 1) if first and last else end
            if begin >= len(data):
                self.send(416, headers={"Content-Range": f"bytes */{len(data)}"})
                return
        told = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        if unit == "bytes":
            told["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        self.send(206 if unit == "bytes" else 200, data[begin:end], told)

    def note(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.asked.append((self.command, self.path, headers))
        self.hub.before(self.path)


class _StorageHandler(_Handler):
    """Keeps large files under signed addresses; refuses whoever brings credentials, as the Hub's storage does."""

    def do_GET(self) -> None:
        self.note()
        digest = urlsplit(self.path).path.rsplit("/", 1)[-1]
        with self.hub.lock:
            files = {
                file.sha256: file
                for repository in self.hub.repositories.values()
                for commit in repository.commits.values()
                for file in commit.tree.values()
            }
        if "Authorization" in self.headers or "signature=" not in self.path or digest not in files:
            self.send(400)
            return
        self.send_file(files[digest].data, {"ETag": f'"{digest}"'})


class _HubHandler(_Handler):
    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.note()
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        segments = [unquote(part) for part in parts.path.strip("/").split("/")]
        try:
            self._limit("api" if segments[0] == "api" else "resolvers")
            with self.hub.lock:
                self._signed_in = self._who()
                self._route(segments)
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message, **self._limit_headers()}
            if refused.code is not None:
                headers["X-Error-Code"] = refused.code
            self.send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    def _route(self, segments: list[str]) -> None:
        match segments:
            case ["api", "whoami-v2"] if self._signed_in:
                self._json({"type": "user", "name": "tester"})
            case ["api", "models"]:
                self._models()
            case ["api", "models", owner, name, *rest]:
                self._of_repository(f"{owner}/{name}", rest)
            case [owner, name, "resolve", revision, *path] if path:
                self._resolve(f"{owner}/{name}", revision, "/".join(path))
            case ["api", "resolve-cache", "models", owner, name, revision, *path] if path:
                commit = self._commit(self._repository(f"{owner}/{name}"), revision)
                file = self._file(commit, "/".join(path))
                self.send_file(file.data, {"ETag": f'"{file.etag}"', "X-Repo-Commit": commit.sha})
            case _:
                raise _Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def _limit(self, kind: str) -> None:
        self._kind = kind
        if kind not in self.hub.allowance:
            return
        left, seconds = self.hub.allowance[kind]
        if left <= 0:
            raise _Refused(429, None, "We had to rate limit you")
        self.hub.allowance[kind] = (left - 1, seconds)

    def _limit_headers(self) -> dict[str, str]:
        if self._kind not in self.hub.allowance:
            return {}
        left, seconds = self.hub.allowance[self._kind]
        return {
            "RateLimit": f'"{self._kind}";r={left};t={seconds}',
            "RateLimit-Policy": f'"fixed window";"{self._kind}";q=500;w=300',
        }

    def _who(self) -> bool:
        """Whether a token came that is known; an unknown one is refused everywhere."""
        text = self.headers.get("Authorization")
        if text is None:
            return False
        if text.removeprefix("Bearer ") not in self.hub.tokens:
            raise _Refused(401, None, "Invalid credentials in Authorization header")
        return True

    def _repository(self, name: str) -> _Repository:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._signed_in):
            # Whether it exists is nobody's business; without a token the Hub says 401 in both cases.
            raise _Refused(404 if self._signed_in else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, repository: _Repository, revision: str) -> _Commit:
        commit = repository.find(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {quote(revision)}")
        return commit

    def _file(self, commit: _Commit, path: str) -> _File:
        if path not in commit.tree:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        return commit.tree[path]

    def _models(self) -> None:
        author = self.query["author"][0]
        rows = sorted(
            (
                (one.modified.isoformat(), one.name)
                for one in self.hub.repositories.values()
                if one.name.startswith(f"{author}/") and (self._signed_in or not one.private)
            ),
            reverse=True,
        )
        page, headers = self._page(rows, lambda row: list(row), backwards=True)
        listed = [self._info(self.hub.repositories[name], None) for _, name in page]
        self._json(listed, headers)

    def _page(
        self, rows: list[Any], key: Callable[[Any], Any], backwards: bool = False
    ) -> tuple[list[Any], dict[str, str]]:
        """One page of sorted rows, by the key of the last row before it, and the link to the next one."""
        if "cursor" in self.query:
            after = json.loads(base64.urlsafe_b64decode(self.query["cursor"][0]))
            rows = [row for row in rows if (key(row) < after if backwards else key(row) > after)]
        size = min(self.hub.page_size, int(self.query.get("limit", [str(self.hub.page_size)])[0]))
        page = rows[:size]
        if len(rows) <= size:
            return page, {}
        cursor = base64.urlsafe_b64encode(json.dumps(key(page[-1])).encode()).decode()
        query = urlencode({**self.query, "cursor": [cursor]}, doseq=True)
        scheme = self.headers.get("X-Forwarded-Proto", "http")
        here = f"{scheme}://{self.headers['Host']}{urlsplit(self.path).path}"
        return page, {"Link": f'<{here}?{query}>; rel="next"'}

    def _of_repository(self, name: str, rest: list[str]) -> None:
        if name in self.hub.former_names:
            new = self.hub.former_names[name]
            self.send(307, headers={"Location": self.path.replace(name, new, 1)})
            return
        repository = self._repository(name)
        match rest:
            case []:
                self._json(self._info(repository, self._commit(repository, "main")))
            case ["revision", revision]:
                self._json(self._info(repository, self._commit(repository, revision)))
            case ["refs"]:
                self._json(self._refs(repository))
            case ["commits", revision]:
                self._history(repository, self._commit(repository, revision))
            case ["tree", revision, *path]:
                self._tree(self._commit(repository, revision), "/".join(path))
            case ["paths-info", revision]:
                asked = parse_qs(self.form).get("paths", [])
                tree = self._commit(repository, revision).tree
                self._json([_row(path, tree[path]) for path in asked if path in tree])
            case _:
                raise _Refused(404, None, "Not found")

    def _info(self, repository: _Repository, commit: _Commit | None) -> dict[str, object]:
        shown = commit or repository.find("main")
        card = _card(shown)
        info: dict[str, object] = {
            "sha": shown.sha if shown else None,
            "lastModified": _date(repository.modified if commit is None else commit.date),
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "disabled": False,
            "tags": [],
            "cardData": card,
            "siblings": [],
        }
        if shown is not None and "blobs" in self.query:
            info["siblings"] = [
                {
                    "rfilename": path,
                    "size": len(file.data),
                    "blobId": file.blob,
                    **({"lfs": file.lfs("sha256")} if file.large else {}),
                }
                for path, file in sorted(shown.tree.items())
            ]
        elif shown is not None:
            info["siblings"] = [{"rfilename": path} for path in sorted(shown.tree)]
        if "expand" in self.query:
            info = {name: info[name] for name in self.query["expand"] if name in info}
        key = hashlib.sha1(repository.name.encode()).hexdigest()[:24]
        return {"_id": key, "id": repository.name, **info}

    def _refs(self, repository: _Repository) -> dict[str, object]:
        def rows(refs: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"{prefix}{name}", "targetCommit": sha}
                for name, sha in sorted(refs.items())
            ]

        answer: dict[str, object] = {
            "branches": rows(repository.branches, "refs/heads/"),
            "converts": [],
            "tags": rows(repository.tags, "refs/tags/"),
        }
        if "include_prs" in self.query:
            pulls = {str(number): sha for number, sha in repository.pull_requests.items()}
            answer["pullRequests"] = rows(pulls, "refs/pr/")
        return answer

    def _history(self, repository: _Repository, commit: _Commit) -> None:
        rows: list[dict[str, object]] = []
        step: _Commit | None = commit
        while step is not None:
            rows.append(
                {
                    "id": step.sha,
                    "title": step.title,
                    "message": "",
                    "date": _date(step.date),
                    "authors": [{"user": "tester"}],
                }
            )
            step = repository.commits.get(step.parent or "")
        page, headers = self._page(list(enumerate(rows)), lambda row: row[0])
        self._json([row for _, row in page], {**headers, "X-Total-Count": str(len(rows))})

    def _tree(self, commit: _Commit, below: str) -> None:
        prefix = f"{below}/" if below else ""
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        rows: dict[str, dict[str, object]] = {}
        for path, file in commit.tree.items():
            if not path.startswith(prefix):
                continue
            inner = path.removeprefix(prefix).split("/")
            for depth in range(1, len(inner)):
                folder = prefix + "/".join(inner[:depth])
                if recursive or depth == 1:
                    rows[folder] = {"type": "directory", "oid": _TREE_ROOT, "size": 0, "path": folder}
            if recursive or len(inner) == 1:
                rows[path] = _row(path, file)
        page, headers = self._page(sorted(rows.items()), lambda row: row[0])
        self._json([row for _, row in page], headers)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if name in self.hub.former_names:
            new = self.hub.former_names[name]
            self.send(307, headers={"Location": self.path.replace(name, new, 1)})
            return
        repository = self._repository(name)
        if repository.gated and not self._signed_in:
            raise _Refused(401, "GatedRepo", "Access to this model is restricted")
        commit = self._commit(repository, revision)
        file = self._file(commit, path)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.etag}"', **self._limit_headers()}
        if not file.large:
            target = f"/api/resolve-cache/models/{name}/{commit.sha}/{quote(path)}"
            self.send(307, headers={**headers, "Location": target}, length=0)
            return
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
        if self.hub.storage_url:
            target = f"{self.hub.storage_url}/{file.sha256}?{urlencode({'signature': commit.sha[:8]})}"
            self.send(302, headers={**headers, "Location": target})
            return
        self.send_file(file.data, headers)

    def _json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        told = {"Content-Type": "application/json; charset=utf-8", "Date": format_datetime(datetime.now(UTC))}
        self.send(200, json.dumps(value).encode(), {**told, **self._limit_headers(), **(headers or {})})


def _serve(hub: HubServer, handler: type[_Handler]) -> ThreadingHTTPServer:
    bound = type(handler.__name__, (handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def _address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _row(path: str, file: _File) -> dict[str, object]:
    row: dict[str, object] = {"type": "file", "oid": file.blob, "size": len(file.data), "path": path}
    if file.large:
        row |= {"lfs": file.lfs("oid"), "xetHash": file.sha256}
    return row


def _card(commit: _Commit | None) -> object:
    """The front matter of README.md."""
    readme = commit.tree.get("README.md") if commit else None
    if readme is None or not readme.data.startswith(b"---\n"):
        return None
    return yaml.safe_load(readme.data.split(b"---\n")[1])

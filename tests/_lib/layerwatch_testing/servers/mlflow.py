"""A real MLflow server: database and artifacts in one folder, with or without passwords."""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import requests

from layerwatch_testing.servers import ServerProcess, executable, free_port, shared

USER = "admin"


class MlflowServerProcess:
    """An MLflow server with one worker.

    Args:
        folder: for its database and artifacts.
        password: of the user `USER`; None for a server that lets everybody in.
        options: further options of ``mlflow server``.

    Attributes:
        url: its address.
        folder: as given; artifacts are below ``artifacts``, the database is ``mlflow.db``.
    """

    def __init__(self, folder: Path, password: str | None = None, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.trust_env = False
        command = [str(executable("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += options or ("--artifacts-destination", str(folder / "artifacts"))
        if password is not None:
            command += ["--app-name", "basic-auth"]
            self._session.auth = (USER, password)
        self._process = ServerProcess(command, folder, _environment(folder, password))
        self._process.wait_until_ready(f"{self.url}/health")
        if password is not None:
            _hash_quickly(folder / "basic_auth.db", password)

    def stop(self) -> None:
        """End it."""
        self._session.close()
        self._process.stop()

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """One request to the REST interface, below ``/api/2.0/mlflow``; query parameters for GET, else JSON."""
        url = f"{self.url}/api/2.0/mlflow/{path}"
        keyword: Any = {"params": body} if method == "GET" else {"json": body}
        response = self._session.request(method, url, timeout=60, **keyword)
        assert response.status_code == 200, f"{method} {path}: {response.status_code}: {response.text[:500]}"
        answer: dict[str, Any] = response.json()
        return answer

    def new_run(self, **tags: str) -> str:
        """A run of the default experiment."""
        given = [{"key": key, "value": value} for key, value in tags.items()]
        run = self.call("POST", "runs/create", experiment_id="0", start_time=1, tags=given)["run"]
        return str(run["info"]["run_id"])

    def artifact_root(self, run: str) -> str:
        """Where the artifacts of a run are, as the server says."""
        return str(self.call("GET", "runs/get", run_id=run)["run"]["info"]["artifact_uri"])

    def upload(self, run: str, path: str, data: bytes) -> None:
        """Put an artifact of a run, also in place of one."""
        root = self.artifact_root(run).removeprefix("mlflow-artifacts:").strip("/")
        url = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{root}/{path}"
        response = self._session.put(url, data=data, timeout=60)
        assert response.status_code == 200, f"{url}: {response.status_code}: {response.text[:500]}"

    def delete_artifact(self, run: str, path: str) -> None:
        """Delete an artifact of a run."""
        root = self.artifact_root(run).removeprefix("mlflow-artifacts:").strip("/")
        url = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{root}/{path}"
        assert self._session.delete(url, timeout=60).status_code == 200

    def has_model(self, name: str) -> bool:
        """Whether there is a registered model of that name."""
        url = f"{self.url}/api/2.0/mlflow/registered-models/get"
        return self._session.get(url, params={"name": name}, timeout=60).status_code == 200

    def register(self, name: str, source: str, run: str | None = None, **tags: str) -> str:
        """Register a version, and its model when that is its first; its number."""
        if not self.has_model(name):
            self.call("POST", "registered-models/create", name=name)
        body: dict[str, Any] = {"name": name, "source": source}
        if run is not None:
            body["run_id"] = run
        if tags:
            body["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        return str(self.call("POST", "model-versions/create", **body)["model_version"]["version"])


def shared_server(password: str | None = None) -> MlflowServerProcess:
    """The server of this session; raises ServerMissing."""
    key = "mlflow" if password is None else "mlflow-auth"
    return shared(key, lambda folder: MlflowServerProcess(folder, password))


def _hash_quickly(database: Path, password: str) -> None:
    """The server hashes the password at every request, which takes a busy machine a second: once is enough here."""
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 1).hex()
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute("UPDATE users SET password_hash = ?", (f"pbkdf2:sha256:1$salt${digest}",))


def _environment(folder: Path, password: str | None) -> dict[str, str]:
    environment = dict(os.environ)
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        environment.pop(name, None)
    key = base64.urlsafe_b64encode(b"layerwatch-tests-layerwatch-test").decode()
    environment |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key,
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",
        "NO_PROXY": "127.0.0.1",
    }
    if password is not None:
        configuration = folder / "basic_auth.ini"
        configuration.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{folder}/basic_auth.db\n"
            f"admin_username = {USER}\nadmin_password = {password}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for tests",
        }
    return environment

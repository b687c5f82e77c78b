"""moto's S3 server in a process of its own, with one bucket, open to all or to one key."""

from __future__ import annotations

import os
from pathlib import Path

from layerwatch_testing.servers import ServerProcess, executable, free_port

BUCKET = "models"
PAGE = 100
"""Objects per page."""

_PROGRAM = """
import json, pathlib, sys
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.server import main

port, bucket, secret = sys.argv[1:]
store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
store.create_bucket(bucket, "us-east-1")
anyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": ["*"]}
if secret:
    users = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    users.create_user("aws", "reader")
    key = users.create_access_key("reader")
    key.secret_access_key = secret
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    users.put_user_policy("reader", "all", json.dumps(policy))
    pathlib.Path("access_key").write_text(key.access_key_id)
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
else:
    store.put_bucket_policy(bucket, json.dumps({"Version": "2012-10-17", "Statement": [anyone]}).encode())
main(["-H", "127.0.0.1", "-p", port])
"""
"""The command line of moto cannot choose a key's secret."""


class ObjectStoreServer:
    """An S3 server.

    Args:
        folder: for its output.
        secret: of the one access key that it knows; empty when it lets everybody in.

    Attributes:
        url: where it is.
        access_key: belongs to the secret.
    """

    def __init__(self, folder: Path, secret: str = "") -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = ServerProcess(
            [_interpreter(), "-c", _PROGRAM, str(port), BUCKET, secret],
            folder,
            _environment() | {"MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)},
        )
        self._process.wait_until_ready(f"{self.url}/moto-api/data.json")
        self.access_key = (folder / "access_key").read_text() if secret else ""

    def stop(self) -> None:
        """End it."""
        self._process.stop()


def _interpreter() -> str:
    """The Python that moto is installed for."""
    script = executable("moto_server")
    return script.read_text().partition("\n")[0].removeprefix("#!").strip()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AWS_"))}

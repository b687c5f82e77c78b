"""A gate on local files opens no connection: neither the command nor the process that opens the weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.processes import environment

_HOOK = """\
import os, sys

_LOG = {log!r}

def _note(name, what):
    with open(_LOG + name, "a") as log:
        print(what, file=log)

def _refuse(event, arguments):
    local = ("socket.gethostname",) if event != "socket.__new__" or arguments[1] not in (-1, 1) else (event,)
    if event.startswith("socket.") and event not in local:
        _note("", (event, arguments))
        os._exit(99)

sys.addaudithook(_refuse)
_note(".watched", sys.orig_argv)
"""
"""Loaded by every Python process of the tree: ends it at the first socket that is no Unix one, and at every look-up
(https://docs.python.org/3/library/audit_events.html).
"""


def watched(folder: Path, code: list[str]) -> subprocess.CompletedProcess[str]:
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(_HOOK.format(log=str(folder / "network")))
    variables = environment(LAYERWATCH_SCAN__THREADS="1")
    variables["PYTHONPATH"] = os.pathsep.join((str(hooks), variables["PYTHONPATH"]))
    return subprocess.run(
        [sys.executable, "-P", *code],
        cwd=folder,
        env=variables,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("format_", ["text", "sarif"])
def test_a_gate_on_local_files_opens_no_connection(tmp_path: Path, format_: str) -> None:
    write_safetensors(tmp_path / "old.safetensors", network())
    write_safetensors(tmp_path / "new.safetensors", finetuned(network()))

    done = watched(
        tmp_path,
        [
            "-m",
            "layerwatch.daemon",
            "gate",
            "new.safetensors",
            "--baseline",
            "old.safetensors",
            "--format",
            format_,
        ],
    )

    assert not (tmp_path / "network").exists(), (tmp_path / "network").read_text()
    assert done.returncode == 0, done.stderr
    # The command and its scan process.
    gate, worker = (tmp_path / "network.watched").read_text().splitlines()
    assert "'gate'" in gate
    assert "layerwatch.daemon.scan.worker" in worker


@pytest.mark.parametrize(
    "code",
    ["import socket; socket.socket()", "import socket; socket.getaddrinfo('localhost', 80)"],
)
def test_the_watch_would_notice_one(tmp_path: Path, code: str) -> None:
    assert watched(tmp_path, ["-c", code]).returncode == 99
    assert (tmp_path / "network").exists()

"""The steps of the Dockerfile, carried out in a bare root folder, and the daemon started from what they leave.

The bare root is Debian's, made by debootstrap and kept in pytest's cache (`--cache-clear` lets it be made anew);
LAYERWATCH_TEST_BASE_ROOT names one that is there already. It stands for the image of Python that the Dockerfile names,
which no package registry has.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from layerwatch_testing.bareroot import ContainedProcess, Volume, require_namespaces
from layerwatch_testing.kubernetes import REPOSITORY
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.servers import free_port
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SUITE = "bookworm"
PORT = 9466
SHELLS = ("sh", "bash", "dash", "rbash")
TAR = ("tar", "--numeric-owner", "--same-permissions")


def unreachable_mirror(said: str) -> str | None:
    """The address that debootstrap asked first in vain, where nobody answers there; None when it failed otherwise."""
    first = re.search(r"Failed getting release file (\S+)", said)
    if first is None:
        return None
    try:
        requests.head(first[1], timeout=20)
    except (requests.ConnectionError, requests.Timeout):
        return first[1]
    return None


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian with Python where the official images have it."""
    require_namespaces()
    given = os.environ.get("LAYERWATCH_TEST_BASE_ROOT")
    if given:
        return Path(given)
    root = tmp_path_factory.mktemp("base") / "root"
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    kept = None if cache is None else cache.mkdir("debootstrap") / f"{SUITE}.tar"
    if kept is not None and kept.exists():
        root.mkdir()
        subprocess.run([*TAR, "--extract", f"--file={kept}", f"--directory={root}"], check=True)
        return root
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed: apt-get install debootstrap")
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", SUITE, str(root)],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    said = f"{made.stdout[-2000:]}\n{made.stderr[-2000:]}"
    if made.returncode != 0 and (mirror := unreachable_mirror(said)):
        pytest.skip(f"the mirror of Debian cannot be reached: {mirror}")
    assert made.returncode == 0, said
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    if kept is not None:
        part = kept.with_suffix(f".{os.getpid()}")
        subprocess.run([*TAR, "--create", f"--file={part}", f"--directory={root}", "."], check=True)
        part.replace(kept)
    return root


@pytest.fixture(scope="module")
def image(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The last stage's root folder, without the shells that the base has."""
    root = tmp_path_factory.mktemp("image") / "root"
    arguments = ["--base", str(base), "--output", str(root), "--build-arg", "VERSION=1.2.3"]
    # What this machine's pip is told: where packages are, and whom to trust.
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        if name in os.environ:
            arguments += ["--build-arg", f"{name}={os.environ[name]}"]
    if Path("/etc/pip.conf").exists():
        arguments += ["--secret", "pip=/etc/pip.conf"]
    wheels = Path(os.environ.get("PIP_FIND_LINKS", "/nowhere"))
    if wheels.is_dir():
        arguments += ["--context", f"wheels={wheels}"]
    done = subprocess.run(
        [sys.executable, "-P", str(REPOSITORY / "deploy/container/replay.py"), *arguments],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    for folder in ("usr/bin", "bin"):
        for shell in SHELLS:
            (root / folder / shell).unlink(missing_ok=True)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def started_with(image: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(image.with_name("root.json").read_text())
    return found


def test_a_mirror_that_nobody_answers_for_is_told_from_what_debootstrap_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_namespaces()
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed: apt-get install debootstrap")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")

    def said(suite: str, mirror: str) -> str:
        made = subprocess.run(
            ["debootstrap", suite, str(tmp_path / suite), mirror],
            capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert made.returncode != 0
        return made.stdout + made.stderr

    nobody = f"http://127.0.0.1:{free_port()}/debian"
    assert unreachable_mirror(said(SUITE, nobody)) == f"{nobody}/dists/{SUITE}/Release"
    assert unreachable_mirror(said("no-such-suite", nobody)) is None
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert unreachable_mirror(said(SUITE, f"http://127.0.0.1:{server.server_port}/debian")) is None
        server.shutdown()


def test_the_image_has_labels_a_bill_of_materials_and_no_installer(
    image: Path, started_with: dict[str, Any]
) -> None:
    labels = started_with["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    bill = json.loads((image / labels["io.layerwatch.sbom"].lstrip("/")).read_text())
    versions = {one["name"]: one["version"].partition("+")[0] for one in bill["components"]}
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    assert versions.keys() >= {"torch", "numpy", "fastapi", "obstore"}
    unlike = {name: version for name, version in versions.items() if pinned.get(name, version) != version}
    assert unlike == {}
    assert not list((image / "opt/layerwatch").rglob("site-packages/pip"))
    packages = next((image / "opt/layerwatch/lib").glob("python3*")) / "site-packages"
    assert list((packages / "layerwatch/daemon/__pycache__").glob("app.*.pyc"))


def test_the_image_runs_with_a_read_only_root_an_own_user_and_no_shell(
    image: Path, started_with: dict[str, Any], tmp_path: Path
) -> None:
    world = DirectoryWorld(tmp_path, marker=None)
    original = network(seed=1)
    world.publish("m", "v1", original)
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    scratch = tmp_path / "process"
    scratch.mkdir()
    uid, gid = map(int, started_with["User"].split(":"))
    # The image's own registry, looked at more often.
    (registry,) = yaml.safe_load((image / "etc/layerwatch/layerwatch.yaml").read_text())["registries"]
    often = {"LAYERWATCH_REGISTRIES": json.dumps([{**registry, "poll": "1s", "settle": "0s"}])}
    with ContainedProcess(
        [*started_with["Entrypoint"], *started_with["Cmd"]],
        scratch,
        uid=uid,
        gid=gid,
        environment={**started_with["Env"], **often},
        folder=started_with["WorkingDir"],
        volumes=[
            Volume("/models", world.root, True), Volume("/var/lib/layerwatch", state), Volume("/tmp", None)
        ],
        root=image,
    ) as process:  # fmt: skip
        until(lambda: process.get(PORT, "/-/healthy")[0] == 200, "health", 60)
        assert process.credentials() == {
            "Uid": "65532", "Gid": "65532", "CapEff": "0000000000000000", "NoNewPrivs": "1"
        }  # fmt: skip
        assert "ro" in process.root_options()
        assert process.execute(started_with["Healthcheck"], started_with["Env"]).returncode == 0
        assert process.execute(["/bin/sh", "-c", "true"], started_with["Env"]).returncode != 0

        def verdicts() -> dict[str, str]:
            rows = json.loads(process.get(PORT, "/api/v1/versions")[1])
            return {row["version"]: row["verdict"] for row in rows}

        until(lambda: verdicts().get("v1"), "the verdict of v1", 120)
        world.publish("m", "v2", with_wrong_scale(finetuned(original, seed=2)))
        assert until(lambda: verdicts().get("v2"), "the verdict of v2", 120) == "fail"
        gate = process.execute(
            ["layerwatch", "gate", "/models/m/v2", "--baseline", "/models/m/v1"], started_with["Env"]
        )
        assert gate.returncode == 1, gate.stderr
        process.terminate()
        assert process.wait(30) == 0
        assert all(json.loads(line) for line in process.log.splitlines())

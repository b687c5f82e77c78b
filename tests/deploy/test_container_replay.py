"""The steps of the Dockerfile, carried out in a bare root folder, and the daemon started from what they leave.

The bare root is Debian's, made by debootstrap; LAYERWATCH_TEST_BASE_ROOT names one that is there already. It stands for
the image of Python that the Dockerfile names, which no package registry has.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerwatch_testing.bareroot import ContainedProcess, Volume, require_namespaces
from layerwatch_testing.kubernetes import REPOSITORY
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SUITE = "bookworm"
PORT = 9466
SHELLS = ("sh", "bash", "dash", "rbash")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian with Python where the official images have it."""
    require_namespaces()
    given = os.environ.get("LAYERWATCH_TEST_BASE_ROOT")
    if given:
        return Path(given)
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed: apt-get install debootstrap")
    root = tmp_path_factory.mktemp("base") / "root"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", SUITE, str(root)],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"debootstrap could not make a root: {made.stdout[-500:]} {made.stderr[-500:]}")
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
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
    with ContainedProcess(
        [*started_with["Entrypoint"], *started_with["Cmd"]],
        scratch,
        uid=uid,
        gid=gid,
        environment=started_with["Env"],
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
        assert process.wait(12) == 0
        assert all(json.loads(line) for line in process.log.splitlines())

"""``scan`` and ``gate`` on models that lie in real registries, named by their addresses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerwatch.daemon.cli import app
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.servers import ServerMissing, free_port
from layerwatch_testing.worlds import world_of
from layerwatch_testing.worlds.base import RemoteWorld

pytestmark = pytest.mark.server


def _mlflow(world: RemoteWorld) -> tuple[str, dict[str, str]]:
    return f"mlflow:/{world.model_name('m')}/{{}}", {"MLFLOW_TRACKING_URI": world.server_url}


def _hub(world: RemoteWorld) -> tuple[str, dict[str, str]]:
    return f"hf:{world.model_name('m')}@{{}}", {"HF_ENDPOINT": world.server_url}


def _oci(world: RemoteWorld) -> tuple[str, dict[str, str]]:
    host = world.server_url.removeprefix("http://")
    return f"oci:{host}/{world.model_name('m')}@{{}}", {}


def _store(world: RemoteWorld) -> tuple[str, dict[str, str]]:
    environment = {
        "AWS_ENDPOINT_URL": world.server_url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
    }
    prefix = world.prefix  # type: ignore[attr-defined]
    return f"s3://models/{prefix}/m/{{}}", environment


ADDRESSES: dict[str, Callable[[RemoteWorld], tuple[str, dict[str, str]]]] = {
    "mlflow": _mlflow,
    "huggingface": _hub,
    "oci": _oci,
    "objectstore": _store,
}


@pytest.fixture(params=sorted(ADDRESSES))
def published(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str, str]:
    """Addresses of a version, a fine-tune of it, and one with a broken layer."""
    try:
        world = world_of(request.param, tmp_path)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    assert isinstance(world, RemoteWorld)
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    world.publish("m", "v3", with_wrong_scale(network()))
    form, environment = ADDRESSES[request.param](world)
    for name, value in {**environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    one, two, three = (form.format(world.version_name("m", label)) for label in ("v1", "v2", "v3"))
    return one, two, three


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_a_gate_between_two_addresses_passes_a_fine_tune_and_fails_a_broken_layer(
    published: tuple[str, str, str],
) -> None:
    good, tuned, broken = published
    assert run("gate", tuned, "--baseline", good)[0] == 0
    code, out, _ = run("gate", broken, "--baseline", good, "--format", "json")
    report = json.loads(out)
    assert code == 1
    assert report["findings"][0]["layer"] == "fc2"
    assert report["model"]["source"] == broken
    assert report["baseline"]["source"] == good
    assert report["model"]["version"] in broken


def test_a_scan_of_an_address_names_the_registrys_version(published: tuple[str, str, str]) -> None:
    code, out, error = run("scan", published[0], "--format", "json")
    assert error.startswith(f"{published[0]} is ")
    report = json.loads(out)
    assert code == 0
    assert len(report["layers"]) == 3
    assert report["model"]["version"] in published[0]


def test_a_version_that_is_not_there_is_a_usage_error_that_says_so(published: tuple[str, str, str]) -> None:
    missing = published[0][:-2] + "zz" if "sha256" not in published[0] else published[0][:-4] + "0000"
    code, out, error = run("gate", missing)
    assert (code, out) == (2, "")
    assert missing in error
    assert "Traceback" not in error


def test_a_server_that_is_down_is_something_that_could_not_be_examined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    code, out, error = run("gate", "mlflow:/fraud")
    assert (code, out) == (3, "")
    assert "unreachable" in error

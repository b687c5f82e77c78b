"""``layerwatch baseline`` and a store that cannot be found."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerwatch.daemon.commands.baseline import app
from layerwatch_testing.daemons import write_config


def test_a_store_url_in_a_variable_that_is_not_set_is_a_usage_error_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORE_URL", raising=False)
    config = write_config(tmp_path / "layerwatch.yaml", store={"url": {"env": "STORE_URL"}})
    result = CliRunner().invoke(app, ["list", "--config", str(config)])
    assert result.exit_code == 2
    assert result.output == "store.url: environment variable STORE_URL is not set; set it to the secret\n"


def test_the_query_of_a_store_url_is_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", f"sqlite:///{tmp_path}/none.db?password=hidden")
    config = write_config(tmp_path / "layerwatch.yaml", store={"url": {"env": "STORE_URL"}})
    result = CliRunner().invoke(app, ["list", "--config", str(config)])
    assert result.exit_code == 2
    assert "there is no store at" in result.output
    assert "hidden" not in result.output

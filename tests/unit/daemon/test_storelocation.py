"""Where the store and the downloads of a configuration are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from layerwatch.config.settings import Settings
from layerwatch.daemon.storelocation import downloads_of, store_exists, store_url


def _settings(url: str) -> Settings:
    return Settings.model_validate({"store": {"url": url}})


def _folder(url: str, config: Path | None = None) -> Path:
    return downloads_of(_settings(url), config)._folder


def test_a_relative_file_is_taken_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "layerwatch.yaml"
    assert store_url(_settings("sqlite:///a.db"), config) == f"sqlite:///{tmp_path}/a.db"
    assert store_url(_settings("sqlite:////b/a.db"), config) == "sqlite:////b/a.db"
    assert _folder("sqlite:///a.db", config) == tmp_path / "layerwatch-downloads"
    assert not store_exists(f"sqlite:///{tmp_path}/a.db")


def test_the_url_of_a_server_stays_as_it_is(tmp_path: Path) -> None:
    url = "postgresql://me:hunter2@db/lw"
    assert store_url(_settings(url), tmp_path / "layerwatch.yaml") == url


def test_beside_a_server_downloads_are_apart_for_each_database_and_show_nothing_of_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = _folder("postgresql://me:hunter2@db/lw?sslmode=require")
    assert folder.relative_to(tmp_path).parts[0] == "layerwatch"
    assert "hunter2" not in str(folder)
    # Another password is the same database, another name is not.
    assert _folder("postgresql://me:changed@db/lw") == folder
    assert _folder("postgresql://me:hunter2@db/other") != folder


def test_without_a_home_downloads_lie_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "nobody").write_text("no folder, as the home of a user who has none")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    assert Path(tempfile.gettempdir()) in _folder("postgresql://me:hunter2@db/lw").parents

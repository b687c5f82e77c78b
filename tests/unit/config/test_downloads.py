"""Where the weights of remote registries are put."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from layerwatch.config.downloads import DownloadsSettings
from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.settings import Settings

Writer = Callable[[str], Path]


def test_by_default_the_place_is_not_fixed_and_the_room_is_bounded() -> None:
    assert Settings().downloads == DownloadsSettings(path=None, size_limit=20 * 2**30)


def test_a_relative_folder_is_taken_from_the_folder_of_the_configuration(
    write_config: Writer, tmp_path: Path
) -> None:
    settings = load_settings(write_config("downloads: {path: cache/weights, size_limit: 3GiB}"), {})
    assert settings.downloads == DownloadsSettings(path=tmp_path / "cache" / "weights", size_limit=3 * 2**30)


def test_the_environment_can_set_both() -> None:
    env = {"LAYERWATCH_DOWNLOADS__PATH": "/var/tmp/w", "LAYERWATCH_DOWNLOADS__SIZE_LIMIT": "1GiB"}
    assert load_settings(None, env).downloads == DownloadsSettings(path=Path("/var/tmp/w"), size_limit=2**30)


@pytest.mark.parametrize("limit", ["0", "0B", "-1GiB", "much", "[]"])
def test_a_limit_is_a_size_above_zero(write_config: Writer, limit: str) -> None:
    with pytest.raises(ConfigError, match=r"downloads\.size_limit"):
        load_settings(write_config(f"downloads: {{size_limit: {limit}}}"), {})


def test_an_unknown_key_is_refused(write_config: Writer) -> None:
    with pytest.raises(ConfigError, match="unknown key, did you mean"):
        load_settings(write_config("downloads: {size_limits: 3GiB}"), {})

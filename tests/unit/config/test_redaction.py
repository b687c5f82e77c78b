from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.redaction import dump_redacted
from layerwatch.config.registries import DirectoryRegistrySettings
from layerwatch.config.settings import Settings

Writer = Callable[[str], Path]

LEAK = "hunter2"

SECRETS_EVERYWHERE = """
server: {token: hunter2-token}
store: {url: "sqlite:///user:hunter2@folder/lw.db?key=hunter2"}
alerts:
  receivers:
    - name: hook
      kind: webhook
      url: https://me:hunter2@example.org/services/hunter2
      secret: hunter2-key
  route: {receiver: hook}
"""


def test_no_way_of_showing_settings_shows_a_secret(write_config: Writer) -> None:
    settings = load_settings(write_config(SECRETS_EVERYWHERE), {})
    for shown in (
        repr(settings),
        str(settings),
        f"{settings.alerts.receivers}",
        repr(settings.model_dump()),
        settings.model_dump_json(),
        dump_redacted(settings),
        repr(settings.model_copy()),
    ):
        assert LEAK not in shown
        assert "<secret>" in shown
    assert settings.server.token is not None
    assert settings.server.token.reveal() == "hunter2-token"
    assert settings.store.url.reveal() == "sqlite:///user:hunter2@folder/lw.db?key=hunter2"


def test_the_dump_holds_every_setting_with_secrets_replaced(write_config: Writer) -> None:
    shown = yaml.safe_load(dump_redacted(load_settings(write_config(SECRETS_EVERYWHERE), {})))
    assert shown["server"]["token"] == "<secret>"
    assert shown["store"]["url"] == "sqlite://<secret>@folder/lw.db?<secret>"
    assert shown["alerts"]["receivers"][0]["url"] == "<secret>"
    assert shown["alerts"]["receivers"][0]["timeout"] == "15s"
    assert shown["scan"] == {
        "workers": 1,
        "memory_limit": "4GiB",
        "timeout": "1h",
        "attempts": 3,
        "niceness": 10,
        "threads": None,
        "precision": "auto",
        "device": "auto",
    }


def test_a_dump_without_secrets_loads_to_the_same_settings(write_config: Writer, tmp_path: Path) -> None:
    settings = load_settings(
        write_config(
            "registries: [{name: a, kind: directory, path: m, poll: 90s}]\nscan: {memory_limit: 100MB}"
        ),
        {},
    )
    assert load_settings(write_config(dump_redacted(settings)), {}) == settings
    (registry,) = settings.registries
    assert isinstance(registry, DirectoryRegistrySettings)
    assert registry.path == tmp_path / "m"


def test_a_dump_with_secrets_does_not_load_because_the_placeholder_is_no_secret(write_config: Writer) -> None:
    dump = dump_redacted(load_settings(write_config("server: {token: hunter2}"), {}))
    with pytest.raises(ConfigError, match=r"server\.token: is <secret>, which only stands for a secret"):
        load_settings(write_config(dump), {})


@pytest.mark.parametrize(
    "text",
    [
        # A neighbouring field is wrong: pydantic's error holds the whole receiver as its input.
        "alerts: {receivers: [{name: a, kind: webhook, url: hunter2, timeout: 5}]}",
        "alerts: {receivers: [{kind: webhook, url: https://hunter2/, secret: hunter2}]}",
        "alerts: {receivers: [{kind: nonsense, url: hunter2}]}",
        "alerts: {receivers: [{url: hunter2}]}",
        "alerts: hunter2",
        "alerts: [hunter2]",
        "server: {tokn: hunter2}",
        "server: {token: [hunter2]}",
        "server: {token: {hunter2: hunter2}}",
        "server: {token: {env: A, file: hunter2}}",
        "server: {external_url: https://me:hunter2@host/}",
        "server: {token: hunter2, token: hunter2}",
        "store: {url: postgresql://me:hunter2@host}",
        "store: {url: postgresql://me:hunter2@more@host/db}",
        "store: {url: hunter2}",
        "scan: {workers: hunter2, threads: hunter2}",
        "hunter2",
        # What YAML makes of a password that begins with one of its marks.
        "server: {token: *hunter2}",
        "server: {token: !hunter2 x}",
        "server: {token: !hunter2!x y}",
        "server: {token: !!hunter2 x}",
        "server: {token: &hunter2 a, external_url: &hunter2 b, listen: *hunter2a}",
        "server: {token: %hunter2}",
        "server: {token: @hunter2}",
        "server: {token: `hunter2}",
        'server: {token: "hunter2\\q"}',
        "server: {token: 'hunter2}",
        "server:\n\ttoken: hunter2",
        "server:\n  token: hunter2\n hunter2",
    ],
)
def test_no_error_repeats_a_secret(write_config: Writer, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write_config(text), {})
    with caplog.at_level(logging.ERROR):
        logging.getLogger("test").error("cannot start", exc_info=caught.value)
    shown = [str(caught.value), repr(caught.value), repr(caught.value.problems), caplog.text]
    shown.append("".join(traceback.format_exception(caught.value)))
    problems = "\n".join(shown)
    allowed = ["server.token.hunter2"] if "{hunter2:" in text else []
    for part in allowed:
        problems = problems.replace(part, "")
    assert LEAK not in problems
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "env",
    [
        {"LAYERWATCH_ALERTS": '{"receivers": [{"url": "hunter2"}]}'},
        {"LAYERWATCH_ALERTS": "hunter2"},
        {"LAYERWATCH_ALERTS__RECEIVERS": "hunter2"},
        {"LAYERWATCH_TOKEN": "hunter2"},
        {"LAYERWATCH_SERVER__TOKEN__FIL": "hunter2"},
        {"LAYERWATCH_STORE__URL": "hunter2"},
    ],
)
def test_no_error_repeats_a_secret_of_the_environment(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, env)
    assert LEAK not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_pydantics_own_error_text_does_not_repeat_what_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"alerts": {"receivers": [{"kind": "webhook", "url": "https://hunter2"}]}})
    assert LEAK not in str(caught.value)
    assert LEAK not in repr(caught.value)


def test_the_json_of_the_settings_is_readable() -> None:
    assert json.loads(Settings().model_dump_json())["store"]["keep_events"] == "30d"

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.secrets import Secret
from layerwatch.config.settings import Settings

KINDS = ("directory", "mlflow", "huggingface", "oci", "objectstore")

Writer = Callable[[str], Path]


def problems(env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, env)
    return str(caught.value).splitlines()


def leaves(value: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*above, key))
    else:
        yield above


def test_every_key_has_its_variable_and_the_variable_reaches_the_key() -> None:
    """A sign that no key but the token and a path accept is complained about at just the key that is named."""
    for path in leaves(Settings().model_dump(mode="json")):
        name = "LAYERWATCH_" + "__".join(path).upper()
        if path == ("server", "token"):
            assert load_settings(None, {name: "§"}).server.token == Secret("§")
        elif path == ("downloads", "path"):
            assert load_settings(None, {name: "§"}).downloads.path == Path("§").absolute()
        else:
            assert [problem.partition(": ")[2].partition(": ")[0] for problem in problems({name: "§"})] == [
                ".".join(path)
            ]


def test_the_environment_wins_over_the_file_key_by_key(write_config: Writer) -> None:
    path = write_config("scan: {workers: 2, attempts: 5}\nserver: {token: {file: token.txt}}")
    loaded = load_settings(
        path,
        {
            "LAYERWATCH_SCAN__WORKERS": "3",
            "LAYERWATCH_SCAN__MEMORY_LIMIT": "1GiB",
            "LAYERWATCH_SERVER__TOKEN": "from-env",
            "LAYERWATCH_RULES__SCALED__ENABLED": "false",
        },
    )
    assert (loaded.scan.workers, loaded.scan.attempts, loaded.scan.memory_limit) == (3, 5, 2**30)
    assert loaded.server.token == Secret("from-env")
    assert not loaded.rules.scaled.enabled


def test_lists_and_sections_are_given_as_json(write_config: Writer) -> None:
    path = write_config("registries: [{name: old, kind: directory, path: m}]\nscan: {attempts: 4}")
    loaded = load_settings(
        path,
        {
            "LAYERWATCH_REGISTRIES": '[{"name": "new", "kind": "directory", "path": "/m", "poll": "1m"}]',
            "LAYERWATCH_SCAN": '{"workers": 2, "timeout": "5m"}',
            "LAYERWATCH_SCAN__TIMEOUT": "6m",
            "LAYERWATCH_ALERTS__RECEIVERS": '[{"name": "log", "kind": "log"}]',
            "LAYERWATCH_ALERTS__ROUTE": '{"receiver": "log"}',
        },
    )
    assert [(item.name, item.poll) for item in loaded.registries] == [("new", timedelta(minutes=1))]
    assert (loaded.scan.workers, loaded.scan.attempts, loaded.scan.timeout) == (2, 4, timedelta(minutes=6))
    assert loaded.alerts.route is not None
    assert loaded.alerts.route.receiver == "log"


def test_a_secret_can_be_referred_to_from_the_environment(write_config: Writer) -> None:
    path = write_config("server: {token: {env: LAYERWATCH_TOKEN}}")
    env = {"LAYERWATCH_TOKEN": "x", "LAYERWATCH_CONFIG": str(path)}
    assert load_settings(path, env).server.token == Secret.from_env("LAYERWATCH_TOKEN")
    env["LAYERWATCH_SERVER__TOKEN__FILE"] = "/run/token"
    with pytest.raises(ConfigError, match="LAYERWATCH_TOKEN: is not a setting") as caught:
        load_settings(None, env)
    assert len(caught.value.problems) == 1
    assert load_settings(path, env).server.token == Secret.from_file("/run/token")
    del env["LAYERWATCH_SERVER__TOKEN__FILE"]
    env["LAYERWATCH_SERVER__TOKEN__ENV"] = "LAYERWATCH_TOKEN"
    assert load_settings(None, env).server.token == Secret.from_env("LAYERWATCH_TOKEN")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LAYERWATCH_TOKEN", ", did you mean LAYERWATCH_SERVER__TOKEN?"),
        ("LAYERWATCH_SERVER_LISTEN", ", did you mean LAYERWATCH_SERVER__LISTEN?"),
        ("LAYERWATCH_SCAN__WORKER", ", did you mean LAYERWATCH_SCAN__WORKERS?"),
        ("LAYERWATCH_QQQQQ", "; see layerwatch config print --default for all settings"),
        ("LAYERWATCH_REGISTRIES__0__POLL", ": a list is set as a whole, as JSON, in LAYERWATCH_REGISTRIES"),
        ("LAYERWATCH_", "; see layerwatch config print --default for all settings"),
    ],
)
def test_a_variable_that_sets_nothing_is_a_problem(name: str, expected: str) -> None:
    assert problems({name: "1"}) == [f"{name}: is not a setting{expected}"]


def test_variables_of_kubernetes_services_are_no_problem() -> None:
    env = {
        "LAYERWATCH_SERVICE_HOST": "10.0.0.1",
        "LAYERWATCH_SERVICE_PORT": "9466",
        "LAYERWATCH_SERVICE_PORT_HTTP_METRICS": "9466",
        "LAYERWATCH_PORT": "tcp://10.0.0.1:9466",
        "LAYERWATCH_PORT_9466_TCP": "tcp://10.0.0.1:9466",
        "LAYERWATCH_PORT_9466_TCP_ADDR": "10.0.0.1",
        "LAYERWATCH_METRICS_SERVICE_HOST": "10.0.0.1",
        "LAYERWATCH_METRICS_PORT_9466_TCP_PROTO": "tcp",
    }
    assert load_settings(None, env) == Settings()
    assert problems({"LAYERWATCH_SERVER__PORT": "1"})


def test_a_wrong_value_is_reported_under_its_variable() -> None:
    assert problems(
        {
            "LAYERWATCH_SCAN__WORKERS": "many",
            "LAYERWATCH_RULES": '{"scaled": {"cosin": 1}}',
            "LAYERWATCH_REGISTRIES": '[{"name": "a"}]',
        }
    ) == [
        "LAYERWATCH_REGISTRIES: registries[0].kind: is missing; it must be one of " + ", ".join(KINDS),
        "LAYERWATCH_SCAN__WORKERS: scan.workers: must be a whole number, not text",
        'LAYERWATCH_RULES: rules.scaled.cosin: unknown key, did you mean "cosine"?',
    ]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "a: b", "NaN,"])
def test_text_that_should_be_json_and_is_not_is_reported(text: str) -> None:
    expected = 'LAYERWATCH_REGISTRIES: registries: must be JSON, such as [{"name": "..."}]'
    assert problems({"LAYERWATCH_REGISTRIES": text}) == [expected]
    assert problems({"LAYERWATCH_SCAN": text}) == [
        'LAYERWATCH_SCAN: scan: must be JSON, such as {"key": "value"}'
    ]


def test_a_section_of_the_wrong_form_stays_a_problem_when_the_environment_adds_a_key(
    write_config: Writer,
) -> None:
    path = write_config("scan: 5\n")
    with pytest.raises(ConfigError, match=r"scan: must be a group of keys, not a number"):
        load_settings(path, {"LAYERWATCH_SCAN__WORKERS": "2"})


def test_the_environment_of_the_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERWATCH_SCAN__WORKERS", "7")
    assert load_settings(None, {}).scan.workers == Settings().scan.workers == 1

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerwatch.config.document import LARGEST_FILE
from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings, secret_problems
from layerwatch.config.registries import DirectoryRegistrySettings, RegistrySettings
from layerwatch.config.secrets import Secret
from layerwatch.config.settings import Settings

Writer = Callable[[str], Path]


def folder(registry: RegistrySettings) -> Path:
    """Where a directory registry looks."""
    assert isinstance(registry, DirectoryRegistrySettings)
    return registry.path


def test_without_file_and_environment_the_defaults_hold() -> None:
    assert load_settings(None, {}) == load_settings(None, {"PATH": "/bin", "HOME": "/"}) == Settings()


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "server:\nregistries:\nrules:\n  scaled:\n", "\ufeff{}"]
)
def test_an_empty_file_and_empty_sections_mean_the_defaults(write_config: Writer, text: str) -> None:
    assert load_settings(write_config(text), {}) == Settings()


def test_a_whole_file_is_loaded(write_config: Writer, tmp_path: Path) -> None:
    path = write_config(
        """
        server: {listen: 127.0.0.1:0, token: {env: LW_TOKEN}}
        registries:
          - {name: local, kind: directory, path: ./models, poll: 1m, models: [2024-01-01, "fraud-*"]}
          - {name: other, kind: directory, path: /srv/models}
        scan: {workers: 2, memory_limit: 512MiB}
        rules: {huge_value: {limit: 9}, tail_exponent: {enabled: false}}
        alerts:
          receivers: [{name: hook, kind: webhook, url: {file: url.txt}, allow_private_cidrs: [10.0.0.0/8]}]
          route: {receiver: hook, repeat_interval: 1d}
        """
    )
    loaded = load_settings(path, {})
    assert loaded.server.port == 0
    assert loaded.server.token == Secret.from_env("LW_TOKEN")
    assert [folder(registry) for registry in loaded.registries] == [tmp_path / "models", Path("/srv/models")]
    assert loaded.registries[0].models == ("2024-01-01", "fraud-*")
    assert loaded.registries[0].poll == timedelta(minutes=1)
    assert loaded.scan.memory_limit == 512 * 2**20
    assert loaded.rules.huge_value.limit == 9.0
    assert not loaded.rules.tail_exponent.enabled
    assert loaded.alerts.receivers[0] == loaded.alerts.receivers[0].model_copy(
        update={"url": Secret.from_file(tmp_path / "url.txt")}
    )
    assert loaded.alerts.route is not None
    assert loaded.alerts.route.repeat_interval == timedelta(days=1)


def test_paths_start_from_the_folder_of_the_file_wherever_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "lw.yaml").write_text("registries: [{name: a, kind: directory, path: m}]")
    monkeypatch.chdir(tmp_path)
    assert folder(load_settings(Path("etc/lw.yaml"), {}).registries[0]) == tmp_path / "etc" / "m"


def test_anchors_and_merged_mappings_are_understood(write_config: Writer) -> None:
    loaded = load_settings(
        write_config(
            """
            registries:
              - &base {name: a, kind: directory, path: a, poll: 1m, settle: 1s}
              - {<<: *base, name: b, poll: 2m}
              - <<: [{poll: 3m, refs: [x]}, *base]
                name: c
            """
        ),
        {},
    )
    assert [(item.name, item.poll // timedelta(minutes=1)) for item in loaded.registries] == [
        ("a", 1),
        ("b", 2),
        ("c", 3),
    ]
    assert {item.settle for item in loaded.registries if isinstance(item, DirectoryRegistrySettings)} == {
        timedelta(seconds=1)
    }
    assert loaded.registries[2].refs == ("x",)


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "none.yaml", {})
    assert str(caught.value) == (
        f"{tmp_path}/none.yaml: there is no such file; "
        f"write one with: layerwatch config print --default > {tmp_path}/none.yaml"
    )


def test_a_folder_is_no_configuration_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_must_not_be_read_says_so(write_config: Writer) -> None:
    path = write_config("")
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_settings(path, {})


def test_a_huge_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(ConfigError, match="is larger than 1 MiB"):
        load_settings(path, {})
    path.write_bytes(b"#" * LARGEST_FILE)
    assert load_settings(path, {}) == Settings()


@pytest.mark.parametrize("text", ["- 1\n" * 50_000, "k: 1\n" * 50_000, "k: [" + "1," * 20_001 + "]"])
def test_a_file_with_too_many_values_is_refused_as_a_whole(write_config: Writer, text: str) -> None:
    with pytest.raises(ConfigError, match="holds more than 20000 values") as caught:
        load_settings(write_config(text), {})
    assert len(caught.value.problems) == 1


def test_problems_of_file_and_environment_are_reported_together(write_config: Writer) -> None:
    path = write_config("scan:\n  workers: 0\n  workers: 1\nstore: {keep_versions: 0}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {"LAYERWATCH_SCAN__ATTEMPTS": "0", "LAYERWATCH_SCANS": "1"})
    assert str(caught.value).splitlines() == [
        f"{path}:3: scan.workers: is given twice, first on line 2; keep one of the two",
        f"{path}:4: store.keep_versions: must be at least 1",
        "LAYERWATCH_SCANS: is not a setting, did you mean LAYERWATCH_SCAN?",
        "LAYERWATCH_SCAN__ATTEMPTS: scan.attempts: must be at least 1",
    ]


def test_secrets_are_not_read_while_loading_but_can_be_checked(
    write_config: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LW_TOKEN", raising=False)
    loaded = load_settings(
        write_config(
            """
            server: {token: {env: LW_TOKEN}}
            alerts:
              receivers: [{name: hook, kind: webhook, url: {file: url.txt}, secret: plain}]
              route: {receiver: hook}
            """
        ),
        {},
    )
    assert [str(problem) for problem in secret_problems(loaded)] == [
        "server.token: environment variable LW_TOKEN is not set; set it to the secret",
        f"alerts.receivers[0].url: secret file {tmp_path}/url.txt does not exist; create it or mend the path",
    ]
    monkeypatch.setenv("LW_TOKEN", "x")
    (tmp_path / "url.txt").write_text("https://example.org/")
    assert secret_problems(loaded) == []


YAML_PIECES = (
    "server registries scan rules alerts store token listen receivers route kind name webhook log directory path "
    "url env file workers poll <<: : - ? [ ] { } , & * ! !!binary !!set | > ' \" # % @ ` ~ null yes 1 .inf 30s "
    "&a *a --- ... = \t"
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.lists(
        st.one_of(st.sampled_from(YAML_PIECES.split(" ")), st.just("\n"), st.just("\n  "), st.just(": ")),
        max_size=30,
    )
)
def test_any_text_is_loaded_or_refused_with_problems(tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(" ".join(words), encoding="utf-8")
    try:
        load_settings(path, {})
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_loaded_or_refused_with_problems(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    try:
        load_settings(path, {})
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)


PLAIN_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["name", "kind", "url", "path", "route", "receivers", "env", "enabled", "x"]),
            inner,
        ),
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["server", "store", "registries", "scan", "rules", "alerts"]),
        PLAIN_VALUES,
        max_size=4,
    )
)
def test_any_values_under_any_section_are_loaded_or_refused(tmp_path: Path, data: dict[str, object]) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    try:
        load_settings(path, {})
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)


def test_a_member_of_an_unknown_registry_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "layerwatch.yaml"
    path.write_text(
        "registries: [{name: local, kind: directory, path: /models}]\n"
        "composites:\n"
        "  - name: search\n"
        "    members:\n"
        "      - local/encoder@latest\n"
        "      - locla/ranker@latest\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    assert str(caught.value) == (
        f'{path}:6: composites[0].members[1]: unknown registry "locla", did you mean "local"?'
    )

"""Settings from environment variables: ``LAYERWATCH_SECTION__KEY`` for every key of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from layerwatch.config.crosschecks import KeyPath
from layerwatch.config.errors import ConfigProblem
from layerwatch.config.settings import Settings
from layerwatch.config.tree import dotted, key_paths, locate
from layerwatch.config.wording import nearest

PREFIX = "LAYERWATCH_"
DELIMITER = "__"

CONFIG_VARIABLE = "LAYERWATCH_CONFIG"
"""Names the configuration file; read by the command line, not a setting."""

# Kubernetes gives every pod variables for each service of its namespace: a service called "layerwatch" or
# "layerwatch-metrics" must not stop the daemon.
_SERVICE_LINK = re.compile(
    r"LAYERWATCH(_[A-Z0-9]+)*_"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class _EnvironmentSettings(Settings, BaseSettings):
    """Tells pydantic-settings the names and the shape of the settings; never instantiated."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER)


@dataclass(slots=True)
class Overlay:
    """What the environment sets.

    Attributes:
        values: nested like the configuration file.
        origins: the variable that set each key, for every key of ``values``.
        problems: variables that set nothing.
    """

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[ConfigProblem] = field(default_factory=list)


def read_environment(env: Mapping[str, str], file_data: Mapping[str, object]) -> Overlay:
    """The settings in ``env``. ``file_data`` is the configuration file: its ``{env: NAME}`` are no settings."""
    overlay = Overlay()
    known = {variable_name(path): path for path in key_paths()}
    unknown = []
    # Shorter names first, so that LAYERWATCH_SERVER__PORT is laid over LAYERWATCH_SERVER.
    for name in sorted((name for name in env if name.startswith(PREFIX)), key=lambda name: (len(name), name)):
        path = known.get(name)
        if path is None:
            unknown.append(name)
            continue
        values = _decoded(name, env[name])
        if values is None:
            message = f"must be JSON, such as {_json_example(path)}"
            overlay.problems.append(ConfigProblem(dotted(path), None, message, name))
            continue
        overlay.values = merged(overlay.values, values)
        overlay.origins.update(dict.fromkeys(_paths(values), name))
    ignored = {CONFIG_VARIABLE, *secret_variables(file_data), *secret_variables(overlay.values)}
    overlay.problems.extend(
        ConfigProblem("", None, _unknown_message(name, known), name)
        for name in unknown
        if name not in ignored and not _SERVICE_LINK.fullmatch(name)
    )
    return overlay


def variable_name(path: tuple[str, ...]) -> str:
    """The environment variable that sets the key at ``path``."""
    return PREFIX + DELIMITER.join(path).upper()


def merged(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """``above`` laid over ``below``, mapping by mapping; a secret's ``{env: ..}`` or ``{file: ..}`` is one value."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and old is not None and not _is_secret_reference(value):
            # Something that should have been a mapping stays, to be reported as what it is.
            result[key] = merged(old, value) if isinstance(old, Mapping) else old
        else:
            result[key] = value
    return result


def secret_variables(value: object) -> Iterator[str]:
    """The names in all ``{env: NAME}`` anywhere in ``value``."""
    if isinstance(value, Mapping):
        if _is_secret_reference(value) and isinstance(value.get("env"), str):
            yield value["env"]
        for part in value.values():
            yield from secret_variables(part)
    elif isinstance(value, list):
        for part in value:
            yield from secret_variables(part)


def _is_secret_reference(value: Mapping[str, object]) -> bool:
    return value.keys() in ({"env"}, {"file"})


def _decoded(name: str, text: str) -> dict[str, object] | None:
    """The one variable as nested settings; None when it had to be JSON and is not."""
    source = EnvSettingsSource(_EnvironmentSettings)
    source.env_vars = {name.lower(): text}
    try:
        return dict(source())
    except (SettingsError, RecursionError):
        return None


def _json_example(path: tuple[str, ...]) -> str:
    return '[{"name": "..."}]' if locate(path).place.is_list else '{"key": "value"}'


def _unknown_message(name: str, known: Mapping[str, tuple[str, ...]]) -> str:
    for candidate, path in known.items():
        if locate(path).place.is_list and name.startswith(candidate + DELIMITER):
            return f"is not a setting: a list is set as a whole, as JSON, in {candidate}"
    near = _intended(name.removeprefix(PREFIX), [candidate.removeprefix(PREFIX) for candidate in known])
    suggestion = (
        f", did you mean {PREFIX}{near}?"
        if near
        else "; see layerwatch config print --default for all settings"
    )
    return f"is not a setting{suggestion}"


def _intended(name: str, known: Sequence[str]) -> str | None:
    """The known name that ends in ``name`` (TOKEN for SERVER__TOKEN), or else one that is spelt much like it."""
    ending = (candidate for candidate in known if candidate.endswith(DELIMITER + name))
    return next(ending, None) or nearest(name, known)


def _paths(value: object, above: KeyPath = ()) -> Iterator[KeyPath]:
    parts: list[tuple[str | int, object]] = []
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    for key, part in parts:
        yield (*above, key)
        yield from _paths(part, (*above, key))

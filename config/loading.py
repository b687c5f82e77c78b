"""The configuration file and the environment to settings, or to a list of everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from layerwatch.config.crosschecks import Fault, KeyPath, alert_faults, registry_faults
from layerwatch.config.document import Document, read_document
from layerwatch.config.environment import Overlay, merged, read_environment
from layerwatch.config.errors import ConfigError, ConfigProblem
from layerwatch.config.plainwords import plain_message
from layerwatch.config.secrets import FOLDER_CONTEXT_KEY, Secret, SecretError
from layerwatch.config.settings import Settings
from layerwatch.config.tree import ROOT, Place, dotted, locate


def load_settings(path: Path | None, env: Mapping[str, str]) -> Settings:
    """The settings in the YAML file at ``path`` with those in ``env`` laid over them.

    Args:
        path: the configuration file; None for the defaults. Relative ``path`` and ``{file: ..}`` entries start
            from its folder, or from the current folder when there is no file.
        env: environment variables, usually ``os.environ``. ``LAYERWATCH_SECTION__KEY`` wins over the file;
            lists and whole sections are given as JSON.

    Secrets given as ``{env: ..}`` or ``{file: ..}`` are not read here: see :func:`secret_problems`.

    Raises:
        ConfigError: listing all problems; no message holds the value of a secret.
    """
    document = Document() if path is None else read_document(path)
    overlay = read_environment(env, document.data)
    problems = [*document.problems, *overlay.problems]
    if document.readable:
        data = _without_empty_groups(merged(document.data, overlay.values), ROOT)
        folder = Path.cwd() if path is None else path.absolute().parent
        settings, faults = _validate(data, folder)
        if settings is not None and not problems:
            return settings
        problems.extend(_placed(faults, document, overlay, path, problems))
    raise ConfigError(problems)


def secret_problems(settings: Settings) -> list[ConfigProblem]:
    """Every secret of ``settings`` that cannot be read now, with its path and the reason."""
    problems = []
    for path, secret in _secrets(settings, ()):
        try:
            secret.reveal()
        except SecretError as error:
            problems.append(ConfigProblem(dotted(path), None, error.detail))
    return problems


def _secrets(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, Secret]]:
    if isinstance(value, Secret):
        yield path, value
    elif isinstance(value, tuple):
        for position, item in enumerate(value):
            yield from _secrets(item, (*path, position))
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from _secrets(getattr(value, key), (*path, key))


def _validate(data: Mapping[str, object], folder: Path) -> tuple[Settings | None, list[Fault]]:
    # The ValidationError holds what was given, secrets included: it must not become part of another error.
    try:
        return Settings.model_validate(data, context={FOLDER_CONTEXT_KEY: folder}), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    faults = []
    for detail in details:
        location = detail["loc"]
        if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
            location = (*location, "kind")
        spot = locate(location)
        faults.append(Fault(spot.path, plain_message(detail, _value_at(data, spot.path), spot)))
    # Pydantic leaves these out when the parts they compare are themselves wrong.
    faults.extend(registry_faults(data))
    faults.extend(
        Fault(("alerts", *fault.path), fault.message) for fault in alert_faults(data.get("alerts", {}))
    )
    return None, faults


def _placed(
    faults: list[Fault],
    document: Document,
    overlay: Overlay,
    path: Path | None,
    earlier: list[ConfigProblem],
) -> Iterator[ConfigProblem]:
    """Each fault once, with the line or the environment variable it comes from."""
    told = {problem.path for problem in earlier if problem.path}
    for fault in dict.fromkeys(faults):
        shown = dotted(fault.path)
        if shown in told:
            continue
        line, source = _origin(fault.path, document, overlay)
        yield ConfigProblem(shown, line, fault.message, source or (None if path is None else str(path)))


def _origin(path: KeyPath, document: Document, overlay: Overlay) -> tuple[int | None, str | None]:
    """Line, or else environment variable, of ``path`` or of the nearest thing above it that was given."""
    for length in range(len(path), 0, -1):
        part = path[:length]
        if part in overlay.origins:
            return None, overlay.origins[part]
        if part in document.lines:
            return document.lines[part], None
    return None, None


def _value_at(data: object, path: KeyPath) -> object:
    value = data
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def _without_empty_groups(data: Mapping[str, object], place: Place) -> dict[str, object]:
    """``data`` without sections and lists that have nothing below their key: these mean the defaults."""
    kept: dict[str, object] = {}
    for key, value in data.items():
        child = place.child(key)
        if value is None and (child.models or child.is_list) and not child.accepts_nothing:
            continue
        kept[key] = _without_empty_groups(value, child) if isinstance(value, Mapping) else value
        if isinstance(value, list):
            kept[key] = [
                _without_empty_groups(item, child.child(position)) if isinstance(item, Mapping) else item
                for position, item in enumerate(value)
            ]
    return kept

"""Settings as they may be shown."""

from __future__ import annotations

import yaml

from layerwatch.config.secrets import redact_url
from layerwatch.config.settings import Settings


def dump_redacted(settings: Settings) -> str:
    """The effective settings as YAML, every key given, with ``<secret>`` in place of secrets.

    User and password, and the query, of every URL are replaced too.
    """
    shown = _without_userinfo(settings.model_dump(mode="json"))
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110)


def _without_userinfo(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_userinfo(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_userinfo(part) for part in value]
    return redact_url(value) if isinstance(value, str) else value

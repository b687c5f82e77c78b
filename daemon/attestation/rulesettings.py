"""By which rule settings was judged: a digest of all, and which rules were not checked as they are by default."""

from __future__ import annotations

import hashlib
import json

from layerwatch.config.rules import RuleSettings, RulesSettings

_DEFAULTS = RulesSettings()

# Says when people are told of a violation, and nothing about what is one.
_ABOUT_TELLING = {"for_scans": 1}


def rules_digest(rules: RulesSettings) -> str:
    """sha256 in hex over all settings of all rules but ``for_scans``, as JSON with sorted keys and no white space."""
    judging = rules.model_dump(
        mode="json", exclude={name: set(_ABOUT_TELLING) for name, _, _ in _pairs(rules)}
    )
    text = json.dumps(judging, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def switched_off(rules: RulesSettings) -> tuple[str, ...]:
    """Names of rules that were not checked, and are by default."""
    return tuple(name for name, one, usual in _pairs(rules) if usual.enabled and not one.enabled)


def altered(rules: RulesSettings) -> tuple[str, ...]:
    """Names of rules that were checked by other settings than the default's, milder or stricter.

    A threshold of its own says nothing about its direction here: whoever uses one asks for it by the digest.
    ``false_alarms_per_1000_versions``, which all rules share, is named like one.
    """
    names = [name for name, one, usual in _pairs(rules) if one.enabled and one != usual]
    shared = RulesSettings.model_fields.keys() - {name for name, _, _ in _pairs(rules)}
    return (*names, *sorted(name for name in shared if getattr(rules, name) != getattr(_DEFAULTS, name)))


def _pairs(rules: RulesSettings) -> list[tuple[str, RuleSettings, RuleSettings]]:
    found = []
    for name in RulesSettings.model_fields:
        one, usual = getattr(rules, name), getattr(_DEFAULTS, name)
        if isinstance(one, RuleSettings):
            found.append((name, one.model_copy(update=_ABOUT_TELLING), usual))
    return found

"""What an alert is called by: the labels that routes, silences and inhibitions match."""

from __future__ import annotations

from collections.abc import Sequence

from layerwatch.alerts.model import AlertState
from layerwatch.config.matchers import Labels
from layerwatch.config.owners import OwnerSettings, owner_labels


def labels_of(state: AlertState, owners: Sequence[OwnerSettings]) -> Labels:
    """The labels of one alert; ``rule`` has a value for each rule that fires."""
    identity = state.identity
    return {
        **owner_labels(owners, identity.registry, identity.model),
        "registry": (identity.registry,),
        "model": (identity.model,),
        "ref": (identity.ref,),
        "rule_group": (identity.group.value,),
        "severity": (state.severity.value,),
        "version": (state.version,),
        "rule": state.rules,
    }

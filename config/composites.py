"""Composites: ensembles, soups and pipelines, which are as healthy as the models that they are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import field_validator

from layerwatch.config.base import Name, NonBlankList, SettingsModel

_MEMBER = re.compile(r"^(?P<registry>[a-z0-9][a-z0-9_-]*)/(?P<model>[^@]*[^@\s][^@]*)@(?P<ref>[^@/\s]+)$")

COMPOSITES = "composites"
"""Composites are models of a registry of this name, in alerts, metrics and the API."""


@dataclass(frozen=True, slots=True)
class Member:
    """A model of a registry, by the ref that the composite follows."""

    registry: str
    model: str
    ref: str

    @property
    def name(self) -> str:
        """As it is written in the configuration."""
        return f"{self.registry}/{self.model}@{self.ref}"


def parse_member(text: str) -> Member:
    """Read ``registry/model@ref``.

    Raises:
        ValueError: anything else.
    """
    found = _MEMBER.match(text)
    if found is None:
        raise ValueError("a member is written registry/model@ref, for example local/encoder@latest")
    return Member(found["registry"], found["model"], found["ref"])


class CompositeSettings(SettingsModel):
    """One composite."""

    name: Name
    """How it is called in alerts and metrics."""

    members: NonBlankList
    """The models that it is made of, each as registry/model@ref."""

    @field_validator("members")
    @classmethod
    def _each_once(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        for member in members:
            parse_member(member)
        for position, member in enumerate(members):
            if member in members[:position]:
                raise ValueError(f"names the same member twice, at {members.index(member)} and {position}")
        return members

    @property
    def parsed(self) -> tuple[Member, ...]:
        """The members, taken apart."""
        return tuple(map(parse_member, self.members))

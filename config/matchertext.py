"""Matchers as they are written in the configuration and in requests: checked text."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from layerwatch.config.matchers import parse_matcher


def _checked(text: str) -> str:
    parse_matcher(text)
    return text


MatcherText = Annotated[str, AfterValidator(_checked)]
"""A matcher as it is written in the configuration."""

"""What the contract asks of registries, and which kinds cannot have it, with the reason."""

from __future__ import annotations

from enum import StrEnum

import pytest

from layerwatch_testing.worlds import WORLDS


class Property(StrEnum):
    """Something that not every kind of registry can have."""

    NETWORK = "lies behind a network: TLS, proxies, outages, answers that are wrong"
    AUTH = "asks for credentials"
    PAGES = "is listed page by page"
    IN_PLACE = "lets the bytes of a version be overwritten"
    TELLS_UNFINISHED = "shows that a version is being written"
    NEWEST_BY_RULE = "works out by itself what is newest"
    RETRY_AFTER = "tells how long to wait when too much was asked"


EXCLUDED: dict[Property, dict[str, str]] = {
    Property.NETWORK: {"directory": "is read through the file system"},
    Property.AUTH: {"directory": "has the rights of files alone, see test_directory.py"},
    Property.PAGES: {"directory": "is walked"},
    Property.IN_PLACE: {
        "huggingface": "a commit is named after its content",
        "oci": "a manifest is named after its content",
    },
    Property.TELLS_UNFINISHED: {
        "huggingface": "a commit appears as a whole",
        "oci": "the manifest is pushed last, and before it nothing is to be seen",
    },
    Property.NEWEST_BY_RULE: {
        "huggingface": "a branch is moved by its publishers alone",
        "oci": "a tag is moved by its publishers alone",
    },
    Property.RETRY_AFTER: {"objectstore": "its client keeps the headers of answers to itself"},
}
"""Property -> kind -> why it cannot have it."""


def kinds_with(*properties: Property) -> list[object]:
    """The kinds of registries that have all these properties, as parameters of tests."""
    return [
        pytest.param(kind, marks=() if kind == "directory" else pytest.mark.server)
        for kind in WORLDS
        if not any(kind in EXCLUDED.get(one, {}) for one in properties)
    ]


def kinds_open_and_locked() -> list[object]:
    """Every kind of registry, and again with authentication where there is such a thing."""
    return [
        *kinds_with(),
        *(
            pytest.param(f"{kind}+auth", marks=pytest.mark.server)
            for kind in WORLDS
            if kind not in EXCLUDED[Property.AUTH]
        ),
    ]

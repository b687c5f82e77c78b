"""Print what is installed beside the running Python as a CycloneDX 1.5 bill of materials.

Packages of Python only: those of the base image are the business of whoever publishes it. No time and no serial number
stand in it, so that the same installation gives the same bytes.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution, distributions

PRODUCT = "layerwatch"
_INSTALLER = "pip"
"""Gone before the image is finished."""


def normalized(name: str) -> str:
    """A project's name as its address on an index has it (PyPA, "Name normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def component(distribution: Distribution) -> dict[str, object]:
    """One installed package: https://cyclonedx.org/docs/1.5/json/#components."""
    metadata = distribution.metadata
    name, version = normalized(metadata["Name"]), distribution.version
    # What stands behind a + in a version must be escaped: https://github.com/package-url/purl-spec.
    address = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    found: dict[str, object] = {
        "type": "application" if name == PRODUCT else "library",
        "bom-ref": address,
        "name": name,
        "version": version,
        "purl": address,
    }
    if "Summary" in metadata:
        found["description"] = metadata["Summary"]
    if "License-Expression" in metadata:
        found["licenses"] = [{"expression": metadata["License-Expression"]}]
    return found


def bill() -> dict[str, object]:
    """The bill of everything that this Python can import, the product first."""
    parts = {
        str(one["name"]): one
        for one in (component(distribution) for distribution in distributions())
        if one["name"] != _INSTALLER
    }
    product = parts.pop(PRODUCT)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": product},
        "components": [parts[name] for name in sorted(parts)],
    }


if __name__ == "__main__":
    print(json.dumps(bill(), indent=1))

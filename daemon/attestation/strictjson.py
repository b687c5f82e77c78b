"""JSON with one meaning: what two parsers could read differently is refused."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason


def read_json(data: bytes, what: str) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
        what: it is, for the message.

    Raises:
        AttestationError: MALFORMED; also for a key that stands twice in one object, NaN and Infinity, numbers of
            thousands of digits, and nesting that the parser cannot follow.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_refuse)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:
        why = str(error)
    raise AttestationError(AttestationReason.MALFORMED, f"{what} is not strict JSON: {why}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")

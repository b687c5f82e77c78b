"""Whether a version can be compared with its baseline element by element: the baseline's files must be at hand.

Exact numbers need both weights. A baseline is at hand while its registry offers the very bytes that were
fingerprinted; anything else, and any trouble on the way, leaves the comparison to the sketches in the store. It is never
a reason for a failed scan.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layerwatch.daemon.fingerprints import is_stand_in
from layerwatch.daemon.registries.base import Progress, Registry, RegistryUnavailable, no_progress
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

_LOGGER = logging.getLogger(__name__)

MAY_BE_THE_BASELINES = frozenset(
    {
        UnreadableReason.IO_ERROR,
        UnreadableReason.MEMORY_LIMIT,
        UnreadableReason.NOT_FOUND,
        UnreadableReason.TIMEOUT,
        UnreadableReason.WORKER_DIED,
    }
)
"""What may end a scan because of the second file: it is read from a disk too, takes memory and time, and a file that is
shortened while it is mapped ends the process."""


def is_at_hand(registry: Registry | None, baseline: VersionRecord) -> bool:
    """Whether the baseline's files are there and are what was fingerprinted."""
    if registry is None or baseline.token is None or is_stand_in(baseline.fingerprint):
        return False
    try:
        return registry.token(baseline.source_path) == baseline.token
    except (OSError, RegistryUnavailable):
        return False


@contextmanager
def files_at_hand(
    registry: Registry | None, baseline: VersionRecord, progress: Progress = no_progress
) -> Iterator[Path | None]:
    """The local path of a baseline that is at hand, or None.

    Args:
        progress: called while files are fetched.
    """
    with ExitStack() as stack:
        path = None
        if registry is not None and is_at_hand(registry, baseline):
            try:
                path = stack.enter_context(registry.open(baseline.source_path, progress))
            except (OSError, RegistryUnavailable, UnreadableError) as error:
                tell_fallback(baseline, str(error))
        yield path


def digests_of(content: ContentRecord | None) -> dict[str, str]:
    """Digest of each layer by name, as far as it could be read."""
    return {layer.name: layer.digest for layer in content.layers if layer.digest} if content else {}


def has_changed_layers(content: ContentRecord, baseline_digests: Mapping[str, str]) -> bool:
    """Whether the two share a layer with a spectrum whose bytes differ: else there is nothing to compare exactly."""
    return any(
        len(layer.shape) > 1
        and layer.digest is not None
        and baseline_digests.get(layer.name, layer.digest) != layer.digest
        for layer in content.layers
    )


def tell_fallback(baseline: VersionRecord, why: str) -> None:
    """One line in the log: the version is judged all the same, by estimates."""
    _LOGGER.warning("baseline %s is compared with by sketches: %s", baseline.key.version, why)

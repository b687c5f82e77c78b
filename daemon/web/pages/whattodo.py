"""What a person can do about each kind of trouble of the daemon, in a sentence."""

from __future__ import annotations

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.daemon.registries.base import RegistryReason
from layerwatch.daemon.store.errors import StoreReason
from layerwatch.metrics.errors import UnreadableReason

_RELOAD = "then load the configuration again"

REGISTRY: dict[RegistryReason, str] = {
    RegistryReason.NOT_FOUND: "See that the path or the address in the configuration is right, and that it is there.",
    RegistryReason.NOT_PERMITTED: f"Renew the token, or grant the rights, {_RELOAD}.",
    RegistryReason.IO_ERROR: "Look after the disk or the mount; it is asked again by itself.",
    RegistryReason.VERSION_GONE: "Nothing: the version vanished while it was read, and the next look tells.",
    RegistryReason.EMPTY: "Mount the volume again. If everything was removed on purpose, wait ten minutes.",
    RegistryReason.UNREACHABLE: "Bring the server or the network back; it is asked again by itself.",
    RegistryReason.SERVER_ERROR: "Look at the log of that server; it is asked again by itself.",
    RegistryReason.RATE_LIMITED: "It is asked again when it allows that. If it goes on: a longer poll, or a token.",
    RegistryReason.BAD_RESPONSE: f"Something else answers there, a login page for instance: correct the address, {_RELOAD}.",
    RegistryReason.CERTIFICATE: f"Name the authority of its certificate in ca_file, {_RELOAD}.",
    RegistryReason.NOT_INSTALLED: "Install the extra of this kind of registry on the daemon's machine, and start the daemon again.",
    RegistryReason.NO_SPACE: "Free space where downloads are kept (downloads.path), or lower downloads.size_limit.",
}  # fmt: skip

RECEIVER: dict[DeliveryReason, str] = {
    DeliveryReason.BAD_SECRET: "Mend the file or the variable of its secret: it cannot be read, or is not of the right form.",
    DeliveryReason.BAD_URL: f"Correct its URL, {_RELOAD}.",
    DeliveryReason.CLIENT_ERROR: f"It refuses the request or whoever makes it: renew the token, the channel or the route, {_RELOAD}.",
    DeliveryReason.CONNECTION: "Bring it, or the network to it, back; what waits is delivered by itself.",
    DeliveryReason.EXPIRED: "They waited for longer than its max_age. Mend it, then send them again.",
    DeliveryReason.FORBIDDEN_ADDRESS: f"It is in a private network: name that in allow_private_cidrs, {_RELOAD}.",
    DeliveryReason.GONE: f"It answered 410: it was taken away. Set it up anew, {_RELOAD}.",
    DeliveryReason.INVALID_RESPONSE: "Something else answers there: see what its URL leads to.",
    DeliveryReason.NAME_RESOLUTION: "Its name is unknown here: mend the URL or the DNS; what waits is delivered by itself.",
    DeliveryReason.RATE_LIMITED: "It wants a pause, which it gets. If it goes on, group more alerts, or repeat them less often.",
    DeliveryReason.RECEIVER_REMOVED: "It is configured no more. Its events stay for a while, and can be sent when it is again.",
    DeliveryReason.REDIRECTED: f"It answers from another address: write that into the configuration, {_RELOAD}.",
    DeliveryReason.SERVER_ERROR: "Look at the log of that service; what waits is delivered by itself.",
    DeliveryReason.TIMEOUT: "It is too slow or away: bring it back, or raise its timeout; what waits is delivered by itself.",
    DeliveryReason.TLS: f"Its certificate is not trusted: name the authority in ca_file, {_RELOAD}.",
    DeliveryReason.UNEXPECTED: "The log of the daemon has a traceback; please report it.",
}  # fmt: skip

_PUBLISH = "The files are not whole or are damaged: publish the version again."
_CONVERT = (
    "layerwatch cannot undo this storage: have it watch the version before it was packed, or convert it."
)

SCAN: dict[UnreadableReason, str] = {
    UnreadableReason.NOT_FOUND: "The files are not there: see whether the version is complete, then scan it again.",
    UnreadableReason.EMPTY_FILE: _PUBLISH,
    UnreadableReason.NO_TENSORS: "The files hold no weights: see whether this is the right folder.",
    UnreadableReason.UNKNOWN_FORMAT: "The format is not known: publish safetensors, or another format that is read.",
    UnreadableReason.TRUNCATED: _PUBLISH,
    UnreadableReason.CORRUPT: _PUBLISH,
    UnreadableReason.BAD_HEADER: _PUBLISH,
    UnreadableReason.BAD_PICKLE: "The pickle does more than hold tensors, which is never run: publish safetensors.",
    UnreadableReason.TOO_DEEP: _PUBLISH,
    UnreadableReason.TOO_LARGE: "It is beyond the limits: raise scan.memory_limit, start the daemon again, and scan it again.",
    UnreadableReason.MISSING_SHARD: _PUBLISH,
    UnreadableReason.UNSUPPORTED_DTYPE: _CONVERT,
    UnreadableReason.UNSUPPORTED_TENSOR: _CONVERT,
    UnreadableReason.QUANTISED_WITHOUT_SCALE: _CONVERT,
    UnreadableReason.CHANGED_WHILE_READING: "It is still being written: publish under another name and rename it when it is whole.",
    UnreadableReason.IO_ERROR: "Look after the disk or the mount, then scan it again.",
    UnreadableReason.NO_CONVERGENCE: "Its numbers cannot be computed; see whether the layer holds NaN or infinities.",
    UnreadableReason.NO_DEVICE: "The device in scan.device is not there: set another, start the daemon again, and scan it again.",
    UnreadableReason.MEMORY_LIMIT: "Raise scan.memory_limit, start the daemon again, and scan it again.",
    UnreadableReason.TIMEOUT: "Raise scan.timeout, start the daemon again, and scan it again.",
    UnreadableReason.WORKER_DIED: "The scan process was ended, mostly for want of memory: give it more, then scan again.",
}  # fmt: skip

STORE: dict[StoreReason, str] = {
    StoreReason.BUSY: "Another process holds the write lock: look for a second layerwatch, or a backup of the same file.",
    StoreReason.DISK_FULL: "Free some space: the daemon goes on by itself.",
    StoreReason.READ_ONLY: "See that the daemon may write the file and its folder.",
    StoreReason.UNREACHABLE: "Bring the database server or the network back: the daemon goes on by itself.",
    StoreReason.DENIED: "Renew the password, or grant the rights, and start the daemon again.",
    StoreReason.DISPLACED: "Another daemon took the store over: this one ends.",
    StoreReason.CORRUPT: "Stop the daemon, and restore a backup or begin with an empty store.",
}
STORE_OTHERWISE = "The log of the daemon tells what happened."
ANY_SCAN = "The version's page tells what could not be examined. Mend that, then scan it again."


def about_scan(reason: str) -> str:
    """What to do about a version that could not be examined for a reason, as it was kept."""
    return SCAN[UnreadableReason(reason)] if reason in set(UnreadableReason) else ANY_SCAN

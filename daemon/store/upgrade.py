"""Bring a database up to date in a process of its own, which takes Alembic's memory with it when it ends.

Alembic and what it imports weigh about 10 MB, are needed once per upgrade, and would stay in a process that runs
for months.
"""

from __future__ import annotations

import json
import subprocess
import sys

from layerwatch.daemon.store.address import backend_of
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason

_REFUSED = 1


def upgrade_apart(url: str) -> None:
    """Upgrade the database at ``url``, for :meth:`Database.open`.

    Raises:
        StoreError: as :meth:`Database.open`; ``cannot_open`` too when the upgrading process was ended.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "layerwatch.daemon.store.upgrade"],
        input=url,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == _REFUSED and done.stdout:
        refusal = json.loads(done.stdout)
        raise StoreError(StoreReason(refusal["reason"]), refusal["detail"])
    if done.returncode != 0:
        last_words = "".join(f": {line}" for line in done.stderr.strip().splitlines()[-1:])
        raise StoreError(
            StoreReason.CANNOT_OPEN,
            f"{backend_of(url).place}: the upgrade of its schema ended with code {done.returncode}{last_words}; the "
            "database is as it was, start again",
        )


def main() -> int:
    """Upgrade the database whose address stands on the standard input; a refusal goes out as JSON."""
    try:
        Database.open(sys.stdin.read()).close()
    except StoreError as error:
        print(json.dumps({"reason": error.reason.value, "detail": error.detail}))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())

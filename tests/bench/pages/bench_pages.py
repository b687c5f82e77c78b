"""How long the server takes for the pages about many versions: medians over a store that ``generate.py`` made.

python tests/bench/pages/generate.py sqlite:////tmp/fleet.db
python tests/bench/pages/bench_pages.py sqlite:////tmp/fleet.db
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "_lib")]

import sqlalchemy as sa
from generate import END, name_of

from layerwatch.config.loading import load_settings
from layerwatch.config.settings import Settings
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.fleet import FleetOrder
from layerwatch.daemon.web.pages.fleet import PER_PAGE
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.daemons import write_config
from sites import Site

FLEET_TARGET, MODEL_TARGET = 0.3, 0.5
"""Seconds that the server may take at the median."""


def pages(database: Database) -> Iterator[tuple[str, str, float]]:
    """(what, address, target) of every page that is timed."""
    with database.read() as connection:
        models = connection.execute(
            sa.select(sa.func.count()).select_from(tables.model_summaries)
        ).scalar_one()
    last = -(-models // PER_PAGE)
    fleet: dict[str, dict[str, str]] = {"first page": {}, "last page": {"page": str(last)}}
    fleet |= {f"verdict {one}": {"verdict": one.value} for one in Verdict}
    fleet |= {"search, many found": {"q": "model"}, "search, one found": {"q": name_of(models - 1)[1]}}
    fleet |= {
        "search, none found": {"q": "nothing is called that"},
        "one registry": {"registry": name_of(0)[0]},
    }
    fleet |= {"search among failures": {"q": "fraud", "verdict": "fail"}}
    fleet |= {f"by {one}, last page": {"sort": one.value, "page": str(last)} for one in FleetOrder}
    for what, asked in fleet.items():
        yield f"fleet, {what}", f"/?{urlencode(asked)}", FLEET_TARGET
    registry, model = name_of(models // 2)
    for heat in ("alpha", "relative_change", "status"):
        asked = {"registry": registry, "model": model, "heat": heat}
        yield f"model, {heat}", f"/model?{urlencode(asked)}", MODEL_TARGET
    sides = {"a_registry": registry, "a_model": model, "a_version": "v50"}
    sides |= {"b_registry": registry, "b_model": model, "b_version": "v1"}
    yield "compare", f"/compare?{urlencode(sides)}", MODEL_TARGET
    yield "compare, a part of a name", f"/compare?{urlencode({'a_model': 'fraud'})}", MODEL_TARGET


def _settings(folder: Path) -> Settings:
    return load_settings(write_config(folder / "layerwatch.yaml"), {})


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of a database that generate.py filled")
    parser.add_argument("--times", type=int, default=15, help="how often each page is asked for")
    arguments = parser.parse_args()
    database = Database.open(arguments.url)
    missed = 0
    with TemporaryDirectory() as folder, Site(database, _settings(Path(folder))) as site:
        site.now = END
        for what, address, target in pages(database):
            taken = []
            for _ in range(arguments.times + 1):
                began = time.perf_counter()
                answer = site.get(address)
                taken.append(time.perf_counter() - began)
                if answer.status_code not in (200, 404):
                    parser.error(f"{address}: {answer.status_code}")
            # The first one reads templates.
            median = statistics.median(taken[1:])
            missed += median > target
            print(
                f"{what:34} {1e3 * median:6.0f} ms  worst {1e3 * max(taken[1:]):6.0f} ms  target {1e3 * target:.0f} ms  "
                f"{len(answer.content) / 1e3:6.0f} kB{'' if median <= target else '  MISSED'}"
            )
    database.close()
    print("all targets met" if not missed else f"{missed} targets missed")


if __name__ == "__main__":
    main()

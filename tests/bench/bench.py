"""Timings and memory as ratios within one run: ``make bench``. Nothing here passes or fails.

One table on standard output, everything behind it in a JSON file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "_lib")]

from layerwatch_bench.drain import drain
from layerwatch_bench.exposition import exposition
from layerwatch_bench.gating import gating
from layerwatch_bench.growth import growth
from layerwatch_bench.limit import limit
from layerwatch_bench.machine import facts, load_average
from layerwatch_bench.memory import memory
from layerwatch_bench.opening import opening
from layerwatch_bench.plan import Plan
from layerwatch_bench.reference import NoReferenceError
from layerwatch_bench.registries import registries
from layerwatch_bench.rescan import rescan
from layerwatch_bench.side_by_side import side_by_side
from layerwatch_bench.table import Row, as_table

PARTS: Mapping[str, tuple[str, Callable[[Plan], Iterator[Row]]]] = {
    "a": ("side by side with weightwatcher", side_by_side),
    "b": ("distance from the limit", limit),
    "c": ("peak memory", memory),
    "d": ("growth", growth),
    "e": ("re-scan", rescan),
    "f": ("looks at registries", registries),
    "g": ("scrapes of many series", exposition),
    "h": ("the gate", gating),
    "i": ("telling many alerts", drain),
    "j": ("listing a large model", opening),
}


def main() -> None:
    """Entry point."""
    arguments = _arguments()
    began = datetime.now(UTC)
    machine = facts()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="layerwatch-bench-", dir=arguments.work) as folder:
        plan = Plan(Path(folder), arguments.reference.absolute(), arguments.quick)
        for letter in arguments.only:
            for row in _rows(letter, plan):
                rows.append(row)
                _write(arguments.json, began, machine, rows, arguments.quick)
    print(as_table(rows))
    if arguments.quick:
        print("a quick run: its sizes are not those that the targets are about")
    print(f"everything behind the table: {arguments.json}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", type=_letters, default=list(PARTS), metavar="a,b,...", help="these parts; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does everything run?")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="file for the numbers")
    parser.add_argument(
        "--work", type=Path, default=None, help="folder for weight files (5 GB); default: TMPDIR"
    )
    parser.add_argument(
        "--reference", type=Path, default=ROOT / ".venv-bench", help="weightwatcher's environment"
    )
    return parser.parse_args()


def _letters(text: str) -> list[str]:
    letters = [letter.strip() for letter in text.split(",")]
    unknown = [letter for letter in letters if letter not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return letters


def _rows(letter: str, plan: Plan) -> Iterator[Row]:
    title, part = PARTS[letter]
    began = time.monotonic()
    print(f"{letter}: {title} (load {load_average():.2f})", file=sys.stderr)
    try:
        for row in part(plan):
            row.figures["load_average"] = round(load_average(), 2)
            print(f"  {row.case}: {row.seen}: {row.result}", file=sys.stderr)
            yield row
    except NoReferenceError as error:
        print(error, file=sys.stderr)
        yield Row(letter, title, "not measured", "weightwatcher is not installed")
    print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr)


def _write(path: Path, began: datetime, machine: Mapping[str, object], rows: list[Row], quick: bool) -> None:
    document = {
        "began": began.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": dict(machine),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

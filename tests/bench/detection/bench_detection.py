"""How well broken layers are told from healthy changes: ``make bench-detection``. Nothing here passes or fails.

Trains networks, changes them in healthy and in harmful ways, and judges every version as the product does. What is
slow is kept in a folder: a second run trains nothing, and measures only when the code that measures has changed.
Per version there is a line of JSON in ``outcomes-NETWORK.jsonl`` there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "bench"), str(ROOT / "tests" / "_lib")]

from layerwatch_bench.machine import facts

from layerwatch_detection.chain import NETWORKS, Network
from layerwatch_detection.outcomes import Outcome
from layerwatch_detection.realnetworks import real_networks
from layerwatch_detection.reporting import Table, tables
from layerwatch_detection.running import Run, outcomes_of
from layerwatch_detection.versions import FULL, QUICK
from layerwatch_detection.warnings_of_weightwatcher import weightwatcher_table

_QUICK = ("mlp_s0", "resnet_s0", "mlp_s7", "cnn_bn_s7")


def main() -> None:
    """Entry point."""
    arguments = _arguments()
    began, clock = datetime.now(UTC), time.monotonic()
    machine = facts()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    chosen = [one for one in (*NETWORKS, *real_networks()) if one.name in arguments.only]
    print(_parts(chosen))
    run = Run(
        arguments.cache,
        QUICK if arguments.quick else FULL,
        effort=1.0,
        rejudge=arguments.rejudge,
    )
    outcomes = [one for many in outcomes_of(chosen, run, arguments.jobs) for one in many]
    outcomes.sort(key=lambda one: (one.held_out, one.network, one.key))
    shown = tables(outcomes)
    python = arguments.reference.absolute() / "bin" / "python"
    if arguments.weightwatcher and python.exists():
        shown.append(weightwatcher_table(outcomes, run, python, arguments.jobs))
    for table in shown:
        print(table.text)
    print(
        f"{len(outcomes)} versions, {time.monotonic() - clock:.0f} s; each: {arguments.cache}/outcomes-*.jsonl"
    )
    _write(arguments.json, began, machine, outcomes, shown, arguments.quick)


def _arguments() -> argparse.Namespace:
    names = [network.name for network in (*NETWORKS, *real_networks())]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        type=_networks,
        default=None,
        metavar="NETWORK,...",
        help=f"these networks; all by default: {', '.join(names)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few small networks and fewer versions of each"
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".bench-detection", help="folder for what is slow"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument(
        "--rejudge",
        action="store_true",
        help="judge what was measured by an earlier run, even if the code that measures has changed since",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        default=ROOT / ".venv-bench",
        help="weightwatcher's environment, where there is one",
    )
    parser.add_argument(
        "--no-weightwatcher", dest="weightwatcher", action="store_false", help="leave weightwatcher out"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("bench-detection.json"), help="file for the numbers"
    )
    arguments = parser.parse_args()
    arguments.only = arguments.only or (_QUICK if arguments.quick else names)
    return arguments


def _networks(text: str) -> list[str]:
    known = [network.name for network in (*NETWORKS, *real_networks())]
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no such network: {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return names


def _parts(networks: Sequence[Network]) -> str:
    tuning = [network.name for network in networks if not network.held_out]
    held_out = [network.name for network in networks if network.held_out]
    return (
        f"tuning (thresholds may be chosen on these): {', '.join(tuning) or 'none'}\n"
        f"hold-out (no number was chosen on these): {', '.join(held_out) or 'none'}"
    )


def _write(
    path: Path,
    began: datetime,
    machine: dict[str, str | int | float],
    outcomes: Sequence[Outcome],
    shown: Sequence[Table],
    quick: bool,
) -> None:
    document = {
        "began": began.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine,
        "versions": len(outcomes),
        "tables": [asdict(table) for table in shown],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Analyse a safetensors file with weightwatcher: ``python run_weightwatcher.py FILE [--all] [--warm]``.

Runs in weightwatcher's environment, where layerwatch is not installed. Prints JSON: the seconds that ``analyze``
took on the tensors in memory, and per layer what can be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from importlib import import_module
from typing import Any

ALL = {"randomize": True, "mp_fit": True, "ERG": True}
"""What ``--all`` adds to the default metrics: correlation traps, Marchenko-Pastur fit, trace-log (detX)."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--all", action="store_true", help="with the randomised, MP and ERG metrics")
    parser.add_argument("--warm", action="store_true", help="analyse a small matrix first")
    arguments = parser.parse_args()
    options = ALL if arguments.all else {}
    with contextlib.redirect_stdout(sys.stderr):
        weightwatcher = import_module("weightwatcher")
        # It sets the root logger to INFO and tells every step.
        logging.disable(logging.WARNING)
        state = import_module("safetensors.torch").load_file(arguments.file)
        if arguments.warm:
            torch = import_module("torch")
            small = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
            weightwatcher.WeightWatcher(model={"small.weight": small}).analyze(**options)
        watcher = weightwatcher.WeightWatcher(model=state)
        began = time.perf_counter()
        details = watcher.analyze(**options)
        taken = time.perf_counter() - began
    print(json.dumps({"seconds": taken, "layers": _layers(details)}))


def _layers(details: Any) -> dict[str, dict[str, float]]:
    return {
        row.longname: {
            "alpha": float(row.alpha),
            "ks_distance": float(row.D),
            "num_eigenvalues": int(row.num_evals),
        }
        for row in details.itertuples()
    }


if __name__ == "__main__":
    main()

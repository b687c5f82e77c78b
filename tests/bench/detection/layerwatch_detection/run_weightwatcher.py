"""Alpha of every layer of many files with weightwatcher: ``python run_weightwatcher.py FILE...``.

Runs in weightwatcher's environment, where layerwatch is not installed. Prints JSON: file -> layer -> alpha.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Entry point."""
    with contextlib.redirect_stdout(sys.stderr):
        weightwatcher = import_module("weightwatcher")
        # It sets the root logger to INFO and tells every step.
        logging.disable(logging.WARNING)
        load_file = import_module("safetensors.torch").load_file
        alphas = {file: _alphas(weightwatcher, load_file(file)) for file in sys.argv[1:]}
    print(json.dumps(alphas))


def _alphas(weightwatcher: Any, state: dict[str, Any]) -> dict[str, float]:
    details = weightwatcher.WeightWatcher(model=state).analyze()
    alphas = {row.longname: float(row.alpha) for row in details.itertuples()}
    return {name: alpha for name, alpha in alphas.items() if math.isfinite(alpha)}


if __name__ == "__main__":
    main()

"""What weightwatcher says about a sample of the versions: a layer's alpha below 2 or above 6 is its warning.

It runs in an environment of its own, ``make bench`` makes it; where there is none, there is no table.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from layerwatch.daemon.demo.compression import dequantise
from layerwatch_detection.chain import NETWORKS, Network, chain_of
from layerwatch_detection.outcomes import Outcome
from layerwatch_detection.reporting import NAIVE, Table, critical, drifted
from layerwatch_detection.running import Run
from layerwatch_detection.shares import share_of
from layerwatch_detection.states import State
from layerwatch_detection.versions import Regime, versions_of
from layerwatch_testing.models import write_safetensors

LEAST, MOST = 2.0, 6.0
"""Outside of these weightwatcher calls a layer over- or under-trained."""

_OF_EACH = 3
"""Versions of each network, regime and label in the sample."""

_HERE = Path(__file__).resolve().parent
_TIMEOUT = 900


@dataclass(frozen=True, slots=True)
class _Warned:
    outcome: Outcome
    any_layer: bool
    new_layer: bool


def weightwatcher_table(outcomes: Sequence[Outcome], run: Run, python: Path, jobs: int) -> Table:
    """Both tools, and the naive rule, on the same versions."""
    sample = list(_sample(outcomes))
    chosen = [network for network in NETWORKS if any(one.network == network.name for one in sample)]

    def of_network(network: Network) -> list[_Warned]:
        return _warned(network, [one for one in sample if one.network == network.name], run, python)

    with ThreadPoolExecutor(jobs) as pool:
        warned = [one for many in pool.map(of_network, chosen) for one in many]
    return _table(warned)


def _sample(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Evenly spread over each network's versions."""
    for network in dict.fromkeys(one.network for one in outcomes):
        for regime in (Regime.ALIGNED, Regime.NEW_SEED):
            members = [one for one in outcomes if one.network == network and one.regime == regime]
            healthy = [one for one in members if one.is_healthy]
            broken = [one for one in members if one.is_broken and one.is_single]
            for part in (healthy, broken):
                places = np.linspace(0, len(part) - 1, min(_OF_EACH, len(part))).astype(int).tolist()
                yield from (part[place] for place in places)


def _warned(network: Network, sample: Sequence[Outcome], run: Run, python: Path) -> list[_Warned]:
    chain = chain_of(network, run.cache, run.effort)
    versions = {version.key: version for version in versions_of(network, chain, run.extent)}
    with TemporaryDirectory(prefix="layerwatch-weightwatcher-") as folder:
        files = [_written(Path(folder) / "baseline.safetensors", chain.baseline)]
        for number, one in enumerate(sample):
            files.append(_written(Path(folder) / f"{number}.safetensors", versions[one.key].state()))
        baseline, *others = _warnings(python, files)
    return [
        _Warned(one, bool(warnings), bool(warnings - baseline))
        for one, warnings in zip(sample, others, strict=True)
    ]


def _written(path: Path, state: State) -> Path:
    floats = {name: np.asarray(values, dtype=np.float32) for name, values in dequantise(state).items()}
    return write_safetensors(path, floats)


def _warnings(python: Path, files: Sequence[Path]) -> list[set[str]]:
    command = [str(python), str(_HERE / "run_weightwatcher.py"), *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
    alphas: Mapping[str, Mapping[str, float]] = json.loads(ended.stdout)
    return [
        {name for name, alpha in alphas[str(file)].items() if not LEAST <= alpha <= MOST} for file in files
    ]


def _table(warned: Iterable[_Warned]) -> Table:
    rules: Mapping[str, Callable[[_Warned], bool]] = {
        "layerwatch, critical": lambda one: critical(one.outcome),
        "weightwatcher, any layer outside 2..6": lambda one: one.any_layer,
        "weightwatcher, a layer that was inside before": lambda one: one.new_layer,
        **{f"norm moved by > {limit:.0%}": _naive(limit) for limit in NAIVE},
    }
    listed = list(warned)
    rows = []
    for name, rule in rules.items():
        cells = [name]
        for regime in (Regime.ALIGNED, Regime.NEW_SEED):
            members = [one for one in listed if one.outcome.regime == regime]
            broken = [one for one in members if one.outcome.is_broken]
            healthy = [one for one in members if one.outcome.is_healthy]
            cells += [share_of(broken, rule).text, share_of(healthy, rule).text]
        rows.append(tuple(cells))
    headings = ("rule", "aligned: recall", "false alarms", "new seed: recall", "false alarms ")
    return Table(f"Beside weightwatcher, a sample of {len(listed)} versions", headings, tuple(rows))


def _naive(limit: float) -> Callable[[_Warned], bool]:
    rule = drifted(limit)
    return lambda one: rule(one.outcome)

"""Part a: layerwatch and weightwatcher on the same files, in turn, each in a process of its own with all cores.

A round is layerwatch, weightwatcher, layerwatch, so that a slow moment of the machine hits both; its ratio is
weightwatcher's time over the mean of the two, and the result is the median over rounds. layerwatch takes all of its
metrics every time, also where weightwatcher takes only its default ones.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwatch_bench import weights
from layerwatch_bench.machine import CORES
from layerwatch_bench.plan import Plan
from layerwatch_bench.reference import reference_python
from layerwatch_bench.table import Row

HERE = Path(__file__).resolve().parent

CLOSE = 1e-3
"""Alphas that differ by less are the same; so are those of which the KS distances do, where xmin jumped."""

SMALL_FIT = 20
"""Below this many eigenvalues weightwatcher 0.7.7 fits by another rule, and its alpha is not compared."""

Layers = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one tool.

    Attributes:
        seconds: what is compared.
        layers: alpha, ks_distance and num_eigenvalues by layer name.
    """

    seconds: float
    layers: Layers


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes:
        name: for the table.
        file: the weights.
        every_metric: whether weightwatcher takes its randomised, MP and ERG metrics too.
        whole: whole processes, imports and child start included; otherwise the analysis alone.
        rounds: how often.
        target: least ratio.
    """

    name: str
    file: Path
    every_metric: bool
    whole: bool
    rounds: int
    target: float


def side_by_side(plan: Plan) -> Iterator[Row]:
    """One row per case; raises NoReferenceError where weightwatcher cannot be installed."""
    python = reference_python(plan.reference)
    folder = plan.folder
    # Both tools once, unmeasured: byte code, matplotlib's list of fonts and the libraries' pages are then there.
    small = weights.write(folder / "small.safetensors", weights.heavy_tailed([(64, 64)], seed=0))
    _weightwatcher(python, small, every_metric=True, whole=True, folder=folder)
    _layerwatch(small, whole=True, folder=folder)
    for case in _cases(plan):
        yield _compared(case, python, plan)


def _cases(plan: Plan) -> Iterator[Case]:
    side, width = (512, 256) if plan.quick else (4096, 1024)
    rounds = 1 if plan.quick else 2
    four = weights.heavy_tailed([(side, side)] * 4, seed=1)
    two_file = weights.write(plan.folder / "two.safetensors", dict(list(four.items())[:2]))
    four_file = weights.write(plan.folder / "four.safetensors", four)
    del four
    lengths = [width, width, width * 3 // 2, width * 2] * 3
    twelve = weights.heavy_tailed([(length, width) for length in lengths], seed=2)
    twelve_file = weights.write(plan.folder / "twelve.safetensors", twelve)
    resnet, origin = weights.resnet20()
    resnet_file = weights.write(plan.folder / "resnet20.safetensors", resnet)
    square, block = f"{side}x{side}", f"{width}..{2 * width}x{width}"
    yield Case(f"two layers {square}, its default metrics", two_file, False, False, rounds, 10)
    yield Case(f"twelve layers {block}, all metrics", twelve_file, True, False, rounds, 20)
    yield Case(f"ResNet-20 ({origin}), all metrics", resnet_file, True, False, rounds, 40)
    yield Case(f"whole process: four layers {square}, default", four_file, False, True, 1, 8)
    yield Case(f"whole process: twelve layers {block}, all", twelve_file, True, True, 1, 10)


def _compared(case: Case, python: Path, plan: Plan) -> Row:
    ours: list[Outcome] = []
    theirs: list[Outcome] = []
    ratios: list[float] = []
    for _ in range(case.rounds):
        before = _layerwatch(case.file, case.whole, plan.folder)
        reference = _weightwatcher(python, case.file, case.every_metric, case.whole, plan.folder)
        after = _layerwatch(case.file, case.whole, plan.folder)
        ours += [before, after]
        theirs.append(reference)
        ratios.append(reference.seconds / statistics.mean([before.seconds, after.seconds]))
    ratio = statistics.median(ratios)
    agreement = agreement_of(ours[-1].layers, theirs[-1].layers)
    mine = statistics.median(outcome.seconds for outcome in ours)
    other = statistics.median(outcome.seconds for outcome in theirs)
    # Speed on different numbers means nothing.
    result = f"{ratio:.1f}x" if agreement.same else f"void: {agreement.told}"
    return Row(
        part="a",
        case=case.name,
        seen=f"layerwatch {mine:.2f} s, weightwatcher {other:.2f} s; {agreement.told}",
        result=result,
        target=f">= {case.target:g}x",
        met=plan.judged(agreement.same and ratio >= case.target),
        figures={
            "ratio": ratio,
            "ratios": ratios,
            "layerwatch_seconds": [outcome.seconds for outcome in ours],
            "weightwatcher_seconds": [outcome.seconds for outcome in theirs],
            "largest_alpha_difference": agreement.largest,
            "alphas_that_differ": agreement.differing,
            "layers_not_compared": agreement.not_compared,
        },
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the alphas of two tools compare.

    Attributes:
        same: all compared layers agree, and there are some.
        largest: largest difference of alpha.
        differing: (alpha, alpha, KS distance, KS distance) of layers further apart than :data:`CLOSE`, by name.
        not_compared: layers with fewer than :data:`SMALL_FIT` eigenvalues, or without a fit in both tools.
        told: all of it in a few words.
    """

    same: bool
    largest: float
    differing: dict[str, tuple[float, float, float, float]]
    not_compared: list[str]
    told: str


def agreement_of(ours: Layers, theirs: Layers) -> Agreement:
    """Compare layer by layer; different sets of layers never agree."""
    if ours.keys() != theirs.keys():
        only = sorted(ours.keys() ^ theirs.keys())
        return Agreement(False, math.nan, {}, only, f"only one tool has {', '.join(only[:3])}")
    largest = 0.0
    differing: dict[str, tuple[float, float, float, float]] = {}
    not_compared: list[str] = []
    for name, mine in ours.items():
        other = theirs[name]
        pairs = (mine["alpha"], other["alpha"], mine["ks_distance"], other["ks_distance"])
        numbers = tuple(number for number in pairs if number is not None)
        if (mine["num_eigenvalues"] or 0) < SMALL_FIT or len(numbers) < len(pairs):
            not_compared.append(name)
            continue
        alpha, other_alpha, distance, other_distance = numbers
        largest = max(largest, abs(alpha - other_alpha))
        if not abs(alpha - other_alpha) < CLOSE:
            differing[name] = (alpha, other_alpha, distance, other_distance)
    jumped = [name for name, (_, _, mine, other) in differing.items() if abs(mine - other) < CLOSE]
    compared = len(ours) - len(not_compared)
    same = compared > 0 and len(jumped) == len(differing)
    told = f"{compared} alphas differ by at most {largest:.1e}"
    if differing:
        told += f" ({len(jumped)} with another xmin of equal distance, {len(differing) - len(jumped)} really)"
    return Agreement(same, largest, differing, not_compared, told)


def _weightwatcher(python: Path, file: Path, every_metric: bool, whole: bool, folder: Path) -> Outcome:
    command = [str(python), str(HERE / "run_weightwatcher.py"), str(file)]
    command += ["--all"] * every_metric + ["--warm"] * (not whole)
    answer, taken = _run(command, folder, {})
    return Outcome(taken if whole else answer["seconds"], answer["layers"])


def _layerwatch(file: Path, whole: bool, folder: Path) -> Outcome:
    if not whole:
        command = [sys.executable, str(HERE / "run_layerwatch.py"), str(file), "--warm"]
        answer, _ = _run(command, folder, {"PYTHONPATH": os.pathsep.join(sys.path)})
        return Outcome(answer["seconds"], answer["layers"])
    command = [str(Path(sys.executable).with_name("layerwatch")), "scan", str(file), "--format", "json"]
    # On a machine that does nothing else niceness changes nothing; on a busy one both tools are to suffer alike.
    environment = {"LAYERWATCH_SCAN__NICENESS": "0"}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    answer, taken = _run(command, folder, environment)
    return Outcome(taken, {layer["name"]: layer["metrics"] for layer in answer["layers"]})


def _run(command: list[str], folder: Path, extra: Mapping[str, str]) -> tuple[Any, float]:
    """What a command prints as JSON, and the seconds that it took."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment |= {
        name: str(CORES) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    environment |= {"LANG": "C.UTF-8", "MPLBACKEND": "Agg", "PYTHONSAFEPATH": "1", **extra}
    began = time.perf_counter()
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    taken = time.perf_counter() - began
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return json.loads(ended.stdout), taken

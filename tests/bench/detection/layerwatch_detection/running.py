"""Every network through every step: trained, changed, measured, judged; what is slow is kept in a folder.

Kept files are this benchmark's own: they are read back with pickle, and never to be taken from anyone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

import layerwatch
from layerwatch.config.rules import RulesSettings
from layerwatch_detection import defects, healthy, judging, versions
from layerwatch_detection.architectures import ARCHITECTURES
from layerwatch_detection.chain import Chain, Network, chain_file, chain_of
from layerwatch_detection.judging import Baseline, Examined
from layerwatch_detection.outcomes import Label, Outcome, label_of, outcome_of, write
from layerwatch_detection.realnetworks import REAL_NETWORKS
from layerwatch_detection.states import State
from layerwatch_detection.training import Examiner, Quality
from layerwatch_detection.versions import Extent, Version, versions_of, versions_of_real


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be done.

    Attributes:
        cache: folder for trained networks, examinations and outcomes.
        extent: how many versions.
        effort: factor on the steps of every training.
        rejudge: take kept examinations even where the code that measures has changed since, as long as they still
            fit what the rules are given.
    """

    cache: Path
    extent: Extent
    effort: float
    rejudge: bool


def outcomes_of(networks: Sequence[Network], run: Run, jobs: int) -> Iterator[list[Outcome]]:
    """Each network's outcomes as they are done, in no particular order."""
    run.cache.mkdir(parents=True, exist_ok=True)
    work = [(network, run) for network in networks]
    if jobs == 1:
        yield from map(_network, work)
        return
    # A child reads this when it starts; more threads than cores make everything slower.
    os.environ["OMP_NUM_THREADS"] = "1"
    with get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(_network, work)


def _network(work: tuple[Network, Run]) -> list[Outcome]:
    network, run = work
    torch.set_num_threads(1)
    began = time.monotonic()
    listed, labelled, examinations = _examined(network, run)
    measured = time.monotonic()
    rules = RulesSettings()
    outcomes = [
        outcome_of(network, version, examined, quality, label, rules)
        for version, (quality, label), examined in zip(listed, labelled, examinations, strict=True)
    ]
    write(run.cache / f"outcomes-{network.name}.jsonl", outcomes)
    print(
        f"  {network.name}: {len(outcomes)} versions in {measured - began:.0f} s, "
        f"judged in {time.monotonic() - measured:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return outcomes


Labelled = tuple[Quality, Label]


_Everything = tuple[Sequence[Version], Sequence[Labelled], Sequence[Examined]]


def _examined(network: Network, run: Run) -> _Everything:
    real = network.architecture in REAL_NETWORKS
    file = run.cache / f"examined-{network.name}-{run.extent.key}-{run.effort:g}.pickle"
    key, layout = _key(network, run), _layout()
    if file.exists():
        with file.open("rb") as opened:
            kept_key, kept_layout = pickle.load(opened)  # noqa: S301 - written by this benchmark
            if kept_layout == layout and (kept_key == key or run.rejudge):
                return pickle.load(opened)  # type: ignore[no-any-return]  # noqa: S301
    listed, labelled, examined = _measured_real(network, run) if real else _measured(network, run)
    kept = ([version.without_state() for version in listed], labelled, examined)
    with file.with_suffix(".part").open("wb") as opened:
        pickle.dump((key, layout), opened)
        pickle.dump(kept, opened)
    file.with_suffix(".part").rename(file)
    return kept


def _measured(network: Network, run: Run) -> _Everything:
    chain = chain_of(network, run.cache, run.effort)
    architecture = ARCHITECTURES[network.architecture]
    examiner = Examiner(architecture)
    expected = examiner.quality(chain.baseline)

    def label(state: State, version: Version) -> Labelled:
        quality = examiner.quality(state)
        return quality, label_of(quality, expected, architecture.is_language_model)

    return _beside_the_baseline(chain, versions_of(network, chain, run.extent), label)


def _measured_real(network: Network, run: Run) -> _Everything:
    """Nobody tests these here: what was meant is the label."""
    chain = REAL_NETWORKS[network.architecture].chain

    def label(state: State, version: Version) -> Labelled:
        return Quality(math.nan, math.nan), Label.BROKEN if version.meant_broken else Label.HEALTHY

    return _beside_the_baseline(chain, versions_of_real(network, chain, run.extent), label)


def _beside_the_baseline(
    chain: Chain, listed: Sequence[Version], label: Callable[[State, Version], Labelled]
) -> _Everything:
    baseline = Baseline(chain.baseline, chain.history)
    for state in (*chain.finetunes.values(), *chain.other_seeds.values()):
        baseline.keep(state)
    labelled: list[Labelled] = []
    examined: list[Examined] = []
    for version in listed:
        state = version.state()
        labelled.append(label(state, version))
        examined.append(baseline.examined(state, version.relation, version.merge))
    return listed, labelled, examined


def _key(network: Network, run: Run) -> str:
    """Changes with the trained network, with what is done to it, and with the code that measures."""
    measuring = Path(layerwatch.__file__).parent / "metrics"
    rules = measuring / "rules"
    files = [Path(str(one.__file__)) for one in (defects, healthy, judging, versions)]
    files += [file for file in sorted(measuring.rglob("*.py")) if rules not in file.parents]
    state = hashlib.sha256(chain_file(network, run.cache, run.effort).name.encode())
    for file in files:
        state.update(b"\0" + file.read_bytes())
    return state.hexdigest()


def _layout() -> str:
    """Changes with the fields of anything that is kept: pickle would put old values into the wrong new fields."""
    fields = sorted(
        f"{name}.{kind.__name__}: {', '.join(field.name for field in dataclasses.fields(kind))}"
        for name, module in [(name, module) for name, module in sys.modules.items() if _is_kept(name)]
        for kind in vars(module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    )
    return hashlib.sha256("\n".join(fields).encode()).hexdigest()


def _is_kept(module: str) -> bool:
    """Modules with classes that are kept; all of them are imported with this one, in every process."""
    return module.startswith("layerwatch.metrics.") or module in {versions.__name__, judging.__name__}

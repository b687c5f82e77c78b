"""Fuzz the readers: python tests/fuzz/run.py [--target NAME] [--executions N] [--seconds S] [--seed N] [--engine E].

Each target runs in a process of its own, so that its memory is its own. With atheris (``pip install atheris==3.0.0``)
inputs are guided by coverage of ``layerwatch.metrics.readers``; without it, or with ``--engine random``, they are
seeded random mutations of valid files. Exit status 1 when an input crashes a reader, takes more than 2 s or more than
256 MiB; such inputs are kept in ``--keep``, and are examined again by giving their paths to ``--replay`` together
with ``--target``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".src"), str(ROOT / "tests" / "_lib")]

MOST_FAILURES = 20

_LONGEST_SECONDS = 120
"""Most seconds that the last input of a campaign may take beyond the time of the campaign."""

_MOST_MEMORY = 4 * 2**30
"""Resident bytes at which a campaign is ended from outside: a library in C may not come back to be measured."""


def main() -> int:
    """Run the campaigns that the command line asks for; the exit status."""
    arguments = _arguments()
    if arguments.worker:
        return _work(arguments)
    from layerwatch_testing.fuzzing import named_targets

    try:
        targets = named_targets(arguments.target)
    except KeyError as error:
        print(f"there is no target {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory_folder()) as scratch:
        corpus = Path(scratch) / "corpus"
        _write_corpus(corpus)
        failed = False
        print(
            f"{'target':14}{'executions':>11}{'per s':>8}{'slowest':>10}{'memory':>10}  outcomes", flush=True
        )
        for target in targets:
            failed |= not _campaign(arguments, target.name, corpus, Path(scratch))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", action="append", default=[], help="a parser; all of them by default")
    parser.add_argument("--executions", type=int, default=20_000, help="inputs per target (20 000)")
    parser.add_argument("--seconds", type=float, default=600.0, help="most seconds per target (600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail"
    )
    parser.add_argument("--replay", type=Path, nargs="*", default=[], help="examine these inputs only")
    parser.add_argument("--worker", nargs=2, metavar=("CORPUS", "SCRATCH"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _memory_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _write_corpus(corpus: Path) -> None:
    # In a process of its own: the libraries that write the files are large.
    code = "import sys, pathlib; from layerwatch_testing.fuzzseeds import write_corpus; "
    code += "write_corpus(pathlib.Path(sys.argv[1]))"
    path = os.pathsep.join(sys.path[:2])
    subprocess.run(
        [sys.executable, "-c", code, str(corpus)], check=True, env={**os.environ, "PYTHONPATH": path}
    )


def _campaign(arguments: argparse.Namespace, target: str, corpus: Path, scratch: Path) -> bool:
    """Run one target in a process of its own and print its line; whether nothing failed."""
    options = ["--executions", str(arguments.executions), "--seconds", str(arguments.seconds)]
    options += ["--seed", str(arguments.seed), "--engine", arguments.engine, "--keep", str(arguments.keep)]
    if arguments.replay:
        options += ["--replay", *map(str, arguments.replay)]
    folder = scratch / target
    folder.mkdir()
    beside = corpus / "beside" / target
    if beside.is_dir():
        shutil.copytree(beside, folder, dirs_exist_ok=True)
    report = scratch / f"{target}.json"
    command = [sys.executable, __file__, "--target", target, *options, "--worker", str(corpus), str(folder)]
    log = scratch / f"{target}.log"
    with log.open("wb") as output:
        ended = _watched(subprocess.Popen(command, stdout=output, stderr=output), arguments.seconds)
    if ended or not report.exists():
        arguments.keep.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            shutil.copy(path, arguments.keep / f"{target}-last-{path.name}")
        what = ended or "ended without a report"
        print(f"{target:14} {what}; its last input is kept in {arguments.keep}; its last words:", flush=True)
        print(log.read_text(errors="replace")[-3000:], flush=True)
        return False
    told = json.loads(report.read_text())
    outcomes = ", ".join(f"{name} {count}" for name, count in told["outcomes"].items())
    print(
        f"{target:14}{told['executions']:11}{told['executions'] / max(told['seconds'], 1e-9):8.0f}"
        f"{told['slowest']:8.3f} s{told['peak'] / 2**20:6.0f} MiB  {outcomes}",
        flush=True,
    )
    for failure in told["failures"]:
        print(f"    {failure}", flush=True)
    return not told["failures"]


def _watched(worker: subprocess.Popen[bytes], seconds: float) -> str | None:
    """Wait for a campaign; what it was ended for, or None where it ended by itself.

    Python code is interrupted by the campaign itself; a library in C is not.
    """
    deadline = time.monotonic() + seconds + _LONGEST_SECONDS
    while True:
        try:
            worker.wait(0.1)
            return None
        except subprocess.TimeoutExpired:
            late = time.monotonic() > deadline
            if late or _resident(worker.pid) > _MOST_MEMORY:
                worker.kill()
                worker.wait()
                return "hangs outside of Python" if late else f"takes more than {_MOST_MEMORY >> 30} GiB"


def _resident(process: int) -> int:
    """Resident bytes; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _work(arguments: argparse.Namespace) -> int:
    corpus, folder = map(Path, arguments.worker)
    has_atheris = importlib.util.find_spec("atheris") is not None
    if arguments.engine == "atheris" and not has_atheris:
        print("atheris is not installed: pip install atheris==3.0.0", file=sys.stderr)
        return 2
    if has_atheris and arguments.engine != "random" and not arguments.replay:
        _guided(arguments, corpus, folder)
    return _random(arguments, corpus, folder)


def _random(arguments: argparse.Namespace, corpus: Path, folder: Path) -> int:
    from layerwatch_testing.fuzzing import Campaign, Mutator, named_targets, valid_inputs

    (target,) = named_targets(arguments.target)
    campaign = Campaign(target, folder)
    inputs = Mutator(valid_inputs(corpus, target), arguments.seed).inputs()
    if arguments.replay:
        inputs = iter([path.read_bytes() for path in arguments.replay])
    began = time.monotonic()
    for content in inputs:
        campaign.run(content)
        enough = campaign.result.executions >= arguments.executions
        late = time.monotonic() - began > arguments.seconds
        if enough or late or len(campaign.result.failures) >= MOST_FAILURES:
            break
    _report(arguments, folder, campaign, time.monotonic() - began)
    return 0


def _guided(arguments: argparse.Namespace, corpus: Path, folder: Path) -> NoReturn:
    import atheris

    with atheris.instrument_imports(include=["layerwatch.metrics.readers"]):
        from layerwatch_testing.fuzzing import Campaign, named_targets, valid_inputs
    (target,) = named_targets(arguments.target)
    campaign = Campaign(target, folder)
    for content in valid_inputs(corpus, target):
        campaign.run(content)
    began = time.monotonic()

    def test_one(content: bytes) -> None:
        campaign.run(content)
        enough = campaign.result.executions >= arguments.executions
        late = time.monotonic() - began > arguments.seconds
        if enough or late or len(campaign.result.failures) >= MOST_FAILURES:
            _report(arguments, folder, campaign, time.monotonic() - began)
            # libFuzzer has no other way back.
            os._exit(0)

    options = ["-timeout=60", "-rss_limit_mb=4096", f"-seed={arguments.seed + 1}", "-max_len=65536"]
    atheris.Setup([sys.argv[0], str(corpus / target.name), *options], test_one)
    atheris.Fuzz()
    raise AssertionError("libFuzzer came back")


def _report(arguments: argparse.Namespace, folder: Path, campaign: object, seconds: float) -> None:
    from layerwatch_testing.fuzzing import Campaign

    assert isinstance(campaign, Campaign)
    result = campaign.result
    told = []
    for failure in result.failures:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        path = arguments.keep / f"{arguments.target[0]}-{failure.name}"
        path.write_bytes(failure.content)
        told.append(f"{failure.kind}: {failure.detail} ({path})")
    report = {
        "executions": result.executions,
        "seconds": seconds,
        "slowest": result.slowest,
        "peak": result.peak,
        "outcomes": dict(result.outcomes.most_common()),
        "failures": told,
    }
    folder.with_suffix(".json").write_text(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())

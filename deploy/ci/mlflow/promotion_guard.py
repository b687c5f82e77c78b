#!/usr/bin/env python3
"""Move an alias of an MLflow model, but only to a version that layerwatch found good.

    promotion_guard.py fraud 7 champion --report report.json
    promotion_guard.py fraud 7 champion --envelope verdict.dsse.json --key layerwatch.pub.pem

The alias moves when the tag `layerwatch.verdict` of the version, which the daemon writes (`write_verdict: true`), says
pass, and its tag `layerwatch.fingerprint` is that of the bytes which were judged: by the gate's report, or by a signed
verdict, for which the version's files are fetched and hashed anew by `layerwatch verify`. What was judged must have been
held against a baseline, and a signed verdict be by the default rule settings; options take others.

Server and credentials come from MLFLOW_TRACKING_URI, _USERNAME, _PASSWORD, _TOKEN and _SERVER_CERT_PATH.

Exit codes: 0 the alias points at the version; 1 the verdict is not good enough; 2 wrong usage; 3 it could not be
decided: no verdict yet, other bytes, no answer. The alias is touched only with 0, and with a 3 that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import requests

MOVED, NOT_GOOD_ENOUGH, USAGE, UNDECIDED = range(4)

GOOD = {"pass": ("pass",), "warn": ("pass", "warn")}
TIMEOUT = 30.0
"""Seconds that the server has to answer."""
LOOK_EVERY = 5.0
"""Seconds between two looks while a verdict is waited for."""


class PromotionError(Exception):
    """The alias is not moved; the exit code and why."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Server:
    """The registry's REST interface."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._url = environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise PromotionError(USAGE, "set MLFLOW_TRACKING_URI to the address of the MLflow server")
        self._session = requests.Session()
        token = environ.get("MLFLOW_TRACKING_TOKEN")
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        elif environ.get("MLFLOW_TRACKING_USERNAME"):
            self._session.auth = (
                environ["MLFLOW_TRACKING_USERNAME"],
                environ.get("MLFLOW_TRACKING_PASSWORD", ""),
            )
        if environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
            self._session.verify = environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]

    def tags(self, model: str, version: str) -> dict[str, str]:
        """Of one version."""
        found = self._call("GET", "model-versions/get", name=model, version=version)
        return {tag["key"]: tag["value"] for tag in found["model_version"].get("tags", [])}

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point the alias at the version."""
        self._call("POST", "registered-models/alias", name=model, alias=alias, version=version)

    def target(self, model: str, alias: str) -> str:
        """The version that the alias points at."""
        found = self._call("GET", "registered-models/alias", name=model, alias=alias)
        return str(found["model_version"]["version"])

    def _call(self, method: str, path: str, **fields: str) -> dict[str, Any]:
        url = f"{self._url}/api/2.0/mlflow/{path}"
        given: dict[str, Any] = {"params": fields} if method == "GET" else {"json": fields}
        try:
            answer = self._session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **given)
            found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        except (requests.RequestException, ValueError) as error:
            raise PromotionError(UNDECIDED, f"{url}: no answer ({type(error).__name__})") from error
        if answer.status_code == 200:
            return found
        code = USAGE if answer.status_code in (400, 401, 403, 404) else UNDECIDED
        raise PromotionError(code, f"{url}: {answer.status_code} {answer.text[:300]}")


def judged_fingerprint(options: argparse.Namespace) -> str:
    """The fingerprint of the bytes that were judged."""
    if options.report is not None:
        return _of_report(options)
    return _of_envelope(options)


def _of_report(options: argparse.Namespace) -> str:
    path: Path = options.report
    try:
        report = json.loads(path.read_bytes())
        verdict, fingerprint = report["verdict"], report["model"]["fingerprint"]
        baseline = report["baseline"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromotionError(
            USAGE, f"{path} is no report of layerwatch gate --format json ({error})"
        ) from error
    if not fingerprint:
        raise PromotionError(UNDECIDED, f"{path}: the model could not be read when it was judged")
    _require_good(f"{path}: the verdict", verdict, options.require)
    if baseline is None and not options.allow_no_baseline:
        raise PromotionError(
            NOT_GOOD_ENOUGH,
            f"{path}: the model was held against no baseline (--allow-no-baseline takes that)",
        )
    return str(fingerprint)


def _of_envelope(options: argparse.Namespace) -> str:
    address = f"mlflow:/{options.model}/{options.version}"
    command = [options.layerwatch, "verify", "--format", "json", "--require", options.require]
    command += [part for key in options.key for part in ("--key", str(key))]
    command += ["--max-age", options.max_age] if options.max_age else []
    command += ["--rules-digest", options.rules_digest] if options.rules_digest else []
    command += ["--allow-no-baseline"] * options.allow_no_baseline
    # No layerwatch.yaml that lies in the folder of the job.
    command += ["--config", os.devnull]
    try:
        done = subprocess.run(
            [*command, "--", str(options.envelope), address], check=False, stdout=subprocess.PIPE
        )
    except OSError as error:
        raise PromotionError(USAGE, f"{options.layerwatch}: {error.strerror}") from error
    if done.returncode != 0:
        code = done.returncode if done.returncode in (NOT_GOOD_ENOUGH, USAGE) else UNDECIDED
        raise PromotionError(
            code, f"{options.envelope}: not a good enough verdict about the bytes of {address} now"
        )
    return str(json.loads(done.stdout)["statement"]["predicate"]["fingerprint"])


def require_good_tags(tags: dict[str, str], fingerprint: str, require: str) -> None:
    """Do nothing where the tags say that these bytes are good; raises PromotionError."""
    if not tags.get("layerwatch.verdict"):
        raise PromotionError(
            UNDECIDED, "the version has no tag layerwatch.verdict: layerwatch has not judged it yet"
        )
    if tags.get("layerwatch.fingerprint") != fingerprint:
        tagged = tags.get("layerwatch.fingerprint") or "nothing"
        raise PromotionError(
            UNDECIDED, f"the tag layerwatch.fingerprint is {tagged}, but {fingerprint} was judged"
        )
    _require_good("the tag layerwatch.verdict", tags["layerwatch.verdict"], require)


def _require_good(what: str, verdict: str, require: str) -> None:
    if verdict not in GOOD[require]:
        raise PromotionError(
            UNDECIDED if verdict == "undecided" else NOT_GOOD_ENOUGH,
            f"{what} is {verdict}; {' or '.join(GOOD[require])} is asked for",
        )


def promote(server: Server, options: argparse.Namespace) -> None:
    """Move the alias, or raise PromotionError."""
    fingerprint = judged_fingerprint(options)
    until = time.monotonic() + options.wait
    while True:
        tags = server.tags(options.model, options.version)
        if tags.get("layerwatch.verdict") or time.monotonic() >= until:
            break
        time.sleep(min(LOOK_EVERY, max(0.0, until - time.monotonic())))
    require_good_tags(tags, fingerprint, options.require)
    server.set_alias(options.model, options.alias, options.version)
    # The server has no "move only if": what changed meanwhile is at least noticed.
    try:
        require_good_tags(server.tags(options.model, options.version), fingerprint, options.require)
        moved = server.target(options.model, options.alias) == options.version
    except PromotionError as error:
        raise PromotionError(UNDECIDED, f"the alias was moved, and then: {error}") from error
    if not moved:
        raise PromotionError(UNDECIDED, "the alias was moved, and then by somebody else to another version")


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line; ends with exit code 2 for a wrong one."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Exit codes: 0 moved, 1 not good enough, 2 usage, 3 undecided.",
    )
    parser.add_argument("model", help="name of the registered model")
    parser.add_argument("version", help="number of the version")
    parser.add_argument("alias", help="the alias to move, without @")
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--report", type=Path, help="JSON report of the gate about this version")
    judged.add_argument("--envelope", type=Path, help="signed verdict about this version")
    parser.add_argument("--key", type=Path, action="append", default=[], help="public key for --envelope")
    parser.add_argument("--max-age", help="how old the signed verdict may be, such as 30d")
    parser.add_argument("--require", choices=tuple(GOOD), default="pass", help="warn takes pass and warn")
    parser.add_argument(
        "--allow-no-baseline", action="store_true", help="take what was held against no baseline"
    )
    parser.add_argument("--rules-digest", metavar="SHA256", help="rule settings of the signed verdict")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for the daemon's verdict")
    parser.add_argument("--layerwatch", default="layerwatch", help="the command, for --envelope")
    options = parser.parse_args(arguments)
    if (options.envelope is not None) != bool(options.key):
        parser.error("--envelope and --key belong together")
    if (options.max_age or options.rules_digest) and options.envelope is None:
        parser.error("--max-age and --rules-digest are for --envelope")
    if not options.version.isdecimal():
        parser.error("VERSION must be a number: an alias would be judged now and might be moved later")
    return options


def main() -> NoReturn:
    """The command."""
    options = parsed(sys.argv[1:])
    try:
        promote(Server(dict(os.environ)), options)
    except PromotionError as error:
        print(f"{options.model} {options.version} -> {options.alias}: {error}", file=sys.stderr)
        sys.exit(error.code)
    print(f"{options.model}: {options.alias} -> {options.version}")
    sys.exit(MOVED)


if __name__ == "__main__":
    main()

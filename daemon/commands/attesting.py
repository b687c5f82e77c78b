"""``gate --attest``: sign what the gate answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwatch.config.secrets import Secret
from layerwatch.daemon.attestation.errors import AttestationError
from layerwatch.daemon.commands.local import output_path, write_output
from layerwatch.daemon.commands.stores import usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.config.rules import RulesSettings
    from layerwatch.daemon.attestation.statement import Statement
    from layerwatch.metrics.report import Report

AttestOption = Annotated[
    Path | None, typer.Option("--attest", metavar="FILE", help="Write the signed verdict here.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--attest-key", metavar="PEM", help="Private key: Ed25519 or P-256.")
]
PassphraseOption = Annotated[
    str | None,
    typer.Option("--attest-passphrase", metavar="env:NAME|file:PATH", help="Where the key's passphrase is."),
]
KeylessOption = Annotated[
    bool,
    typer.Option("--attest-keyless", help="Sign by an identity token of this CI job, through sigstore."),
]
TrustConfigOption = Annotated[
    Path | None,
    typer.Option("--trust-config", metavar="JSON", help="Of a private instance of sigstore."),
]


@dataclass(frozen=True, slots=True)
class Signing:
    """What ``--attest`` asks for.

    Attributes:
        file: where the signed verdict goes.
        sign: a statement to what is written.
    """

    file: Path
    sign: Callable[[Statement], bytes]

    def write(self, report: Report, model: Path, rules: RulesSettings, now: datetime) -> bool:
        """Sign what a report of the gate says about the files that lie there now; False, and why on standard error,
        where nothing could be signed.

        Args:
            rules: by which was judged.
            now: when it was judged.
        """
        from layerwatch.daemon.attestation.statement import build_statement, outcome_of
        from layerwatch.metrics.errors import UnreadableError
        from layerwatch.metrics.manifest import build_manifest, require_no_linked_folders

        try:
            require_no_linked_folders(model)
            statement = build_statement(report, build_manifest(model), outcome_of(report), rules, now)
            signed = self.sign(statement)
        except (AttestationError, UnreadableError) as error:
            typer.echo(printable(f"the verdict is not signed: {error}"), err=True)
            return False
        write_output(signed.decode(), self.file)
        return True


def without_older(file: Path | None, inputs: Iterable[Path | None]) -> None:
    """Remove what an earlier run left at FILE, so that nobody takes it for this one's, however this one ends.

    Exits with a usage error, and removes nothing, where it is one of the files that are read, or called like weights.
    Only a regular file, or what a link to one leads to, is removed.
    """
    from layerwatch.metrics.manifest import WEIGHT_SUFFIXES

    if file is None or not file.is_file():
        return
    if file.name.lower().endswith(WEIGHT_SUFFIXES) or any(
        path is not None and _is_same(path, file) for path in inputs
    ):
        usage_error(printable(f"--attest {file}: would replace a file that is no signed verdict"))
    try:
        file.resolve().unlink()
    except OSError as error:
        usage_error(printable(f"--attest {file}: cannot be replaced: {error.strerror}"))


def _is_same(path: Path, file: Path) -> bool:
    try:
        return path.samefile(file)
    except (OSError, ValueError):
        return False


def signing_of(
    file: Path | None, key: Path | None, passphrase: str | None, keyless: bool, trust_config: Path | None
) -> Signing | None:
    """What the options ask for, None without ``--attest``; the key is read now, so that a wrong one costs no scan.

    Call :func:`without_older` before.

    Exits with a usage error for options that do not go together and for a key that cannot be used.
    """
    if file is None:
        if key is not None or passphrase is not None or keyless or trust_config is not None:
            usage_error("say where the signed verdict goes: --attest FILE")
        return None
    if (key is None) is not keyless:
        usage_error("--attest needs a key: either --attest-key PEM or --attest-keyless")
    if keyless and passphrase is not None:
        usage_error("--attest-keyless has no passphrase")
    if trust_config is not None and not keyless:
        usage_error("--trust-config belongs to --attest-keyless")
    output_path(file)
    try:
        return Signing(file, _keyless(trust_config) if key is None else _with_key(key, _secret(passphrase)))
    except AttestationError as error:
        usage_error(printable(error.detail))


def _with_key(path: Path, passphrase: Secret | None) -> Callable[[Statement], bytes]:
    from layerwatch.daemon.attestation import dsse
    from layerwatch.daemon.attestation.keys import read_private_key

    key = read_private_key(path, passphrase)
    return lambda statement: dsse.sign(statement.to_bytes(), key)


def _keyless(trust_config: Path | None) -> Callable[[Statement], bytes]:
    from layerwatch.daemon.attestation.keyless import signer

    return signer(trust_config)


def _secret(given: str | None) -> Secret | None:
    if given is None:
        return None
    kind, separator, rest = given.partition(":")
    if not separator or not rest or kind not in ("env", "file"):
        # What was given may be the passphrase itself: it is not repeated.
        usage_error("--attest-passphrase says where the passphrase is: env:NAME or file:PATH")
    return Secret.from_env(rest) if kind == "env" else Secret.from_file(rest)

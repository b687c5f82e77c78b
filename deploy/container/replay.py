"""Carry out the steps of a Dockerfile without a container engine, each stage in a root folder of its own.

    replay.py --base ROOT --output ROOT [--build-arg NAME=VALUE] [--secret ID=FILE] [--context NAME=FOLDER] [DOCKERFILE]

Needs root on Linux. Every FROM that is no earlier stage and not ``scratch`` is a copy of ``--base``: a root folder with
Python at /usr/local/bin/python, from debootstrap for one. RUN runs in it by chroot, in a mount namespace of its own; the
network is the machine's. The last stage lands in ``--output``, what the image would be started with (Env, User,
WorkingDir, Entrypoint, Cmd, Labels, Healthcheck) in ``--output``.json.

What the Dockerfile beside this file uses is understood, and nothing more: an instruction, a flag or a mount that is not
is an error, so that no step is left out without a word.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

_INSTRUCTIONS = {
    *("ARG", "FROM", "ENV", "WORKDIR", "RUN", "COPY", "LABEL", "EXPOSE", "STOPSIGNAL", "USER", "HEALTHCHECK"),
    *("ENTRYPOINT", "CMD"),
}
_VARIABLE = re.compile(r"\\(.)|\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")


class DockerfileError(Exception):
    """Something in the Dockerfile that is not understood, with its line."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        line: where it begins, from 1.
        flags: what stands before its text, such as ``--from=build``.
        text: continued lines joined as the builder does it: comments between them are dropped.
    """

    line: int
    keyword: str
    flags: tuple[str, ...]
    text: str

    def fail(self, why: str) -> DockerfileError:
        """The error to raise."""
        return DockerfileError(f"line {self.line}: {self.keyword}: {why}")

    def listed(self) -> list[str] | None:
        """The words of the exec form; None for the shell form."""
        if not self.text.startswith("["):
            return None
        words = json.loads(self.text)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise self.fail("not a list of strings")
        return words


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile; raises DockerfileError."""
    found = []
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        start = start if pending else number
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1]
            continue
        found.append(_instruction(start, (pending + line).strip()))
        pending = ""
    if pending:
        raise DockerfileError(f"line {start}: ends in the middle of an instruction")
    return found


def _instruction(line: int, text: str) -> Instruction:
    keyword, _, rest = text.partition(" ")
    keyword, rest = keyword.upper(), rest.strip()
    if keyword not in _INSTRUCTIONS:
        raise DockerfileError(f"line {line}: {keyword} is not understood")
    flags = []
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        flags.append(flag)
        rest = rest.strip()
    if "<<" in rest and keyword in ("RUN", "COPY"):
        raise DockerfileError(f"line {line}: here-documents are not understood")
    return Instruction(line, keyword, tuple(flags), rest)


def substituted(text: str, values: Mapping[str, str]) -> str:
    """``text`` with $NAME, ${NAME} and ${NAME:-other} replaced; a name without a value is nothing."""

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        name = match[2] or match[3]
        return values.get(name) or match[4] or ""

    return _VARIABLE.sub(value, text)


def pairs(instruction: Instruction, values: Mapping[str, str]) -> dict[str, str]:
    """``A=1 B="two words"`` of ENV and LABEL."""
    found = {}
    for word in shlex.split(instruction.text):
        name, separator, value = word.partition("=")
        if not separator:
            raise instruction.fail(f"{word!r} is not NAME=VALUE")
        found[name] = substituted(value, values)
    return found


@dataclass(slots=True)
class Stage:
    """A root folder and what its instructions said so far."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"
    shown: dict[str, object] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, str]:
        """What variables mean: ENV goes before ARG."""
        return {**self.args, **self.env}


@dataclass(slots=True)
class Replay:
    """One build."""

    base: Path
    scratch: Path
    context: Path
    build_args: Mapping[str, str]
    secrets: Mapping[str, Path]
    contexts: Mapping[str, Path]
    stages: dict[str, Stage] = field(default_factory=dict)

    def build(self, instructions: Sequence[Instruction]) -> Stage:
        """Carry out everything; the last stage."""
        stage: Stage | None = None
        before: dict[str, str] = {}
        for instruction in instructions:
            print(f"{instruction.line}: {instruction.keyword} {instruction.text}", flush=True)
            if instruction.keyword == "FROM":
                stage = self._begin(instruction, before)
            elif stage is None:
                if instruction.keyword != "ARG":
                    raise instruction.fail("stands before the first FROM")
                before.update(self._argument(instruction, before))
            else:
                self._carry_out(instruction, stage, before)
        if stage is None:
            raise DockerfileError("there is no FROM")
        return stage

    def _begin(self, instruction: Instruction, before: Mapping[str, str]) -> Stage:
        words = substituted(instruction.text, before).split()
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
            raise instruction.fail("expected FROM IMAGE [AS NAME]")
        name = words[2] if len(words) == 3 else str(len(self.stages))
        root = self.scratch / f"stage-{len(self.stages)}"
        if name in self.contexts:
            root = self.contexts[name]
        elif words[0] == "scratch":
            root.mkdir()
        else:
            source = self.stages[words[0]].root if words[0] in self.stages else self.base
            subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(root)], check=True)
        self.stages[name] = Stage(
            root, env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        )
        return self.stages[name]

    def _argument(self, instruction: Instruction, known: Mapping[str, str]) -> dict[str, str]:
        found = {}
        for word in shlex.split(instruction.text):
            name, separator, default = word.partition("=")
            if name in self.build_args:
                found[name] = self.build_args[name]
            elif separator:
                found[name] = substituted(default, known)
            elif name in known:
                found[name] = known[name]
        return found

    def _carry_out(self, instruction: Instruction, stage: Stage, before: Mapping[str, str]) -> None:
        text = instruction.text
        match instruction.keyword:
            case "ARG":
                stage.args.update(self._argument(instruction, before))
            case "ENV":
                stage.env.update(pairs(instruction, stage.values))
            case "LABEL":
                stage.shown["Labels"] = pairs(instruction, stage.values)
            case "WORKDIR":
                stage.folder = str(Path(stage.folder) / substituted(text, stage.values))
                self._inside(stage, stage.folder).mkdir(parents=True, exist_ok=True)
            case "USER":
                stage.user = substituted(text, stage.values)
                if not re.fullmatch(r"\d+:\d+", stage.user):
                    raise instruction.fail("only UID:GID in numbers is understood")
            case "EXPOSE" | "STOPSIGNAL":
                stage.shown[instruction.keyword.capitalize()] = text
            case "ENTRYPOINT" | "CMD" | "HEALTHCHECK":
                self._note_command(instruction, stage)
            case "COPY":
                self._copy(instruction, stage)
            case "RUN":
                self._run(instruction, stage)

    def _note_command(self, instruction: Instruction, stage: Stage) -> None:
        text = instruction.text
        if instruction.keyword == "HEALTHCHECK":
            keyword, _, text = text.partition(" ")
            if keyword != "CMD":
                raise instruction.fail("expected CMD")
        words = Instruction(instruction.line, instruction.keyword, (), text.strip()).listed()
        if words is None:
            raise instruction.fail("needs the exec form: the image promises to need no shell")
        stage.shown[instruction.keyword.capitalize()] = words

    def _inside(self, stage: Stage, path: str) -> Path:
        return stage.root / str(Path(stage.folder) / path).lstrip("/")

    def _copy(self, instruction: Instruction, stage: Stage) -> None:
        source_root = self.context
        for flag in instruction.flags:
            name, _, value = flag.partition("=")
            if name != "--from":
                raise instruction.fail(f"{flag} is not understood")
            source_root = self.stages[value].root
        *sources, target = substituted(instruction.text, stage.values).split()
        place = self._inside(stage, target)
        for source in sources:
            origin = source_root / source.lstrip("/")
            if not origin.exists():
                raise instruction.fail(f"there is no {source}; does .dockerignore leave it out?")
            if origin.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", f"{origin}/.", str(place)], check=True)
            else:
                file = place / origin.name if target.endswith("/") else place
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, file)
        if source_root == self.context:
            subprocess.run(["chown", "-hR", "0:0", str(place)], check=True)

    def _run(self, instruction: Instruction, stage: Stage) -> None:
        words = instruction.listed() or ["/bin/sh", "-c", instruction.text]
        script = [
            "mount --make-rprivate /",
            f"root={shlex.quote(str(stage.root))}",
            # A bind mount of its own, so that nothing mounted below outlives the step.
            'mount --bind "$root" "$root"',
            'mount -t proc proc "$root/proc"',
            'mount --rbind /dev "$root/dev"',
            *_bound("/etc/resolv.conf", "/etc/resolv.conf"),
            *_bound("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt"),
        ]
        for flag in instruction.flags:
            script.extend(self._mount(instruction, flag))
        inside = " && ".join(
            [f"cd {shlex.quote(stage.folder)}", f"exec {' '.join(shlex.quote(word) for word in words)}"]
        )
        command = ["chroot", f"--userspec={stage.user}", str(stage.root), "/bin/sh", "-c", inside]
        script.append(f"exec {shlex.join(command)}")
        environment = {"HOME": "/root", **stage.args, **stage.env}
        subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-eu", "-c", "\n".join(script)],
            env=environment,
            check=True,
        )

    def _mount(self, instruction: Instruction, flag: str) -> Iterator[str]:
        kind, _, rest = flag.partition("=")
        if kind != "--mount":
            raise instruction.fail(f"{flag} is not understood")
        options = dict(part.partition("=")[::2] for part in rest.split(","))
        target = options.pop("target")
        match options.pop("type"):
            case "secret":
                secret = self.secrets.get(options.pop("id"))
                if secret is not None:
                    yield from _bound(str(secret), target)
            case "bind":
                yield from _bound(str(self.stages[options.pop("from")].root), target)
            case "cache":
                yield f'mkdir -p "$root"{shlex.quote(target)}'
                yield f'mount -t tmpfs tmpfs "$root"{shlex.quote(target)}'
            case other:
                raise instruction.fail(f"mounts of type {other} are not understood")
        if options:
            raise instruction.fail(f"{', '.join(options)}: not understood in {flag}")


def _bound(source: str, target: str) -> Iterator[str]:
    """Shell lines that show a file or folder of this machine, read-only, at a place of the root folder."""
    if not Path(source).exists():
        return
    place = f'"$root"{shlex.quote(target)}'
    if Path(source).is_dir():
        yield f"mkdir -p {place}"
    else:
        yield f"mkdir -p $(dirname {place}); test -e {place} || touch {place}"
    yield f"mount --bind {shlex.quote(source)} {place}"
    yield f"mount -o remount,ro,bind {place}"


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Whether .dockerignore leaves a path of the context out: the last pattern that matches it, or a folder above."""
    answer = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").strip("/")
        expression = re.escape(wanted).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.match(f"{expression}(?:/|$)", path):
            answer = not pattern.startswith("!")
    return answer


def copy_context(repository: Path, target: Path) -> None:
    """What .dockerignore lets through to the builder."""
    lines = (repository / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    kept_above = {
        parent for pattern in patterns if pattern.startswith("!") for parent in Path(pattern[1:]).parents
    }
    for folder, folders, files in os.walk(repository):
        below = Path(folder).relative_to(repository)
        folders[:] = [
            name
            for name in folders
            if below / name in kept_above or not ignored((below / name).as_posix(), patterns)
        ]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*files, *links]:
            if not ignored((below / name).as_posix(), patterns):
                place = target / below / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(folder) / name, place, follow_symlinks=False)


def _given(pairs: Sequence[str]) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in pairs)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dockerfile", nargs="?", type=Path, default=HERE / "Dockerfile")
    parser.add_argument("--base", type=Path, required=True, help="root folder that stands for the base image")
    parser.add_argument("--output", type=Path, required=True, help="where the last stage's root folder lands")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--secret", action="append", default=[], metavar="ID=FILE")
    parser.add_argument(
        "--context", action="append", default=[], metavar="NAME=FOLDER", help="named contexts"
    )
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("replay.py mounts and changes roots: run it as root")
    instructions = parse(arguments.dockerfile.read_text())
    with tempfile.TemporaryDirectory(dir=arguments.output.parent, prefix=".replay-") as scratch:
        context = Path(scratch) / "context"
        context.mkdir()
        copy_context(REPOSITORY, context)
        replay = Replay(
            arguments.base,
            Path(scratch),
            context,
            _given(arguments.build_arg),
            {name: Path(file) for name, file in _given(arguments.secret).items()},
            {name: Path(folder) for name, folder in _given(arguments.context).items()},
        )
        stage = replay.build(instructions)
        stage.root.rename(arguments.output)
    started = {"Env": stage.env, "User": stage.user, "WorkingDir": stage.folder, **stage.shown}
    arguments.output.with_name(f"{arguments.output.name}.json").write_text(json.dumps(started, indent=1))


if __name__ == "__main__":
    main()

"""YAML text to plain values, with the line of every key and all mistakes of form.

The file may have been written by anyone and may hold secrets: its size, depth and expansion through aliases
are limited, no tag builds an object, and no message repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from layerwatch.config.crosschecks import KeyPath
from layerwatch.config.errors import ConfigProblem
from layerwatch.config.tree import dotted

LARGEST_FILE = 2**20
"""Upper limit of a configuration file in bytes."""

DEEPEST_NESTING = 32
"""Upper limit of lists and mappings within each other."""

MOST_VALUES = 20_000
"""Upper limit of values in a file, each alias counted as all that it stands for."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a kind of file is called in messages about its form.

    Attributes:
        name: with its article.
        write_one: what to do where there is none; ``{path}`` stands for the file.
        holds: what its top level must be.
    """

    name: str
    write_one: str
    holds: str


CONFIGURATION = FileKind(
    name="a configuration",
    write_one="write one with: layerwatch config print --default > {path}",
    holds="sections such as server: and registries:",
)

_MERGE_TAG = "tag:yaml.org,2002:merge"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(slots=True)
class Document:
    """A configuration file as read.

    Attributes:
        data: the plain values; an empty mapping when the file could not be read.
        lines: 1-based line of each key and list item.
        problems: mistakes of form.
        readable: False when the text could not be taken apart, so that ``data`` says nothing.
    """

    data: dict[str, object] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[ConfigProblem] = field(default_factory=list)
    readable: bool = True


class _RefusedError(Exception):
    """The file cannot be taken apart; carries the one sentence and the 1-based line, if there is one."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.message = message
        self.line = line
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates alone: a version called 2024-01-01 is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_document(path: Path, kind: FileKind = CONFIGURATION) -> Document:
    """The YAML file at ``path``. Never raises for what the file holds: see ``problems``."""
    source = str(path)
    try:
        return _parse(_read_text(path, kind), source, kind)
    except _RefusedError as refusal:
        problem = ConfigProblem("", refusal.line, refusal.message, source)
        return Document(problems=[problem], readable=False)


def _read_text(path: Path, kind: FileKind) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise _RefusedError(f"there is no such file; {kind.write_one.format(path=path)}") from None
    except OSError as error:
        raise _RefusedError(f"cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise _RefusedError(f"is larger than {LARGEST_FILE // 2**20} MiB, too large for {kind.name}")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    stray = re.search("[\udc80-\udcff]", text)
    if stray is not None:
        raise _RefusedError("is not UTF-8 text", text.count("\n", 0, stray.start()) + 1)
    return text


def _parse(text: str, source: str, kind: FileKind) -> Document:
    try:
        _check_extent(text, kind)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return Document() if root is None else _Reader(loader, source, kind).read(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        message = f"is not valid YAML: {_without_values(error.problem or error.context or 'unknown mistake')}"
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
    except yaml.reader.ReaderError as error:
        message = f"is not valid YAML: the character with code {_code(error)} is not allowed"
        line = text.count("\n", 0, error.position) + 1
    except RecursionError:
        message, line = "is nested too deeply", None
    raise _RefusedError(message, line)


def _check_extent(text: str, kind: FileKind) -> None:
    """Refuse what composing, slow and recursive, should never see; and more than one document."""
    depth = 0
    documents = 0
    nodes = 0
    for event in yaml.parse(text, _Loader):
        line = None if event.start_mark is None else event.start_mark.line + 1
        nodes += isinstance(event, yaml.NodeEvent)
        # A value in a mapping has a key, which is a node too.
        if nodes > 2 * MOST_VALUES:
            raise _RefusedError(f"holds more than {MOST_VALUES} values, aliases counted in full")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST_NESTING:
                raise _RefusedError(f"is nested more than {DEEPEST_NESTING} levels deep", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _RefusedError(f"holds a second document (---); {kind.name} is one document", line)


def _code(error: yaml.reader.ReaderError) -> str:
    character = error.character
    code = ord(character) if isinstance(character, str) else int(character)
    return f"0x{code:02x}"


def _without_values(problem: str) -> str:
    """PyYAML's sentence without the names it quotes from the file, any of which may be a piece of a secret."""
    text = _QUOTED.sub(_without_value, problem)
    return f"{text}; indent with spaces, not tabs" if r"'\t'" in text else text


def _without_value(quoted: re.Match[str]) -> str:
    """Marks (``':'``, ``'\\t'``) and kinds of token (``'<block end>'``) stay; names from the file do not."""
    content = quoted[0][1:-1]
    return quoted[0] if len(content) <= 2 or content.startswith("<") else "(not shown)"


class _Reader:
    """Turns a node tree into plain values and collects lines and problems on the way."""

    def __init__(self, loader: _Loader, source: str, kind: FileKind) -> None:
        self._loader = loader
        self._source = source
        self._kind = kind
        self._values = 0
        self._lines: dict[KeyPath, int] = {}
        self._problems: list[ConfigProblem] = []

    def read(self, root: yaml.Node) -> Document:
        value = self._value(root, (), 0)
        if not isinstance(value, Mapping) and value is not None and not self._problems:
            self._add((), root, f"must hold {self._kind.holds}, not a single value or list")
        data = value if isinstance(value, dict) else {}
        readable = isinstance(value, dict) or value is None
        return Document(data, self._lines, self._problems, readable)

    def _value(self, node: yaml.Node, path: KeyPath, depth: int) -> object:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _RefusedError(f"holds more than {MOST_VALUES} values, aliases counted in full")
        if depth > DEEPEST_NESTING:
            message = f"is nested more than {DEEPEST_NESTING} levels deep through its aliases"
            raise _RefusedError(message, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path, depth)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                merged = self._merged(value_node, path, depth) | merged
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            line = key_node.start_mark.line + 1
            child = (*path, key)
            if key in own:
                message = f"is given twice, first on line {self._lines[child]}; keep one of the two"
                self._add(child, key_node, message)
                continue
            self._lines[child] = line
            own[key] = self._value(value_node, child, depth + 1)
        return merged | own

    def _merged(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, object]:
        """What ``<<: *alias`` or ``<<: [*alias, *alias]`` brings in; earlier aliases win over later ones."""
        lines = dict(self._lines)
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, object] = {}
        for part in nodes:
            value = self._value(part, path, depth + 1)
            if isinstance(value, dict):
                merged = value | merged
            else:
                self._add(path, part, "<<: must be followed by an alias of a mapping")
        # A key that stands in the mapping itself keeps its own line.
        self._lines.update(lines)
        return merged

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath, depth: int) -> list[object]:
        values = []
        for position, item in enumerate(node.value):
            child = (*path, position)
            self._lines[child] = item.start_mark.line + 1
            values.append(self._value(item, child, depth + 1))
        return values

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return str(node.value)
        self._add(path, node, "holds a key that is not text; keys are words such as poll or path")
        return None

    def _scalar(self, node: yaml.Node, path: KeyPath) -> object:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            self._add(path, node, "cannot be understood; put the value in quotes if it is text")
            return None

    def _add(self, path: KeyPath, node: yaml.Node, message: str) -> None:
        self._problems.append(ConfigProblem(dotted(path), node.start_mark.line + 1, message, self._source))

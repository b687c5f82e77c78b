"""What the networks are trained and tested on: digits that scikit-learn ships, text that Python ships."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from layerwatch.daemon.demo.data import load_digits

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""Characters that the language models know; others are left out of the text."""

CONTEXT = 64
"""Characters that a language model sees at once."""

TEXT_LIMIT = 1_200_000
"""Characters of documentation that are taken, in the order of the files."""

_TEST_EVERY = 10
_TEST_SEQUENCES = 128
_LEFT_OUT = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo"})


@dataclass(frozen=True, slots=True)
class Examples:
    """One task.

    Attributes:
        inputs: images, float32, shape (n, 1, 8, 8); or the whole training text, int64, shape (characters,).
        targets: labels, int64, shape (n,); the text itself for a language model.
        test_inputs, test_targets: held out; of a language model, shape (sequences, CONTEXT) each.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    test_inputs: torch.Tensor
    test_targets: torch.Tensor


@cache
def digits() -> Examples:
    """1,797 hand-written digits, a third of them held out."""
    data = load_digits(seed=0)
    return Examples(data.train_images, data.train_labels, data.test_images, data.test_labels)


@cache
def documentation() -> Examples:
    """The documentation strings of Python's own library; those of every tenth file are held out.

    The library is read, never imported: the text depends on nothing but the version of Python.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    total = 0
    for position, file in enumerate(_source_files(Path(sysconfig.get_paths()["stdlib"]))):
        for text in _documentation_strings(file):
            parts[position % _TEST_EVERY == 0].append(text)
            total += len(text)
        if total > TEXT_LIMIT:
            break
    train, test = (_encoded("\n\n".join(part)) for part in parts)
    begins = np.linspace(0, len(test) - CONTEXT - 1, _TEST_SEQUENCES).astype(int)
    sequences = torch.stack([test[begin : begin + CONTEXT + 1] for begin in begins.tolist()])
    return Examples(train, train, sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous())


def _source_files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*.py")):
        if not _LEFT_OUT.intersection(file.relative_to(folder).parts):
            yield file


def _documentation_strings(file: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text


def _encoded(text: str) -> torch.Tensor:
    codes = {character: code for code, character in enumerate(ALPHABET)}
    return torch.tensor([codes[character] for character in text if character in codes], dtype=torch.int64)

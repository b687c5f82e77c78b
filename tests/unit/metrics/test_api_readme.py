"""What the page about the Python API shows is what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "metrics" / "README.md"


def test_every_snippet_of_the_page_gives_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    told: list[str] = []

    for number, snippet in enumerate(snippets, start=1):
        test = doctest.DocTestParser().get_doctest(snippet, names, f"snippet {number}", str(PAGE), 0)
        assert test.examples, snippet
        runner = doctest.DocTestRunner(optionflags=flags)
        runner.run(test, out=told.append, clear_globs=False)
        names = test.globs

    assert len(snippets) >= 8
    assert not told, "".join(told)

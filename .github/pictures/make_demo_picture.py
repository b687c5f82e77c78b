"""Makes ``demo.svg``, the README's picture: runs the demo and draws what it printed.

Run from the repository: ``.venv/bin/python .github/pictures/make_demo_picture.py``.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 150


def main() -> None:
    """Run ``layerwatch demo`` and draw its output."""
    command = [str(Path(sys.executable).with_name("layerwatch")), "demo", "--exit"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = finished.stdout.partition("\nto try on the same files")[0]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print("[bold]$ make run[/bold]")
    for line in shown.splitlines():
        text = Text(line)
        text.highlight_words(["fail", "FIRING"], style="bold red")
        text.highlight_words(["RESOLVED"], style="green")
        text.highlight_regex(r"\bpass\b", style="green")
        console.print(text, soft_wrap=False)
    picture = Path(__file__).with_name("demo.svg")
    # The drawing names web fonts; a picture in a repository must not make its viewer fetch anything.
    drawing = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="layerwatch demo"), flags=re.DOTALL)
    picture.write_text(drawing, encoding="utf-8")
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()

"""Foreign names in Markdown and in GitHub's workflow commands."""

from __future__ import annotations

import re

from layerwatch.daemon.gate.printable import printable

_MARKUP = re.compile(r"[\\`*_\[\]<>&|~$!{}^]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_LINKED = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp):|\bwww\.")
_MENTION = re.compile(r"([@#])(?=\w)")
_BLOCK = re.compile(r"^(\s*)([-+#=]|\d+(?=[.)]))")


def prose(text: str) -> str:
    """Text that shows as itself wherever Markdown allows text, table cells included, and links to nothing."""
    # A space of no width keeps a name from being notified, a number and an address from being linked.
    shown = _MENTION.sub("\\1\u200b", printable(text).strip())
    shown = _MARKUP.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), shown)
    shown = _LINKED.sub(lambda found: found[0][:-1] + f"&#{ord(found[0][-1])};", shown)
    return _BLOCK.sub(lambda found: f"{found[1]}&#{ord(found[2][0])};{found[2][1:]}", shown)


def code(text: str) -> str:
    """A code span, also right inside a table cell (GitHub Flavored Markdown, 4.10 and 6.3)."""
    shown = printable(text)
    if not shown.strip():
        return "(no name)"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    if shown.startswith(("`", " ")) or shown.endswith(("`", " ")):
        shown = f" {shown} "
    return fence + shown.replace("|", r"\|") + fence


def command_data(text: str) -> str:
    """The message of a workflow command
    (https://docs.github.com/actions/reference/workflow-commands-for-github-actions).
    """
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """A property of one."""
    return command_data(text).replace(":", "%3A").replace(",", "%2C")

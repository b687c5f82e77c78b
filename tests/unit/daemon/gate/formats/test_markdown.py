"""Markdown: foreign names show as themselves and do nothing else."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from layerwatch.daemon.gate.formats.escaping import code, prose
from layerwatch.daemon.gate.formats.markdown import SHOWN_LAYERS, SUMMARY_LIMIT, markdown_within, to_markdown
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.ignorefile import IgnoreFile
from layerwatch.daemon.gate.outcome import GatePolicy, decided
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import among_healthy, unreadable_layer
from layerwatch_testing.gating import TODAY, broken, entry, reshaped
from layerwatch_testing.reports import report_of
from layerwatch_testing.reportstrategies import NAMES, REPORTS

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tokens(text: str) -> list[Token]:
    found: list[Token] = []
    for token in RENDERER.parse(text):
        found.append(token)
        found.extend(token.children or ())
    return found


def in_a_cell(content: str) -> list[Token]:
    """Inline tokens of the middle cell of a table of three columns."""
    text = f"| a | b | c |\n|---|---|---|\n| left | {content} | right |\n"
    cells = [token for token in RENDERER.parse(text) if token.type == "inline"][3:]
    assert [cells[0].content, cells[-1].content, len(cells)] == ["left", "right", 3]
    return cells[1].children or []


@given(NAMES)
def test_a_name_in_a_code_span_shows_as_itself_in_a_table(name: str) -> None:
    (span,) = in_a_cell(code(name))

    if printable(name).strip():
        assert span.type == "code_inline"
        # CommonMark 6.1 takes off one space of either end where both have one.
        assert span.content.strip() == printable(name).strip()


@given(NAMES)
def test_prose_shows_as_itself_in_a_table_and_is_nothing_but_text(text: str) -> None:
    found = in_a_cell(prose(text))

    assert {token.type for token in found} <= {"text", "text_special"}
    shown = "".join(unescape(token.content) for token in found).replace("\u200b", "")
    assert shown.strip() == printable(text).strip()


@given(NAMES)
def test_prose_begins_no_block(text: str) -> None:
    types = {token.type for token in RENDERER.parse(prose(text))}

    assert types <= {"paragraph_open", "inline", "paragraph_close"}


@given(st.text(max_size=20))
def test_prose_links_and_mentions_nothing(text: str) -> None:
    shown = prose(f"see http://{text} or www.{text}.example, @{text} and a@b.example, #12")

    # Autolinks and mentions as GitHub finds them in the source and in the rendered text.
    assert not re.search(r"(?i)https?:|www\.|[@#]\w", re.sub(r"&#\d+;", ";", shown))


@given(REPORTS)
def test_every_report_is_a_document_without_foreign_html_links_or_pictures(report: Report) -> None:
    found = tokens(to_markdown(report, Rendering()))

    assert not {"link_open", "image", "html_inline", "fence", "code_block"} & {token.type for token in found}
    blocks = [token.content.strip() for token in found if token.type == "html_block"]
    assert all(
        re.fullmatch(r"<details><summary>\d+ suppressed findings?</summary>|</details>", b) for b in blocks
    )


def rows(text: str) -> list[str]:
    table = text.split("| layer | status | finding |")[1].splitlines()[2:]
    return [line for line in table if line.startswith("|")]


def test_the_worst_layers_come_first() -> None:
    report = report_of(among_healthy(reshaped("head"), unreadable_layer("dark"), broken("fc")))

    text = to_markdown(report, Rendering())

    assert text.startswith("### layerwatch: fail: `v2`\n")
    assert rows(text)[0].startswith("| `fc` | broken | ")
    assert len(rows(text)) == 3
    assert "| layers | 1 broken, 1 undecided, 1 suspect, " in text


def test_so_many_layers_are_shown_and_the_others_counted() -> None:
    report = report_of(among_healthy(*(broken(f"fc{i:03}") for i in range(SHOWN_LAYERS + 7))))

    text = to_markdown(report, Rendering())

    assert len(rows(text)) == SHOWN_LAYERS
    assert "7 more layers with findings" in text


def test_a_summary_never_exceeds_its_limit_and_says_what_it_left_out() -> None:
    report = report_of(among_healthy(*(broken("\u00e9" * 400 + f"{i:03}") for i in range(60))))

    for limit in (50_000, 20_000, 5_000, 1_000):
        text = markdown_within(report, limit)
        assert 0 < len(text.encode()) <= limit
        assert "with findings in the report" in text
    assert markdown_within(report, 10) == ""


@given(REPORTS)
def test_the_limit_of_github_holds(report: Report) -> None:
    assert len(to_markdown(report, Rendering()).encode()) <= SUMMARY_LIMIT


def test_suppressed_findings_are_named_with_their_reasons_apart_from_the_others() -> None:
    ignores = IgnoreFile("ignore.yaml", "00" * 32, (entry(layer="fc", reason="known since January"),))
    report = decided(report_of(among_healthy(broken("fc"), broken("other"))), GatePolicy(), ignores, TODAY)

    text = to_markdown(report, Rendering())

    assert [row.split("|")[1].strip() for row in rows(text)[:1]] == ["`other`"]
    assert "1 suppressed finding</summary>" in text
    assert "| `fc` | `non_finite` | 2026-12-31 | known since January |" in text


def test_what_to_do_is_told() -> None:
    assert "- `fc`: NaN or infinite weights. Find the step" in to_markdown(
        report_of(among_healthy(broken("fc"))), Rendering()
    )

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from layerwatch.config.matchers import Matcher, MatcherError, Operator, all_match, parse_matcher, parsed

LABELS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,30}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=500)
PATTERNS = st.one_of(
    VALUES.map(re.escape).filter(lambda text: len(text) <= 500),
    st.sampled_from([r"", r".*", r"v\d+", r"fraud-[a-z]{2,}|risk", r"(?i)PROD", r'"\\"', "a\nb", r"\bx\b"]),
)
MATCHERS = st.one_of(
    st.builds(Matcher, LABELS, st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL]), VALUES),
    st.builds(Matcher, LABELS, st.sampled_from([Operator.MATCHES, Operator.DOES_NOT_MATCH]), PATTERNS),
)
VALUE_SETS = st.lists(st.text("ab", max_size=2), max_size=3).map(tuple)


@given(MATCHERS)
def test_the_text_of_a_matcher_is_read_back(matcher: Matcher) -> None:
    assert parse_matcher(str(matcher)) == matcher
    assert parse_matcher(f" \n{matcher}\t") == matcher
    assert "\n" not in str(matcher)


@given(st.one_of(st.text(max_size=60), st.text('ab="~!\\ \n(', max_size=12).map(lambda rest: f"a={rest}")))
def test_any_text_is_a_matcher_that_can_be_written_or_is_refused(text: str) -> None:
    try:
        matcher = parse_matcher(text)
    except MatcherError as error:
        assert str(error)
        return
    matcher.matches({})
    assert parse_matcher(str(matcher)) == matcher


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team=fraud", Matcher("team", Operator.EQUAL, "fraud")),
        ('severity="critical"', Matcher("severity", Operator.EQUAL, "critical")),
        ('  model =~ "fraud-.*"  ', Matcher("model", Operator.MATCHES, "fraud-.*")),
        ("ref!=latest", Matcher("ref", Operator.NOT_EQUAL, "latest")),
        ("model!~hf/.*|[a-c]{2}", Matcher("model", Operator.DOES_NOT_MATCH, "hf/.*|[a-c]{2}")),
        ("team=", Matcher("team", Operator.EQUAL, "")),
        ('team!=""', Matcher("team", Operator.NOT_EQUAL, "")),
        ('team=" a, b = c!"', Matcher("team", Operator.EQUAL, " a, b = c!")),
        (r'model="say \"hi\""', Matcher("model", Operator.EQUAL, 'say "hi"')),
        ("model=größe/模型", Matcher("model", Operator.EQUAL, "größe/模型")),
    ],
)
def test_a_matcher_is_a_label_an_operator_and_a_value(text: str, expected: Matcher) -> None:
    assert parse_matcher(text) == expected


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # As Alertmanager reads them: \" \\ \n are escapes, any other backslash is one (labels.ParseMatcher).
        (r"v\d+", r"v\d+"),
        (r"v\\d+", r"v\d+"),
        (r"\bfraud\b", r"\bfraud\b"),
        (r"\\\\share", r"\\share"),
        (r"a\nb", "a\nb"),
        (r"a\tb", r"a\tb"),
        (r"\"", '"'),
        (r"\u0041", r"\u0041"),
    ],
)
def test_only_quotes_backslashes_and_new_lines_need_a_backslash(written: str, meant: str) -> None:
    assert parse_matcher(f'model="{written}"').value == meant
    assert parse_matcher(f'model=~"{written}"').value == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must be a label, one of"),
        ("critical", "must be a label, one of"),
        ("1st=a", "must be a label, one of"),
        ("my-team=a", "must be a label, one of"),
        ('{severity="critical"}', "must be a label, one of"),
        # Each of these would be a matcher that never matches, and an alert that reaches nobody.
        ('severity=="critical"', "must be one label, one operator and one value"),
        ("severity==critical", "must be one label, one operator and one value"),
        ("severity=!critical", "must be one label, one operator and one value"),
        ("severity=critical, team=fraud", "must be one label, one operator and one value"),
        ("severity='critical'", "must be one label, one operator and one value"),
        ("severity=`critical`", "must be one label, one operator and one value"),
        ('team=a"b', "must be one label, one operator and one value"),
        ('severity="critical", team="fraud"', "each further matcher is an entry of its own"),
        ('team="a', "must end with the double quote"),
        ('team="a\\"', "must end with the double quote"),
        ('team="', "must end with the double quote"),
        ('model=~"fraud-("', "regular expression is not valid"),
        ("model=~*", "regular expression is not valid"),
        ("model!~a{99999999999}", "regular expression is not valid"),
        ('model=~"' + "(" * 450 + ")" * 50 + '"', "regular expression is not valid"),
        ('model="a\x00b"', "a character that is no text"),
        ('model="\ud800"', "a character that is no text"),
        ("a" * 101 + "=b", "a label has at most 100 characters"),
        ("a=" + "b" * 501, "a matcher's value has at most 500 characters"),
        ("a=" + "b" * 2000, "a matcher has at most 2000 characters"),
    ],
)
def test_what_is_no_matcher_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(MatcherError, match=why):
        parse_matcher(text)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("model=fraud", True),
        ("model=frau", False),
        ("model!=fraud", False),
        ("model!=Fraud", True),
        ("model=~fr.*", True),
        ("model=~rau", False),
        ("model=~risk|fraud", True),
        ("model!~fraud|risk", False),
        ("model!~rau", True),
        # A label without a value counts as empty text.
        ("team=", True),
        ("team=fraud", False),
        ("team!=fraud", True),
        ("team=~.*", True),
        ("team=~.+", False),
        ("team!~.+", True),
        # Of several values one has to fit, or none.
        ("rule=scaled", True),
        ("rule=~sw.*", True),
        ("rule=permuted", False),
        ("rule!=scaled", False),
        ("rule!=permuted", True),
        ("rule!~s.*d", False),
    ],
)
def test_a_matcher_matches_whole_values(text: str, matches: bool) -> None:
    labels = {"model": ("fraud",), "rule": ("scaled", "swapped")}
    assert parse_matcher(text).matches(labels) is matches


def test_a_new_line_in_a_name_leads_past_no_regular_expression() -> None:
    assert parse_matcher("model=~prod-.*").matches({"model": ("prod-\nx",)})
    assert not parse_matcher("model!~prod-.*").matches({"model": ("prod-\nx",)})
    assert not parse_matcher("model=~prod").matches({"model": ("prod\n",)})


@given(st.text("ab", max_size=2), VALUE_SETS, st.sampled_from([("=", "!="), ("=~", "!~")]))
def test_each_operator_has_its_opposite(value: str, values: tuple[str, ...], pair: tuple[str, str]) -> None:
    positive, negative = (parse_matcher(f'a{operator}"{value}"') for operator in pair)
    assert positive.matches({"a": values}) is not negative.matches({"a": values})


@given(VALUES, VALUES)
def test_a_name_as_regular_expression_matches_this_name_alone(name: str, other: str) -> None:
    escaped = re.escape(name)
    assume(len(escaped) <= 500)
    matcher = parse_matcher(str(Matcher("model", Operator.MATCHES, escaped)))
    assert matcher.matches({"model": (name,)})
    assert matcher.matches({"model": (other,)}) is (other == name)


def test_all_matchers_have_to_match() -> None:
    labels = {"severity": ("critical",), "team": ("fraud",)}
    assert all_match(parsed(["severity=critical", "team=fraud"]), labels)
    assert not all_match(parsed(["severity=critical", "team=risk"]), labels)
    assert all_match((), labels)

from __future__ import annotations

from collections.abc import Callable

from typer.testing import Result

from layerwatch.metrics.rules import RULES

Call = Callable[..., Result]


def test_a_misspelt_rule_gets_a_suggestion(call: Call) -> None:
    result = call("explain", "relativ-change")
    assert result.exit_code == 2
    assert "there is no rule 'relativ-change'; did you mean relative_change" in result.stderr


def test_a_word_that_is_like_no_rule_gets_the_list(call: Call) -> None:
    result = call("explain", "xyzzy")
    assert result.exit_code == 2
    head, *names = result.stderr.splitlines()
    assert head == "there is no rule 'xyzzy'; there are:"
    assert names == [f"  {rule.name}" for rule in RULES]

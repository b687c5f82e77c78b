from __future__ import annotations

import pytest

from layerwatch.config.errors import ConfigError, ConfigProblem


def test_all_problems_are_listed_in_the_order_of_the_file() -> None:
    error = ConfigError(
        [
            ConfigProblem("", None, "is not a setting", "LAYERWATCH_X"),
            ConfigProblem("scan.workers", 12, "must be at least 1", "a.yaml"),
            ConfigProblem("server.tokn", 3, 'unknown key, did you mean "token"?', "a.yaml"),
        ]
    )
    assert str(error).splitlines() == [
        'a.yaml:3: server.tokn: unknown key, did you mean "token"?',
        "a.yaml:12: scan.workers: must be at least 1",
        "LAYERWATCH_X: is not a setting",
    ]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (ConfigProblem("a.b", 7, "is wrong"), "line 7: a.b: is wrong"),
        (ConfigProblem("a.b", None, "is wrong"), "a.b: is wrong"),
        (ConfigProblem("", None, "is wrong", "f.yaml"), "f.yaml: is wrong"),
    ],
)
def test_a_problem_shows_as_much_of_its_place_as_is_known(problem: ConfigProblem, expected: str) -> None:
    assert str(problem) == expected


def test_an_error_without_a_problem_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        ConfigError([])

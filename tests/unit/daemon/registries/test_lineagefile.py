"""Declarations of origin: lineage.json with its recipe, and the simple ones among mergekit's configurations."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.registries.lineagefile import parse_lineage, parse_mergekit
from layerwatch.metrics.merge import MergeMethod, MergeRecipe
from layerwatch.metrics.relation import Relation

REFUSALS = (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError)


def lineage(**declared: Any) -> DeclaredLineage:
    return parse_lineage(json.dumps(declared).encode())[0]


def mergekit(text: str) -> DeclaredLineage:
    return parse_mergekit(text.encode())


def test_a_parent_and_a_relation_as_ever() -> None:
    assert lineage(parent="v1", relation="quantized") == DeclaredLineage(
        "v1", Relation.QUANTIZED, "lineage.json"
    )


def test_parents_make_a_merge_that_is_compared_with_its_base() -> None:
    found = lineage(
        parents=["a", "b"],
        recipe={"method": "task_arithmetic", "weights": [1, 0.5], "base": "v0", "scale": 0.8},
    )

    assert (found.parent, found.relation, found.parents) == ("v0", Relation.MERGED, ("a", "b"))
    assert found.recipe == MergeRecipe(MergeMethod.TASK_ARITHMETIC, (1.0, 0.5), "v0", None, 0.8)


def test_without_a_base_it_is_compared_with_the_first_parent() -> None:
    assert lineage(parents=["a", "b"]).parent == "a"
    assert lineage(parent="x", parents=["a", "b"]).parent == "x"


def test_the_first_unknown_key_is_told() -> None:
    assert parse_lineage(b'{"parent": "v1", "zzz": 1, "aaa": 2}')[1] == "aaa"


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"parents": "a"},
        {"parents": ["a", ""]},
        {"parents": ["a"], "recipe": {"weights": [0.5, 0.5]}},
        {"parents": ["a"], "recipe": {"weights": ["half"]}},
        {"parents": ["a"], "recipe": {"method": "blend"}},
        {"parents": ["a"], "recipe": {"ratio": 1}},
        {"parents": ["a"] * 33},
        {"parents": ["a"], "recipe": {"scale": True}},
        {"parents": ["a"], "recipe": {"scale": 10**400}},
        {"parents": ["a", "b"], "recipe": {"weights": [1e308, 1e308]}},
    ],
)
def test_what_is_no_recipe_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(REFUSALS):
        lineage(**declared)


def test_a_linear_merge_of_mergekit_is_read() -> None:
    # The form of mergekit's examples/linear.yml.
    found = mergekit(
        """
        models:
          - model: org/first-model
            parameters: {weight: 1.0}
          - model: org/second-model
            parameters: {weight: 0.3}
        merge_method: linear
        dtype: float16
        """
    )

    assert found.parents == ("org/first-model", "org/second-model")
    assert found.recipe == MergeRecipe(MergeMethod.LINEAR, (1.0, 0.3))
    assert (found.parent, found.relation, found.source) == (
        "org/first-model",
        Relation.MERGED,
        "mergekit_config.yml",
    )


def test_the_base_is_no_parent_of_ties() -> None:
    # The form of mergekit's examples/ties.yml.
    found = mergekit(
        """
        models:
          - model: org/base
          - model: org/one
            parameters: {density: 0.5, weight: 0.5}
          - model: org/two
            parameters: {density: 0.5, weight: 0.3}
        merge_method: ties
        base_model: org/base
        parameters: {normalize: true}
        """
    )

    assert found.parents == ("org/one", "org/two")
    assert found.recipe == MergeRecipe(MergeMethod.TIES, (0.5, 0.3), "org/base", True)
    assert found.parent == "org/base"


def test_slerp_walks_from_the_base_model_to_the_other() -> None:
    found = mergekit(
        """
        models: [{model: two}, {model: one}]
        merge_method: slerp
        base_model: one
        parameters: {t: 0.25}
        """
    )

    assert found.parents == ("one", "two")
    assert found.recipe == MergeRecipe(MergeMethod.SLERP, (0.75, 0.25))


@pytest.mark.parametrize(
    "text",
    [
        "slices: []\nmerge_method: linear",
        "models: [{model: a}]\nmerge_method: passthrough",
        "models: [{model: a}, {model: b}]\nmerge_method: slerp\nbase_model: a\nparameters: {t: [0, 0.5, 1]}",
        "models: [{model: a, parameters: {weight: [0.1, 0.9]}}]\nmerge_method: linear",
        "models: [{model: a}]\nmerge_method: task_arithmetic",
        "models: []\nmerge_method: linear",
        "- a\n- b",
        "{",
        "!!python/object/apply:os.system ['true']",
        f"models: [{{model: a, parameters: {{weight: 0x{'f' * 400}}}}}]\nmerge_method: linear",
        "models: [{model: &a a}, {model: *a}]\nmerge_method: linear",
    ],
)
def test_what_is_not_simple_is_refused(text: str) -> None:
    with pytest.raises(REFUSALS):
        mergekit(text)


def test_a_recipe_of_aliases_of_aliases_is_refused_before_it_is_written_out() -> None:
    # 10^16 entries in 1 KiB; the refusal of an unknown method would quote them all.
    levels = "\n".join(
        f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]" for level in range(1, 16)
    )
    with pytest.raises(yaml.YAMLError, match="aliases"):
        mergekit(f"l0: &l0 [{', '.join('x' * 10)}]\n{levels}\nmerge_method: *l15\nmodels: [{{model: a}}]")


@settings(max_examples=200)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "parent",
                        "parents",
                        "recipe",
                        "models",
                        "model",
                        "merge_method",
                        "weights",
                        "parameters",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_text_does_anything_but_parse_or_be_refused(text: bytes) -> None:
    for parse in (parse_lineage, parse_mergekit):
        try:
            parse(text)
        except REFUSALS:
            continue

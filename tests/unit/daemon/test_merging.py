"""A merge beside the models that it was made from, out of a real store."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.backtest import replay_model
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.records import Lineage
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.merge import MergeMethod, MergeRecipe
from layerwatch_testing.networks import Network, finetuned, network
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld

HALVES: dict[str, object] = {"method": "linear", "weights": [0.5, 0.5]}


def declared(recipe: Mapping[str, object] | None = None, *parents: str) -> bytes:
    lineage: dict[str, object] = {"parents": list(parents or ("a", "b"))}
    return json.dumps(lineage if recipe is None else {**lineage, "recipe": recipe}).encode()


def mixed(first: Network, second: Network, share: float = 0.5) -> Network:
    return {
        name: (share * value + (1 - share) * second[name]).astype(value.dtype)
        for name, value in first.items()
    }


def parents() -> tuple[Network, Network]:
    base = network()
    return finetuned(base, seed=1), finetuned(base, seed=2)


def told_of_merge(rig: Rig, version: str, model: str = "m") -> list[tuple[str, str | None]]:
    """Severity and layer of the findings about the recipe."""
    return [
        (one.severity, one.layer) for one in rig.report(model, version).findings if one.rule == "merge_recipe"
    ]


def about_merge(rig: Rig, version: str = "c", model: str = "m") -> list[str]:
    return [spot for spot in rig.report(model, version).blind_spots if "merge" in spot]


def test_a_declared_merge_is_kept_with_its_parents_and_its_recipe(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("m", "c", mixed(first, second), lineage=declared(HALVES))
    rig.look()
    kept = rig.version("m", "c").lineage
    assert kept == Lineage(
        "a", "merged", "lineage.json", 1.0, ("a", "b"), MergeRecipe(MergeMethod.LINEAR, (0.5, 0.5))
    )


def test_a_merge_that_follows_its_recipe_passes_without_a_remark(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("m", "a", first)
    world.publish("m", "b", second)
    world.publish("m", "c", mixed(first, second), lineage=declared(HALVES))
    rig.cycle()
    assert rig.version("m", "c").verdict is Verdict.PASS
    assert about_merge(rig) == []
    assert told_of_merge(rig, "c") == [(Severity.INFO, None)]


def test_a_layer_that_does_not_follow_the_recipe_is_broken(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("m", "a", first)
    world.publish("m", "b", second)
    wrong = mixed(first, second)
    wrong["fc2.weight"] = first["fc2.weight"] * 2 - second["fc2.weight"]
    world.publish("m", "c", wrong, lineage=declared(HALVES))
    rig.cycle()
    report = rig.report("m", "c")
    assert told_of_merge(rig, "c")[0] == (Severity.CRITICAL, "fc2")
    assert {layer.name for layer in report.layers if layer.status is LayerStatus.BROKEN} == {"fc2"}

    (replayed,) = [
        one
        for one in replay_model(rig.database, "reg", "m", RulesSettings(), Severity.CRITICAL)
        if one.version == "c"
    ]
    assert replayed.new_verdict is Verdict.FAIL
    assert replayed.is_unchanged


def test_parents_that_wait_for_their_own_scan_are_measured_first(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("m", "x1", first)
    world.publish("m", "x2", second)
    world.publish("m", "a-merge", mixed(first, second), lineage=declared(HALVES, "x1", "x2"))
    sentences = rig.cycle()
    assert sentences[0].startswith("reg/m/a-merge: pass")
    assert about_merge(rig, "a-merge") == []
    # What was measured for the merge is not measured again.
    assert [bool(names) for names in rig.executor.measured] == [True, True, True, False, False]


def test_a_parent_may_be_a_version_of_another_model(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("left", "v1", first)
    world.publish("right", "v1", second)
    world.publish("soup", "c", mixed(first, second), lineage=declared(HALVES, "left/v1", "right/v1"))
    rig.cycle()
    assert about_merge(rig, "c", "soup") == []

    wrong = {**mixed(first, second), "fc2.weight": second["fc2.weight"]}
    world.publish("stew", "d", wrong, lineage=declared(HALVES, "left/v1", "right/v1"))
    rig.cycle()
    report = rig.report("stew", "d")
    assert told_of_merge(rig, "d", "stew")[0] == (Severity.CRITICAL, "fc2")
    assert report.baseline is not None
    assert (report.baseline.name, report.baseline.version) == ("left", "v1")
    assert report.baseline.chosen_by == "parent"


def test_a_parent_that_is_not_there_is_told_and_nothing_is_made_of_the_rest(
    rig: Rig, world: DirectoryWorld
) -> None:
    first, second = parents()
    world.publish("m", "a", first)
    world.publish("m", "c", mixed(first, second), lineage=declared(HALVES))
    rig.cycle()
    assert about_merge(rig) == [
        "The merge was made from b, which is not in the registry: its recipe could not be verified."
    ]
    assert told_of_merge(rig, "c") == []


def test_a_parent_that_cannot_be_read_is_told(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("m", "a", first)
    world.publish("m", "b", second)
    (world.folder("m", "b") / "model.safetensors").write_bytes(b"nothing")
    world.publish("m", "c", mixed(first, second), lineage=declared(HALVES))
    rig.cycle()
    (told,) = about_merge(rig)
    assert told == "The merge was made from b, which is not measured: its recipe could not be verified."


def test_the_base_of_added_differences_is_looked_for_too(rig: Rig, world: DirectoryWorld) -> None:
    base = network()
    first, second = finetuned(base, seed=1), finetuned(base, seed=2)
    recipe = {"method": "task_arithmetic", "weights": [1.0, 1.0], "base": "base"}
    merged = {name: first[name] + second[name] - base[name] for name in base}
    world.publish("m", "a", first)
    world.publish("m", "b", second)
    world.publish("m", "c", merged, lineage=declared(recipe))
    rig.cycle()
    (told,) = about_merge(rig)
    assert "made from base, which is not in the registry" in told

    world.publish("other", "base", base)
    world.publish("other", "a", first)
    world.publish("other", "b", second)
    world.publish("other", "c", merged, lineage=declared(recipe))
    rig.cycle()
    assert about_merge(rig, "c", "other") == []
    assert told_of_merge(rig, "c", "other") == [(Severity.INFO, None)]


def test_layers_that_a_parent_lacks_are_counted(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("m", "a", first)
    world.publish("m", "b", second)
    more = {**mixed(first, second), "fc9.weight": np.eye(24, dtype=np.float32)}
    world.publish("m", "c", more, lineage=declared(HALVES))
    rig.cycle()
    (told,) = about_merge(rig)
    assert told == "1 layer was not held against the models that the merge was made from (1 missing)."


def test_a_version_named_as_its_own_parent_is_not_one(rig: Rig, world: DirectoryWorld) -> None:
    first, second = parents()
    world.publish("m", "a", first)
    world.publish("m", "c", mixed(first, second), lineage=declared(HALVES, "a", "c"))
    rig.cycle()
    (told,) = about_merge(rig)
    assert "made from c, which is not in the registry" in told


@pytest.mark.parametrize("later", [b'{"parent": "a"}', declared(None, "b", "a")])
def test_a_declaration_follows_the_file_until_the_verdict(
    rig: Rig, world: DirectoryWorld, later: bytes
) -> None:
    first, second = parents()
    world.publish("m", "c", mixed(first, second), lineage=declared(HALVES))
    place = world.folder("m", "c")
    rig.look()
    (place / "lineage.json").write_bytes(later)
    rig.watcher.look(rehash=True)
    with rig.database.read() as connection:
        (listed,) = versions.current_of_registry(connection, "reg")
    assert listed.lineage.parents == (() if later.startswith(b'{"parent"') else ("b", "a"))
    assert listed.lineage.recipe is None
    rig.cycle()
    (place / "lineage.json").write_bytes(declared(HALVES))
    rig.watcher.look(rehash=True)
    assert rig.version("m", "c").lineage == listed.lineage

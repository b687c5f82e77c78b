"""Units that stand where others belong."""

from __future__ import annotations

import numpy as np
import pytest

from layerwatch.metrics.association import Floats, gram
from layerwatch.metrics.unitplaces import Scatter, UnitPlaces, surprise, unit_places

UNITS = 64


def descriptions(seed: int = 0) -> tuple[Floats, Floats]:
    """What goes into units and what comes out of them: two views of the same 12 numbers per unit."""
    generator = np.random.default_rng(seed)
    meaning = generator.standard_normal((UNITS, 12))
    made = meaning @ generator.standard_normal((12, 40)) + 0.5 * generator.standard_normal((UNITS, 40))
    read = meaning @ generator.standard_normal((12, 30)) + 0.5 * generator.standard_normal((UNITS, 30))
    return made, read


def moved(count: int) -> np.ndarray:
    order = np.arange(UNITS)
    order[:count] = np.roll(order[:count], 1)
    return order


@pytest.mark.parametrize("count", [4, 8, 16])
def test_units_that_changed_places_are_counted(count: int) -> None:
    made, read = descriptions()
    assert unit_places(gram(made), gram(read)).displaced == 0
    assert 0.7 * count <= unit_places(gram(made[moved(count)]), gram(read)).displaced <= count


def test_units_whose_sign_was_turned_are_counted() -> None:
    made, read = descriptions()
    made[:10] *= -1.0
    found = unit_places(gram(made), gram(read))
    assert found.reversed == 10
    assert found.displaced <= 1


def test_the_order_of_all_units_makes_no_difference() -> None:
    made, read = descriptions()
    made = made[moved(8)]
    order = np.random.default_rng(1).permutation(UNITS)
    found, again = unit_places(gram(made), gram(read)), unit_places(gram(made[order]), gram(read[order]))
    assert (again.displaced, again.reversed) == (found.displaced, found.reversed)
    assert again.clarity == pytest.approx(found.clarity, rel=1e-6)


def test_layers_that_have_nothing_to_do_with_each_other_are_not_clear() -> None:
    assert unit_places(gram(descriptions(0)[0]), gram(descriptions(1)[1])).clarity < 2.0


@pytest.mark.parametrize("table", [np.zeros((16, 16)), np.ones((16, 16)) - np.eye(16)])
def test_a_table_that_says_nothing_has_no_unit_out_of_place(table: Floats) -> None:
    assert unit_places(table, table).displaced == 0
    assert unit_places(np.zeros((16, 16)), table) == UnitPlaces(0, 0, 0.0)


def test_more_units_out_of_place_surprise_more_and_less_clear_ones_surprise_less() -> None:
    scatter = Scatter(0.2, 1.1)
    assert surprise(0, UNITS, 3.0, scatter) == 0.0
    assert surprise(6, UNITS, 3.0, scatter) < surprise(12, UNITS, 3.0, scatter)
    assert surprise(6, UNITS, 2.0, scatter) < surprise(6, UNITS, 3.0, scatter)
    assert surprise(6, UNITS, 3.0, scatter, before=6) < surprise(6, UNITS, 3.0, scatter)

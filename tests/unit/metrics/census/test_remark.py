"""A remark survives being kept as data, and nothing else passes for one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind, remark_of, remark_to_json
from layerwatch.metrics.quantised.layer import RemarkKind

remarks = st.builds(
    StorageRemark,
    layer=st.text(),
    kind=st.sampled_from(StorageRemarkKind),
    detail=st.text(),
    declared=st.text(),
    stored=st.text(),
)


@given(remarks)
def test_a_remark_comes_back_as_it_was(remark: StorageRemark) -> None:
    assert remark_of(json.loads(json.dumps(remark_to_json(remark)))) == remark


@pytest.mark.parametrize(
    "change", [{"kind": "unknown"}, {"kind": None}, {"layer": 3}, {"detail": None}, {"stored": ["x"]}]
)
def test_what_is_no_remark_is_refused(change: dict[str, Any]) -> None:
    data = remark_to_json(StorageRemark("fc", StorageRemarkKind.BITS, "is wrong", "4", "8"))

    with pytest.raises((ValueError, LookupError, TypeError)):
        remark_of({**data, **change})


def test_every_remark_about_a_quantised_layer_has_its_kind() -> None:
    assert {kind.value for kind in RemarkKind} <= {kind.value for kind in StorageRemarkKind}

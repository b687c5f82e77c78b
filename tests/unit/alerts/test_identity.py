"""Event ids are equal where they must be and differ where they must."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.identity import alert_id, event_id
from layerwatch.alerts.model import AlertIdentity
from layerwatch.metrics.findings import RuleGroup

identities = st.builds(AlertIdentity, st.text(), st.text(), st.text(), st.sampled_from(RuleGroup))
arguments = st.tuples(identities, st.text(), st.text(), st.integers(1, 9))


def test_an_id_never_changes_between_releases() -> None:
    identity = AlertIdentity("prod", "fraud", "latest", RuleGroup.WEIGHTS)

    # sha256 of ["prod","fraud","latest","weights","sha256:ab","firing",1], worked out with sha256sum.
    assert event_id(identity, "sha256:ab", "firing", 1) == "evt_09d18bca9e73615eecd682b909ef9f16"
    # sha256 of ["prod","fraud","latest","weights",1]
    assert alert_id(identity, 1) == "alert_d40e200d479417fcbd739fd0fc90c642"


@settings(deadline=None)
@given(arguments, arguments)
def test_ids_are_equal_exactly_when_everything_in_them_is(
    one: tuple[AlertIdentity, str, str, int], other: tuple[AlertIdentity, str, str, int]
) -> None:
    assert (event_id(*one) == event_id(*other)) == (one == other)


def test_a_border_between_names_counts() -> None:
    def named(model: str, ref: str) -> str:
        return event_id(AlertIdentity("r", model, ref, RuleGroup.WEIGHTS), "f", "firing", 1)

    assert named("a", "b/c") != named("a/b", "c")
    assert named('a","b', "c") != named("a", 'b","c')

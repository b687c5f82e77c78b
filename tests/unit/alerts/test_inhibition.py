from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layerwatch.alerts.inhibition import Inhibition, build_inhibitions, inhibited_by
from layerwatch.config.alerts import AlertsSettings, InhibitionSettings
from layerwatch.config.matchers import Labels, all_match, parsed


def inhibition(source: str, target: str, *equal: str) -> Inhibition:
    return Inhibition(parsed([source]), parsed([target]), equal)


def alert(group: str, model: str = "m", **more: str) -> dict[str, tuple[str, ...]]:
    return {"rule_group": (group,), "model": (model,), **{name: (value,) for name, value in more.items()}}


BY_INTEGRITY = inhibition("rule_group=integrity", "rule_group=weights", "model", "team")


def test_an_alert_is_inhibited_by_one_that_fires_with_equal_labels() -> None:
    source = alert("integrity")
    firing = [alert("weights"), alert("integrity", "other"), source, alert("integrity")]
    assert inhibited_by(alert("weights"), firing, [BY_INTEGRITY]) is source
    assert inhibited_by(alert("weights", "third"), firing, [BY_INTEGRITY]) is None
    assert inhibited_by(alert("examination"), firing, [BY_INTEGRITY]) is None
    assert inhibited_by(source, firing, [BY_INTEGRITY]) is None
    assert inhibited_by(alert("weights"), [], [BY_INTEGRITY]) is None
    assert inhibited_by(alert("weights"), firing, []) is None


def test_a_label_that_both_are_without_is_equal() -> None:
    source = alert("integrity", team="fraud")
    assert inhibited_by(alert("weights", team="fraud"), [source], [BY_INTEGRITY]) is source
    assert inhibited_by(alert("weights"), [source], [BY_INTEGRITY]) is None
    empty = alert("weights", team="")
    assert inhibited_by(empty, [alert("integrity")], [BY_INTEGRITY]) is not None


def test_several_values_are_equal_in_any_order() -> None:
    by_rules = inhibition("rule_group=integrity", "rule_group=weights", "rule")
    source = {"rule_group": ("integrity",), "rule": ("a", "b")}
    assert inhibited_by({"rule_group": ("weights",), "rule": ("b", "a")}, [source], [by_rules]) is source
    assert inhibited_by({"rule_group": ("weights",), "rule": ("a",)}, [source], [by_rules]) is None


def test_alerts_that_match_both_sides_do_not_inhibit_each_other() -> None:
    """As in Alertmanager: otherwise each of them would hide the other, and nobody would be told."""
    worse = inhibition("severity=critical", "severity=~warning|critical", "model")
    one, other = alert("weights", severity="critical"), alert("integrity", severity="critical")
    assert inhibited_by(one, [one, other], [worse]) is None
    assert inhibited_by(alert("weights", severity="warning"), [one, other], [worse]) is one


def test_the_first_inhibition_with_a_source_decides() -> None:
    first, second = alert("integrity"), alert("examination")
    rules = [inhibition("rule_group=examination", "rule_group=weights"), BY_INTEGRITY]
    assert inhibited_by(alert("weights"), [first, second], rules) is second
    assert inhibited_by(alert("weights"), [first], rules) is first


def test_inhibitions_are_built_from_the_settings() -> None:
    settings = AlertsSettings(
        inhibitions=(
            InhibitionSettings(source=("rule_group=integrity",), target=("rule_group=weights",)),
            InhibitionSettings(source=("severity=critical",), target=("severity!=critical",), equal=()),
        )
    )
    assert build_inhibitions(settings) == (
        inhibition("rule_group=integrity", "rule_group=weights", "registry", "model", "ref"),
        inhibition("severity=critical", "severity!=critical"),
    )
    assert build_inhibitions(AlertsSettings()) == ()


LABELS = st.dictionaries(
    st.sampled_from(["model", "ref"]), st.lists(st.sampled_from("xyz"), max_size=2).map(tuple)
)
MATCHERS = st.lists(
    st.builds("{}{}{}".format, st.sampled_from(["model", "ref"]), st.sampled_from(["=", "!="]), st.just("x")),
    min_size=1,
    max_size=2,
).map(parsed)
INHIBITIONS = st.lists(
    st.builds(Inhibition, MATCHERS, MATCHERS, st.sampled_from([(), ("model",), ("model", "ref")])), max_size=3
)


@given(LABELS, st.lists(LABELS, max_size=4), INHIBITIONS)
def test_no_alert_inhibits_itself_and_a_source_is_never_its_own_target(
    labels: Labels, others: list[Labels], inhibitions: list[Inhibition]
) -> None:
    source = inhibited_by(labels, [labels, *others], inhibitions)
    assert source is None or source != labels
    assert source == inhibited_by(labels, others, inhibitions)
    assert source is None or any(
        all_match(one.source, source) and all_match(one.target, labels) for one in inhibitions
    )


@given(LABELS, LABELS, INHIBITIONS)
def test_of_two_alerts_at_most_one_inhibits_the_other_by_one_inhibition(
    one: Labels, other: Labels, inhibitions: list[Inhibition]
) -> None:
    for inhibition_ in inhibitions:
        both = [one, other]
        assert None in (inhibited_by(one, both, [inhibition_]), inhibited_by(other, both, [inhibition_]))

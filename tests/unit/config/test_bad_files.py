"""Every file in data/bad holds a mistake; here stands what is said about it, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings

FOLDER = Path(__file__).parent / "data" / "bad"

DURATIONS = "write whole numbers with the units d, h, m, s, ms, largest first, such as 30s, 5m, 1h30m or 7d"
KINDS = "webhook, log, alertmanager, pagerduty, slack, teams, apprise, heartbeat"
SIZES = "write a whole number with a unit, such as 512KiB, 4GiB or 100MB (B, KiB to TiB, KB to TB)"

EXPECTED: dict[str, list[str]] = {
    "alias_bomb": [
        "holds more than 20000 values, aliases counted in full",
    ],
    "alias_of_itself": [
        "1: is nested more than 32 levels deep through its aliases",
    ],
    "bad_name": [
        "2: registries[0].name: must start with a-z or 0-9 and go on with a-z, 0-9, _ and - only",
    ],
    "control_character": [
        "2: is not valid YAML: the character with code 0x07 is not allowed",
    ],
    "cross_checks_beside_other_mistakes": [
        "2: registries[0].path: is missing",
        '3: registries[1].name: the name "a" is already used by registries[0]',
        '5: alerts.fire_on: unknown value "info"; known: warning, critical',
        '7: alerts.receivers[0].sned_resolved: unknown key, did you mean "send_resolved"?',
        '8: alerts.route.receiver: unknown receiver "slak", did you mean "slack"?',
    ],
    "deep_nesting": [
        "1: is nested more than 32 levels deep",
    ],
    "duplicate_key": [
        "4: scan.workers: is given twice, first on line 2; keep one of the two",
    ],
    "duplicate_section": [
        "3: scan: is given twice, first on line 1; keep one of the two",
    ],
    "duration_without_unit": [
        "5: registries[0].poll: is a number without a unit; " + DURATIONS,
    ],
    "empty_patterns": [
        "5: registries[0].models: must not be empty",
        "6: registries[0].refs[0]: must not be empty",
    ],
    "half_a_proxy": [
        "1: server: trusted_proxies and user_header belong together; give both, or neither",
    ],
    "key_not_text": [
        "2: scan: holds a key that is not text; keys are words such as poll or path",
        "3: scan: holds a key that is not text; keys are words such as poll or path",
        "4: scan: holds a key that is not text; keys are words such as poll or path",
    ],
    "listens_to_the_world": [
        (
            "2: server.listen: 0.0.0.0 can be reached from other machines; set "
            "server.allow_non_loopback: true if that is meant, or listen on 127.0.0.1"
        ),
    ],
    "lists_and_groups": [
        "1: registries: must be a list, not a group of keys",
        "3: alerts: must be a group of keys, not a list",
    ],
    "merge_bomb": [
        "holds more than 20000 values, aliases counted in full",
    ],
    "merge_of_text": [
        "2: server: <<: must be followed by an alias of a mapping",
    ],
    "merged_settings": [
        '2: registries[0].pol: unknown key, did you mean "poll"?',
        '2: registries[1].pol: unknown key, did you mean "poll"?',
        "5: registries[1].poll: is a number without a unit; " + DURATIONS,
    ],
    "missing_required": [
        "2: registries[0].path: is missing",
        "4: registries[1].name: is missing",
        "8: alerts.receivers[0].kind: is missing; it must be one of " + KINDS,
        "9: alerts.route.receiver: is missing",
    ],
    "not_utf8": [
        "2: is not UTF-8 text",
    ],
    "not_yaml": [
        "4: is not valid YAML: expected ',' or '}', but got ':'",
    ],
    "object_tag": [
        "2: server.token: cannot be understood; put the value in quotes if it is text",
    ],
    "only_a_list": [
        "1: must hold sections such as server: and registries:, not a single value or list",
    ],
    "only_a_word": [
        "2: must hold sections such as server: and registries:, not a single value or list",
    ],
    "out_of_range": [
        "2: scan.workers: must be at most 64",
        "3: scan.attempts: must be at least 1",
        "6: rules.zero_rows.row_share: must be at most 1",
        "7: rules.zero_rows.column_share: must be greater than 0",
        "8: rules.huge_value.limit: must be a finite number",
        "10: store.keep_events: must be longer than 0s",
    ],
    "postgresql": [
        (
            "2: store.url: PostgreSQL is reached through psycopg: write "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        ),
    ],
    "private_networks": [
        (
            "8: alerts.receivers[0].allow_private_cidrs[1]: has bits set beyond its prefix; write "
            "10.0.0.0/8 for that network"
        ),
        ("9: alerts.receivers[0].allow_private_cidrs[2]: must be a network such as 10.0.0.0/8 or fd00::/8"),
    ],
    "receiver_without_route": [
        "1: alerts.route: is missing, so no receiver would get an alert; add route: {receiver: slack}",
    ],
    "repeated_names": [
        '4: registries[2].name: the name "a" is already used by registries[0]',
        '10: alerts.receivers[1].name: the name "log" is already used by alerts.receivers[0]',
    ],
    "route_without_receivers": [
        '2: alerts.route.receiver: unknown receiver "slack"; there are no receivers',
    ],
    "routes": [
        '4: alerts.owners[0].labels.severity: every alert has a label "severity" already; choose another name',
        '9: alerts.route.receiver: "alive" is a heartbeat, which is told of no alerts; choose another receiver',
        '10: alerts.route.group_by[1]: unknown label "modle", did you mean "model"?',
        (
            "12: alerts.route.routes[0].matchers[1]: must end with the double quote that its value begins with; "
            'a " within the value is written \\", and each further matcher is an entry of its own'
        ),
        '12: alerts.route.routes[0].matchers[0]: unknown severity "crit", did you mean "critical"?',
        '13: alerts.route.routes[0].contineu: unknown key, did you mean "continue"?',
        '16: alerts.route.routes[0].routes[0].receiver: unknown receiver "pagr", did you mean "pager"?',
        '17: alerts.route.routes[0].routes[0].mute_times[0]: unknown mute time "nigths", did you mean "nights"?',
        '20: alerts.mute_times[0].zone: unknown time zone "Europe/Berln", did you mean "Europe/Berlin"?',
        (
            '22: alerts.mute_times[0].times[0].hours[0]: is no range of hours: "20-7"; write HH:MM-HH:MM, such as '
            "20:00-07:00 or 12:00-24:00"
        ),
        (
            '24: alerts.inhibitions[0].equal[1]: unknown label "team"; known: registry, model, ref, rule_group, '
            "severity, version, rule"
        ),
    ],
    "secret_given_twice": [
        (
            "2: server.token: must hold exactly one of env and file, with text after it; write "
            "the text itself, {env: NAME} or {file: PATH}"
        ),
    ],
    "secret_not_text": [
        "2: server.token: must be text: put the value in quotes, or write {env: NAME} or {file: PATH}",
    ],
    "size_without_meaning": [
        '2: scan.memory_limit: is not a size: "4 gigs"; ' + SIZES,
    ],
    "tabs": [
        (
            "2: is not valid YAML: found character '\\t' that cannot start any token; indent with "
            "spaces, not tabs"
        ),
    ],
    "tail_exponent_critical": [
        (
            "3: rules.tail_exponent.severity: must not be critical: along healthy trainings alpha "
            "jumps by up to 21 in one layer, so alpha alone is no alarm; use info or warning"
        ),
    ],
    "two_documents": [
        "2: holds a second document (---); a configuration is one document",
    ],
    "unclosed_quote": [
        "5: is not valid YAML: found unexpected end of stream",
    ],
    "undefined_alias": [
        "2: is not valid YAML: found undefined alias (not shown)",
    ],
    "unknown_key": [
        '3: server.tokn: unknown key, did you mean "token"?',
    ],
    "unknown_key_of_one_kind": [
        "5: alerts.receivers[0].max_age: unknown key; known: name, kind, send_resolved",
    ],
    "unknown_kind": [
        '2: registries[0].kind: unknown value "directry", did you mean "directory"?',
        '6: alerts.receivers[0].kind: unknown value "webhok", did you mean "webhook"?',
    ],
    "unknown_receiver": [
        '5: alerts.route.receiver: unknown receiver "slak", did you mean "slack"?',
    ],
    "unknown_section": [
        '2: registry: unknown key, did you mean "registries"?',
        "4: zzz: unknown key; known: server, store, registries, downloads, scan, rules, composites, baselines, alerts",
    ],
    "unknown_severity": [
        '3: rules.zero_rows.severity: unknown value "crit", did you mean "critical"?',
        '5: rules.scaled.severity: unknown value "bad"; known: info, warning, critical',
    ],
    "unknown_tag": [
        "2: server.token: cannot be understood; put the value in quotes if it is text",
    ],
    "very_deep_nesting": [
        "2: is nested more than 32 levels deep",
    ],
    "webhook_url": [
        "5: alerts.receivers[0].url: must be an http:// or https:// URL with a host",
    ],
    "wrong_types": [
        "2: scan.workers: must be a whole number, not text",
        "3: scan.threads: must be a number, not true or false",
        "4: scan.attempts: must be a whole number without a fraction, not a number",
        "5: scan.niceness: has no value; it must be a whole number",
        "6: scan.timeout: is not a duration; " + DURATIONS,
        "8: rules.non_finite.enabled: must be true or false, not text",
        "9: rules.scaled: must be a group of keys, not text",
        "11: server.listen: must be text, not a number; put it in quotes",
    ],
}
"""For each file: ``LINE: PATH: MESSAGE`` of every problem, in order."""


def test_every_bad_file_is_in_the_table() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(EXPECTED)


@pytest.mark.parametrize("mistake", sorted(EXPECTED))
def test_a_mistake_is_reported_with_its_path_and_line(mistake: str) -> None:
    path = FOLDER / f"{mistake}.yaml"
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    separators = ["" if line[:1].isdigit() else " " for line in EXPECTED[mistake]]
    assert str(caught.value).splitlines() == [
        f"{path}:{separator}{line}" for separator, line in zip(separators, EXPECTED[mistake], strict=True)
    ]

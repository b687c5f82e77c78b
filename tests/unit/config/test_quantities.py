from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from layerwatch.config.quantities import (
    LARGEST_SIZE,
    LONGEST_DURATION,
    ByteSize,
    Duration,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)
SIZE: TypeAdapter[int] = TypeAdapter(ByteSize)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", timedelta(0)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("500ms", timedelta(milliseconds=500)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1m500ms", timedelta(minutes=1, milliseconds=500)),
        ("90m", timedelta(hours=1, minutes=30)),
        (" 30s ", timedelta(seconds=30)),
        ("36500d", LONGEST_DURATION),
    ],
)
def test_a_duration_is_read_from_numbers_with_units(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "30", "s", "-5s", "1.5h", "5M", "30m1h", "1h 30m", "5m5m", "5 s", "1w", "٣s", "PT5S", "5s\n5s"],
)
def test_text_that_is_no_duration_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration: .*30s, 5m, 1h30m or 7d"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "999999999999d999999999999h"])
def test_a_duration_beyond_a_century_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 36500d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (timedelta(0), "0s"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(hours=36), "1d12h"),
        (timedelta(seconds=1, milliseconds=5), "1s5ms"),
        (timedelta(days=30), "30d"),
    ],
)
def test_a_duration_is_written_with_its_largest_units(duration: timedelta, expected: str) -> None:
    assert format_duration(duration) == expected


@pytest.mark.parametrize(
    "duration",
    [timedelta(seconds=-1), timedelta(microseconds=1), LONGEST_DURATION + timedelta(milliseconds=1)],
)
def test_a_duration_that_no_text_can_say_is_not_written(duration: timedelta) -> None:
    with pytest.raises(ValueError, match="cannot be written as a duration"):
        format_duration(duration)
    with pytest.raises(ValidationError):
        DURATION.validate_python(duration)


@given(st.integers(0, LONGEST_DURATION // timedelta(milliseconds=1)))
def test_every_duration_is_read_back_as_it_was_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789dhms .-", max_size=12))
def test_any_text_is_a_duration_with_a_canonical_form_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert parse_duration(format_duration(duration)) == duration
    assert len(format_duration(duration)) <= len(text.strip()) + 3 * len("999h")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512KiB", 524_288),
        ("4GiB", 4_294_967_296),
        ("100MB", 100_000_000),
        ("1TB", 10**12),
        ("2 MiB", 2_097_152),
        ("4gib", 4_294_967_296),
        ("4Gi", 4_294_967_296),
        ("17", 17),
        ("17B", 17),
        ("0", 0),
    ],
)
def test_a_size_is_read_as_bytes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1KiB", "1.5GiB", "4G", "4GBi", "1e3", "0x10", "٣MB", "4  GiB"])
def test_text_that_is_no_size_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size: .*512KiB, 4GiB or 100MB"):
        parse_size(text)


def test_a_size_beyond_what_the_system_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_size("9223372036854775808")
    assert parse_size(str(LARGEST_SIZE)) == LARGEST_SIZE


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0B"), (1001, "1001B"), (1024, "1KiB"), (1000, "1KB"), (1_024_000, "1000KiB"), (10**8, "100MB")],
)
def test_a_size_is_written_with_the_largest_unit_that_keeps_it_exact(size: int, expected: str) -> None:
    assert format_size(size) == expected


def test_a_negative_size_is_not_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_size(-1)


@given(st.integers(0, LARGEST_SIZE))
def test_every_size_is_read_back_as_it_was_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 4095), st.sampled_from(["B", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"]))
def test_a_size_with_a_unit_is_never_written_longer_than_it_was_given(count: int, unit: str) -> None:
    size = parse_size(f"{count}{unit}")
    assert parse_size(format_size(size)) == size
    assert len(format_size(size)) <= len(f"{count}{unit}")


def test_the_types_read_text_and_write_short_text_to_json() -> None:
    assert DURATION.validate_python("1h30m") == timedelta(minutes=90)
    assert DURATION.dump_python(timedelta(minutes=90)) == timedelta(minutes=90)
    assert DURATION.dump_json(timedelta(minutes=90)) == b'"1h30m"'
    assert SIZE.validate_python("4GiB") == SIZE.validate_python(2**32) == 2**32
    assert SIZE.dump_json(2**32) == b'"4GiB"'


@pytest.mark.parametrize("value", [30, 1.5])
def test_a_number_is_no_duration_because_its_unit_is_unknown(value: object) -> None:
    with pytest.raises(ValidationError, match="is a number without a unit"):
        DURATION.validate_python(value)


@pytest.mark.parametrize("value", [True, None, [], {}])
def test_other_values_are_neither_duration_nor_size(value: object) -> None:
    with pytest.raises(ValidationError, match="is not a duration"):
        DURATION.validate_python(value)
    with pytest.raises(ValidationError, match="is not a size"):
        SIZE.validate_python(value)

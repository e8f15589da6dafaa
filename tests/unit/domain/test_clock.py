"""Times on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.clock import MAXIMUM_AHEAD_MS, event_time, iso_ms, parse_time
from bridge.errors import Refusal

AT_MS = 1_795_312_923_004


@pytest.mark.parametrize(
    ("value", "epoch_ms"),
    [
        ("2026-11-22T01:02:03.004Z", 1_795_309_323_004),
        ("2026-11-22T01:02:03Z", 1_795_309_323_000),
        ("2026-11-22T01:02:03.5Z", 1_795_309_323_500),
        ("2026-11-22T01:02:03.0041Z", 1_795_309_323_004),
        ("2026-11-22T01:02:03.004123456Z", 1_795_309_323_004),  # contract details 40: any fraction
        ("2026-11-22T02:02:03.004+01:00", 1_795_309_323_004),
        ("2026-11-22T01:02:03.004", 1_795_309_323_004),
        ("2026-11-22", 1_795_305_600_000),
        (1_795_309_323, 1_795_309_323_000),
        (1_795_309_323.004, 1_795_309_323_004),
        (1_795_309_323_004, 1_795_309_323_004),
        (1_795_309_323_004.0, 1_795_309_323_004),
        (200, 200_000),
        (0, 0),
        (-5, -5000),
    ],
)
def test_iso_seconds_and_milliseconds_mean_the_same(value: str | float, epoch_ms: int) -> None:
    assert parse_time(value, "timestamp")[0] == epoch_ms


def test_a_number_is_given_back_as_it_was_and_text_as_milliseconds() -> None:
    assert parse_time(1.5, "timestamp")[1] == 1.5
    assert parse_time("1970-01-01T00:00:01Z", "timestamp")[1] == 1000


@pytest.mark.parametrize("value", ["", "now", "2026-13-01", "12:00", "2026-11-22T25:00:00Z", 1e15, -1e300, 10**400])
def test_no_time_is_refused_by_name(value: str | float) -> None:
    with pytest.raises(Refusal) as refused:
        parse_time(value, "header.time")
    assert refused.value.code == "invalid_field"
    assert "header.time" in refused.value.message


@given(st.text(max_size=40) | st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_nothing_but_a_refusal_comes_out(value: str | float) -> None:
    try:
        epoch_ms, _ = parse_time(value, "timestamp")
    except Refusal:
        return
    assert isinstance(epoch_ms, int)


@given(st.integers(0, 4_000_000_000_000))
def test_times_that_the_bridge_makes_have_three_digits_and_read_back(epoch_ms: int) -> None:
    text = iso_ms(epoch_ms)
    assert text[-5] == "."
    assert text.endswith("Z")
    assert parse_time(text, "timestamp")[0] == epoch_ms


def test_an_event_time_is_now_where_none_was_brought_and_may_lie_five_minutes_ahead() -> None:
    assert event_time(None, AT_MS) == AT_MS
    assert event_time(-1, AT_MS) == -1
    assert event_time(AT_MS + MAXIMUM_AHEAD_MS, AT_MS) == AT_MS + 300_000
    with pytest.raises(Refusal, match="5 minutes ahead"):
        event_time(AT_MS + MAXIMUM_AHEAD_MS + 1, AT_MS)

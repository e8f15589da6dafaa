"""From when an interval counts."""

from bridge.domain.pauses import counted_from


def test_without_a_pause_since_then_it_counts_from_the_last_sign_of_life() -> None:
    assert counted_from(5000, 0, 60_000, "e") == 5000
    assert counted_from(5000, 5000, 60_000, "e") == 5000


def test_after_a_pause_it_counts_from_its_end_and_a_jitter_of_a_tenth() -> None:
    starts = [counted_from(1000, 5000, 60_000, f"e{number}") for number in range(200)]
    assert all(5000 <= start <= 11_000 for start in starts)
    assert len(set(starts)) > 150
    assert starts == [counted_from(4999, 5000, 60_000, f"e{number}") for number in range(200)]
    assert counted_from(1000, 5000, 9, "e") == 5000

"""The decision table of mute notifications, row by row against the source's strategies; the predicate; the docs."""

from itertools import product
from pathlib import Path

import pytest

from bridge.domain.mute_table import (
    EFFECTS,
    MEDIA,
    MUTE,
    MUTE_PERMANENT,
    MUTE_STATES,
    TABLE,
    UNMUTE,
    Effect,
    in_order,
    is_unlocked,
    mute_table,
    stricter,
)

PROTOCOL = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()


def test_every_row_decides_something_and_every_combination_is_decided() -> None:
    assert set(EFFECTS) == set(product((False, True), repeat=5))
    for number, row in enumerate(TABLE):
        reached = [
            facts
            for facts in EFFECTS
            if _fits(row[:-1], facts) and not any(_fits(other[:-1], facts) for other in TABLE[:number])
        ]
        assert reached, row
        assert {EFFECTS[facts] for facts in reached} == {row.effects}


def _fits(said: tuple[bool | None, ...], facts: tuple[bool, ...]) -> bool:
    return all(one is None or one is fact for one, fact in zip(said, facts, strict=True))


@pytest.mark.parametrize("facts", list(EFFECTS))
def test_what_the_strategies_of_the_source_say(facts: tuple[bool, ...]) -> None:
    is_other, is_own, mute_all, updated, requested = facts
    found = EFFECTS[facts]
    # "Attention": not for others, not for who sent it; it leaves the stored states alone.
    assert (Effect.ATTENTION in found) == (requested and not is_other and not is_own)
    # "Global": only what was updated, of the whole call; the target is looked at first.
    assert (Effect.CALL in found) == (updated and mute_all and not is_other and not requested)
    # "Others' personal" and "personal": whoever it concerns, but for the sender's own echo.
    assert (Effect.OWN in found) == (updated and not requested and (is_other or (not mute_all and not is_own)))
    # "Personal one-time": with what was updated, never by an echo.
    assert (Effect.GRANTS in found) == (updated and not requested and (is_other or not is_own))
    assert (Effect.GRANT in found) == (requested and is_other)
    # The normalised column: one who is named and all at once contradict each other.
    assert (Effect.ANOMALY in found) == (is_other and mute_all and updated and not requested)


@pytest.mark.parametrize("role", [None, "CREATOR", "ADMIN"])
@pytest.mark.parametrize(("call", "own"), list(product(MUTE_STATES, repeat=2)))
@pytest.mark.parametrize("once", [False, True])
def test_unlocked_as_the_source_has_it(role: str | None, call: str, own: str, once: bool) -> None:
    if role:
        expected = True
    elif MUTE_PERMANENT in (call, own):
        expected = once
    else:
        expected = True
    assert is_unlocked(role, call, own, once) is expected


def test_the_stricter_state() -> None:
    assert stricter(UNMUTE, MUTE) == MUTE == stricter(MUTE, MUTE)
    assert stricter(MUTE_PERMANENT, MUTE) == MUTE_PERMANENT == stricter(UNMUTE, MUTE_PERMANENT)


def test_media_stand_in_one_order() -> None:
    assert in_order(["VIDEO", "AUDIO", "VIDEO"]) == ("AUDIO", "VIDEO")
    assert in_order(reversed(MEDIA)) == MEDIA


def test_the_documentation_shows_the_table() -> None:
    assert mute_table() in PROTOCOL, f"docs/protocol.md lacks this, generated from the table:\n{mute_table()}"

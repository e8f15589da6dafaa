"""The decision table of mute notifications: what one of them means, by whom it concerns and who wrote it.

Every key arrives with every notification, but each means one logical thing. The first row that fits decides.
``docs/protocol.md`` shows this table, which a test compares. Source: reference "call permissions", column *normalised*.
"""

from collections.abc import Iterable
from enum import StrEnum
from itertools import product
from typing import NamedTuple

MEDIA = ("AUDIO", "VIDEO", "SCREEN_SHARING", "MOVIE_SHARING", "AUDIO_SHARING", "ANIMOJI")
UNMUTE, MUTE, MUTE_PERMANENT = "UNMUTE", "MUTE", "MUTE_PERMANENT"
MUTE_STATES = (UNMUTE, MUTE, MUTE_PERMANENT)
"""From the loosest to the strictest. Only a permanent one locks: a plain mute turns a device off once."""

CREATOR, ADMIN = "CREATOR", "ADMIN"
ROLES = (CREATOR, ADMIN)


class Effect(StrEnum):
    """What a notification does; its value is how the documentation says it."""

    CALL = "the call's states"
    OWN = "the participant's own states"
    GRANTS = "one-time grants replaced by `unmuteOptions`, unless empty"
    GRANT = "one-time grants of `requestedMedia`"
    ATTENTION = "attention: of all where `muteAll`, else of the participant"
    ANOMALY = "`muteAll` is passed over, and counted as an anomaly"


class Row(NamedTuple):
    """One row; None stands for both.

    Attributes:
        is_other: ``userId`` names somebody else than the participant addressed; else it names that one, or nobody.
        is_own: the participant addressed wrote it itself.
        mute_all: the field ``muteAll``; ``updated`` the field ``stateUpdated``.
        requested: ``requestedMedia`` names at least one medium.
    """

    is_other: bool
    is_own: bool | None
    mute_all: bool | None
    updated: bool | None
    requested: bool
    effects: tuple[Effect, ...]


TABLE = (
    Row(True, None, None, None, True, (Effect.GRANT,)),
    # The target is looked at first, so not muteAll.
    Row(True, None, True, True, False, (Effect.OWN, Effect.GRANTS, Effect.ANOMALY)),
    Row(True, None, None, True, False, (Effect.OWN, Effect.GRANTS)),
    Row(True, None, None, False, False, ()),
    Row(False, True, None, None, True, ()),
    Row(False, False, None, None, True, (Effect.ATTENTION,)),
    Row(False, None, None, False, False, ()),
    Row(False, True, True, True, False, (Effect.CALL,)),
    Row(False, True, False, True, False, ()),
    Row(False, False, True, True, False, (Effect.CALL, Effect.GRANTS)),
    Row(False, False, False, True, False, (Effect.OWN, Effect.GRANTS)),
)

EFFECTS: dict[tuple[bool, ...], tuple[Effect, ...]] = {
    facts: next(
        row.effects
        for row in TABLE
        if all(said is None or said is fact for said, fact in zip(row[:-1], facts, strict=True))
    )
    for facts in product((False, True), repeat=5)
}
"""The table in full: the first five fields of a row, none of them open -> its effects."""


def in_order(media: Iterable[str]) -> tuple[str, ...]:
    """Return media without repetitions, in the order of `MEDIA`."""
    found = frozenset(media)
    return tuple(medium for medium in MEDIA if medium in found)


def stricter(one: str, other: str) -> str:
    """Return the stricter of two mute states."""
    return max(one, other, key=MUTE_STATES.index)


def is_unlocked(role: str | None, call: str, own: str, once: bool) -> bool:
    """Tell whether a participant may turn a medium on.

    Args:
        role: `CREATOR`, `ADMIN` or None.
        call: the call's mute state of the medium.
        own: the participant's own.
        once: it has a one-time grant.
    """
    return role is not None or MUTE_PERMANENT not in (call, own) or once


def mute_table() -> str:
    """Return the table as Markdown."""
    answers = {None: "any", True: "yes", False: "no"}
    lines = [
        "| `userId` | author | `muteAll` | `stateUpdated` | `requestedMedia` | what it changes |",
        "|---|---|---|---|---|---|",
    ]
    for row in TABLE:
        target = "another's" if row.is_other else "none, or the addressed"
        author = {None: "any", True: "the addressed", False: "another, or the system"}[row.is_own]
        said = [answers[answer] for answer in (row.mute_all, row.updated, row.requested)]
        lines.append(f"| {' | '.join([target, author, *said, '; '.join(row.effects) or 'nothing'])} |")
    return "\n".join(lines)

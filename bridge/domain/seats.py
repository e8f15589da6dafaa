"""Seats: what telling a room needs to know of each of its parties, so that nobody's record is read for it.

A seat is a member of the room's index, as text; it follows from the party's record.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from bridge.domain.ids import parties_index
from bridge.domain.records import Party
from bridge.domain.values import Page

MAXIMUM_SEATS = 10_000
# No id holds a slash (DESIGN 4), and a key's escapes bring none in.
_DIVIDER = "/"


class Seat(NamedTuple):
    """One party of a room.

    Attributes:
        party: its id.
        user: the key of its sender; see `Party`.
        endpoint: the one endpoint that stands for it; empty: all of its sender's do, none where that is a phone.
        owner: the key of that endpoint's owner; empty, too, where nobody held the endpoint that the party named.
        size: the largest room that its client can handle; 0: any.
    """

    party: str
    user: str
    endpoint: str = ""
    owner: str = ""
    size: int = 0


def seat_of(party: str, record: Party) -> Seat:
    """Return the seat of a party that is present."""
    return Seat(party, record.user, record.endpoint, record.owner, record.size)


def member_of(seat: Seat) -> str:
    """Return the seat as it stands in the index."""
    texts = seat[:-1]
    return _DIVIDER.join((*texts, str(seat.size)) if seat.size else texts)


def seats_page(room: str) -> Page:
    """Return the page that holds a room's seats, all of them."""
    return Page(parties_index(room), "", MAXIMUM_SEATS)


def seats_of(members: list[str]) -> dict[str, Seat]:
    """Return the seats of an index by party; what somebody else wrote there is passed over."""
    return {seat.party: seat for seat in map(_seat, members) if seat is not None}


@lru_cache(maxsize=16_384)
def _seat(member: str) -> Seat | None:
    match member.split(_DIVIDER):
        case [party, user, endpoint, owner]:
            return Seat(party, user, endpoint, owner)
        case [party, user, endpoint, owner, size] if size.isdecimal():
            return Seat(party, user, endpoint, owner, int(size))
    return None


def wide_seats(seats: Iterable[Seat]) -> list[Seat]:
    """Return those for which all endpoints of their sender stand; a phone has none."""
    return [seat for seat in seats if not seat.owner and not seat.user.startswith("phone:")]

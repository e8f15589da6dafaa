"""Seats: what stands in a room's index, and back."""

from bridge.domain.ids import sender_key
from bridge.domain.records import Party
from bridge.domain.seats import Seat, member_of, seat_of, seats_of

ODD = "a:b%{c} ü"


def test_a_seat_comes_back_from_the_index_as_it_went_in() -> None:
    seats = [
        Seat("tab-1", "user:ann", "tab-1", "user:ann"),
        Seat(ODD, sender_key("participant", ODD), "e1", sender_key("user", ODD)),
        Seat("CA1", sender_key("phone", "CA1")),
    ]
    assert seats_of([member_of(seat) for seat in seats]) == {seat.party: seat for seat in seats}


def test_what_somebody_else_wrote_into_the_index_is_passed_over() -> None:
    assert seats_of(["", "tab-1", "a/b/c/d/e", "tab-1/user:ann//"]) == {"tab-1": Seat("tab-1", "user:ann")}


def test_a_seat_follows_from_the_record() -> None:
    party = Party("user:ann", endpoint="e1", owner="user:bob")
    assert seat_of("tab-1", party) == Seat("tab-1", "user:ann", "e1", "user:bob")

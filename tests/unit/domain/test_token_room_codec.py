"""The codec of ``/rooms``: what bodies and session tokens say, and the number of what is wrong with them."""

from typing import Any

import pytest

from bridge.domain.media_table import Counters
from bridge.domain.room_commands import CreateRoom, JoinRoom, LeaveRoom, RefreshParty, ReportMedia, RoomCommand, Visitor
from bridge.domain.token_room_codec import SessionToken, read_action, read_creation, visitor_of
from bridge.domain.token_rooms import Errno, RoomRefusal

ANN = Visitor(user="ann")
MADE = SessionToken("c1", "secret")
JOIN = {"action": "join", "displayName": "Ann", "clientMaxSize": 2}
STATUS = {"action": "status", "event": "e", "state": "waiting", "connections": 1, "sendStreams": 0, "recvStreams": 0}


def read(fields: dict[str, Any], visitor: Visitor = ANN) -> RoomCommand:
    return read_action(fields, "R", visitor, MADE)


def errno(fields: dict[str, Any], visitor: Visitor = ANN) -> Errno:
    with pytest.raises(RoomRefusal) as refused:
        read(fields, visitor)
    return refused.value.errno


def test_actions_become_commands() -> None:
    assert read(JOIN) == JoinRoom("R", ANN, "Ann", 2, "c1", MADE.proof)
    assert read({**JOIN, "userEndpointId": "ann1"}) == JoinRoom("R", ANN, "Ann", 2, "c1", MADE.proof, "ann1")
    assert read({"action": "refresh"}) == RefreshParty("R", ANN)
    assert read({"action": "leave"}) == LeaveRoom("R", ANN)
    assert read(STATUS) == ReportMedia("R", ANN, Counters((1, 0, 0), "waiting"))


@pytest.mark.parametrize("size", [2, "2", 2.0])
def test_numbers_of_actions_may_be_texts(size: object) -> None:
    assert read({**JOIN, "clientMaxSize": size}) == read(JOIN)
    assert read({**STATUS, "connections": size}) == ReportMedia("R", ANN, Counters((2, 0, 0), "waiting"))


def test_sessions_is_another_spelling_of_connections() -> None:
    fields = {name: value for name, value in STATUS.items() if name != "connections"}
    assert read({**fields, "sessions": 1}) == read(STATUS)
    assert errno(fields) == Errno.INVALID_PARAMETERS


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({}, Errno.MISSING_PARAMETERS),
        ({"action": None}, Errno.MISSING_PARAMETERS),
        ({"action": "dance"}, Errno.INVALID_PARAMETERS),
        ({"action": ["join"]}, Errno.INVALID_PARAMETERS),
        ({**JOIN, "displayName": None}, Errno.MISSING_PARAMETERS),
        ({"action": "join", "displayName": "A"}, Errno.MISSING_PARAMETERS),
        ({"action": "join"}, Errno.MISSING_PARAMETERS),
        *(({**JOIN, "displayName": name}, Errno.INVALID_PARAMETERS) for name in ("", 5, "x" * 257, ["A"])),
        *(
            ({**JOIN, "clientMaxSize": size}, Errno.INVALID_PARAMETERS)
            for size in ("many", "", "1.5", "0", "-1", 1.5, True, 0, -1, 10**9, "9" * 30, [])
        ),
        *(({**JOIN, "userEndpointId": name}, Errno.INVALID_PARAMETERS) for name in ("", "a/b", 5, "x" * 129)),
        *(
            ({**STATUS, name: value}, Errno.INVALID_PARAMETERS)
            for name in ("connections", "sendStreams", "recvStreams")
            for value in ("abc", -1, "-1", None, True, 1.5, {}, 10**12)
        ),
        *(({**STATUS, name: value}, Errno.INVALID_PARAMETERS) for name in ("event", "state") for value in (None, 5)),
        ({"action": "status"}, Errno.INVALID_PARAMETERS),
    ],
)
def test_what_is_missing_and_what_is_wrong(fields: dict[str, Any], number: Errno) -> None:
    assert errno(fields) == number


@pytest.mark.parametrize("action", ["refresh", "leave", "status"])
def test_only_a_join_needs_nobody(action: str) -> None:
    assert errno({"action": action}, Visitor()) == Errno.UNAUTHORIZED
    assert errno({"action": action}, Visitor(is_service=True)) == Errno.UNAUTHORIZED
    assert isinstance(read(JOIN, Visitor()), JoinRoom)


def test_the_body_tells_who_calls_only_where_the_header_does_not() -> None:
    token = str(MADE)
    by_token = Visitor(party="c1", proof=MADE.proof)
    assert read({"action": "leave", "sessionToken": token}, Visitor()) == LeaveRoom("R", by_token)
    assert read({"action": "refresh", "sessionToken": token}, Visitor(is_service=True)) == RefreshParty("R", by_token)
    assert read({"action": "leave", "sessionToken": token}) == LeaveRoom("R", ANN)
    assert errno({**STATUS, "sessionToken": token}, Visitor()) == Errno.UNAUTHORIZED
    assert errno({"action": "leave", "sessionToken": 5}, Visitor()) == Errno.UNAUTHORIZED


def test_a_session_token_holds_who_and_a_secret_of_which_a_hash_is_kept() -> None:
    assert visitor_of("c1.secret") == Visitor(party="c1", proof=MADE.proof)
    assert "secret" not in MADE.proof
    for token in ("", ".", "..", "a b.c", "x" * 129 + ".y", "ü.y", "a/b.c"):
        assert visitor_of(token).party == "."


def test_a_creation() -> None:
    assert read_creation({"maxSize": 2, "roomName": "Tea", "more": 1}, "R", "ann") == CreateRoom("R", "Tea", 2, "ann")
    assert read_creation({"maxSize": 2}, "R", "") == CreateRoom("R", "", 2, "")


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({}, Errno.MISSING_PARAMETERS),
        ({"roomName": "Tea"}, Errno.MISSING_PARAMETERS),
        ({"maxSize": 0}, Errno.INVALID_PARAMETERS),
        ({"maxSize": "2"}, Errno.INVALID_PARAMETERS),
        ({"maxSize": 2, "roomName": 5}, Errno.INVALID_PARAMETERS),
        ({"maxSize": 2, "roomName": "x" * 257}, Errno.INVALID_PARAMETERS),
    ],
)
def test_a_creation_that_cannot_be(fields: dict[str, Any], number: Errno) -> None:
    with pytest.raises(RoomRefusal) as refused:
        read_creation(fields, "R", "ann")
    assert refused.value.errno == number

"""Media status: every spelling that is accepted, every fault and its code."""

import json
from typing import Any

import pytest

from bridge.domain.commands import Ignore, ReportParticipant
from bridge.domain.inputs import Input
from bridge.domain.media_codec import decode_client_media, decode_media
from bridge.domain.media_table import Counters
from bridge.errors import Refusal

FULL = {"event": "Session.connectionCreated", "state": "waiting", "connections": 1, "sendStreams": 0, "recvStreams": 0}


def decoded(payload: object, **rest: Any) -> list[Any]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return decode_media(("s1", "ann"), Input("", body, **rest))


def test_a_status() -> None:
    assert decoded(FULL) == [ReportParticipant("s1", "ann", Counters((1, 0, 0), "waiting"))]
    body = json.dumps(FULL).encode()
    assert decode_client_media(("ann", "s1"), Input("", body)) == [
        ReportParticipant("s1", "ann", Counters((1, 0, 0), "waiting"), kind="user")
    ]


def test_sessions_is_another_spelling_of_connections() -> None:
    other = {name: value for name, value in FULL.items() if name != "connections"}
    assert decoded({**other, "sessions": 2}) == [ReportParticipant("s1", "ann", Counters((2, 0, 0), "waiting"))]
    assert decoded({**FULL, "sessions": 2}) == decoded(FULL)


def test_texts_may_be_any_or_left_out() -> None:
    assert decoded({**FULL, "event": "sdk.exception.1554", "state": "hello world"})[0].counters.claimed == "hello world"
    assert decoded({"connections": 2, "sendStreams": 1, "recvStreams": 0, "more": [1]}) == [
        ReportParticipant("s1", "ann", Counters((2, 1, 0)))
    ]


@pytest.mark.parametrize(("value", "count"), [(0, 0), ("2", 2), ("+2", 2), (2.0, 2), (-1, -1), ("-3", -3)])
def test_counters(value: object, count: int) -> None:
    assert decoded({**FULL, "sendStreams": value})[0].counters.counts == (1, count, 0)


@pytest.mark.parametrize("field", ["connections", "sendStreams", "recvStreams"])
@pytest.mark.parametrize("value", [None, "abc", "", "1 1", "1_0", 2.5, True, [], {}, 1_000_001, "999999999", 10**30])
def test_what_is_no_counter(field: str, value: object) -> None:
    with pytest.raises(Refusal, match=field) as refused:
        decoded({**FULL, field: value})
    assert refused.value.code == "invalid_field"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"state": "\xff"}', "not_json"),
        ([], "invalid_field"),
        ({**FULL, "event": 1}, "invalid_field"),
        ({**FULL, "state": []}, "invalid_field"),
    ],
)
def test_what_is_no_status(payload: object, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        decoded(payload)
    assert refused.value.code == code


def test_bad_ids_in_the_topic() -> None:
    for ids, code in ((("", "ann"), "empty_id"), (("s1", ""), "empty_id"), (("s1", "$a"), "invalid_field")):
        for decode in (decode_media, decode_client_media):
            with pytest.raises(Refusal) as refused:
                decode(ids, Input("", json.dumps(FULL).encode()))
            assert refused.value.code == code


def test_a_replay_at_a_subscription_is_no_news() -> None:
    assert decoded(FULL, retained=True) == [Ignore()]
    assert decode_client_media(("ann", "s1"), Input("", b"", retained=True)) == [Ignore()]


# What stands beside the media.


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"roles": ["ADMIN"]}, {"roles": ("ADMIN",)}),
        ({"roles": ["ADMIN", "CREATOR"]}, {"roles": ("CREATOR", "ADMIN")}),
        ({"roles": []}, {"roles": ()}),
        ({"roomId": "r1"}, {"room": "r1"}),
        ({"roomId": None}, {"room": ""}),
        ({"handRaised": True}, {"hand": True}),
        (
            {"mediaSettings": {"isAudioEnabled": True, "isScreenSharingEnabled": False, "isVideoEnabled": None}},
            {"devices": {"AUDIO": True, "SCREEN_SHARING": False}},
        ),
        (
            {**FULL, "handRaised": False, "roomId": "r1"},
            {"counters": Counters((1, 0, 0), "waiting"), "hand": False, "room": "r1"},
        ),
    ],
)
def test_each_alone_or_together(fields: dict[str, Any], told: dict[str, Any]) -> None:
    assert decoded(fields) == [ReportParticipant("s1", "ann", **told)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"more": 1},
        {"roles": None, "handRaised": None, "mediaSettings": None},
        {"roles": ["KING"]},
        {"roles": "ADMIN"},
        {"roles": [[]]},
        {"roomId": 1},
        {"mediaSettings": []},
        {"mediaSettings": {"isAudioEnabled": 1}},
        {"handRaised": "1"},
    ],
)
def test_what_says_nothing_or_nonsense(fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        decoded(fields)
    assert refused.value.code == "invalid_field"


def test_roles_are_not_a_client_s_to_give() -> None:
    with pytest.raises(Refusal, match="roles") as refused:
        decode_client_media(("ann", "s1"), Input("", json.dumps({**FULL, "roles": []}).encode()))
    assert refused.value.code == "not_allowed"

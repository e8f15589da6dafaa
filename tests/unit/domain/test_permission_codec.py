"""Mute notifications and commands: every spelling that is accepted, every fault and its code."""

import json
from typing import Any

import pytest

from bridge.domain.commands import Ignore, MuteParticipant, Person, ReportMute
from bridge.domain.inputs import Input
from bridge.domain.permission_codec import decode_permissions
from bridge.errors import Refusal

# As the source shows it.
NOTIFICATION = {
    "muteStates": {"VIDEO": "MUTE_PERMANENT", "AUDIO": "MUTE_PERMANENT"},
    "unmuteOptions": [],
    "mediaOptions": ["VIDEO", "AUDIO"],
    "muteAll": False,
    "unmute": False,
    "userId": {"deviceIdx": 0, "id": "1000002", "type": "USER"},
    "adminId": None,
    "stateUpdated": True,
}
BOTH = {"VIDEO": "MUTE_PERMANENT", "AUDIO": "MUTE_PERMANENT"}


def decoded(payload: object, *participant: str, **rest: Any) -> Any:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    [command] = decode_permissions(("s1", *participant), Input("", body, **rest))
    return command


def code(payload: object, *participant: str) -> str:
    with pytest.raises(Refusal) as refused:
        decoded(payload, *participant)
    return refused.value.code


def test_the_notification_of_the_source() -> None:
    assert decoded(NOTIFICATION) == ReportMute(
        "s1", None, Person("1000002", 0), None, False, True, False, BOTH, (), (), ""
    )


def test_every_field() -> None:
    fields = {
        **NOTIFICATION,
        "userId": None,
        "participantId": "x",
        "adminId": {"id": "a", "deviceIdx": 2},
        "muteAll": True,
        "unmute": True,
        "stateUpdated": False,
        "unmuteOptions": ["VIDEO", "AUDIO", "VIDEO"],
        "requestedMedia": ["MOVIE_SHARING"],
        "roomId": "r1",
        "more": {"a": 1},
    }
    assert decoded(fields, "me") == ReportMute(
        *("s1", Person("me"), Person("x"), Person("a", 2), True, False, True, BOTH),
        *(("AUDIO", "VIDEO"), ("MOVIE_SHARING",), "r1"),
    )


def test_only_the_media_that_changed_are_taken() -> None:
    assert decoded({**NOTIFICATION, "mediaOptions": ["AUDIO", "ANIMOJI"]}).states == {"AUDIO": "MUTE_PERMANENT"}
    assert decoded({**NOTIFICATION, "mediaOptions": []}).states == {}
    assert decoded({**NOTIFICATION, "mediaOptions": None}).states == BOTH


def test_mixed_values_are_a_notification_s_but_no_command_s() -> None:
    mixed = {"AUDIO": "MUTE", "VIDEO": "UNMUTE"}
    assert decoded({**NOTIFICATION, "muteStates": mixed}).states == mixed
    assert code({"type": "mute-participant", "participantId": "x", "muteStates": mixed}) == "mixed_mute_states"


def test_what_is_left_out() -> None:
    assert decoded({"muteAll": True, "muteStates": {"AUDIO": "MUTE"}}) == ReportMute(
        "s1", None, None, None, True, True, False, {"AUDIO": "MUTE"}, (), (), ""
    )
    assert decoded({"requestedMedia": []}, "me").requested == ()


def test_who_is_addressed() -> None:
    nobody = {**NOTIFICATION, "userId": None}
    assert code(nobody) == "not_addressed"
    assert decoded(nobody, "me").target is None
    assert decoded({**nobody, "muteAll": True}).target is None


def test_a_command() -> None:
    fields = {"type": "mute-participant", "adminId": "a", "muteStates": {"AUDIO": "MUTE"}}
    assert decoded({**fields, "participantId": "x"}) == MuteParticipant(
        "s1", Person("x"), Person("a"), {"AUDIO": "MUTE"}, (), ""
    )
    assert decoded({**fields, "userId": "x", "muteAll": True}).target == Person("x")  # the target is looked at first
    assert decoded({**fields, "muteAll": True}, "me").target is None
    assert decoded(fields, "me").target == Person("me")
    assert code(fields) == "not_addressed"
    assert code({**fields, "participantId": "x", "muteStates": {}}) == "invalid_field"
    assert decoded({**fields, "muteAll": True, "muteStates": {}, "requestedMedia": ["AUDIO"]}).requested == ("AUDIO",)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("muteStates", {"SMELL": "MUTE"}),
        ("muteStates", {"AUDIO": "LOUD"}),
        ("muteStates", {"AUDIO": []}),
        ("muteStates", ["AUDIO"]),
        ("mediaOptions", ["SMELL"]),
        ("mediaOptions", "AUDIO"),
        ("unmuteOptions", [[]]),
        ("unmuteOptions", {}),
        ("requestedMedia", [1]),
        ("muteAll", "yes"),
        ("unmute", 1),
        ("stateUpdated", []),
        ("userId", 7),
        ("userId", []),
        ("userId", {}),
        ("userId", {"id": 7}),
        ("userId", {"id": "a/b"}),
        ("userId", {"id": "x", "deviceIdx": "0"}),
        ("adminId", {"id": "x", "deviceIdx": True}),
        ("adminId", "+"),
        ("roomId", 1),
        ("roomId", "#"),
    ],
)
def test_what_is_no_notification(field: str, value: object) -> None:
    with pytest.raises(Refusal, match=field) as refused:
        decoded({**NOTIFICATION, field: value}, "me")
    assert refused.value.code == "invalid_field"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "not_json"),
        (b'{"a": "\xff"}', "not_json"),
        (b"[" * 100 + b"]" * 100, "too_deep"),
        ([], "invalid_field"),
        (None, "invalid_field"),
        ({**NOTIFICATION, "type": "mute"}, "unknown_type"),
        ({**NOTIFICATION, "type": 7}, "unknown_type"),
        ({**NOTIFICATION, "userId": ""}, "empty_id"),
        ({**NOTIFICATION, "roomId": ""}, "empty_id"),
    ],
)
def test_faults_and_their_codes(payload: object, expected: str) -> None:
    assert code(payload) == expected


def test_bad_ids_in_the_topic() -> None:
    assert code(NOTIFICATION, "") == "empty_id"
    assert code(NOTIFICATION, "$me") == "invalid_field"


def test_a_replay_at_a_subscription_is_no_news() -> None:
    assert decoded(NOTIFICATION, retained=True) == Ignore()

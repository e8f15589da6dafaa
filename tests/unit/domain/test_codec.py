"""Presence, status, session and keepalive inputs: every spelling that is accepted, every fault and its code."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.codec import (
    MAXIMUM_DEPTH,
    decode_keepalive,
    decode_presence,
    decode_status,
    read_document,
)
from bridge.domain.commands import (
    Ignore,
    JoinSession,
    KeepEndpoint,
    LeaveSession,
    Reject,
    ReplySession,
    ReportPresence,
    ReportStatus,
    StopSession,
)
from bridge.domain.ids import Ref
from bridge.domain.inputs import Input
from bridge.domain.session_codec import decode_session
from bridge.domain.values import KINDS, Kind
from bridge.errors import Refusal

CODES = {
    *("not_json", "unknown_type", "id_mismatch", "empty_id", "invalid_field", "too_large", "too_deep", "not_allowed"),
}
TYPE_URL = "type.googleapis.com/opentera.protobuf."


def presence(payload: object, kind: Kind = "user", **rest: Any) -> list[Any]:
    return decode_presence(kind, ("ann",), inbound(payload, **rest))


def session(payload: object, **rest: Any) -> list[Any]:
    return decode_session(("s1",), inbound(payload, **rest))


def inbound(payload: object, **rest: Any) -> Input:
    return Input("", payload if isinstance(payload, bytes) else json.dumps(payload).encode(), **rest)


def code_of(decode: Any, *args: Any, **rest: Any) -> str:
    with pytest.raises(Refusal) as refused:
        decode(*args, **rest)
    return refused.value.code


# Presence.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text", "online"), [(b"online", True), (b"offline", False)])
def test_bare_text_as_wills_and_availability_have_it(kind: Kind, text: bytes, online: bool) -> None:
    assert presence(text, kind) == [ReportPresence(kind, "ann", online)]
    assert presence(text, kind, connection="c1", retained=True) == [
        ReportPresence(kind, "ann", online, "c1", retained=True)
    ]


@pytest.mark.parametrize("text", [b"Online", b"online\n", b" offline", b"", b"1"])
def test_bare_text_has_exactly_two_words(text: bytes) -> None:
    assert code_of(presence, text) in ("not_json", "invalid_field")


# Contract: reference "presence and sessions" 1; numbers differ between the kinds.
ENUMS: dict[Kind, dict[int, str]] = {
    "user": dict(
        enumerate(
            ("UNKNOWN", "CONNECTED", "DISCONNECTED", "DELETED", "ADDED", "UPDATED", "JOINED_SESSION", "LEFT_SESSION")
        )
    ),
    "participant": dict(
        enumerate(("UNKNOWN", "CONNECTED", "DISCONNECTED", "DELETED", "ADDED", "JOINED_SESSION", "LEFT_SESSION"))
    ),
    "device": dict(
        enumerate(
            (
                *("UNKNOWN", "CONNECTED", "DISCONNECTED", "DELETED"),
                *("ADDED", "JOINED_SESSION", "LEFT_SESSION", "STATUS_CHANGED"),
            )
        )
    ),
}


@pytest.mark.parametrize(
    ("kind", "number", "name"), [(kind, number, name) for kind in KINDS for number, name in ENUMS[kind].items()]
)
def test_every_enum_name_and_its_number_mean_the_same(kind: Kind, number: int, name: str) -> None:
    expected = {
        "CONNECTED": [ReportPresence(kind, "ann", True)],
        "DISCONNECTED": [ReportPresence(kind, "ann", False)],
    }.get(name, [Ignore()])
    assert presence({"type": number}, kind) == expected
    assert presence({"type": f"{kind.upper()}_{name}"}, kind) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [8, 99, -1, "CONNECTED", "user_connected", "", "0"])
def test_an_unknown_enum_value(kind: Kind, given: object) -> None:
    assert code_of(presence, {"type": given}, kind) == "unknown_type"


def test_an_enum_of_another_kind_is_unknown() -> None:
    assert code_of(presence, {"type": "DEVICE_CONNECTED"}, "user") == "unknown_type"
    assert code_of(presence, {"type": 7}, "participant") == "unknown_type"


def test_a_missing_type_is_unknown_zero_which_changes_nothing() -> None:
    assert presence({}) == [Ignore()]
    assert presence({"type": None, "userUuid": "ann"}) == [Ignore()]


@pytest.mark.parametrize("name", ["UserEvent", TYPE_URL + "UserEvent", "opentera.protobuf.UserEvent"])
def test_the_type_url_in_its_spellings(name: str) -> None:
    assert presence({"@type": name, "type": 1}) == [ReportPresence("user", "ann", True)]


def test_another_messages_type_url_on_this_topic() -> None:
    assert code_of(presence, {"@type": TYPE_URL + "DeviceEvent", "type": 1}) == "unknown_type"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"userUuid": "ann"}, None),
        ({"user_uuid": "ann"}, None),
        ({"userUuid": None}, None),
        ({"userUuid": "bob"}, "id_mismatch"),
        ({"user_uuid": "bob"}, "id_mismatch"),
        ({"userUuid": ""}, "empty_id"),
        ({"userUuid": 5}, "invalid_field"),
        ({"deviceUuid": "bob"}, None),  # an unknown field of this kind
        ({"connectionId": 7}, "invalid_field"),
        ({"connectionId": "a/b"}, "invalid_field"),
        ({"connectionId": "x" * 129}, "invalid_field"),
        ({"timestamp": True}, "invalid_field"),
        ({"timestamp": "soon"}, "invalid_field"),
        ({"timestamp": 1e300}, "invalid_field"),
        ({"header": {"time": "x"}}, "invalid_field"),
        ({"header": 5}, "invalid_field"),
        ({"events": 5}, "invalid_field"),
        ({"type": True}, "invalid_field"),
        ({"type": [1]}, "invalid_field"),
    ],
)
def test_fields_of_presence(fields: dict[str, object], code: str | None) -> None:
    payload = {"type": 1, **fields}
    if code is None:
        assert presence(payload) == [ReportPresence("user", "ann", True)]
    else:
        assert code_of(presence, payload) == code


def test_a_connection_in_the_payload_wins_over_the_user_property() -> None:
    assert presence({"type": 1, "connectionId": "c1"}, connection="c2")[0].connection == "c1"
    assert presence({"type": 1, "connection_id": "c1"}, connection="c2")[0].connection == "c1"
    assert presence({"type": 1}, connection="c2")[0].connection == "c2"
    assert presence({"type": 1, "connectionId": ""})[0].connection == ""


@pytest.mark.parametrize("connection", ["a/b", "a+", "x" * 60_000, "a\x07"])
@pytest.mark.parametrize("payload", [b"online", b"offline", b'{"type":1}'])
def test_a_bad_connection_in_the_user_property(payload: bytes, connection: str) -> None:
    assert code_of(presence, payload, connection=connection) == "invalid_field"


@pytest.mark.parametrize(
    ("fields", "time_ms"),
    [
        ({"timestamp": 200}, 200_000),
        ({"timestamp": "1970-01-01T00:03:20Z"}, 200_000),
        ({"timestamp": 1_795_309_323_004}, 1_795_309_323_004),
        ({"header": {"time": 1_795_309_323.004}}, 1_795_309_323_004),
        ({"header": {"time": 100}, "timestamp": 200}, 100_000),
        ({"header": {}}, None),
        ({"header": None, "timestamp": None}, None),
    ],
)
def test_times_of_presence(fields: dict[str, object], time_ms: int | None) -> None:
    assert presence({"type": 1, **fields})[0].time_ms == time_ms


@pytest.mark.parametrize("id_", ["", "$a", "a+b", "a\x00", "x" * 129])
def test_the_topics_id_is_checked_on_every_input(id_: str) -> None:
    code = "invalid_field" if id_ else "empty_id"
    assert code_of(decode_presence, "user", (id_,), inbound(b"online")) == code
    assert code_of(decode_status, "user", (id_,), inbound(b"1")) == code
    assert code_of(decode_session, (id_,), inbound({"type": "StopSessionEvent"})) == code
    assert code_of(decode_keepalive, (id_,), inbound(b"")) == code


# The wrapper.


def wrapped(*events: object, **header: object) -> dict[str, object]:
    return {"message": {"@type": TYPE_URL + "TeraEvent", "header": header, "events": list(events)}}


def test_a_wrapper_with_several_events_and_one_time() -> None:
    event = {"@type": TYPE_URL + "UserEvent", "userUuid": "ann", "type": "USER_CONNECTED"}
    expected = ReportPresence("user", "ann", True, time_ms=7000)
    assert presence(wrapped(event, event, version=1, time=7.0, topic="x")) == [expected, expected]
    assert presence(wrapped(event, event, time=7)["message"]) == [expected, expected]


def test_one_bad_event_among_good_ones() -> None:
    good = {"type": 1}
    bad = [{"type": "?"}, {"type": 1, "userUuid": "bob"}, {"type": 1, "timestamp": "x"}, 5, None, [], {"header": 3}]
    commands = presence(wrapped(good, *bad, good))
    assert commands[0] == commands[-1] == ReportPresence("user", "ann", True)
    assert [command.code for command in commands[1:-1]] == [
        *("unknown_type", "id_mismatch", "invalid_field"),
        *("invalid_field", "invalid_field", "invalid_field", "invalid_field"),
    ]


def test_an_events_own_time_holds_where_the_wrapper_has_none() -> None:
    assert presence({"events": [{"type": 1, "timestamp": 5}]})[0].time_ms == 5000
    assert presence({"timestamp": 4, "events": [{"type": 1, "timestamp": 5}]})[0].time_ms == 4000
    [stop] = session({"events": [{"type": "StopSessionEvent", "timestamp": 5}]})
    assert stop.time_ms == 5000


def test_a_wrapper_with_a_bad_time_is_refused_as_a_whole() -> None:
    assert code_of(presence, {"timestamp": "x", "events": [{"type": 1}]}) == "invalid_field"
    assert code_of(session, {"timestamp": "x", "events": [{"type": "StopSessionEvent"}]}) == "invalid_field"


# Status.


def status(payload: object) -> ReportStatus:
    [command] = decode_status("device", ("lamp",), inbound(payload))
    assert isinstance(command, ReportStatus)
    return command


@pytest.mark.parametrize("document", [{"brightness": 80}, [1, 2], "on", 5, 1.5, True, None, {}, {"status": 1}])
def test_any_json_is_a_status_document(document: object) -> None:
    command = status(document)
    assert json.loads(bytes(command.status)) == document
    assert (command.time_ms, command.timestamp) == (None, None)


@pytest.mark.parametrize(
    ("payload", "time_ms", "written"),
    [
        (b'{"status":{"a":1},"timestamp":5}', 5000, "5"),
        (b' \n{"timestamp":5.5,"status":{"a":1}}', 5500, "5.5"),
        (b'{"status":{"a":1},"timestamp":1795309323004}', 1_795_309_323_004, "1795309323004"),
        (b'{"status":{"a":1},"timestamp":"1970-01-01T00:00:05Z"}', 5000, "5000"),
    ],
)
def test_a_status_that_brings_its_time(payload: bytes, time_ms: int, written: str) -> None:
    command = status(payload)
    assert bytes(command.status) == b'{"a":1}'
    assert command.time_ms == time_ms
    assert json.dumps(command.timestamp) == written


@pytest.mark.parametrize(
    "document",
    [
        {"status": 1, "timestamp": 5, "more": 2},
        {"timestamp": 5},
        {"status": 1, "timestamp": None},
        {"x": {"status": 1, "timestamp": 5}},
    ],
)
def test_a_document_that_only_looks_like_it(document: object) -> None:
    command = status(document)
    assert json.loads(bytes(command.status)) == document
    assert command.time_ms is None


def test_a_status_with_a_bad_time_of_its_own() -> None:
    assert code_of(status, {"status": 1, "timestamp": "x"}) == "invalid_field"


# Sessions.


def test_join_leave_stop_and_reply() -> None:
    lists = {"sessionUsers": ["ann", "ann"], "sessionParticipants": ["p1"], "sessionDevices": ["lamp"]}
    [join] = session({"type": "JoinSessionEvent", "sessionUuid": "s1", **lists, "joinMsg": "hi", "timestamp": 5})
    members = (Ref("user", "ann"), Ref("participant", "p1"), Ref("device", "lamp"))
    assert isinstance(join, JoinSession)
    assert (join.session, join.members, join.time_ms) == ("s1", members, 5000)
    assert join.fields["joinMsg"] == "hi"
    [leave] = session({"type": "LeaveSessionEvent", "leavingUsers": ["ann"], "leaving_devices": ["lamp"]})
    assert isinstance(leave, LeaveSession)
    assert leave.members == (Ref("user", "ann"), Ref("device", "lamp"))
    [stop] = session({"@type": TYPE_URL + "StopSessionEvent", "session_uuid": "s1", "header": {"time": 2}})
    assert stop == StopSession("s1", {"session_uuid": "s1"}, 2000)
    [reply] = session(
        {"type": "JoinSessionReplyEvent", "userUuid": "ann", "device_uuid": "lamp", "participantUuid": ""}
    )
    assert isinstance(reply, ReplySession)
    assert (reply.members, reply.accepted) == ((Ref("user", "ann"), Ref("device", "lamp")), False)


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        ("REPLY_ACCEPTED", True),
        (1, True),
        ("REPLY_DENIED", False),
        (2, False),
        ("REPLY_BUSY", False),
        (3, False),
        ("REPLY_TIMEOUT", False),
        (4, False),
        ("REPLY_UNKNOWN", False),
        (0, False),
        (None, False),
    ],
)
def test_only_accepted_is_accepted(given: object, accepted: bool) -> None:
    for field in ("joinReply", "join_reply"):
        [reply] = session({"type": "JoinSessionReplyEvent", "userUuid": "ann", field: given})
        assert isinstance(reply, ReplySession)
        assert reply.accepted is accepted


@pytest.mark.parametrize("given", ["ACCEPTED", 5, True, False, [], {}, 1.5, ""])
def test_no_reply(given: object) -> None:
    assert code_of(session, {"type": "JoinSessionReplyEvent", "userUuid": "ann", "joinReply": given}) == "invalid_field"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "unknown_type"),
        ({"type": 5}, "unknown_type"),
        ({"type": None}, "unknown_type"),
        ({"type": "JoinSession"}, "unknown_type"),
        ({"@type": TYPE_URL + "UserEvent", "type": "JoinSessionEvent"}, "unknown_type"),
        ({"type": "JoinSessionEvent", "sessionUuid": "s2"}, "id_mismatch"),
        ({"type": "JoinSessionEvent", "session_uuid": "s2"}, "id_mismatch"),
        ({"type": "JoinSessionEvent", "sessionUuid": ""}, "empty_id"),
        ({"type": "JoinSessionEvent", "sessionUuid": 5}, "invalid_field"),
        ({"type": "JoinSessionEvent", "sessionUsers": "ann"}, "invalid_field"),
        ({"type": "JoinSessionEvent", "sessionUsers": {"ann": 1}}, "invalid_field"),
        ({"type": "StopSessionEvent", "timestamp": []}, "invalid_field"),
        ({"type": "StopSessionEvent", "timestamp": True}, "invalid_field"),
        ({"type": "StopSessionEvent", "header": {"time": {}}}, "invalid_field"),
        ({"type": "JoinSessionReplyEvent", "userUuid": 5}, "invalid_field"),
        ({"type": "JoinSessionReplyEvent", "userUuid": "a/b"}, "invalid_field"),
        ([], "invalid_field"),
        (5, "invalid_field"),
        (None, "invalid_field"),
        (b"online", "not_json"),
        (b"", "not_json"),
    ],
)
def test_faults_of_session_messages(payload: object, code: str) -> None:
    assert code_of(session, payload) == code


def test_a_bad_entry_of_a_member_list_is_skipped_and_the_rest_applies() -> None:
    commands = session({"type": "JoinSessionEvent", "sessionUsers": ["", "ann", None, 5, "a/b", ["x"], "bob"]})
    assert commands[0].members == (Ref("user", "ann"), Ref("user", "bob"))
    assert [command.code for command in commands[1:]] == ["empty_id", *["invalid_field"] * 4]
    assert all(isinstance(command, Reject) for command in commands[1:])


def test_a_session_wrapper_with_one_bad_event_among_good_ones() -> None:
    stop = {"type": "StopSessionEvent"}
    commands = session(wrapped(stop, 5, {"type": "?"}, {**stop, "timestamp": "x"}, stop, time=3))
    assert [type(command) for command in commands] == [StopSession, Reject, Reject, Reject, StopSession]
    assert commands[0].time_ms == commands[-1].time_ms == 3000


# Keepalives.


def test_a_keepalive_is_empty() -> None:
    assert decode_keepalive(("e1",), inbound(b"")) == [KeepEndpoint("e1")]
    assert code_of(decode_keepalive, ("e1",), inbound(b"{}")) == "invalid_field"
    assert code_of(decode_keepalive, ("a b",), inbound(b"")) == "invalid_field"


# Bad bytes, on whatever topic.

DECODERS = {
    "presence": presence,
    "session": session,
    "status": status,
}
DEEP = 10_000
BAD_BYTES: dict[str, tuple[bytes, set[str]]] = {
    "not utf-8": (b'{"type":"\xff"}', {"not_json"}),
    "utf-16": ('{"type":1}'.encode("utf-16"), {"not_json"}),
    "half": (b'{"type":', {"not_json"}),
    "two documents": (b"{}{}", {"not_json"}),
    "NaN": (b'{"type":NaN}', {"not_json"}),
    "Infinity": (b'{"x":Infinity}', {"not_json"}),
    "single quotes": (b"{'type':1}", {"not_json"}),
    "lone surrogate": (rb'{"x":"\ud800"}', {"not_json"}),
    "control character in text": (b'{"x":"\x01"}', {"not_json"}),
    "deep arrays": (b"[" * DEEP + b"]" * DEEP, {"too_deep"}),
    "deep objects": (b'{"x":' * DEEP + b"1" + b"}" * DEEP, {"too_deep"}),
    "deep and never closed": (b"[" * DEEP, {"too_deep"}),
    "deep in an unknown field": (b'{"type":1,"x":' + b"[" * DEEP + b"]" * DEEP + b"}", {"too_deep"}),
    "deep in the wrapper": (b'{"events":[' + b"[" * DEEP + b"]" * DEEP + b"]}", {"too_deep"}),
    "deep in the message": (b'{"message":' + b"[" * DEEP + b"]" * DEEP + b"}", {"too_deep"}),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("fault", BAD_BYTES)
def test_bad_bytes(decoder: str, fault: str) -> None:
    payload, codes = BAD_BYTES[fault]
    assert code_of(DECODERS[decoder], payload) in codes


@pytest.mark.parametrize("decoder", ["session", "status"])
def test_a_number_beyond_any_float(decoder: str) -> None:
    for number in (b"1e999", b"-1E400", b"9" * 400 + b".0"):
        assert code_of(DECODERS[decoder], b'{"type":"StopSessionEvent","x":' + number + b"}") == "invalid_field"


def test_great_numbers_within_reason_pass_through_a_session_message() -> None:
    [stop] = session(b'{"type":"StopSessionEvent","x":123456789012345678901234567890,"y":1e308}')
    assert msgspec.json.encode(stop.fields["x"]) == b"123456789012345678901234567890"


@pytest.mark.parametrize("depth", [1, MAXIMUM_DEPTH - 1, MAXIMUM_DEPTH])
def test_nesting_up_to_the_limit_is_taken(depth: int) -> None:
    read_document(b"[" * depth + b"]" * depth)
    read_document(b"[" + b",".join([b"[" * (depth - 1) + b"]" * (depth - 1)] * 9 if depth > 1 else []) + b"]")


@pytest.mark.parametrize("depth", [MAXIMUM_DEPTH + 1, 500, DEEP])
def test_nesting_beyond_it_is_not(depth: int) -> None:
    assert code_of(read_document, b"[" * depth + b"]" * depth) == "too_deep"
    assert code_of(read_document, b'{"a":' * depth + b"1" + b"}" * depth) == "too_deep"


@given(payload=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_nothing_but_commands_and_refusals_comes_out_of_bytes(payload: bytes, kind: Kind) -> None:
    _only_documented(kind, payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "@type", "userUuid", "timestamp", "header", "time", "events", "message", "status"),
                    *("sessionUsers", "leavingUsers", "sessionUuid", "joinReply", "connectionId"),
                ]
            ),
            inner | st.sampled_from(["JoinSessionEvent", "LeaveSessionEvent", "JoinSessionReplyEvent", 1, "ann"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(value=json_values, kind=st.sampled_from(KINDS))
def test_nothing_but_commands_and_refusals_comes_out_of_json(value: object, kind: Kind) -> None:
    _only_documented(kind, json.dumps(value).encode(errors="replace"))


def _only_documented(kind: Kind, payload: bytes) -> None:
    for decode in (
        lambda: decode_presence(kind, ("ann",), inbound(payload)),
        lambda: decode_status(kind, ("ann",), inbound(payload)),
        lambda: decode_session(("s1",), inbound(payload)),
    ):
        try:
            codes = {command.code for command in decode() if isinstance(command, Reject)}
        except Refusal as refusal:
            codes = {refusal.code}
        assert codes <= CODES

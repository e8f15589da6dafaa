"""Bad input over the wire: each is rejected alone, with its code, acknowledged, and nothing after it is stopped."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.integration.conftest import Pace
from tests.integration.stack import Client, Stack

Fresh = Callable[[str], str]

DEEP = b"[" * 10_000 + b"]" * 10_000
TYPE = b'"type":"USER_CONNECTED"'

# name -> topic, payload, the code that the report starts with
BAD: dict[str, tuple[str, bytes, str]] = {
    "not UTF-8": ("presence/users/{id}", b'{"type":"USER_CONNECTED","x":"\xff\xfe"}', "not_json"),
    "not UTF-8, bare": ("presence/users/{id}", b"\xc3\x28", "not_json"),
    "not UTF-8, status": ("presence/users/{id}/status", b'"\xff"', "not_json"),
    "not UTF-8, session": ("sessions/{id}", b'{"type":"StopSessionEvent","x":"\xff"}', "not_json"),
    "surrogate halves": ("sessions/{id}", b'{"type":"StopSessionEvent","x":"\\ud800"}', "not_json"),
    "not JSON": ("presence/users/{id}", b"hello", "not_json"),
    "cut off": ("presence/users/{id}", b'{"type":"USER_CONN', "not_json"),
    "something behind": ("presence/users/{id}", b"{" + TYPE + b"} x", "not_json"),
    "nothing": ("presence/users/{id}", b"", "not_json"),
    "nothing as a status": ("presence/devices/{id}/status", b"", "not_json"),
    "nothing to a session": ("sessions/{id}", b"", "not_json"),
    "NUL": ("presence/users/{id}", b"\0", "not_json"),
    "ONLINE": ("presence/users/{id}", b"ONLINE", "not_json"),
    "an array": ("presence/users/{id}", b"[" + b"{" + TYPE + b"}]", "invalid_field"),
    "text": ("presence/users/{id}", b'"online"', "invalid_field"),
    "a number": ("sessions/{id}", b"5", "invalid_field"),
    "null": ("presence/devices/{id}", b"null", "invalid_field"),
    "type of a wrong kind": ("presence/users/{id}", b'{"type":{}}', "invalid_field"),
    "type true": ("presence/users/{id}", b'{"type":true}', "invalid_field"),
    "events of a wrong kind": ("presence/users/{id}", b'{"events":5}', "invalid_field"),
    "members of a wrong kind": ("sessions/{id}", b'{"type":"JoinSessionEvent","sessionUsers":"u"}', "invalid_field"),
    "unknown enum": ("presence/users/{id}", b'{"type":"USER_FLEW"}', "unknown_type"),
    "enum of another kind": ("presence/users/{id}", b'{"type":"DEVICE_CONNECTED"}', "unknown_type"),
    "number of no enum": ("presence/users/{id}", b'{"type":99}', "unknown_type"),
    "unknown type": ("sessions/{id}", b'{"type":"NoSuchEvent"}', "unknown_type"),
    "no type": ("sessions/{id}", b"{}", "unknown_type"),
    "unknown @type": (
        "presence/users/{id}",
        b'{"@type":"type.googleapis.com/opentera.protobuf.DeviceEvent","type":1}',
        "unknown_type",
    ),
    "unknown reply": ("sessions/{id}", b'{"type":"JoinSessionReplyEvent","joinReply":"PERHAPS"}', "invalid_field"),
    "reply of a wrong kind": ("sessions/{id}", b'{"type":"JoinSessionReplyEvent","joinReply":[1]}', "invalid_field"),
    "another id": ("presence/users/{id}", b"{" + TYPE + b',"userUuid":"somebody"}', "id_mismatch"),
    "another session": ("sessions/{id}", b'{"type":"StopSessionEvent","sessionUuid":"another"}', "id_mismatch"),
    "empty id": ("presence/users/{id}", b"{" + TYPE + b',"userUuid":""}', "empty_id"),
    "empty session": ("sessions/{id}", b'{"type":"StopSessionEvent","session_uuid":""}', "empty_id"),
    "empty level": ("presence/users/", b"online", "empty_id"),
    "empty level, status": ("presence/users//status", b"1", "empty_id"),
    "empty session level": ("sessions/", b'{"type":"StopSessionEvent"}', "empty_id"),
    "empty endpoint": ("users/endpoints//keepalive", b"", "empty_id"),
    "$ in front": ("presence/users/$id", b"online", "invalid_field"),
    "id of 129": ("presence/users/" + "x" * 129, b"online", "invalid_field"),
    "endpoint with a colon": ("users/endpoints/a:b/keepalive", b"", "invalid_field"),
    "keepalive with a payload": ("users/endpoints/{id}/keepalive", b"{}", "invalid_field"),
    "connection with a slash": ("presence/users/{id}", b"{" + TYPE + b',"connectionId":"a/b"}', "invalid_field"),
    "connection with a control character": (
        "presence/users/{id}",
        b"{" + TYPE + b',"connectionId":"a\\u0007b"}',
        "invalid_field",
    ),
    "time ahead": ("presence/users/{id}", b"{" + TYPE + b',"timestamp":99999999999}', "invalid_field"),
    "time that is none": ("presence/users/{id}", b"{" + TYPE + b',"timestamp":"tomorrow"}', "invalid_field"),
    "time beyond any date": ("presence/users/{id}", b"{" + TYPE + b',"header":{"time":1e300}}', "invalid_field"),
    "200 KiB": ("presence/users/{id}", b'{"x":"' + b"x" * 204_800 + b'"}', "too_large"),
    "200 KiB to a session": ("sessions/{id}", b" " * 204_800, "too_large"),
    "status of 17 KiB": ("presence/users/{id}/status", b'"' + b"x" * 17_000 + b'"', "too_large"),
    "depth 10,000": ("presence/users/{id}", DEEP, "too_deep"),
    "depth 10,000 inside": ("presence/users/{id}", b'{"x":' + DEEP + b"}", "too_deep"),
    "depth 10,000 to a session": ("sessions/{id}", b'{"x":' + DEEP + b"}", "too_deep"),
    "depth 5,000 of a status": ("presence/users/{id}/status", b"[" * 5000 + b"]" * 5000, "too_deep"),
    "NaN": ("presence/users/{id}", b"{" + TYPE + b',"timestamp":NaN}', "not_json"),
    "NaN as a status": ("presence/users/{id}/status", b"NaN", "not_json"),
    "Infinity": ("sessions/{id}", b'{"type":"StopSessionEvent","timestamp":Infinity}', "not_json"),
    "1e999": ("presence/users/{id}", b"{" + TYPE + b',"timestamp":1e999}', "invalid_field"),
}


def reports(world: Client, mark: int) -> list[dict[str, Any]]:
    return [m.json for m in world.since(mark) if m.topic.endswith("bridge/b1/rejected")]


@pytest.mark.parametrize("name", BAD)
def test_it_is_rejected_alone(name: str, shared: Stack, fresh: Fresh, pace: Pace) -> None:
    topic, payload, code = BAD[name]
    world, user = shared.world, fresh("u")
    topic = topic.replace("{id}", user)
    pace.wait()
    mark = world.mark()
    assert world.publish(topic, payload) < 0x80
    world.publish(f"presence/users/{fresh('good')}", "online")
    assert fresh("good") in world.rpc("online_users")
    [report] = reports(world, mark)
    assert report["topic"] == topic
    assert report["reason"].partition(":")[0] == code, report
    assert report["sizeBytes"] == len(payload)
    assert set(report) == {"topic", "reason", "receivedAt", "sizeBytes"}
    datetime.fromisoformat(report["receivedAt"])
    status = world.rpc("status_users")
    assert user not in status
    assert world.rpc("session_members", {"session": user})["users"] == []


def test_one_bad_event_of_a_wrapper_stops_none_after_it(shared: Stack, fresh: Fresh, pace: Pace) -> None:
    world, user = shared.world, fresh("u")
    pace.wait()
    mark = world.mark()
    events: list[object] = [
        {"type": "USER_FLEW"},
        5,
        {"type": "USER_CONNECTED", "userUuid": "other"},
        {"type": "USER_CONNECTED", "userUuid": user},
    ]
    world.publish(f"presence/users/{user}", {"events": events})
    assert user in world.rpc("online_users")
    codes = [report["reason"].partition(":")[0] for report in reports(world, mark)]
    assert codes == ["unknown_type", "invalid_field", "id_mismatch"]


def test_what_looks_bad_and_is_good(shared: Stack, fresh: Fresh) -> None:
    """Unknown fields, odd ids that the contract allows, 64 levels, a long message below the limit."""
    world, mark = shared.world, shared.world.mark()
    good: dict[str, object] = {
        fresh("Zo\u00eb \u2603 {x}:%41"): "online",
        fresh("a b"): {"type": 1, "userFullname": "\u0000", "unknown": {"deep": [[[]]]}},
        fresh("~"): {"type": "USER_CONNECTED", "userUuid": fresh("~"), "x": "y" * 60_000},
        fresh("deep"): b'{"type":"USER_CONNECTED","x":' + b"[" * 63 + b"]" * 63 + b"}",
        fresh("space"): b'  \n{"type" : "USER_CONNECTED"}  ',
        fresh("dup"): b'{"type":"USER_FLEW","type":"USER_CONNECTED"}',
    }
    for user, payload in good.items():
        world.publish(f"presence/users/{user}", payload)
    online = world.rpc("online_users")
    assert set(good) <= set(online)
    assert online == sorted(online)
    assert reports(world, mark) == []


def test_at_most_ten_reports_a_second(shared: Stack, fresh: Fresh) -> None:
    world, mark = shared.world, shared.world.mark()
    for _ in range(200):
        last = world.send(f"presence/users/{fresh('u')}", "nonsense")
    world.wait(last)
    world.rpc("online_users")
    seconds: dict[str, int] = {}
    for report in reports(world, mark):
        second = report["receivedAt"][:19]
        seconds[second] = seconds.get(second, 0) + 1
    assert seconds
    assert max(seconds.values()) <= 10, seconds


def test_a_long_topic_is_cut_in_its_report(shared: Stack, pace: Pace) -> None:
    world, topic = shared.world, "presence/users/" + "x" * 2000
    pace.wait()
    time.sleep(1)  # the test before has used this second's share
    mark = world.mark()
    world.publish(topic, "online")
    world.rpc("online_users")
    [report] = reports(world, mark)
    assert report["topic"] == topic[:1024]


# RPC: answered whatever comes.

PARAMS: dict[str, tuple[str, bytes, str]] = {
    "not UTF-8": ("online_users", b"\xff", "invalid_params"),
    "not JSON": ("online_users", b"hello", "invalid_params"),
    "text": ("online_users", b'"x"', "invalid_params"),
    "a number": ("online_users", b"5", "invalid_params"),
    "null": ("register_endpoint", b"null", "invalid_params"),
    "too many": ("list_endpoints", b'["a","b"]', "invalid_params"),
    "an unknown parameter": ("list_endpoints", b'{"userId":"a","x":1}', "invalid_params"),
    "a wrong kind": ("list_endpoints", b'{"userId":5}', "invalid_params"),
    "nothing": ("register_endpoint", b"", "invalid_params"),
    "no interval": ("register_endpoint", b'{"userId":"a"}', "invalid_params"),
    "interval 0": ("register_endpoint", b'{"userId":"a","keepAliveSeconds":0}', "invalid_params"),
    "interval -1": ("register_endpoint", b'{"userId":"a","keepAliveSeconds":-1}', "invalid_params"),
    "interval 1.5": ("register_endpoint", b'{"userId":"a","keepAliveSeconds":1.5}', "invalid_params"),
    "interval true": ("register_endpoint", b'{"userId":"a","keepAliveSeconds":true}', "invalid_params"),
    "interval NaN": ("register_endpoint", b'{"userId":"a","keepAliveSeconds":NaN}', "invalid_params"),
    "interval 10^30": ("register_endpoint", b'{"userId":"a","keepAliveSeconds":1%b}' % (b"0" * 30), "invalid_params"),
    "unsafe user": ("register_endpoint", b'{"userId":"a/b","keepAliveSeconds":9}', "invalid_params"),
    "empty user": ("register_endpoint", b'{"userId":"","keepAliveSeconds":9}', "invalid_params"),
    "control character": ("register_endpoint", b'{"userId":"a\\u0001","keepAliveSeconds":9}', "invalid_params"),
    "unsafe endpoint": (
        "register_endpoint",
        b'{"userId":"a","userEndpointId":"a:b","keepAliveSeconds":9}',
        "invalid_params",
    ),
    "empty endpoint": (
        "register_endpoint",
        b'{"userId":"a","userEndpointId":"","keepAliveSeconds":9}',
        "invalid_params",
    ),
    "unknown kind": ("register_endpoint", b'{"userId":"a","kind":"cat","keepAliveSeconds":9}', "invalid_params"),
    "unsafe organization": (
        "register_endpoint",
        b'{"userId":"a","organizationId":"a/b","keepAliveSeconds":9}',
        "invalid_params",
    ),
    "watch of nobody": ("register_endpoint", b'{"userId":"a","keepAliveSeconds":9,"watch":["x"]}', "invalid_params"),
    "watch of 1,001": (
        "register_endpoint",
        b'{"userId":"a","keepAliveSeconds":9,"watch":[%b"*"]}' % (b'"*",' * 1000),
        "quota_exceeded",
    ),
    "keepalive of nobody": ("keepalive_endpoint", b'["nobody"]', "not_found"),
    "no such method": ("fly", b"{}", "unknown_method"),
    "600 KiB": ("online_users", b" " * 614_400, "too_large"),
    "depth 10,000": ("online_users", DEEP, "invalid_params"),
    "depth 10,000 inside": ("list_endpoints", b'{"userId":' + DEEP + b"}", "invalid_params"),
    "limit 0": ("online_users", b'{"limit":0}', "invalid_params"),
    "status no JSON": ("update_device_status", b'["d","x",1]', "invalid_params"),
    "timestamp of a wrong kind": ("update_device_status", b'["d","1",[]]', "invalid_params"),
    "timestamp ahead": ("update_device_status", b'["d","1",99999999999]', "invalid_params"),
}


@pytest.mark.parametrize("name", PARAMS)
def test_a_bad_request_is_answered(name: str, shared: Stack) -> None:
    method, payload, code = PARAMS[name]
    mark = shared.world.mark()
    answer = shared.world.request(f"rpc/{method}", payload)
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"code", "message"}
    assert answer["error"]["code"] == code, answer
    assert answer["error"]["message"]
    assert reports(shared.world, mark) == []
    assert "result" in shared.world.request("rpc/online_users", b"")


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"", b'{"limit":5}', b"[5]", b'[5,"a"]'])
def test_parameters_come_in_three_ways(payload: bytes, shared: Stack) -> None:
    assert set(shared.world.request("rpc/online_users", payload)) == {"result"}


@pytest.mark.parametrize(
    "topic", ["users/endpoints/victim", "replies", "replies/", "reply/x", "/replies/x", "bridge/b1/state"]
)
def test_a_response_topic_elsewhere_is_refused(topic: str, shared: Stack, pace: Pace) -> None:
    """Else a caller could make the bridge, which may write everywhere, publish in its name."""
    world = shared.world
    pace.wait()
    mark = world.mark()
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = topic
    world.wait(world.send("rpc/online_users", b"", properties=properties))
    world.rpc("online_users")
    [report] = reports(world, mark)
    assert report["reason"].startswith("not_allowed")
    assert [m.topic for m in world.since(mark)] == ["bridge/b1/rejected"]


def test_a_request_nobody_waits_for_is_done_all_the_same(shared: Stack, fresh: Fresh, pace: Pace) -> None:
    world, user = shared.world, fresh("u")
    world.publish("rpc/register_endpoint", {"userId": user, "keepAliveSeconds": 60})
    assert len(world.rpc("list_endpoints", {"userId": user})) == 1
    pace.wait()
    mark = world.mark()
    world.publish("rpc/register_endpoint", {"userId": user})
    world.rpc("online_users")
    [report] = reports(world, mark)
    assert report["reason"].startswith("invalid_params")


def test_a_flood_leaves_nothing_in_flight(tenants: Stack, fresh: Fresh) -> None:
    """With a Receive Maximum of 10, ten messages that are never acknowledged would stop everything."""
    world = tenants.client(prefix="flood/")
    good = fresh("good")
    for number in range(2000):
        topic, payload, _ = list(BAD.values())[number % len(BAD)]
        small = payload if len(payload) < 100 else b"x"
        last = world.send("flood/" + topic.replace("{id}", fresh("u")), small)
    world.publish(f"flood/presence/users/{good}", "online")
    assert world.wait(last) < 0x80
    assert good in world.rpc("online_users", seconds=30)
    before = tenants.bridge.states()
    tenants.bridge.restart()  # a message left in flight would come again with DUP and be reported anew
    assert before.count("offline") == tenants.bridge.states().count("offline") - 1
    mark = tenants.world.mark()
    assert good in world.rpc("online_users")
    assert reports(tenants.world, mark) == []

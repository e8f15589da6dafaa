"""Presence and status of users, participants and devices, through the whole line."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.domain.rules import Rules
from bridge.domain.values import KINDS, Kind
from tests.unit.world import World, message, told, types_of

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "cases" / "presence_sessions.jsonl").read_text("utf-8").splitlines()
]
ID_FIELDS = {"UserEvent": ("users", "userUuid"), "ParticipantEvent": ("participants", "participantUuid")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_the_cases(case: dict[str, Any]) -> None:
    world = World()
    for given in case["inputs"]:
        if given["type"] == "_restart":
            world = world.restarted()
            continue
        payload = {**given["payload"]}
        if "conn" in given:
            payload["connectionId"] = given["conn"]
        if "time" in given:
            payload["header"] = {"time": given["time"]}
        if given["type"].endswith("SessionEvent") or given["type"] == "JoinSessionReplyEvent":
            world.say(f"sessions/{payload['sessionUuid']}", {"type": given["type"], **payload})
        else:
            plural, field = ID_FIELDS.get(given["type"], ("devices", "deviceUuid"))
            world.say(f"presence/{plural}/{payload[field]}", payload)
    for method, expected in case["expect"].items():
        answer = world.call(method)
        if method.startswith("status"):
            for uuid, view in expected.items():
                assert {name: answer[uuid][name] for name in view} == view
            assert set(answer) == set(expected)
        else:
            assert answer == sorted(expected)
    assert world.codes == []
    assert world.all_acknowledged


def watched(world: World, *names: str) -> None:
    world.register("eve", "eve1", 86_400, watch=list(names or ("*",)))


def presence(world: World, kind: Kind = "user", uuid: str = "ann") -> tuple[bool, bool]:
    view = world.call(f"status_{kind}s").get(uuid, {"online": False, "busy": False})
    return view["online"], view["busy"]


# Connections.


@pytest.mark.parametrize("kind", KINDS)
def test_coming_and_going_is_told_once_each(kind: Kind) -> None:
    world = World()
    watched(world)
    [event] = world.online("ann", kind=kind)["eve1"]
    assert event["type"] == f"{kind.capitalize()}PresenceChangedEvent"
    assert (event["uuid"], event["online"], event["busy"], event["status"], event["cause"]) == (
        *("ann", True, False, None, "connected"),
    )
    assert (event["organizationId"], event["about"]) == ("default", f"{kind}/ann")
    assert event["timestamp"].endswith(".000Z")
    assert world.online("ann", kind=kind) == {}
    assert world.call(f"online_{kind}s") == ["ann"]
    [event] = world.offline("ann", kind=kind)["eve1"]
    assert (event["online"], event["cause"]) == (False, "disconnected")
    assert world.offline("ann", kind=kind) == {}
    assert world.call(f"status_{kind}s") == {}
    assert world.stored() == {"user:eve", "watchers"}


def test_each_kind_is_its_own_id_space() -> None:
    world = World()
    world.online("x", kind="user")
    assert [world.call(f"online_{kind}s") for kind in KINDS] == [["x"], [], []]
    world.offline("x", kind="device")
    assert world.call("online_users") == ["x"]


def test_a_set_of_connections_and_not_a_counter() -> None:
    world = World()
    watched(world)
    assert types_of(world.online("ann", "tab1")["eve1"]) == ["UserPresenceChangedEvent"]
    assert world.online("ann", "tab2") == {}
    assert world.online("ann", "tab2") == {}
    assert world.offline("ann", "tab1") == {}
    assert world.offline("ann", "tab1") == {}
    assert world.offline("ann", "never") == {}
    assert world.offline("ann") == {}  # the unnamed one is another one
    assert presence(world) == (True, False)
    assert types_of(world.offline("ann", "tab2")["eve1"]) == ["UserPresenceChangedEvent"]


def test_an_unnamed_disconnect_loses_against_a_newer_connect_and_a_named_one_never() -> None:
    world = World()
    topic = "presence/users/ann"
    world.say(topic, {"type": 1, "timestamp": 100})
    world.say(topic, {"type": 1, "timestamp": 300})
    world.say(topic, {"type": 1, "timestamp": 200})  # late: does not make it older
    world.say(topic, {"type": 2, "timestamp": 299})
    assert presence(world) == (True, False)
    world.say(topic, {"type": 2, "timestamp": 300})
    assert presence(world) == (False, False)
    world.say(topic, {"type": 1, "timestamp": 300, "connectionId": "c"})
    world.say(topic, {"type": 2, "timestamp": 1, "connectionId": "c"})  # a will: the time of CONNECT
    assert presence(world) == (False, False)


def test_at_most_32_connections() -> None:
    world = World()
    for number in range(32):
        world.online("ann", f"c{number}")
    assert world.codes == []
    world.online("ann", "c32")
    assert world.codes == ["not_allowed"]
    world.online("ann", "c31")  # one that it has is renewed
    world.offline("ann", "c0")
    world.online("ann", "c32")
    assert world.codes == ["not_allowed"]


def test_a_time_too_far_ahead_and_any_past_one() -> None:
    world = World()
    now_s = world.registry.now_ms / 1000
    world.say("presence/users/ann", {"type": 1, "timestamp": now_s + 300.001})
    assert world.codes == ["invalid_field"]
    assert world.stored() == set()
    world.say("presence/users/ann", {"type": 1, "timestamp": now_s + 300})
    world.say("presence/users/bob", {"type": 1, "timestamp": -5})
    assert world.call("online_users") == ["ann", "bob"]


@pytest.mark.parametrize("stamp", ["2023-11-14T22:13:19.5Z", 1_699_999_999.5, 1_699_999_999_500])
def test_a_time_in_any_spelling(stamp: object) -> None:
    world = World()
    world.say("presence/users/ann", {"type": 1, "timestamp": stamp})
    record = world.record("user:ann")
    assert record is not None
    assert record["connections"][""][0] == 1_699_999_999_500


def test_other_types_change_nothing_but_are_acknowledged() -> None:
    world = World()
    for number in (0, 3, 4, 5, 6, 7):
        assert world.say("presence/users/ann", {"type": number}) == {}
    assert (world.stored(), world.codes, world.all_acknowledged) == (set(), [], True)


def test_busy_outlasts_going_offline() -> None:
    world = World()
    watched(world)
    world.online("ann")
    world.join("s1", "ann")
    [event] = world.offline("ann")["eve1"]
    assert (event["online"], event["busy"]) == (False, True)
    assert presence(world) == (False, True)


# Leases.


def test_without_a_lease_a_connection_lasts() -> None:
    world = World()
    world.online("ann")
    world.jump_seconds(30 * 86_400)
    assert presence(world) == (True, False)
    assert world.deadlines() == {}


def test_an_unrenewed_connection_expires_where_a_lease_is_set() -> None:
    world = World(Rules(lease_ms=10_000))
    watched(world)
    world.online("ann", "tab1")
    world.pass_seconds(6)
    world.online("ann", "tab2")
    world.pass_seconds(3.9)
    assert presence(world) == (True, False)
    assert world.pass_seconds(1) == {}  # tab1 is gone, tab2 is not
    record = world.record("user:ann")
    assert record is not None
    assert set(record["connections"]) == {"tab2"}
    world.online("ann", "tab2")
    world.pass_seconds(9)
    [event] = world.pass_seconds(1)["eve1"]
    assert (event["online"], event["cause"]) == (False, "expired")
    assert world.stored() == {"user:eve", "watchers"}


def test_a_lease_starts_anew_after_a_pause() -> None:
    world = World(Rules(lease_ms=10_000))
    world.online("ann")
    world.pass_seconds(9)
    world.pause_seconds(3600)
    world.pass_seconds(9)
    assert presence(world) == (True, False)
    world.pass_seconds(2)  # and a jitter of a tenth
    assert presence(world) == (False, False)


# Presence from endpoints.


def test_endpoints_count_where_configured() -> None:
    world = World(Rules(from_endpoints=True))
    watched(world, "user:ann")
    events = told(world.feed(message("rpc/register_endpoint", ["ann", 60, False, "ann1"])))["eve1"]
    assert [(event["type"], event["online"], event["cause"]) for event in events] == [
        ("UserPresenceChangedEvent", True, "connected")
    ]
    assert world.online("ann").get("eve1") is None
    assert world.offline("ann").get("eve1") is None
    assert world.call("online_users") == ["ann", "eve"]
    [event] = told(world.feed(message("rpc/unregister_endpoint", ["ann1"])))["eve1"]
    assert (event["online"], event["cause"]) == (False, "disconnected")
    world.register("ann", "ann2", 10)
    [event] = world.pass_seconds(10)["eve1"]
    assert (event["online"], event["cause"]) == (False, "expired")


def test_endpoints_do_not_count_by_default() -> None:
    world = World()
    world.register("ann", "ann1")
    assert world.call("online_users") == []


# Status.


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_is_told_and_stored_also_of_an_offline_subject(kind: Kind) -> None:
    world = World()
    watched(world)
    topic = f"presence/{kind}s/ann/status"
    [event] = world.say(topic, {"battery": 80})["eve1"]
    assert event["type"] == f"{kind.capitalize()}StatusChangedEvent"
    assert (event["uuid"], event["status"], event["statusTimestamp"]) == (
        *("ann", {"battery": 80}, world.registry.now_ms),
    )
    assert world.say(topic, {"battery": 80}) == {}
    [event] = world.say(topic, None)["eve1"]
    assert event["status"] is None
    assert world.call(f"status_{kind}s") == {}  # neither online nor busy


def test_the_newest_time_wins() -> None:
    world = World()
    watched(world)
    topic = "presence/devices/lamp/status"
    assert world.say(topic, {"status": 1, "timestamp": 200})["eve1"][0]["statusTimestamp"] == 200
    assert world.say(topic, {"status": 2, "timestamp": 199}) == {}
    assert world.say(topic, {"status": 3, "timestamp": 200})["eve1"][0]["status"] == 3  # equal: the later arrival
    assert world.say(topic, {"status": 3, "timestamp": 250}) == {}  # nothing changed but the time
    assert world.say(topic, {"status": 4, "timestamp": 249}) == {}
    world.online("lamp", kind="device")
    assert world.call("status_devices") == {
        "lamp": {"online": True, "busy": False, "status": "3", "statusTimestamp": 250}
    }


def test_a_status_time_too_far_ahead() -> None:
    world = World()
    ahead = world.registry.now_ms + 300_001
    world.say("presence/devices/lamp/status", {"status": 1, "timestamp": ahead})
    assert (world.codes, world.stored()) == (["invalid_field"], set())


def test_going_offline_drops_a_devices_status_and_nobody_elses() -> None:
    world = World()
    watched(world)
    for kind in KINDS:
        world.online("x", kind=kind)
        world.say(f"presence/{kind}s/x/status", {"a": 1})
    assert world.offline("x", kind="user")["eve1"][0]["status"] == {"a": 1}
    assert world.offline("x", kind="participant")["eve1"][0]["status"] == {"a": 1}
    assert world.offline("x", kind="device")["eve1"][0]["status"] is None
    assert world.stored() == {"user:eve", "watchers", "user:x", "participant:x"}


def test_a_device_that_goes_offline_while_another_connection_stays_keeps_its_status() -> None:
    world = World()
    world.online("lamp", "a", kind="device")
    world.online("lamp", "b", kind="device")
    world.say("presence/devices/lamp/status", 1)
    world.offline("lamp", "a", kind="device")
    assert world.call("status_devices")["lamp"]["status"] == "1"


def test_update_device_status() -> None:
    world = World()
    watched(world)
    offline = {"uuid": "lamp", "status": '{"on":true}', "timestamp": 100}
    assert world.call("update_device_status", offline) is None
    world.join("s1", sessionDevices=["lamp"])
    assert world.call("update_device_status", offline) is None  # busy is not online
    assert world.record("device:lamp").get("status") is None  # type: ignore[union-attr]
    world.online("lamp", kind="device")
    assert world.call("update_device_status", offline) == offline
    older = {"uuid": "lamp", "status": '{"on":false}', "timestamp": 99.5}
    assert world.call("update_device_status", older) == offline
    assert world.call("update_device_status", {**older, "timestamp": "1970-01-01T00:02:00Z"}) == {
        **older,
        "timestamp": 120_000,
    }
    statuses = [event["status"] for event in told(world.broker.outputs)["eve1"] if event["type"].startswith("DeviceSt")]
    assert statuses == [{"on": True}, {"on": False}]
    assert world.call("status_devices")["lamp"] == {
        "online": True,
        "busy": True,
        "status": '{"on":false}',
        "statusTimestamp": 120_000,
    }


# Retained replays.


def test_a_retained_replay_without_a_time_applies_to_the_unknown_only() -> None:
    world = World()
    world.say("presence/users/ann", "online", retain=True)
    world.say("presence/users/ann", "offline", retain=True)
    assert presence(world) == (True, False)
    world.join("s1", "bob")
    world.say("presence/users/bob", "online", retain=True)
    assert presence(world, uuid="bob") == (False, True)
    world.say("presence/users/cat/status", 1, retain=True)
    world.say("presence/users/cat/status", 2, retain=True)
    assert world.record("user:cat")["status"] == 1  # type: ignore[index]


@pytest.mark.parametrize("topics", [("", "/status"), ("/status", "")])
def test_presence_and_status_replayed_at_one_subscription_do_not_shut_each_other_out(topics: tuple[str, str]) -> None:
    world = World()
    payload = {"": "online", "/status": "5"}
    for topic in topics:
        world.say(f"presence/devices/lamp{topic}", payload[topic], retain=True)
    assert world.call("status_devices")["lamp"]["status"] == "5"


def test_a_retained_replay_with_a_time_is_news_like_any_other() -> None:
    world = World()
    world.online("ann", "c1")
    world.say("presence/users/ann", {"type": 1, "timestamp": 5, "connectionId": "c2"}, retain=True)
    world.say("presence/users/ann/status", {"status": 7, "timestamp": 5}, retain=True)
    record = world.record("user:ann")
    assert record is not None
    assert set(record["connections"]) == {"c1", "c2"}
    assert record["status"] == 7


def test_where_connections_have_a_lease_a_replayed_online_counts_only_within_it() -> None:
    world = World(Rules(lease_ms=60_000))
    world.say("presence/devices/lamp", "online", retain=True)
    for name, ago_ms in (("old", 60_000), ("new", 59_000)):
        payload = {"type": 1, "timestamp": world.registry.now_ms - ago_ms}
        world.say(f"presence/devices/{name}", payload, retain=True)
    assert world.call("online_devices") == ["new"]
    world.say("presence/devices/lamp/status", 7, retain=True)
    assert world.record("device:lamp")["status"] == 7  # type: ignore[index]
    world.online("lamp", kind="device")
    world.say("presence/devices/lamp", {"type": 2, "timestamp": world.registry.now_ms}, retain=True)
    assert world.call("online_devices") == ["new"]


def test_being_watched_is_not_being_known() -> None:
    world = World()
    watched(world, "device:lamp")
    world.say("presence/devices/lamp", "online", retain=True)
    assert world.call("online_devices") == ["lamp"]


# Versions.


def test_a_version_never_goes_back_also_across_deletion_and_re_creation() -> None:
    world = World()
    watched(world)
    seen: list[int] = []
    for _ in range(5):
        seen += [event["version"] for event in world.online("ann")["eve1"]]
        seen += [event["version"] for event in world.offline("ann")["eve1"]]
        assert "user:ann" not in world.stored()
        world.registry.now_ms -= 3_000  # Redis TIME goes back
    assert seen == sorted(set(seen))


def test_one_batch_of_many_changes_is_one_record_and_rising_versions() -> None:
    world = World()
    watched(world)
    turns = [message("presence/users/ann", text) for text in ("online", "offline") * 10]
    events = told(world.feed(*turns))["eve1"]
    versions = [event["version"] for event in events]
    assert len(events) == 20
    assert versions == sorted(set(versions))
    assert world.counts["commits"] == 2  # eve's registration, and this
    assert len({event["id"] for event in events}) == 20
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)

"""Endpoints: register, renew, remind, sick, expire; who holds an id; who watches what."""

import zlib
from typing import Any

import pytest

from bridge.domain.endpoints import Timing, check_watch, state_of, timing
from bridge.domain.records import Endpoint
from bridge.domain.rules import Rules
from bridge.errors import Refusal
from tests.unit.world import RpcError, World, message, told, types_of


def code(world: World, method: str, params: object, **rest: Any) -> str:
    with pytest.raises(RpcError) as refused:
        world.call(method, params, **rest)
    return refused.value.code


def view(world: World, endpoint: str, user: str = "ann") -> Any:
    return {one["id"]: one for one in world.call("list_endpoints", {"userId": user})}.get(endpoint)


def keepalive(world: World, endpoint: str) -> dict[str, list[Any]]:
    return world.say(f"users/endpoints/{endpoint}/keepalive", qos=0)


# Timing, as a table: seconds after the last keepalive.

TIMINGS = [
    # interval, reminder, grace, reminded -> remind, sick, expire
    (60, False, 0, 0, None, None, 60),
    (60, True, 0, 0, 40, 50, 60),
    (60, True, 0, 44, None, 52, 60),
    (60, False, 30, 0, None, 60, 90),
    (60, True, 30, 0, 40, 50, 90),
    (1, True, 0, 0, 0.666, 0.833, 1),
    (86_400, True, 0, 0, 57_600, 72_000, 86_400),
]


@pytest.mark.parametrize(("interval", "reminder", "grace", "reminded", "remind", "sick", "expire"), TIMINGS)
def test_timing(
    interval: int, reminder: bool, grace: int, reminded: int, remind: float | None, sick: float | None, expire: int
) -> None:
    endpoint = Endpoint(interval, 1_000_000, 1, reminder, 1_000_000 + reminded * 1000 if reminded else 0)
    found = timing("e", endpoint, Rules(grace_ms=grace * 1000), 0)
    after = [
        None if at is None else (at - 1_000_000) / 1000 for at in (found.remind_ms, found.sick_ms, found.expire_ms)
    ]
    assert after == [remind, sick, expire]
    assert found.next_ms == min(at for at in (found.remind_ms, found.sick_ms, found.expire_ms) if at is not None)


def test_after_a_pause_the_interval_starts_anew_with_a_jitter_from_the_id() -> None:
    rules, resumed = Rules(), 5_000_000
    jitters = set()
    for number in range(50):
        name = f"e{number}"
        found = timing(name, Endpoint(600, 1_000_000, 1), rules, resumed)
        jitter = found.expire_ms - resumed - 600_000
        assert 0 <= jitter <= 60_000
        assert jitter == zlib.crc32(name.encode()) % 60_001
        jitters.add(jitter)
    assert len(jitters) > 40
    assert timing("e", Endpoint(600, resumed, 1), rules, resumed) == Timing(None, None, resumed + 600_000)


@pytest.mark.parametrize(
    ("endpoint", "resumed", "state"),
    [
        (Endpoint(60, 1000, 1), 0, "HEALTHY"),
        (Endpoint(60, 1000, 1, sick=True), 0, "SICK"),
        (Endpoint(60, 1000, 1, sick=True), 1001, "UNKNOWN"),
        (Endpoint(60, 1000, 1), 1000, "HEALTHY"),
    ],
)
def test_states(endpoint: Endpoint, resumed: int, state: str) -> None:
    assert state_of(endpoint, resumed) == state


# Registering.


def test_a_new_endpoint_is_told_to_the_users_others() -> None:
    world = World()
    assert world.register("ann", "ann1") == {"id": "ann1"}
    events = told(world.feed(message("rpc/register_endpoint", ["ann", 60, False, "ann2"])))
    assert set(events) == {"ann1"}
    [event] = events["ann1"]
    assert (event["type"], event["userEndpointId"], event["userId"]) == ("UserEndpointRegisteredEvent", "ann2", "ann")
    assert (event["about"], event["organizationId"]) == ("user/ann", "default")
    assert view(world, "ann2") == {
        "id": "ann2",
        "userId": "ann",
        "organizationId": "default",
        "keepAliveSeconds": 60,
        "state": "HEALTHY",
        "version": event["version"],
    }


def test_registering_again_renews_and_is_told_to_nobody() -> None:
    world = World()
    world.register("ann", "ann2")
    world.register("ann", "ann1", 60, watch=["device:lamp"])
    world.pass_seconds(50)
    assert told(world.feed(message("rpc/register_endpoint", ["ann", 90, True, "ann1"]))) == {}
    assert view(world, "ann1")["keepAliveSeconds"] == 90
    assert "ann1" in world.online("lamp", kind="device")  # the watch list is kept where none is given
    world.pass_seconds(89)
    assert view(world, "ann1") is not None
    world.pass_seconds(1)
    assert view(world, "ann1") is None


def test_the_server_makes_ids_bound_to_their_owner() -> None:
    world = World()
    assert world.call("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60}) == {"id": "ann~random1"}
    assert world.call("register_endpoint", {"userId": "a b", "keepAliveSeconds": 60}) == {"id": "random2"}


@pytest.mark.parametrize("endpoint", ["ann1", "ann~a~b", "bob~a", "~a", "ann"])
def test_bound_ids_are_demanded_of_those_supplied(endpoint: str) -> None:
    world = World(Rules(bound_ids=True))
    params = {"userId": "ann", "keepAliveSeconds": 60}
    assert code(world, "register_endpoint", {**params, "userEndpointId": endpoint}) == "invalid_params"
    assert world.call("register_endpoint", {**params, "userEndpointId": "ann~tab"}) == {"id": "ann~tab"}


@pytest.mark.parametrize("user", ["a~b", "a b", "é", "ann%", "a" * 121])
def test_a_user_whom_the_brokers_rules_cannot_carry_gets_no_endpoint(user: str) -> None:
    world = World(Rules(bound_ids=True))
    for given in ({}, {"userEndpointId": f"{user}~tab"}):
        with pytest.raises(RpcError) as caught:
            world.call("register_endpoint", {"userId": user, "keepAliveSeconds": 60, **given})
        assert caught.value.code == "invalid_params"
        assert "userId can have no endpoint here" in str(caught.value)
    assert world.call("register_endpoint", {"userId": "a" * 120, "keepAliveSeconds": 60})["id"].startswith("aaa")


def test_at_most_256_endpoints() -> None:
    world = World()
    world.feed(*(message("rpc/register_endpoint", ["ann", 60, False, f"e{number}"]) for number in range(256)))
    assert code(world, "register_endpoint", ["ann", 60, False, "e256"]) == "quota_exceeded"
    assert world.register("ann", "e255") == {"id": "e255"}
    assert world.register("ann", "device-e", kind="device") == {"id": "device-e"}
    world.call("unregister_endpoint", ["e0"])
    assert world.register("ann", "e256") == {"id": "e256"}


@pytest.mark.parametrize("kind", ["user", "participant", "device"])
def test_each_kind_of_subject_has_endpoints(kind: str) -> None:
    world = World()
    world.register("x", "x1", 60, kind=kind)
    assert world.stored() == {f"{kind}:x"}
    assert set(world.online("x", kind=kind)) == {"x1"}
    assert types_of(world.pass_seconds(60)["x1"]) == ["UserEndpointExpiredEvent"]


# Claims.


def test_ids_are_unique_over_kinds_subjects_and_organizations() -> None:
    world = World()
    world.register("ann", "e1")
    assert code(world, "register_endpoint", ["bob", 60, False, "e1"]) == "conflict"
    assert code(world, "register_endpoint", ["ann", 60, False, "e1", "device"]) == "conflict"
    params = {"userId": "ann", "keepAliveSeconds": 60, "userEndpointId": "e1", "organizationId": "acme"}
    assert code(world, "register_endpoint", params) == "conflict"
    world.registry.now_ms += 61_000
    assert code(world, "register_endpoint", params) == "conflict"  # its record holds it
    world.call("unregister_endpoint", ["e1"])
    assert world.call("register_endpoint", params) == {"id": "e1"}
    assert world.registry.owners["e1"].organization == "acme"


def test_a_claim_left_over_is_overtaken_after_a_minute() -> None:
    world = World()
    world.register("ann", "e1")
    claim = world.registry.owners["e1"]
    world.call("unregister_endpoint", ["e1"])
    world.registry.owners["e1"] = claim  # the bridge ended before it could release it
    world.registry.now_ms += 59_999
    assert code(world, "register_endpoint", ["bob", 60, False, "e1"]) == "conflict"
    assert code(world, "keepalive_endpoint", ["e1"]) == "not_found"
    world.registry.now_ms += 1
    assert world.register("bob", "e1") == {"id": "e1"}
    assert world.registry.owners["e1"].subject == "bob"


def test_whoever_left_a_claim_may_take_it_up_at_once() -> None:
    world = World()
    world.register("ann", "e1")
    claim = world.registry.owners["e1"]
    world.call("unregister_endpoint", ["e1"])
    world.registry.owners["e1"] = claim
    assert world.register("ann", "e1") == {"id": "e1"}


def test_changing_hands_in_one_batch() -> None:
    world = World()
    world.register("ann", "e1")
    world.feed(
        message("rpc/unregister_endpoint", ["e1"]),
        message("rpc/register_endpoint", ["bob", 60, False, "e1"]),
        message("rpc/unregister_endpoint", ["e1"]),
        message("rpc/register_endpoint", ["cat", 60, False, "e1"]),
    )
    assert world.codes == []
    assert world.registry.owners["e1"].subject == "cat"
    assert view(world, "e1", "cat") is not None


# Keepalives, reminders, states, expiry.


def test_a_keepalive_keeps_and_silence_ends() -> None:
    world = World()
    world.register("ann", "ann1", 10)
    world.register("ann", "ann2", 600)
    for _ in range(5):
        assert world.pass_seconds(9.9) == {}
        assert keepalive(world, "ann1") == {}
    assert world.pass_seconds(9) == {}
    events = world.pass_seconds(1)
    assert types_of(events["ann1"]) == types_of(events["ann2"]) == ["UserEndpointExpiredEvent"]
    assert (events["ann1"][0]["userEndpointId"], events["ann1"][0]["userId"]) == ("ann1", "ann")
    assert "ann1" not in world.registry.owners


def test_grace_comes_after_the_interval() -> None:
    world = World(Rules(grace_ms=5000))
    world.register("ann", "ann1", 10)
    world.register("ann", "ann2", 600)
    events = world.pass_seconds(10)
    assert types_of(events["ann2"]) == ["UserEndpointStateChangedEvent"]
    assert (events["ann2"][0]["state"], events["ann2"][0]["previous"]) == ("SICK", "HEALTHY")
    assert view(world, "ann1")["state"] == "SICK"
    world.pass_seconds(4)
    [event] = keepalive(world, "ann1")["ann2"]
    assert (event["state"], event["previous"]) == ("HEALTHY", "SICK")
    world.pass_seconds(10)
    assert types_of(world.pass_seconds(5)["ann1"]) == ["UserEndpointExpiredEvent"]


def test_the_reminder_at_two_thirds_only_where_wanted() -> None:
    world = World()
    world.register("ann", "ann1", 60, serverKeepAliveReminderOn=True)
    world.register("bob", "bob1", 60)
    assert world.pass_seconds(39) == {}
    events = world.pass_seconds(1)
    assert set(events) == {"ann1"}
    [event] = events["ann1"]
    assert (event["type"], event["userEndpointId"], event["keepAliveSeconds"]) == (
        *("UserEndpointKeepAliveReminderEvent", "ann1", 60),
    )
    assert event["expiresAt"] == "2023-11-14T22:14:20.000Z"
    assert world.pass_seconds(9) == {}  # once
    assert view(world, "ann1")["state"] == "HEALTHY"
    assert world.pass_seconds(1) == {}  # sick now: told to the others, and there are none
    assert view(world, "ann1")["state"] == "SICK"
    assert keepalive(world, "ann1") == {}
    assert view(world, "ann1")["state"] == "HEALTHY"
    assert types_of(world.pass_seconds(40)["ann1"]) == ["UserEndpointKeepAliveReminderEvent"]


def test_who_keeps_alive_late_but_in_time_never_flaps() -> None:
    world = World()
    world.register("ann", "ann1", 60, serverKeepAliveReminderOn=True)
    world.register("ann", "ann2", 86_400)
    for _ in range(5):
        events = world.pass_seconds(45)
        assert types_of(events.pop("ann1")) == ["UserEndpointKeepAliveReminderEvent"]
        assert events == {}
        assert keepalive(world, "ann1") == {}


def test_the_reminder_under_another_name() -> None:
    world = World(Rules(reminder_event="KeepAliveReminderEvent"))
    world.register("ann", "ann1", 3, serverKeepAliveReminderOn=True)
    assert types_of(world.pass_seconds(2)["ann1"]) == ["KeepAliveReminderEvent"]


def test_an_unknown_endpoint_is_told_once_in_ten_seconds_on_its_topic() -> None:
    world = World()
    [event] = keepalive(world, "gone")["gone"]
    assert (event["type"], event["userEndpointId"], event["userId"]) == ("UserEndpointExpiredEvent", "gone", None)
    assert keepalive(world, "gone") == {}
    world.registry.now_ms += 9_999
    assert keepalive(world, "gone") == {}
    world.registry.now_ms += 1
    assert types_of(keepalive(world, "gone")["gone"]) == ["UserEndpointExpiredEvent"]
    assert code(world, "keepalive_endpoint", ["gone"]) == "not_found"


def test_many_keepalives_of_an_unknown_endpoint_in_one_batch() -> None:
    world = World()
    events = told(world.feed(*[message("users/endpoints/gone/keepalive")] * 5))
    assert len(events["gone"]) == 1


def test_the_topic_of_an_endpoint_may_name_its_user() -> None:
    world = World(endpoint_topic="user/{user}/{endpoint}")
    world.register("ann", "ann1", 3)
    world.register("eve", "eve1", watch=["*"])
    assert [output.topic for output in world.feed(message("presence/users/ann", "online"))] == [
        "user/ann/ann1",
        "user/eve/eve1",
    ]
    assert keepalive(world, "gone") == {}  # nobody holds it, so it is nobody's topic
    before = len(world.broker.outputs)
    world.pass_seconds(3)
    assert world.broker.outputs[before].topic == "user/ann/ann1"


def test_unregistering_is_told_with_its_reason() -> None:
    world = World()
    world.register("ann", "ann1")
    world.register("ann", "ann2")
    events = told(world.feed(message("rpc/unregister_endpoint", ["ann1", "closed"])))
    assert set(events) == {"ann1", "ann2"}
    assert events["ann1"] == events["ann2"]
    assert (events["ann1"][0]["type"], events["ann1"][0]["reason"]) == ("UserEndpointUnregisteredEvent", "closed")
    assert code(world, "unregister_endpoint", ["ann1"]) == "not_found"
    world.call("unregister_endpoint", ["ann2"])
    assert (world.stored(), world.deadlines(), world.registry.owners) == (set(), {}, {})


def test_endpoints_that_expire_together_are_told_each_of_its_own() -> None:
    world = World()
    for number in range(100):
        world.register("ann", f"e{number}", 10, watch=[f"device:d{number}"])
    events = world.pass_seconds(10)
    assert {name: [event["userEndpointId"] for event in told] for name, told in events.items()} == {
        f"e{number}": [f"e{number}"] for number in range(100)
    }
    assert (world.stored(), world.deadlines(), world.registry.owners) == (set(), {}, {})


# Outages.


def test_an_outage_expires_nobody() -> None:
    world = World()
    world.register("ann", "ann1", 60)
    world.pass_seconds(59)
    assert world.pause_seconds(86_400) == {}
    assert view(world, "ann1")["state"] == "UNKNOWN"
    assert world.pass_seconds(59) == {}
    jitter = zlib.crc32(b"ann1") % 6001
    assert types_of(world.pass_seconds(2 + jitter / 1000)["ann1"]) == ["UserEndpointExpiredEvent"]


def test_unknown_becomes_healthy_with_a_keepalive_and_without_an_event() -> None:
    world = World()
    world.register("ann", "ann1", 60)
    world.register("ann", "ann2", 60)
    world.pause_seconds(100)
    assert keepalive(world, "ann1") == {}
    assert [view(world, name)["state"] for name in ("ann1", "ann2")] == ["HEALTHY", "UNKNOWN"]


def test_a_restart_keeps_endpoints_and_expires_none() -> None:
    world = World()
    world.register("ann", "ann1", 5)
    world.registry.now_ms += 3_600_000
    after = world.restarted()
    assert view(after, "ann1")["state"] == "UNKNOWN"
    assert after.pass_seconds(4) == {}
    assert types_of(after.pass_seconds(3)["ann1"]) == ["UserEndpointExpiredEvent"]


def test_a_short_gap_between_ticks_is_no_pause() -> None:
    world = World()
    world.register("ann", "ann1", 3)
    world.pause_seconds(2)
    assert view(world, "ann1")["state"] == "HEALTHY"
    assert types_of(world.pause_seconds(2)["ann1"]) == ["UserEndpointExpiredEvent"]


# Watching.


def test_names_that_can_be_watched() -> None:
    assert check_watch(["*", "device:*", "user:a:b", "*"], "watch") == ("*", "device:*", "user:a:b")
    for name in ("", "lamp", ":", "device", "device:", "robot:x", "device:a/b", "**", "device:+"):
        with pytest.raises(Refusal, match=r"watch\[1\]"):
            check_watch(["*", name], "watch")


@pytest.mark.parametrize(
    ("watch", "heard"),
    [
        (["device:lamp"], {"device:lamp"}),
        (["device:*"], {"device:lamp", "device:door"}),
        (["*"], {"device:lamp", "device:door", "user:lamp"}),
        (["user:lamp", "device:door"], {"user:lamp", "device:door"}),
        ([], set()),
    ],
)
def test_watchers_hear_what_they_named(watch: list[str], heard: set[str]) -> None:
    world = World()
    world.register("eve", "eve1", watch=watch)
    seen = set()
    for kind, uuid in (("device", "lamp"), ("device", "door"), ("user", "lamp")):
        if world.online(uuid, kind=kind):
            seen.add(f"{kind}:{uuid}")
        assert bool(world.say(f"presence/{kind}s/{uuid}/status", 1)) == (f"{kind}:{uuid}" in heard)
    assert seen == heard


def test_a_watch_list_is_replaced() -> None:
    world = World()
    world.register("eve", "eve1", watch=["device:lamp", "user:*"])
    world.call("watch_endpoint", ["eve1", ["device:door", "*"]])
    assert world.record("device:lamp") is None
    assert world.record("watchers") == {"names": {"*": {"eve1": "user:eve"}}}
    world.call("watch_endpoint", ["eve1", ["device:door"]])
    assert world.stored() == {"user:eve", "device:door"}
    assert world.online("lamp", kind="device") == {}
    assert set(world.online("door", kind="device")) == {"eve1"}
    world.call("watch_endpoint", ["eve1", []])
    assert world.offline("door", kind="device") == {}
    assert world.stored() == {"user:eve", "device:lamp"}


def test_an_endpoint_that_ends_watches_nothing_more() -> None:
    world = World()
    world.register("eve", "eve1", 5, watch=["*", "device:*", "device:lamp", "user:eve"])
    world.pass_seconds(5)
    assert world.stored() == set()
    assert world.online("lamp", kind="device") == {}


def test_the_default_watch_list_is_for_new_endpoints_that_give_none() -> None:
    world = World(Rules(default_watch=("*",)))
    world.register("eve", "eve1")
    world.register("bob", "bob1", watch=[])
    assert set(world.online("ann")) == {"eve1"}


def test_at_most_a_thousand_names() -> None:
    world = World()
    names = [f"device:d{number}" for number in range(1001)]
    params = {"userId": "eve", "keepAliveSeconds": 60, "userEndpointId": "eve1"}
    assert code(world, "register_endpoint", {**params, "watch": names}) == "quota_exceeded"
    assert world.call("register_endpoint", {**params, "watch": names[:1000]}) == {"id": "eve1"}
    assert set(world.online("d999", kind="device")) == {"eve1"}
    world.pass_seconds(60)
    assert world.stored() == {"device:d999"}

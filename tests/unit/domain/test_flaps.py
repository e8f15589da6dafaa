"""Flap damping: who comes and goes too often is told of as flapping, and again when it has settled."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.flaps import flaps_end, flipped
from bridge.domain.records import Subject
from bridge.domain.rules import Rules
from tests.unit.world import World

DAMPED = Rules(flap_limit=3, flap_ms=10_000)


def watched(rules: Rules = DAMPED) -> World:
    world = World(rules)
    world.register("eve", "eve1", 86_400, watch=["*"])
    return world


def causes(told: dict[str, list[Any]]) -> list[tuple[str, bool]]:
    return [
        (event["cause"], event["online"])
        for event in told.get("eve1", [])
        if event["type"].endswith("PresenceChangedEvent")
    ]


def flip(world: World, times: int) -> list[tuple[str, bool]]:
    return [
        cause for number in range(times) for cause in causes((world.offline if number % 2 else world.online)("ann"))
    ]


def test_flips_are_counted_within_the_time() -> None:
    flips: tuple[int, ...] = ()
    for at_ms, recent, too_many in (
        (1000, (1000,), False),
        (2000, (1000, 2000), False),
        (10_999, (1000, 2000, 10_999), False),
        (11_000, (2000, 10_999, 11_000), False),
        (11_500, (2000, 10_999, 11_000, 11_500), True),
        (11_600, (10_999, 11_000, 11_500, 11_600), True),
    ):
        flips, is_too_many = flipped(flips, at_ms, DAMPED)
        assert (flips, is_too_many) == (recent, too_many)
    assert flaps_end(Subject(flips=flips), DAMPED) == 21_600
    assert flaps_end(Subject(), DAMPED) is None


def test_too_many_flips_are_told_once_and_then_what_came_of_them() -> None:
    world = watched()
    assert flip(world, 20) == [("connected", True), ("disconnected", False), ("connected", True), ("flapping", False)]
    assert world.call("online_users") == []
    assert causes(world.pass_seconds(9)) == []
    world.online("ann")
    assert world.call("online_users") == ["ann"], "the registry shows what holds"
    assert causes(world.pass_seconds(9)) == []
    assert causes(world.pass_seconds(1)) == [("settled", True)]
    assert causes(world.offline("ann")) == [("disconnected", False)]
    world.pass_seconds(11)
    assert world.record("user:ann") is None
    assert "user:ann" not in world.deadlines()


def test_what_is_not_told_by_default_is_nothing() -> None:
    assert len(flip(watched(Rules()), 20)) == 20
    assert len(flip(watched(Rules(flap_limit=20)), 20)) == 20


def test_busy_is_told_while_it_flaps() -> None:
    world = watched()
    flip(world, 5)
    [event] = [event for event in world.join("s1", "ann")["eve1"] if "busy" in event]
    assert (event["cause"], event["online"], event["busy"]) == ("session_joined", True, True)
    assert causes(world.offline("ann")) == []


def test_a_device_that_flaps_loses_its_status_all_the_same() -> None:
    world = watched()
    for _ in range(3):
        world.online("lamp", kind="device")
        world.say("presence/devices/lamp/status", {"on": True})
        world.offline("lamp", kind="device")
    record = world.record("device:lamp")
    assert record is not None
    assert (record["flapping"], "status" in record) == (True, False)
    [event] = world.pass_seconds(11)["eve1"]
    assert (event["type"], event["cause"], event["status"]) == ("DevicePresenceChangedEvent", "settled", None)


def test_endpoints_and_leases_flap_too() -> None:
    world = watched(Rules(flap_limit=1, flap_ms=10_000, lease_ms=2000, from_endpoints=True))
    world.register("ann", "ann1", 3)
    assert causes(world.pass_seconds(4)) == [("flapping", False)]
    world = watched(Rules(flap_limit=1, flap_ms=10_000, lease_ms=2000))
    world.online("ann")
    assert causes(world.pass_seconds(3)) == [("flapping", False)]


def test_it_goes_on_after_a_restart_and_ends_where_it_was_switched_off() -> None:
    world = watched()
    flip(world, 5)
    after = world.restarted()
    assert causes(after.offline("ann")) == []
    without = World(Rules(), registry=after.registry, instance="i3")
    assert causes(without.online("ann")) == []
    assert causes(without.pass_seconds(60)) == [("settled", True)]
    assert "flips" not in (without.record("user:ann") or {})


def test_it_is_explained() -> None:
    world = watched()
    flip(world, 5)
    answer = world.call("explain", {"kind": "user", "uuid": "ann"})
    assert answer["online"]["because"] == (
        "1 connection reported and not ended; it flaps: told again once it is still for 10 s (presence.flap_seconds)"
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=30))
def test_who_hears_all_ends_with_the_truth(story: list[tuple[bool, int]]) -> None:
    """Undamped and damped tell the same until it flaps; then at most one event a while, and the last one is true."""
    plain, damped = watched(Rules()), watched()
    heard: dict[World, list[tuple[str, bool]]] = {plain: [], damped: []}
    flaps = False
    for online, seconds in story:
        for world, events in heard.items():
            events += causes((world.online if online else world.offline)("ann"))
            events += causes(world.pass_seconds(seconds))
        flaps |= "flapping" in [cause for cause, _ in heard[damped]]
        assert flaps or heard[plain] == heard[damped]
        assert plain.call("online_users") == damped.call("online_users")
    heard[damped] += causes(damped.pass_seconds(11))
    told = [cause for cause, _ in heard[damped]]
    assert told.count("flapping") == told.count("settled")
    assert [online for _, online in heard[damped][-1:]] == [online for _, online in heard[plain][-1:]]
    assert damped.stored() - {"user:eve", "watchers"} == plain.stored() - {"user:eve", "watchers"}

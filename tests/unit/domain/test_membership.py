"""What cannot be read of one participant holds up nobody else's coming and going."""

import json
from typing import Any

import pytest

from bridge.adapters.memory import Ranks
from tests.unit.world import RpcError, World, types_of

STATUS = {"connections": 2, "sendStreams": 1, "recvStreams": 1}
MUTED = {"muteStates": {"AUDIO": "MUTE_PERMANENT"}, "muteAll": True}
PARTS = ("media:s1:bob", "mutes:s1:bob", "views:s1", "permissions:s1")
UNREADABLE = (b"nonsense", b"5:99:{}", Ranks(a=1))

unreadable = pytest.mark.parametrize("stored", UNREADABLE, ids=repr)


def call_with(key: str, stored: Any) -> World:
    """A call of three, each with media and permissions of its own, of which one record cannot be read."""
    world = World()
    users = ("ann", "bob", "cid")
    for user in users:
        world.register(user, user, 86_400)
    world.join("s1", *users)
    for user in users:
        world.say(f"sessions/s1/participants/{user}/status", {**STATUS, "handRaised": True})
    world.say("sessions/s1/permissions", MUTED)
    world.registry.organizations["default"][key] = stored
    return world


def parts(world: World) -> set[str]:
    return {key for key in world.stored() if key.partition(":")[0] in ("media", "mutes", "views", "permissions")}


@unreadable
@pytest.mark.parametrize("key", PARTS)
def test_a_stop_frees_everybody(key: str, stored: Any) -> None:
    world = call_with(key, stored)
    heard = world.stop("s1")
    assert {user: events[-1]["cause"] for user, events in heard.items()} == dict.fromkeys(
        ("ann", "bob", "cid"), "session_stopped"
    )
    assert world.call("busy_users") == []
    assert world.codes == []
    assert world.counts["unreadable"] >= 1
    if key.endswith("bob"):
        assert parts(world) <= {key}
    assert world.registry.organizations["default"][key] is stored


@unreadable
@pytest.mark.parametrize("key", PARTS)
def test_a_leave_frees_who_leaves(key: str, stored: Any) -> None:
    world = call_with(key, stored)
    for user in ("bob", "ann"):
        world.leave("s1", user)
    assert world.call("busy_users") == ["cid"]
    assert world.codes == []
    assert world.counts["unreadable"] >= 1
    if key == "mutes:s1:bob":
        assert world.call("media_state", ["s1", "bob"])["state"] == "init"


@unreadable
@pytest.mark.parametrize("key", PARTS)
def test_a_join_marks_everybody_busy(key: str, stored: Any) -> None:
    world = call_with(key, stored)
    world.leave("s1", "bob")
    world.registry.organizations["default"][key] = stored
    world.join("s1", "bob", "dan")
    assert world.call("busy_users") == ["ann", "bob", "cid", "dan"]
    assert world.codes == []
    world.online("x")
    assert world.call("online_users") == ["x"]


@unreadable
def test_a_session_that_expires_frees_everybody(stored: Any) -> None:
    world = call_with("mutes:s1:bob", stored)
    world.jump_seconds(13 * 3600)
    assert world.call("busy_users") == []
    assert "session:s1" not in world.stored()


def test_a_mute_of_all_and_a_question_about_all_pass_over_who_cannot_be_read() -> None:
    world = call_with("mutes:s1:bob", b"nonsense")
    heard = world.say("sessions/s1/permissions", {"muteStates": {"VIDEO": "MUTE"}, "muteAll": True})
    assert set(heard) == {"ann", "cid"}
    assert set(world.call("call_permissions", ["s1"])) == {"ann", "cid"}
    with pytest.raises(RpcError, match="corrupt_record"):
        world.call("call_permissions", ["s1", "bob"])


def test_peers_are_compared_without_who_cannot_be_read() -> None:
    world = call_with("media:s1:bob", b"nonsense")
    world.say("sessions/s1/participants/ann/status", {**STATUS, "connections": 3})
    heard = world.pass_seconds(6)
    assert {event["participantId"] for event in heard["cid"]} == {"ann"}
    assert set(world.call("media_state", ["s1"])) == {"ann", "cid"}
    with pytest.raises(RpcError, match="corrupt_record"):
        world.call("media_state", ["s1", "bob"])


def test_what_is_passed_over_is_counted_once_for_a_batch() -> None:
    world = call_with("mutes:s1:bob", b"nonsense")
    world.stop("s1")
    assert world.counts["unreadable"] == 1
    assert "unreadable" in json.dumps(world.meters.exposition().decode())
    assert types_of(world.join("s1", "ann")["ann"])[0] == "JoinSessionEvent"

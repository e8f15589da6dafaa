"""Mutes: commands by message and RPC, who may give them, and what is refused without a trace."""

from typing import Any

import pytest

from tests.unit.domain.test_permissions import LOCK, Heard, call, kinds, mute, notify, view
from tests.unit.world import RpcError, World, told


def command(world: World, **fields: Any) -> Heard:
    return world.say("sessions/s1/permissions", {"type": "mute-participant", **fields})


def test_a_command_for_one() -> None:
    world = call("ann", "bob", "cid", admins=("ann",))
    heard = command(world, participantId="bob", adminId="ann", muteStates={"AUDIO": "MUTE"}, requestedMedia=["VIDEO"])
    assert kinds(heard) == {
        "bob": ["personal bob", "once bob", "attention bob"],
        "ann": ["participant bob", "participant bob"],
    }
    assert {event["cause"] for event in heard["ann"]} == {"commanded"}


def test_a_command_for_all() -> None:
    world = call("ann", "bob", admins=("ann",))
    heard = command(world, muteAll=True, adminId="ann", muteStates={"AUDIO": "MUTE_PERMANENT"})
    assert kinds(heard) == {"ann": ["global ann"], "bob": ["global bob"]}
    assert view(heard["bob"][0]) == ("MUTE_PERMANENT", False, False)


def test_a_command_on_the_topic_of_a_participant_is_for_that_one() -> None:
    world = call("ann", "bob")
    heard = world.say("sessions/s1/permissions/bob", {"type": "mute-participant", "muteStates": {"AUDIO": "MUTE"}})
    assert kinds(heard) == {"bob": ["personal bob"]}


def test_a_command_by_rpc() -> None:
    world = call("ann", "bob", admins=("ann",))
    before = len(world.broker.outputs)
    params = {"session": "s1", "participant": "bob", "muteStates": {"AUDIO": "MUTE_PERMANENT"}}
    assert world.call("mute_participant", params, user="ann") is None
    heard = told(world.broker.outputs[before:])
    assert kinds(heard) == {"bob": ["personal bob"], "ann": ["participant bob"]}
    assert heard["bob"][0]["adminId"] == "ann"
    assert world.call_told("mute_participant", ["s1", None, True, {"VIDEO": "MUTE"}, None, "ann"]).keys() == {
        "ann",
        "bob",
    }


@pytest.mark.parametrize(
    ("params", "user", "code"),
    [
        ({"participant": "bob", "muteStates": {"AUDIO": "MUTE", "VIDEO": "UNMUTE"}}, "ann", "mixed_mute_states"),
        ({"participant": "bob", "muteStates": {"AUDIO": "LOUD"}}, "ann", "invalid_params"),
        ({"participant": "bob", "muteStates": {"SMELL": "MUTE"}}, "ann", "invalid_params"),
        ({"participant": "bob", "requestedMedia": ["SMELL"]}, "ann", "invalid_params"),
        ({"participant": "bob"}, "ann", "invalid_params"),
        ({"muteStates": {"AUDIO": "MUTE"}}, "ann", "invalid_params"),  # nobody, and not all
        ({"participant": "eve", "muteStates": {"AUDIO": "MUTE"}}, "ann", "not_found"),
        ({"participant": "ann", "muteStates": {"AUDIO": "MUTE"}}, "bob", "forbidden"),
        ({"participant": "bob", "muteStates": {"AUDIO": "MUTE"}}, "eve", "forbidden"),
        ({"participant": "bob", "muteStates": {"AUDIO": "MUTE"}, "adminId": "ann"}, "bob", "forbidden"),
        ({"participant": "bob", "muteStates": {"AUDIO": "MUTE"}}, None, "forbidden"),  # roles are known: name one
        ({"session": "s2", "muteAll": True, "muteStates": {"AUDIO": "MUTE"}}, None, "not_found"),
    ],
)
def test_what_is_refused_by_rpc(params: dict[str, Any], user: str | None, code: str) -> None:
    world = call("ann", "bob", admins=("ann",))
    before, sent = records(world), len(world.broker.outputs)
    with pytest.raises(RpcError) as refused:
        world.call("mute_participant", {"session": "s1", **params}, user=user)
    assert refused.value.code == code
    assert records(world) == before
    assert told(world.broker.outputs[sent:]) == {}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"muteAll": False, **LOCK}, "not_addressed"),
        ({"userId": "eve", **LOCK}, "not_allowed"),
        ({"userId": "bob", "adminId": "eve", **LOCK}, "not_allowed"),
        ({"userId": "bob", "muteStates": {"AUDIO": "LOUD"}}, "invalid_field"),
        ({"userId": "bob", "muteStates": {"SMELL": "MUTE"}}, "invalid_field"),
        ({"userId": "bob", "mediaOptions": ["SMELL"]}, "invalid_field"),
        ({"userId": 7, **LOCK}, "invalid_field"),
        ({"userId": "", **LOCK}, "empty_id"),
        ({"type": "mute-everything"}, "unknown_type"),
        ({"type": "mute-participant", "participantId": "bob", "adminId": "bob", **LOCK}, "not_allowed"),
        ({"type": "mute-participant", "participantId": "bob", **LOCK}, "not_allowed"),
        (
            {"type": "mute-participant", "adminId": "ann", "participantId": "bob"}
            | {"muteStates": {"AUDIO": "MUTE", "VIDEO": "UNMUTE"}},
            "mixed_mute_states",
        ),
    ],
)
def test_what_is_rejected_changes_nothing(fields: dict[str, Any], code: str) -> None:
    world = call("ann", "bob", admins=("ann",))
    before = records(world)
    assert notify(world, **fields) == {}
    assert world.codes == [code]
    assert world.counts[f"rejected:{code}"] == 1
    assert records(world) == before
    assert world.all_acknowledged


def test_a_notification_of_an_unknown_session_is_rejected() -> None:
    world = call("ann")
    assert world.say("sessions/s2/permissions", {"muteAll": True, **LOCK}) == {}
    assert world.codes == ["not_allowed"]


def test_a_notification_takes_mixed_values_of_the_media_that_changed() -> None:
    world = call("ann")
    states = {"AUDIO": "MUTE", "VIDEO": "MUTE_PERMANENT", "ANIMOJI": "MUTE"}
    [event] = notify(world, userId="ann", muteStates=states, mediaOptions=["AUDIO", "VIDEO"])["ann"]
    assert event["changed"] == ["AUDIO", "VIDEO"]


def test_devices_are_passed_on() -> None:
    world = call("ann", "bob")
    target, admin = {"id": "bob", "type": "USER", "deviceIdx": 2}, {"id": "ann", "deviceIdx": 0}
    [event] = notify(world, userId=target, adminId=admin, **mute(AUDIO="MUTE"))["bob"]
    assert (event["participantId"], event["deviceIdx"], event["adminId"], event["adminDeviceIdx"]) == (
        *("bob", 2, "ann", 0),
    )


def records(world: World) -> dict[str, Any]:
    return {key: world.record(key) for key in world.stored()}


# What contradicts itself.


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"userId": "bob", "muteAll": True, **LOCK}, 1),
        ({"userId": "bob", **LOCK}, 0),
        ({"userId": "bob", "muteAll": True, "stateUpdated": False, **LOCK}, 0),
        ({"userId": "bob", "muteAll": True, "requestedMedia": ["AUDIO"]}, 0),
        ({"userId": "nobody", "muteAll": True, **LOCK}, 0),  # rejected: that is counted already
        ({"muteAll": True, **LOCK}, 0),
    ],
)
def test_all_and_one_at_once_is_the_one_and_counted_as_an_anomaly(fields: dict[str, Any], count: int) -> None:
    world = call("ann", "bob")
    notify(world, "ann", **fields)
    assert world.counts["anomalies:mute_all_with_user"] == count
    if count:
        assert world.call("call_permissions", ["s1", "bob"])["own"] == LOCK["muteStates"]
        assert world.call("call_permissions", ["s1", "bob"])["call"] == {}

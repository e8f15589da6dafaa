"""Permissions: what each participant may do, and what it, the admins and nobody else hear of it."""

from typing import Any

import pytest

from bridge.domain.mute_table import MEDIA
from bridge.domain.rules import Rules
from tests.unit.world import RpcError, World

Heard = dict[str, list[Any]]


def call(*users: str, admins: tuple[str, ...] = (), **rest: Any) -> World:
    """A world where each user has one endpoint of the same name and is in session ``s1``; ``eve`` is not."""
    world = World(**rest)
    for user in (*users, "eve"):
        world.register(user, user, 86_400)
    world.join("s1", *users)
    for admin in admins:
        report(world, admin, roles=["ADMIN"])
    return world


def report(world: World, who: str, **fields: Any) -> Heard:
    return world.say(f"sessions/s1/participants/{who}/status", fields)


def devices(world: World, who: str, **on: bool) -> Heard:
    names = {"audio": "isAudioEnabled", "video": "isVideoEnabled", "screen": "isScreenSharingEnabled"}
    return report(world, who, mediaSettings={names[name]: is_on for name, is_on in on.items()})


def notify(world: World, me: str | None = None, **fields: Any) -> Heard:
    """A notification on the plain topic, or to ``me``."""
    defaults = {"muteAll": False, "unmute": False, "stateUpdated": True, "userId": None, "adminId": None}
    return world.say("sessions/s1/permissions" + (f"/{me}" if me else ""), {**defaults, **fields})


def mute(**states: str) -> dict[str, Any]:
    return {"muteStates": states, "mediaOptions": list(states)}


def view(event: Any, medium: str = "AUDIO") -> tuple[str, bool, bool]:
    shown = event["media"][medium]
    return shown["state"], shown["once"], shown["unlocked"]


def kinds(heard: Heard) -> dict[str, list[str]]:
    """Endpoint -> kind and participant of each event that it was told."""
    return {
        name: [f"{event.get('kind', 'attention')} {event['participantId']}" for event in events]
        for name, events in heard.items()
    }


LOCK = mute(AUDIO="MUTE_PERMANENT")
OPEN = {"state": "UNMUTE", "once": False, "unlocked": True}


# Who is told what.


def test_a_global_lock_tells_each_member_its_own_result() -> None:
    world = call("ann", "bob", "cid", admins=("ann",))
    notify(world, "bob", mediaOptions=[], requestedMedia=["AUDIO"], stateUpdated=False)
    heard = notify(world, muteAll=True, adminId="ann", **LOCK)
    assert kinds(heard) == {name: [f"global {name}"] for name in ("ann", "bob", "cid")}
    assert {name: view(events[0]) for name, events in heard.items()} == {
        "ann": ("MUTE", False, True),
        "bob": ("MUTE_PERMANENT", True, True),
        "cid": ("MUTE_PERMANENT", False, False),
    }
    assert {name: events[0]["devicesOff"] for name, events in heard.items()} == {
        "ann": [],
        "bob": ["AUDIO"],
        "cid": ["AUDIO"],
    }
    [event] = heard["cid"]
    assert {key: value for key, value in event.items() if key not in ("id", "timestamp", "version", "media")} == {
        "type": "CallPermissionsChangedEvent",
        "organizationId": "default",
        "about": "permissions/s1",
        "sessionId": "s1",
        "kind": "global",
        "participantId": "cid",
        "previous": {"AUDIO": OPEN},
        "changed": ["AUDIO"],
        "cause": "notified",
        "adminId": "ann",
        "devicesOff": ["AUDIO"],
    }
    assert list(event["media"]) == list(MEDIA)
    assert notify(world, muteAll=True, adminId="ann", **LOCK) == {}


def test_a_personal_state_is_told_to_its_owner_and_to_the_admins() -> None:
    world = call("ann", "bob", "cid", admins=("ann",))
    heard = notify(world, userId="bob", adminId="ann", **LOCK)
    assert kinds(heard) == {"bob": ["personal bob"], "ann": ["participant bob"]}
    assert heard["bob"][0] == {**heard["ann"][0], "kind": "personal", "id": heard["bob"][0]["id"]}
    assert view(heard["ann"][0]) == ("MUTE_PERMANENT", False, False)
    assert heard["bob"][0]["about"] == "mutes/s1/bob"


def test_an_admin_is_muted_once_where_others_are_locked() -> None:
    world = call("ann", "bob", admins=("ann", "bob"))
    heard = notify(world, userId="bob", adminId="ann", **LOCK)
    assert view(heard["bob"][0]) == ("MUTE", False, True)
    assert heard["bob"][0]["devicesOff"] == ["AUDIO"]


def test_lifting_a_global_lock_keeps_personal_ones() -> None:
    world = call("ann", "bob")
    notify(world, muteAll=True, **LOCK)
    assert notify(world, userId="bob", **LOCK) == {}  # it changes nothing for bob yet
    heard = notify(world, muteAll=True, **mute(AUDIO="UNMUTE"))
    assert {name: (events[0]["changed"], view(events[0])) for name, events in heard.items()} == {
        "ann": (["AUDIO"], ("UNMUTE", False, True)),
        "bob": ([], ("MUTE_PERMANENT", False, False)),
    }
    assert world.call("call_permissions", ["s1", "bob"])["media"]["AUDIO"] == {
        "state": "MUTE_PERMANENT",
        "once": False,
        "unlocked": False,
    }


def test_a_plain_mute_locks_nothing_and_own_unmute_beats_no_global_lock() -> None:
    world = call("ann")
    [event] = notify(world, userId="ann", **mute(AUDIO="MUTE"))["ann"]
    assert (view(event), event["devicesOff"]) == (("MUTE", False, True), ["AUDIO"])
    notify(world, muteAll=True, **LOCK)
    assert notify(world, userId="ann", **mute(AUDIO="UNMUTE")) == {}
    assert view(world.call("call_permissions", ["s1", "ann"])) == ("MUTE_PERMANENT", False, False)


# Devices.


def test_a_mute_is_told_again_only_where_a_device_is_on() -> None:
    world = call("ann", "bob")
    notify(world, muteAll=True, **mute(AUDIO="MUTE"))
    assert notify(world, muteAll=True, **mute(AUDIO="MUTE")) == {}
    devices(world, "bob", audio=True)
    assert kinds(notify(world, muteAll=True, **mute(AUDIO="MUTE"))) == {"bob": ["global bob"]}
    assert notify(world, muteAll=True, **mute(AUDIO="MUTE")) == {}
    notify(world, userId="bob", **mute(AUDIO="MUTE"))
    devices(world, "bob", audio=True)
    [event] = notify(world, userId="bob", **mute(AUDIO="MUTE"))["bob"]
    assert (event["kind"], event["changed"], event["devicesOff"]) == ("personal", ["AUDIO"], ["AUDIO"])


def test_unmute_leaves_devices_on() -> None:
    world = call("ann")
    devices(world, "ann", audio=True)
    [event] = notify(world, muteAll=True, unmute=True, **LOCK)["ann"]
    assert event["devicesOff"] == []
    assert world.record("mutes:s1:ann") == {"on": ["AUDIO"]}


def test_the_author_of_a_mute_of_all_is_spared() -> None:
    world = call("ann", "bob")  # no roles are known
    devices(world, "ann", audio=True)
    heard = notify(world, "ann", muteAll=True, adminId="ann", **LOCK)
    assert {name: events[0]["devicesOff"] for name, events in heard.items()} == {"ann": [], "bob": ["AUDIO"]}
    assert world.record("mutes:s1:ann") == {"on": ["AUDIO"]}


def test_a_grant_is_spent_by_a_device_that_is_on() -> None:
    world = call("ann", "bob", admins=("ann",))
    notify(world, userId="bob", **mute(AUDIO="MUTE_PERMANENT", VIDEO="MUTE_PERMANENT"))
    heard = notify(world, userId="bob", unmuteOptions=["AUDIO", "VIDEO"])
    assert kinds(heard) == {"bob": ["once bob"], "ann": ["participant bob"]}
    heard = devices(world, "bob", audio=True, video=False)
    assert kinds(heard) == {"bob": ["once bob"], "ann": ["participant bob"]}
    [event] = heard["bob"]
    assert (event["cause"], event["changed"], event["devicesOff"]) == ("grant_used", ["AUDIO"], [])
    assert (view(event), view(event, "VIDEO")) == (("MUTE_PERMANENT", False, False), ("MUTE_PERMANENT", True, True))
    assert devices(world, "bob", audio=True) == {}
    assert devices(world, "bob", audio=False) == {}


# Attention.


def test_attention_grants_once_and_lowers_the_hand() -> None:
    world = call("ann", "bob", admins=("ann",))
    assert report(world, "bob", handRaised=True) == {}
    heard = notify(world, "bob", adminId="ann", mediaOptions=[], requestedMedia=["AUDIO"], stateUpdated=False)
    assert kinds(heard) == {"bob": ["once bob", "attention bob"], "ann": ["participant bob"]}
    asked = heard["bob"][1]
    assert {key: value for key, value in asked.items() if key not in ("id", "timestamp", "version")} == {
        "type": "MediaAttentionRequestedEvent",
        "organizationId": "default",
        "about": "mutes/s1/bob",
        "sessionId": "s1",
        "participantId": "bob",
        "requestedMedia": ["AUDIO"],
        "muteAll": False,
        "adminId": "ann",
        "handLowered": True,
    }
    assert world.call("call_permissions", ["s1", "bob"])["handRaised"] is False
    heard = notify(world, "bob", adminId="ann", mediaOptions=[], requestedMedia=["AUDIO"], stateUpdated=False)
    assert kinds(heard) == {"bob": ["attention bob"]}  # a request is always passed on


def test_attention_of_all_grants_every_member_and_leaves_states_alone() -> None:
    world = call("ann", "bob", admins=("ann",))
    heard = notify(world, muteAll=True, adminId="ann", requestedMedia=["VIDEO"], **LOCK)
    assert kinds(heard) == {name: [f"once {name}", f"attention {name}"] for name in ("ann", "bob")}
    assert (world.record("permissions:s1") or {}).get("call") is None


def test_the_copy_for_others_of_a_request_only_tells_of_the_grant() -> None:
    world = call("ann", "bob", admins=("ann",))
    heard = notify(world, "ann", userId="bob", requestedMedia=["AUDIO"])
    assert kinds(heard) == {"bob": ["once bob"], "ann": ["participant bob"]}


# The rows.


@pytest.mark.parametrize(
    ("fields", "grants"),
    [
        ({"muteAll": False, "unmuteOptions": ["VIDEO"]}, ["VIDEO"]),  # P and 1
        ({"muteAll": True, "unmuteOptions": ["VIDEO"]}, ["VIDEO"]),  # G and 1
        ({"muteAll": False, "unmuteOptions": ["VIDEO"], "requestedMedia": []}, ["VIDEO"]),
        ({"userId": "bob", "unmuteOptions": ["VIDEO"]}, ["VIDEO"]),
        ({"unmuteOptions": []}, ["AUDIO"]),
        ({"unmuteOptions": ["VIDEO"], "stateUpdated": False}, ["AUDIO"]),
        ({"unmuteOptions": ["VIDEO"], "adminId": "bob"}, ["AUDIO"]),  # its own echo
        ({"unmuteOptions": ["VIDEO"], "requestedMedia": ["VIDEO"]}, ["AUDIO", "VIDEO"]),  # asked for, so added
    ],
)
def test_what_becomes_of_grants(fields: dict[str, Any], grants: list[str]) -> None:
    world = call("ann", "bob")
    notify(world, "bob", unmuteOptions=["AUDIO"])
    notify(world, "bob", **fields)
    media = world.call("call_permissions", ["s1", "bob"])["media"]
    assert [medium for medium in MEDIA if media[medium]["once"]] == grants


ROWS = [
    # userId, adminId, muteAll, stateUpdated, requestedMedia -> who of me and the other has which states, and grants
    ("other", None, True, True, ["VIDEO"], "other grant"),
    ("other", None, True, True, None, "other own"),
    ("other", "me", False, True, [], "other own"),
    ("other", None, False, False, None, ""),
    (None, "me", True, True, ["VIDEO"], ""),
    ("me", "me", False, False, ["VIDEO"], ""),
    (None, "other", False, False, ["VIDEO"], "me grant"),
    ("me", None, False, True, ["VIDEO"], "me grant"),
    (None, "other", True, True, ["VIDEO"], "me grant, other grant"),
    (None, "other", True, False, None, ""),
    ("me", "me", False, False, None, ""),
    (None, "me", True, True, None, "call"),
    (None, "me", False, True, None, ""),
    (None, "other", True, True, None, "call"),
    (None, None, False, True, None, "me own"),
    ("me", "other", False, True, [], "me own"),
]


@pytest.mark.parametrize(("user", "admin", "mute_all", "updated", "requested", "expected"), ROWS)
def test_every_row(
    user: str | None, admin: str | None, mute_all: bool, updated: bool, requested: list[str] | None, expected: str
) -> None:
    world = call("me", "other")
    fields = {"userId": user, "adminId": admin, "muteAll": mute_all, "stateUpdated": updated, **LOCK}
    notify(world, "me", **fields, **({} if requested is None else {"requestedMedia": requested}))
    found = ["call"] if (world.record("permissions:s1") or {}).get("call") else []
    for who in ("me", "other"):
        mutes = world.record(f"mutes:s1:{who}") or {}
        found += [f"{who} {what}" for field, what in (("own", "own"), ("once", "grant")) if mutes.get(field)]
    assert ", ".join(found) == expected
    assert world.codes == []


# Roles, rooms, coming and going.


def test_a_role_gained_and_lost_is_told_with_its_effect() -> None:
    world = call("ann", "bob", admins=("ann",))
    notify(world, muteAll=True, **LOCK)
    heard = report(world, "bob", roles=["ADMIN", "CREATOR"])
    assert kinds(heard) == {"bob": ["personal bob"], "ann": ["participant bob"]}
    assert (heard["bob"][0]["cause"], view(heard["bob"][0])) == ("role_gained", ("MUTE", False, True))
    assert world.call("call_permissions", ["s1", "bob"])["role"] == "CREATOR"
    assert report(world, "bob", roles=["CREATOR"]) == {}
    devices(world, "bob", audio=True)
    heard = report(world, "bob", roles=[])
    [event] = heard["bob"]
    assert (event["cause"], event["devicesOff"], view(event)) == (
        "role_lost",
        ["AUDIO"],
        ("MUTE_PERMANENT", False, False),
    )
    assert world.record("mutes:s1:bob") is None


def test_a_room_of_the_call_has_states_of_its_own() -> None:
    world = call("ann", "bob")
    assert report(world, "bob", roomId="r1") == {}
    assert kinds(notify(world, muteAll=True, roomId="r1", **LOCK)) == {"bob": ["global bob"]}
    assert kinds(notify(world, muteAll=True, **mute(VIDEO="MUTE_PERMANENT"))) == {"ann": ["global ann"]}
    assert world.call("call_permissions", ["s1", "bob"])["call"] == {"AUDIO": "MUTE_PERMANENT"}
    [event] = report(world, "bob", roomId=None)["bob"]
    assert (event["cause"], event["changed"], event["devicesOff"]) == ("room_switched", ["AUDIO", "VIDEO"], ["VIDEO"])
    assert (view(event), view(event, "VIDEO")) == (("UNMUTE", False, True), ("MUTE_PERMANENT", False, False))


def test_who_comes_back_finds_its_states_and_grants() -> None:
    world = call("ann", "bob")
    notify(world, userId="bob", **LOCK)
    notify(world, userId="bob", unmuteOptions=["AUDIO"])
    report(world, "bob", handRaised=True, roomId="r1")
    world.leave("s1", "bob")
    assert world.record("mutes:s1:bob") == {"own": {"AUDIO": "MUTE_PERMANENT"}, "once": ["AUDIO"]}
    heard = world.join("s1", "bob")
    [event] = [event for event in heard["bob"] if event["type"] == "CallPermissionsChangedEvent"]
    assert (event["cause"], event["kind"], event["changed"], event["devicesOff"]) == ("joined", "personal", [], [])
    assert view(event) == ("MUTE_PERMANENT", True, True)
    assert "CallPermissionsChangedEvent" not in {event["type"] for event in heard.get("ann", ())}
    [event] = devices(world, "bob", audio=True)["bob"]
    assert event["cause"] == "grant_used"
    assert devices(world, "bob", audio=True) == {}


def test_a_stop_forgets_all() -> None:
    world = call("ann", "bob", "cid", admins=("ann",))
    notify(world, userId="bob", **LOCK)
    notify(world, userId="cid", **LOCK)
    notify(world, muteAll=True, **mute(VIDEO="MUTE"))
    world.leave("s1", "cid")
    world.stop("s1")
    assert not [key for key in world.stored() if key.startswith(("mutes:", "permissions:"))]
    assert not [key for key in world.deadlines() if key.startswith(("mutes:", "permissions:"))]


def test_an_empty_session_keeps_them_for_its_hours() -> None:
    world = call("bob", rules=Rules(session_ms=3_600_000))
    notify(world, userId="bob", **LOCK)
    world.leave("s1", "bob")
    world.jump_seconds(3599)
    assert world.record("mutes:s1:bob") is not None
    world.join("s1", "bob")
    world.leave("s1", "bob")
    world.jump_seconds(3599)
    assert world.record("mutes:s1:bob") is not None
    world.jump_seconds(10)
    assert not [key for key in world.stored() if key.startswith(("mutes:", "permissions:"))]


def test_a_session_without_permissions_tells_a_joiner_nothing_of_them() -> None:
    world = call("ann")
    assert {event["type"] for event in world.join("s1", "bob", "eve")["eve"]} == {
        "JoinSessionEvent",
        "UserPresenceChangedEvent",
    }


# Questions.


def test_what_is_answered() -> None:
    world = call("ann", "bob", admins=("ann",))
    notify(world, userId="bob", **LOCK)
    notify(world, muteAll=True, **mute(VIDEO="MUTE"))
    answer = world.call("call_permissions", {"session": "s1", "participant": "bob"})
    assert answer == {
        "role": None,
        "roomId": None,
        "media": dict.fromkeys(MEDIA, OPEN)
        | {"AUDIO": {"state": "MUTE_PERMANENT", "once": False, "unlocked": False}}
        | {"VIDEO": {"state": "MUTE", "once": False, "unlocked": True}},
        "call": {"VIDEO": "MUTE"},
        "own": {"AUDIO": "MUTE_PERMANENT"},
        "handRaised": False,
        "version": answer["version"],
    }
    everybody = world.call("call_permissions", ["s1"])
    assert everybody == {"ann": world.call("call_permissions", ["s1", "ann"]), "bob": answer}
    assert everybody["ann"]["role"] == "ADMIN"
    assert world.call("call_permissions", ["s1", "bob"], user="bob") == answer
    assert world.call("call_permissions", ["s1"], user="ann") == everybody


@pytest.mark.parametrize(
    ("user", "participant", "code"),
    [("bob", None, "forbidden"), ("bob", "ann", "forbidden"), ("eve", "eve", "forbidden"), (None, "eve", "not_found")],
)
def test_what_is_not_answered(user: str | None, participant: str | None, code: str) -> None:
    world = call("ann", "bob", admins=("ann",))
    with pytest.raises(RpcError) as refused:
        world.call("call_permissions", {"session": "s1", "participant": participant}, user=user)
    assert refused.value.code == code


def test_members_of_several_kinds_under_one_id_are_one_participant() -> None:
    world = World()
    for kind in ("user", "device"):
        world.register("ann", f"ann-{kind}", 86_400, kind=kind)
    world.session("s1", "JoinSessionEvent", sessionUsers=["ann"], sessionDevices=["ann"])
    assert set(notify(world, userId="ann", **LOCK)) == {"ann-user", "ann-device"}
    world.session("s1", "LeaveSessionEvent", leavingDevices=["ann"])
    assert world.record("mutes:s1:ann") == {"own": {"AUDIO": "MUTE_PERMANENT"}}

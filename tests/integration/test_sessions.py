"""Session messages over real MQTT reach exactly those whom they concern."""

from collections.abc import Callable

import pytest

from tests.integration.stack import Client, Message, Stack

Fresh = Callable[[str], str]
KINDS = {"user": "Users", "participant": "Participants", "device": "Devices"}


class Call:
    """A session with invited members, each with one endpoint named ``<id>.e``, and one user who is not in it."""

    def __init__(self, world: Client, fresh: Fresh) -> None:
        self.world = world
        self.session = fresh("s")
        self.ids = {name: fresh(name) for name in ("ann", "bob", "pat", "lamp", "eve")}
        self.kinds = {"ann": "user", "bob": "user", "pat": "participant", "lamp": "device", "eve": "user"}
        for name, uuid in self.ids.items():
            world.rpc(
                "register_endpoint",
                {
                    "userId": uuid,
                    "kind": self.kinds[name],
                    "userEndpointId": f"{uuid}.e",
                    "keepAliveSeconds": 600,
                },
            )

    def say(self, type_name: str, **fields: object) -> list[Message]:
        """Publish a session message; returns what the endpoints of this test heard of it."""
        mark = self.world.mark()
        self.world.publish(f"sessions/{self.session}", {"type": type_name, **fields})
        self.world.rpc("online_users")
        mine = {f"{uuid}.e" for uuid in self.ids.values()}
        return [m for m in self.world.since(mark, "users/endpoints/") if m.endpoint in mine]

    def members(self, role: str, *names: str) -> dict[str, list[str]]:
        fields: dict[str, list[str]] = {}
        for name in names:
            fields.setdefault(role + KINDS[self.kinds[name]], []).append(self.ids[name])
        return fields

    def join(self, *names: str, **fields: object) -> list[Message]:
        return self.say("JoinSessionEvent", **self.members("session", *names), **fields)

    def told(self, heard: list[Message], type_name: str) -> list[str]:
        """Who got messages of a type, by name, sorted."""
        names = {f"{uuid}.e": name for name, uuid in self.ids.items()}
        return sorted(names[m.endpoint] for m in heard if m.type == type_name)

    def busy(self) -> list[str]:
        answers = {uuid for kind in KINDS for uuid in self.world.rpc(f"busy_{kind}s")}
        return sorted(name for name, uuid in self.ids.items() if uuid in answers)


@pytest.fixture
def call(shared: Stack, fresh: Fresh) -> Call:
    return Call(shared.world, fresh)


def test_a_join_reaches_the_invitees(call: Call) -> None:
    heard = call.join("ann", "bob", "pat", "lamp", joinMsg="hello", sessionParameters='{"a": 1}', extra=[1, None])
    assert call.told(heard, "JoinSessionEvent") == ["ann", "bob", "lamp", "pat"]
    relay = next(m for m in heard if m.type == "JoinSessionEvent").json
    assert (relay["joinMsg"], relay["sessionParameters"], relay["extra"]) == ("hello", '{"a": 1}', [1, None])
    assert relay["sessionUsers"] == [call.ids["ann"], call.ids["bob"]]
    assert {"id", "type", "timestamp", "organizationId", "about", "version"} <= set(relay)
    assert relay["about"] == f"session/{call.session}"
    presence = [m.json for m in heard if m.type == "UserPresenceChangedEvent"]
    assert {event["cause"] for event in presence} == {"session_joined"}
    assert all(event["busy"] and not event["online"] for event in presence)
    # Who becomes busy is told to itself and to the session's members, nobody twice.
    assert call.told(heard, "DevicePresenceChangedEvent") == ["ann", "bob", "lamp", "pat"]
    assert call.busy() == ["ann", "bob", "lamp", "pat"]
    members = call.world.rpc("session_members", {"session": call.session})
    assert members == {
        "users": [call.ids["ann"], call.ids["bob"]],
        "participants": [call.ids["pat"]],
        "devices": [call.ids["lamp"]],
    }


def test_a_later_join_reaches_those_it_lists(call: Call) -> None:
    call.join("ann")
    heard = call.join("bob")
    assert call.told(heard, "JoinSessionEvent") == ["bob"]
    assert call.told(heard, "UserPresenceChangedEvent") == ["ann", "bob"]
    assert call.busy() == ["ann", "bob"]


def test_the_same_join_again_is_passed_on_and_changes_nothing(call: Call) -> None:
    call.join("ann", "bob")
    heard = call.join("ann", "bob")
    assert call.told(heard, "JoinSessionEvent") == ["ann", "bob"]
    assert len(heard) == 2


def test_a_leave_reaches_members_and_leavers(call: Call) -> None:
    call.join("ann", "bob", "pat")
    heard = call.say("LeaveSessionEvent", **call.members("leaving", "bob"))
    assert call.told(heard, "LeaveSessionEvent") == ["ann", "bob", "pat"]
    [left] = {m.json["version"]: m.json for m in heard if m.type == "UserPresenceChangedEvent"}.values()
    assert (left["uuid"], left["cause"], left["busy"]) == (call.ids["bob"], "session_left", False)
    assert call.busy() == ["ann", "pat"]


def test_a_leave_of_a_stranger_is_passed_on_and_frees_nobody(call: Call) -> None:
    call.join("ann")
    heard = call.say("LeaveSessionEvent", **call.members("leaving", "eve"))
    assert call.told(heard, "LeaveSessionEvent") == ["ann", "eve"]
    assert len(heard) == 2
    assert call.busy() == ["ann"]


def test_a_stop_reaches_the_members(call: Call) -> None:
    call.join("ann", "bob", "lamp")
    call.say("LeaveSessionEvent", **call.members("leaving", "bob"))
    heard = call.say("StopSessionEvent", serviceUuid="service")
    assert call.told(heard, "StopSessionEvent") == ["ann", "lamp"]
    assert {m.json["cause"] for m in heard if "Presence" in m.type} == {"session_stopped"}
    assert call.busy() == []
    assert call.world.rpc("session_members", {"session": call.session}) == {
        "users": [],
        "participants": [],
        "devices": [],
    }
    assert call.say("StopSessionEvent") == []


@pytest.mark.parametrize("answer", ["REPLY_ACCEPTED", "REPLY_DENIED", "REPLY_BUSY", "REPLY_TIMEOUT", 2, None])
def test_a_reply_reaches_the_other_members(answer: object, call: Call) -> None:
    call.join("ann", "bob", "pat")
    heard = call.say("JoinSessionReplyEvent", userUuid=call.ids["bob"], joinReply=answer, replyMsg="so")
    assert call.told(heard, "JoinSessionReplyEvent") == ["ann", "pat"]
    relay = next(m for m in heard if m.type == "JoinSessionReplyEvent").json
    assert (relay["joinReply"], relay["replyMsg"], relay["userUuid"]) == (answer, "so", call.ids["bob"])
    accepted = answer == "REPLY_ACCEPTED"
    assert call.busy() == (["ann", "bob", "pat"] if accepted else ["ann", "pat"])
    causes = {m.json["cause"] for m in heard if "Presence" in m.type}
    assert causes == (set() if accepted else {"join_declined"})


def test_presence_of_a_member_is_told_to_its_session(call: Call) -> None:
    call.join("ann", "pat")
    mark = call.world.mark()
    call.world.publish(f"presence/participants/{call.ids['pat']}", "online")
    call.world.publish(f"presence/participants/{call.ids['pat']}/status", {"mood": "fine"})
    call.world.publish(f"presence/users/{call.ids['eve']}", "online")
    call.world.rpc("online_users")
    heard = [
        m for m in call.world.since(mark, "users/endpoints/") if m.endpoint.removesuffix(".e") in call.ids.values()
    ]
    assert call.told(heard, "ParticipantPresenceChangedEvent") == ["ann", "pat"]
    assert call.told(heard, "ParticipantStatusChangedEvent") == ["ann", "pat"]
    assert call.told(heard, "UserPresenceChangedEvent") == ["eve"]
    status = next(m for m in heard if "Status" in m.type).json
    assert status["status"] == {"mood": "fine"}


def test_bad_entries_are_skipped_and_the_rest_applies(call: Call) -> None:
    mark = call.world.mark()
    heard = call.say("JoinSessionEvent", sessionUsers=["", call.ids["ann"], "a/b", 7, None, call.ids["bob"], "$x"])
    assert call.told(heard, "JoinSessionEvent") == ["ann", "bob"]
    assert call.busy() == ["ann", "bob"]
    reports = [m.json["reason"] for m in call.world.since(mark) if m.topic.endswith("/rejected")]
    assert sorted(reason.partition(":")[0] for reason in reports) == ["empty_id", *["invalid_field"] * 4]


def test_a_session_larger_than_one_chunk_is_freed_whole(shared: Stack, fresh: Fresh) -> None:
    world, session = shared.world, fresh("big")
    users = [f"{fresh('m')}.{number}" for number in range(450)]
    watcher = fresh("watcher")
    world.rpc(
        "register_endpoint",
        {"userId": watcher, "userEndpointId": watcher, "keepAliveSeconds": 600, "watch": [f"user:{users[-1]}"]},
    )
    for user in (users[0], users[-1]):
        world.rpc("register_endpoint", {"userId": user, "userEndpointId": f"{user}.e", "keepAliveSeconds": 600})
    world.publish(f"sessions/{session}", {"type": "JoinSessionEvent", "sessionUsers": users})
    assert set(users) <= set(world.rpc("busy_users"))
    mark = world.mark()
    world.publish(f"sessions/{session}", {"type": "StopSessionEvent"})
    # A join right behind the stop opens the session again: the rest of the stop must not free who joins now.
    world.publish(f"sessions/{session}", {"type": "JoinSessionEvent", "sessionUsers": [users[-1]]})
    busy = set(world.rpc("busy_users"))
    assert busy & set(users) == {users[-1]}
    assert world.rpc("sessions_of", {"kind": "user", "uuid": users[-1]}) == [session]
    stops = [m.endpoint for m in world.since(mark) if "/endpoints/" in m.topic and m.type == "StopSessionEvent"]
    assert sorted(stops) == sorted([f"{users[0]}.e", f"{users[-1]}.e"])
    changes = [m.json["busy"] for m in world.since(mark, f"users/endpoints/{watcher}")]
    assert changes == [False, True]
    versions = [m.json["version"] for m in world.since(mark, f"users/endpoints/{watcher}")]
    assert versions == sorted(versions)


def test_a_session_over_the_limit_is_refused_whole(shared: Stack, fresh: Fresh) -> None:
    world, session, user = shared.world, fresh("huge"), fresh("u")
    mark = world.mark()
    world.publish(
        f"sessions/{session}", {"type": "JoinSessionEvent", "sessionUsers": [f"{user}.{n}" for n in range(1001)]}
    )
    assert not [uuid for uuid in world.rpc("busy_users") if uuid.startswith(f"{user}.")]
    [report] = [m.json for m in world.since(mark) if m.topic.endswith("/rejected")]
    assert report["reason"].startswith("invalid_field")
    assert "1001" in report["reason"]


def test_several_events_in_one_wrapper(call: Call) -> None:
    mark = call.world.mark()
    heard = call.say(
        "ignored",
        events=[
            {
                "@type": "type.googleapis.com/opentera.protobuf.JoinSessionEvent",
                **call.members("session", "ann", "bob"),
            },
            {"@type": "NoSuchEvent"},
            "no object",
            {"@type": "LeaveSessionEvent", **call.members("leaving", "ann")},
        ],
    )
    assert call.told(heard, "JoinSessionEvent") == ["ann", "bob"]
    assert call.told(heard, "LeaveSessionEvent") == ["ann", "bob"]
    assert call.busy() == ["bob"]
    reports = [m.json["reason"].partition(":")[0] for m in call.world.since(mark) if m.topic.endswith("/rejected")]
    assert reports == ["unknown_type", "invalid_field"]

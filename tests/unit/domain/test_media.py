"""Media state of a session's participants: what is told to whom, anomalies, peers, and what ends it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.domain.rules import Rules
from tests.unit.world import RpcError, World, message, types_of

CASES = [
    case
    for line in (Path(__file__).parents[2] / "cases" / "media_rooms.jsonl").read_text().splitlines()
    if line.strip()
    for case in [json.loads(line)]
    if case["name"].startswith("machine_by_diagram")
]


def call(*users: str, **rest: Any) -> World:
    """A world where each user has one endpoint of the same name and is in session ``s1``; ``eve`` is not."""
    world = World(**rest)
    for user in (*users, "eve"):
        world.register(user, user, 86_400)
    world.join("s1", *users)
    return world


def status(world: World, who: str, *counts: int, **rest: Any) -> dict[str, list[Any]]:
    names = ("connections", "sendStreams", "recvStreams")
    payload = {"event": "e", **dict(zip(names, counts, strict=True)), **rest}
    return world.say(f"sessions/s1/participants/{who}/status", payload)


def anomalies(world: World, *who: str) -> list[list[str]]:
    answer = world.call("media_state", ["s1"])
    return [answer[each]["anomalies"] for each in who]


# What is told, and to whom.


def test_a_change_is_told_to_the_session() -> None:
    world = call("ann", "bob")
    heard = status(world, "ann", 1, 0, 0, state="waiting")
    assert set(heard) == {"ann", "bob"}
    [event] = heard["bob"]
    assert {key: value for key, value in event.items() if key not in ("id", "timestamp", "version")} == {
        "type": "MediaStateChangedEvent",
        "organizationId": "default",
        "about": "media/s1/ann",
        "sessionId": "s1",
        "participantId": "ann",
        "state": "waiting",
        "previous": "init",
        "connections": 1,
        "sendStreams": 0,
        "recvStreams": 0,
        "claimed": "waiting",
        "anomalies": [],
    }
    assert world.call("media_state", ["s1", "ann"]) == {
        "state": "waiting",
        "connections": 1,
        "sendStreams": 0,
        "recvStreams": 0,
        "claimed": "waiting",
        "anomalies": [],
        "version": event["version"],
    }


def test_counters_alone_are_a_change_and_the_same_again_is_none() -> None:
    world = call("ann")
    status(world, "ann", 2, 1, 0)
    [event] = status(world, "ann", 2, 2, 0)["ann"]
    assert (event["state"], event["previous"], event["sendStreams"]) == ("sending", "sending", 2)
    assert status(world, "ann", 2, 2, 0) == {}
    assert status(world, "ann", 2, 2, 0, state="sending")["ann"][0]["claimed"] == "sending"


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_cases_by_the_diagram(case: dict[str, Any]) -> None:
    world = call("ann")
    for step in case["expect"]["derived"]:
        counts = step["connections"], step["sendStreams"], step["recvStreams"]
        [event] = status(world, "ann", *counts, event=step["event"], state=step["state"])["ann"]
        assert event["state"] == step["state"]
        assert set(event["anomalies"]) <= {"streams_while_alone"}


def test_cleanup_is_what_was_starting_once_media_was_seen() -> None:
    world = call("ann")
    states = [
        status(world, "ann", *counts)["ann"][0]["state"]
        for counts in (
            (2, 0, 0),
            (2, 0, 1),
            (2, 0, 0),
            (3, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (1, 1, 0),
            (1, 0, 0),
            (2, 0, 0),
        )
    ]
    assert states == [
        *("starting", "receiving", "cleanup", "cleanup", "waiting", "starting", "waiting", "waiting", "starting"),
    ]


def test_a_user_reports_of_itself() -> None:
    world = call("ann", "bob")
    payload = {"connections": 1, "sendStreams": 0, "recvStreams": 0}
    assert set(world.say("clients/ann/sessions/s1/status", payload)) == {"ann", "bob"}
    assert world.call("media_state", ["s1", "ann"])["state"] == "waiting"


@pytest.mark.parametrize(
    "topic",
    [
        "sessions/s1/participants/eve/status",
        "sessions/s2/participants/ann/status",
        "clients/eve/sessions/s1/status",
        "clients/pat/sessions/s1/status",  # there is a participant pat, but no user
    ],
)
def test_who_is_not_in_the_session_reports_nothing(topic: str) -> None:
    world = call("ann")
    world.session("s1", "JoinSessionEvent", sessionParticipants=["pat"])
    before = world.stored()
    assert world.say(topic, {"connections": 1, "sendStreams": 0, "recvStreams": 0}) == {}
    assert world.codes == ["not_allowed"]
    assert world.stored() == before
    assert world.counts["rejected:not_allowed"] == 1
    assert world.all_acknowledged


def test_members_of_several_kinds_under_one_id_are_one_participant() -> None:
    world = World()
    for kind in ("user", "device"):
        world.register("ann", f"ann-{kind}", 86_400, kind=kind)
    world.session("s1", "JoinSessionEvent", sessionUsers=["ann"], sessionDevices=["ann"])
    assert set(status(world, "ann", 2, 1, 1)) == {"ann-user", "ann-device"}
    world.session("s1", "LeaveSessionEvent", leavingDevices=["ann"])
    assert world.call("media_state", ["s1", "ann"])["state"] == "sendrecv"
    world.leave("s1", "ann")
    assert world.call("media_state", ["s1", "ann"])["state"] == "init"


def test_questions() -> None:
    world = call("ann", "bob")
    nothing = {"state": "init", "connections": 0, "sendStreams": 0, "recvStreams": 0, "claimed": None}
    nothing |= {"anomalies": [], "version": 0}
    assert world.call("media_state", ["s1"]) == {"ann": nothing, "bob": nothing}
    assert world.call("media_state", {"session": "s2"}) == {}
    assert world.call("media_state", ["s1", "eve"]) == nothing
    assert world.call("media_state", ["s1", "bob"], user="ann") == nothing
    with pytest.raises(RpcError, match="forbidden"):
        world.call("media_state", ["s1", "bob"], user="eve")


# Anomalies.


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([(2, 1, 1, "sendrecv")], []),
        ([(-1, 0, 0, None)], ["counter_below_zero"]),
        ([(2, -2, 1, "sendrecv")], ["counter_below_zero", "claim_differs"]),
        ([(1, 1, 0, "waiting")], ["streams_while_alone"]),
        ([(0, 0, 1, None)], ["streams_while_alone"]),
        ([(2, 0, 0, "hello world")], ["claim_differs"]),
        ([(1, 0, 0, None), (2, 1, 1, None)], ["impossible_step"]),
        ([(2, 0, 0, None), (2, 1, 1, None)], ["impossible_step"]),
        ([(2, 1, 1, None), (2, 0, 0, None)], ["impossible_step"]),
        ([(1, 0, 0, None), (3, 0, 0, None)], []),  # an edge of the diagram, whatever the counters do
        ([(2, 1, 1, None), (1, 0, 0, None)], []),
        ([(3, 1, 2, None), (2, 1, 1, None)], []),  # a peer left and took its stream along: the state stays
        ([(1, 1, 0, None), (2, 1, 0, None)], []),  # one unit of one counter
        ([(1, 0, 0, None), (2, 1, 1, None), (2, 1, 1, None)], ["impossible_step"]),  # the same again says nothing new
        ([(1, 0, 0, None), (2, 1, 1, None), (2, 2, 1, None)], []),
    ],
)
def test_what_does_not_add_up_is_recorded(reports: list[tuple[Any, ...]], expected: list[str]) -> None:
    world = call("ann")
    for *counts, claimed in reports:
        status(world, "ann", *counts, **({} if claimed is None else {"state": claimed}))
    assert world.codes == []
    assert anomalies(world, "ann") == [expected]


def test_a_negative_counter_counts_as_none() -> None:
    world = call("ann")
    [event] = status(world, "ann", 2, -1, 1)["ann"]
    assert (event["sendStreams"], event["state"], event["anomalies"]) == (0, "receiving", ["counter_below_zero"])


# Peers that see different numbers of connections.


def test_peers_disagree_once_it_has_lasted_five_seconds() -> None:
    world = call("ann", "bob")
    status(world, "ann", 2, 0, 0)
    status(world, "bob", 3, 0, 0)
    assert world.pass_seconds(4) == {}
    heard = world.pass_seconds(1)
    assert set(heard) == {"ann", "bob"}
    assert [(e["participantId"], e["anomalies"], e["state"], e["previous"]) for e in heard["ann"]] == [
        ("ann", ["peers_disagree"], "starting", "starting"),
        ("bob", ["peers_disagree"], "starting", "starting"),
    ]
    assert world.pass_seconds(20) == {}
    # and once they agree again, nobody is at odds
    heard = status(world, "bob", 2, 0, 0)
    assert [(e["participantId"], e["anomalies"]) for e in heard["ann"]] == [("bob", []), ("ann", [])]
    assert world.deadlines().keys() == {"session:s1", *(f"user:{name}" for name in ("ann", "bob", "eve"))}


def test_peers_that_agree_in_time_never_disagreed() -> None:
    world = call("ann", "bob")
    status(world, "ann", 2, 0, 0)
    status(world, "bob", 1, 0, 0)
    world.pass_seconds(4)
    status(world, "bob", 2, 0, 0)
    assert world.pass_seconds(10) == {}


def test_only_who_differs_from_most_is_at_odds() -> None:
    world = call("ann", "bob", "cid", "dan")
    for who, connections in (("ann", 3), ("bob", 3), ("cid", 2), ("dan", 0)):  # dan is not connected, so sees nobody
        status(world, who, connections, 0, 0)
    world.pass_seconds(6)
    assert anomalies(world, "ann", "bob", "cid", "dan") == [[], [], ["peers_disagree"], []]
    status(world, "cid", 3, 0, 0)
    assert anomalies(world, "cid") == [[]]
    status(world, "ann", 4, 0, 0)
    status(world, "bob", 4, 0, 0)
    world.pass_seconds(6)
    assert anomalies(world, "ann", "bob", "cid") == [[], [], ["peers_disagree"]]
    world.leave("s1", "cid")
    assert (world.record("views:s1") or {}).get("odd") is None


def test_the_anomaly_stays_while_its_reason_does() -> None:
    world = call("ann", "bob")
    status(world, "ann", 2, 0, 0)
    status(world, "bob", 3, 0, 0)
    world.pass_seconds(5)
    assert status(world, "bob", 3, 1, 0)["ann"][0]["anomalies"] == ["peers_disagree"]
    status(world, "bob", 4, 1, 0)
    assert anomalies(world, "ann", "bob") == [["peers_disagree"], ["peers_disagree"]]
    assert world.pass_seconds(10) == {}


def test_many_at_odds_are_told_in_chunks() -> None:
    names = [f"u{number:02}" for number in range(25)]
    world = call(*names)
    for number, name in enumerate(names):
        status(world, name, 2 + number % 2, 0, 0)
    status(world, names[0], 3, 0, 0)  # now thirteen see three, twelve see two
    batches = len(world.broker.batches)
    heard = world.pass_seconds(6)
    assert [e["participantId"] for e in heard["u03"]] == names[2::2]
    assert len(world.broker.batches) == batches + 2


# What ends it.


def test_who_leaves_is_told_once_to_those_who_stay() -> None:
    world = call("ann", "bob")
    status(world, "bob", 2, 1, 1)
    heard = world.leave("s1", "bob")
    assert types_of(heard["ann"]) == ["LeaveSessionEvent", "UserPresenceChangedEvent", "MediaStateChangedEvent"]
    assert types_of(heard["bob"]) == ["LeaveSessionEvent", "UserPresenceChangedEvent"]
    event = heard["ann"][2]
    assert (event["state"], event["previous"], event["connections"], event["claimed"]) == ("init", "sendrecv", 0, None)
    assert world.stored() == {"user:ann", "user:bob", "user:eve", "session:s1"}
    assert types_of(world.leave("s1", "bob")["ann"]) == ["LeaveSessionEvent"]


def test_a_declined_invitation_ends_it_too() -> None:
    world = call("ann", "bob")
    status(world, "bob", 1, 0, 0)
    assert types_of(world.reply("s1", "bob")["ann"])[-1] == "MediaStateChangedEvent"
    assert "media:s1:bob" not in world.stored()


def test_a_stop_ends_all_of_it_without_a_word_of_each() -> None:
    names = [f"u{number}" for number in range(450)]
    world = call(*names)
    world.feed(*(message(f"sessions/s1/participants/{name}/status", STATUS) for name in names))
    assert len([key for key in world.stored() if key.startswith("media:")]) == 450
    heard = world.stop("s1")
    assert {kind for events in heard.values() for kind in types_of(events)} == {
        *("StopSessionEvent", "UserPresenceChangedEvent"),
    }
    assert not [key for key in world.stored() if key.startswith(("media:", "views:"))]
    world.join("s1", "u1", timestamp=world.registry.now_ms + 1)
    assert world.call("media_state", ["s1", "u1"])["version"] == 0


STATUS = {"connections": 2, "sendStreams": 1, "recvStreams": 0}


def test_a_session_that_expires_takes_it_along() -> None:
    world = call("ann", rules=Rules(session_ms=60_000))
    status(world, "ann", 2, 0, 0)
    world.pass_seconds(40)
    status(world, "ann", 2, 1, 0)  # traffic keeps it
    world.pass_seconds(40)
    assert "media:s1:ann" in world.stored()
    world.pass_seconds(25)
    assert world.stored() == {"user:ann", "user:eve"}


def test_media_outlives_the_bridge() -> None:
    world = call("ann", "bob")
    status(world, "ann", 2, 0, 0)
    status(world, "bob", 3, 0, 0)
    again = world.restarted()
    again.pass_seconds(10)
    assert anomalies(again, "ann", "bob") == [["peers_disagree"]] * 2

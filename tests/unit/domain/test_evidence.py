"""explain: what the registry knows of a subject, and why it shows it so."""

from typing import Any

import pytest

from bridge.domain.rules import Rules
from tests.unit.world import RpcError, World


def explained(world: World, uuid: str = "ann", kind: str = "user") -> dict[str, Any]:
    answer: dict[str, Any] = world.call("explain", {"kind": kind, "uuid": uuid})
    return answer


def test_an_unknown_subject_is_explained_too() -> None:
    answer = explained(World(), "lamp", "device")
    assert (answer["kind"], answer["uuid"], answer["organizationId"]) == ("device", "lamp", "default")
    assert (answer["known"], answer["version"], answer["at"]) == (False, None, "2023-11-14T22:13:20.000Z")
    assert answer["online"] == {
        "value": False,
        "because": "no connection is reported",
        "flippedBy": ["a connect of it"],
    }
    assert answer["busy"] == {
        "value": False,
        "because": "it is in no live session",
        "flippedBy": ["a join that lists it"],
    }
    assert [answer[name] for name in ("connections", "endpoints", "sessions", "rooms", "status", "watchedBy")] == [
        *([], [], [], {}, None, []),
    ]


def test_connections_have_their_age() -> None:
    world = World()
    world.online("ann")
    world.pass_seconds(5)
    world.online("ann", "tab")
    answer = explained(world)
    assert answer["known"]
    assert answer["version"] > 0
    assert answer["connections"] == [
        {
            "connectionId": None,
            "since": "2023-11-14T22:13:20.000Z",
            "silentSeconds": 5,
            "endsInSeconds": None,
        },
        {
            "connectionId": "tab",
            "since": "2023-11-14T22:13:25.000Z",
            "silentSeconds": 0,
            "endsInSeconds": None,
        },
    ]
    assert answer["online"]["value"] is True
    assert answer["online"]["because"] == "2 connections reported and not ended"
    assert len(answer["online"]["flippedBy"]) == 1


def test_a_lease_says_when_connections_end() -> None:
    world = World(Rules(lease_ms=30_000))
    world.online("ann")
    world.pass_seconds(10)
    answer = explained(world)
    assert answer["connections"][0]["endsInSeconds"] == 20
    assert answer["online"]["flippedBy"][1] == "no word from them for 30 s (presence.lease_seconds)"


@pytest.mark.parametrize(
    ("counts", "value", "because"),
    [
        (False, False, "no connection is reported; its endpoints (1) do not count (presence.from_endpoints)"),
        (True, True, "its endpoints (1) count (presence.from_endpoints)"),
    ],
)
def test_whether_endpoints_count_is_said(counts: bool, value: bool, because: str) -> None:
    world = World(Rules(from_endpoints=counts))
    world.register("ann", "ann1")
    online = explained(world)["online"]
    assert (online["value"], online["because"]) == (value, because)
    assert online["flippedBy"]
    assert ("presence.from_endpoints" in str(explained(world, "bob")["online"]["flippedBy"])) == counts


def test_endpoints_have_their_state_and_deadlines() -> None:
    world = World()
    world.register("ann", "ann1", 90, serverKeepAliveReminderOn=True, watch=["device:lamp"])
    world.pass_seconds(10)
    [endpoint] = explained(world)["endpoints"]
    assert endpoint == {
        "id": "ann1",
        "state": "HEALTHY",
        "because": "its last keepalive came in time",
        "flippedBy": ["silence"],
        "keepAliveSeconds": 90,
        "silentSeconds": 10,
        "remindedInSeconds": 50,
        "sickInSeconds": 65,
        "expiresInSeconds": 80,
        "watch": ["device:lamp"],
    }
    assert explained(world, "lamp", "device")["watchedBy"] == ["ann1"]
    world.pass_seconds(66)
    [endpoint] = explained(world)["endpoints"]
    assert (endpoint["state"], endpoint["because"]) == ("SICK", "no answer to its reminder")
    assert (endpoint["remindedInSeconds"], endpoint["sickInSeconds"], endpoint["flippedBy"]) == (
        None,
        None,
        ["a keepalive"],
    )
    world.pause_seconds(100)
    [endpoint] = explained(world)["endpoints"]
    assert endpoint["state"] == "UNKNOWN"
    assert "was away" in endpoint["because"]


def test_an_endpoint_within_its_grace_says_so() -> None:
    world = World(Rules(grace_ms=20_000))
    world.register("ann", "ann1", 10)
    world.pass_seconds(15)
    [endpoint] = explained(world)["endpoints"]
    assert (endpoint["state"], endpoint["because"]) == ("SICK", "it is within its grace")
    assert endpoint["expiresInSeconds"] == 15


def test_sessions_say_when_they_end() -> None:
    world = World()
    world.join("s1", "ann", "bob")
    world.pass_seconds(60)
    world.join("s2", "ann")
    answer = explained(world)
    assert answer["busy"]["because"] == "it is in 2 live sessions"
    assert answer["busy"]["flippedBy"][1] == "no traffic in them for 12 h (sessions.session_hours)"
    assert answer["sessions"] == [
        {
            "session": "s1",
            "joined": "2023-11-14T22:13:20.000Z",
            "members": 2,
            "silentSeconds": 60,
            "endsInSeconds": 12 * 3600 - 60,
        },
        {
            "session": "s2",
            "joined": "2023-11-14T22:14:20.000Z",
            "members": 1,
            "silentSeconds": 0,
            "endsInSeconds": 12 * 3600,
        },
    ]
    world.registry.organizations["default"]["session:s1"] = b"nonsense"
    assert [session["members"] for session in explained(world)["sessions"]] == [0, 1]


def test_a_status_is_dated_and_not_repeated() -> None:
    world = World()
    world.say("presence/users/ann/status", b'{"mood": "secret"}')
    world.pass_seconds(3)
    answer = explained(world)
    assert answer["status"] == {"bytes": 18, "timestamp": 1_700_000_000_000, "ageSeconds": 3}
    assert "secret" not in str(answer)


def test_it_is_for_services_and_changes_nothing() -> None:
    world = World()
    with pytest.raises(RpcError, match="forbidden"):
        world.call("explain", ["user", "ann"], user="ann")
    for params in ({"kind": "users", "uuid": "ann"}, {"kind": "user", "uuid": "a/b"}, {"kind": "user"}):
        with pytest.raises(RpcError, match="invalid_params"):
            world.call("explain", params)
    explained(world)
    assert world.stored() == set()
    assert world.journal() == {}

"""Every behaviour case of room presence through the real broker, each in an organization of its own."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.stack import Client, Message, Stack

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "cases" / "room_presence.jsonl").read_text().splitlines()
    if line.strip()
]
CASES_BY_NAME = {case["name"]: case for case in CASES}
WITNESS = "witness"
NO_MEDIA = dict.fromkeys(("audio", "video", "connected", "phone", "screenshare", "selfMuted"), False)
_organizations = count(1)


class Step(NamedTuple):
    """An input, and what was told because of it: who (endpoint) heard which event."""

    given: dict[str, Any]
    told: list[tuple[str, dict[str, Any]]]

    def heard_by(self, event_type: str = "RoomPresenceChangedEvent") -> list[str]:
        return sorted(endpoint for endpoint, event in self.told if event["type"] == event_type)


class Play:
    """A case played: each party is an endpoint of its sender, and a witness sits in the room.

    The caller hears all that concerns its organization, so that its RPC is answered after what the input led to.
    """

    def __init__(self, case: dict[str, Any], stack: Stack, *, from_clients: bool = False) -> None:
        self.stack = stack
        self.organization = f"room-{next(_organizations)}"
        self.caller = stack.client(prefix=f"{self.organization}/")
        self.caller.subscribe(f"{self.organization}/user/#")
        self.caller.subscribe("+/bridge/+/rejected")
        self.from_clients = from_clients
        self.endpoints: list[str] = []
        self.mark = self.caller.mark()
        self.case = case
        self.steps: list[Step] = []

    def perform(self) -> None:
        self.register(WITNESS, WITNESS)
        self.caller.publish(f"{self.organization}/presence/rooms/T", online(WITNESS))
        self.steps = [self.step(given) for given in self.case["inputs"]]

    def register(self, user: str, endpoint: str) -> None:
        if endpoint not in self.endpoints:
            params = {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600}
            self.caller.rpc("register_endpoint", params)
            self.endpoints.append(endpoint)

    def step(self, given: dict[str, Any]) -> Step:
        mark = self.caller.mark()
        if "socket_closed" in given:
            self.close_socket(given["socket_closed"])
        elif "category" in given:
            sender, party = given["sender"], given["content"].get("sessionId")
            if party and sender["type"] != "phone":
                self.register(sender["_id"], party)
            mark = self.caller.mark()
            topic = f"{self.organization}/presence/rooms/{given['topicId']}"
            if self.from_clients and party and sender["type"] == "user":
                topic = f"{self.organization}/clients/{sender['_id']}/rooms/{given['topicId']}"
            self.caller.publish(topic, given)
        self.caller.rpc("online_users")  # answered after everything that the input led to
        heard = self.caller.since(mark, f"{self.organization}/user/")
        return Step(given, [(message.endpoint, message.json) for message in heard])

    def close_socket(self, party: str) -> None:
        """The broker publishes the will of a connection that breaks without a word."""
        event = {"type": "USER_DISCONNECTED", "connectionId": party}
        will = (f"{self.organization}/presence/users/u1", json.dumps(event))
        client = Client(self.stack.broker.port, will=will)
        client.vanish()
        self.caller.expect(self.is_departure, what="the departure of the closed socket")

    def is_departure(self, message: Message) -> bool:
        return message.topic.startswith(f"{self.organization}/user/") and message.json.get("cause") == "connection_lost"

    @property
    def parties(self) -> dict[str, Any]:
        answer = self.caller.rpc("room_parties", {"room": "T"})
        return {party["sessionId"]: party for party in answer["parties"] if party["sessionId"] != WITNESS}

    @property
    def users(self) -> dict[str, str]:
        users = self.caller.rpc("room_parties", {"room": "T"})["users"]
        return {user: state for user, state in users.items() if user != WITNESS}

    @property
    def witnessed(self) -> list[dict[str, Any]]:
        """All room events that the witness heard."""
        told = [event for step in self.steps for endpoint, event in step.told if endpoint == WITNESS]
        return [event for event in told if event["type"] == "RoomPresenceChangedEvent"]

    @property
    def rejections(self) -> list[str]:
        """The reasons of what was not taken."""
        heard = self.caller.since(self.mark)
        return [message.json["reason"] for message in heard if message.topic.endswith("/rejected")]

    def close(self) -> None:
        for endpoint in self.endpoints:
            self.caller.rpc("unregister_endpoint", {"userEndpointId": endpoint})


def online(user: str) -> dict[str, Any]:
    return {"category": "party.online", "sender": {"_id": user, "type": "user"}, "content": {"sessionId": user}}


def creates_a_session(play: Play) -> None:
    assert list(play.parties) == ["s1"]
    assert play.users == {"u1": "online"}
    assert play.steps[0].heard_by() == [WITNESS]


def answers_the_asker_only(play: Play) -> None:
    third = play.steps[2]
    assert third.heard_by() == ["s2"]
    assert len(third.told) == 1


def is_empty(play: Play) -> None:
    assert play.parties == play.users == {}


def keeps_the_other_session(play: Play) -> None:
    assert list(play.parties) == ["s2"]  # not as the sample clients do it
    assert play.users == {"u1": "online"}


def stays_while_offline(play: Play) -> None:
    [party] = play.parties.values()
    assert (party["sessionId"], party["offline"], party["mediaSession"]) == ("s1", True, NO_MEDIA)
    assert play.users == {"u1": "offline"}


def leaves_once(play: Play) -> None:
    is_empty(play)
    assert [event["cause"] for event in play.witnessed] == ["joined", "removed"]
    assert play.steps[1].heard_by() == ["s2", WITNESS]  # the removed one, too


def never_addresses_a_phone(play: Play) -> None:
    is_empty(play)
    assert {endpoint for step in play.steps for endpoint, _ in step.told} == {WITNESS}
    assert play.witnessed[-1]["content"]["mediaSession"] == NO_MEDIA


def is_lost_once(play: Play) -> None:
    is_empty(play)
    [_, lost] = play.witnessed
    assert (lost["cause"], lost["sender"]["_id"], lost["content"]["sessionId"]) == ("connection_lost", "u1", "s1")


def is_told_once(play: Play) -> None:
    assert [event["cause"] for event in play.witnessed] == ["joined"]
    assert play.steps[1].told == []


JUDGES: dict[str, Callable[[Play], None]] = {
    "online_creates_session": creates_a_session,
    "new_tab_broadcast_is_answered_to_the_asker_only": answers_the_asker_only,
    "leave_with_offline_false_still_leaves": is_empty,
    "two_sessions_as_the_sample_clients_do_it": keeps_the_other_session,
    "online_with_offline_true": stays_while_offline,
    "removed_anonymous": is_empty,
    "leave_after_removed_is_silent": leaves_once,
    "dial_in_leaves_with_audio_true": never_addresses_a_phone,
    "socket_lost_without_leave": is_lost_once,
    "same_content_twice_is_quiet": is_told_once,
}


Stage = Callable[..., Play]


@pytest.fixture
def stage(tenants: Stack) -> Iterator[Stage]:
    """Plays cases; whatever came of them, their endpoints are free again for the next test."""
    plays: list[Play] = []

    def play(case: dict[str, Any], *, from_clients: bool = False) -> Play:
        plays.append(Play(case, tenants, from_clients=from_clients))
        plays[-1].perform()
        return plays[-1]

    yield play
    for played in plays:
        played.close()


@pytest.mark.parametrize("from_clients", [False, True], ids=["services", "clients"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: dict[str, Any], from_clients: bool, stage: Stage) -> None:
    play = stage(case, from_clients=from_clients)
    JUDGES[case["name"]](play)
    assert play.rejections == []


def test_the_cases_are_all_here() -> None:
    assert CASES_BY_NAME.keys() == JUDGES.keys()


def test_a_client_that_forges_its_sender_is_refused(stage: Stage) -> None:
    play = stage({"inputs": []})
    play.register("eve", "eve-tab")
    mark = play.caller.mark()
    play.caller.publish(f"{play.organization}/clients/eve/rooms/T", {**online("ann"), "loopbackMetadata": "mine"})
    assert play.parties == {}
    heard = play.caller.since(mark)
    play.caller.until(lambda: play.rejections, what="the rejection, which comes with the next report")
    [reason] = play.rejections
    assert reason.startswith("not_allowed")
    [invalid] = [message for message in heard if message.topic.startswith(play.organization)]
    assert (invalid.endpoint, invalid.type) == ("eve-tab", "MediaSessionInvalidEvent")
    assert invalid.json["loopbackMetadata"] == "mine"


def test_a_room_outlives_the_bridge(stage: Stage, tenants: Stack) -> None:
    play = stage(CASES_BY_NAME["online_creates_session"])
    before = play.caller.rpc("room_parties", {"room": "T"})
    tenants.bridge.kill()
    tenants.bridge.start()
    assert play.caller.rpc("room_parties", {"room": "T"}) == before

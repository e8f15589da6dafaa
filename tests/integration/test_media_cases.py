"""The behaviour cases of media state by the diagram, and what the source's tests say of counters, over real MQTT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Pace
from tests.integration.stack import Client, Stack

Fresh = Callable[[str], str]
CASES = {
    case["name"]: case
    for line in (Path(__file__).parents[1] / "cases" / "media_rooms.jsonl").read_text().splitlines()
    if line.strip()
    for case in [json.loads(line)]
}
BY_DIAGRAM = [case for name, case in CASES.items() if name.startswith("machine_by_diagram")]


class Participant:
    """A user in a session of its own, with one endpoint."""

    def __init__(self, world: Client, fresh: Fresh) -> None:
        self.world, self.session, self.user = world, fresh("s"), fresh("ann")
        world.rpc("register_endpoint", [self.user, 600, False, f"{self.user}.e"])
        world.publish(f"sessions/{self.session}", {"type": "JoinSessionEvent", "sessionUsers": [self.user]})

    def report(self, body: dict[str, Any]) -> tuple[list[Any], list[str]]:
        """Publish a status; returns the events that the endpoint heard of it, and the reasons it was rejected for."""
        mark = self.world.mark()
        self.world.publish(f"sessions/{self.session}/participants/{self.user}/status", body)
        self.world.rpc("media_state", [self.session])
        heard = self.world.since(mark)
        events = [m.json for m in heard if m.endpoint == f"{self.user}.e" and m.type == "MediaStateChangedEvent"]
        return events, [m.json["reason"] for m in heard if m.topic.endswith("/rejected")]

    @property
    def state(self) -> Any:
        return self.world.rpc("media_state", {"session": self.session, "participant": self.user})


@pytest.fixture
def ann(shared: Stack, fresh: Fresh) -> Participant:
    return Participant(shared.world, fresh)


@pytest.mark.parametrize("case", BY_DIAGRAM, ids=[case["name"] for case in BY_DIAGRAM])
def test_states_by_the_diagram(case: dict[str, Any], ann: Participant) -> None:
    for step in case["expect"]["derived"]:
        [event], _ = ann.report(step)
        told = {name: event[name] for name in ("state", "connections", "sendStreams", "recvStreams", "claimed")}
        assert told == {name: value for name, value in step.items() if name != "event"} | {"claimed": step["state"]}
        assert {name: ann.state[name] for name in told} == told
        assert ann.state["version"] == event["version"]


def test_any_text_is_taken(ann: Participant) -> None:
    [body] = [step["body"] for step in CASES["status_ok_204_and_any_state_or_event_text_accepted"]["inputs"][1:]]
    [event], _ = ann.report(body)
    assert (event["state"], event["claimed"], event["anomalies"]) == ("starting", "hello world", ["claim_differs"])


def test_numbers(ann: Participant, pace: Pace) -> None:
    case = CASES["status_number_rules"]
    for step, code in zip(case["inputs"][1:], case["expect"]["status_codes"], strict=True):
        body = step["body"]
        pace.wait()
        _, rejected = ann.report(body)
        below_zero = -1 in body.values()
        assert bool(rejected) == (code == 400 and not below_zero), body
        assert [reason.partition(":")[0] for reason in rejected] in ([], ["invalid_field"])
        if below_zero:  # contract details 28: over MQTT it counts as 0
            assert "counter_below_zero" in ann.state["anomalies"]


def test_who_left_is_back_at_the_beginning(ann: Participant, pace: Pace) -> None:
    ann.report({"connections": 2, "sendStreams": 1, "recvStreams": 1})
    ann.world.publish(f"sessions/{ann.session}", {"type": "LeaveSessionEvent", "leavingUsers": [ann.user]})
    assert ann.state["state"] == CASES["bridge_expiry_event_has_reason_and_fires_once"]["expect"]["final_state"]
    pace.wait()
    events, [reason] = ann.report({"connections": 2, "sendStreams": 1, "recvStreams": 1})
    assert events == []
    assert reason.startswith("not_allowed: ")


def test_peers_that_disagree(shared: Stack, fresh: Fresh) -> None:
    world, session, names = shared.world, fresh("s"), [fresh("ann"), fresh("bob")]
    world.publish(f"sessions/{session}", {"type": "JoinSessionEvent", "sessionUsers": names})
    for name, connections in zip(names, (2, 3), strict=True):
        world.publish(
            f"clients/{name}/sessions/{session}/status",
            {"connections": connections, "sendStreams": 0, "recvStreams": 0},
        )
    world.rpc("register_endpoint", [names[0], 600, False, f"{names[0]}.e"])
    world.expect(
        lambda m: m.endpoint == f"{names[0]}.e" and "peers_disagree" in m.json.get("anomalies", ()), what="an anomaly"
    )

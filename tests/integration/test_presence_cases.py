"""Every behaviour case of presence and sessions through the real broker, each in an organization of its own."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stack import Client, Stack

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "cases" / "presence_sessions.jsonl").read_text().splitlines()
    if line.strip()
]
PRESENCE = {
    "UserEvent": ("users", "userUuid"),
    "ParticipantEvent": ("participants", "participantUuid"),
    "DeviceEvent": ("devices", "deviceUuid"),
}
_organizations = count(1)


def _plain(step: dict[str, Any]) -> dict[str, Any]:
    payload = dict(step["payload"])
    if step["type"] not in PRESENCE:
        payload["type"] = step["type"]
    if "time" in step:
        payload["header"] = {"time": step["time"]}
    if "conn" in step:
        payload["connectionId"] = step["conn"]
    return payload


def _wrapped(step: dict[str, Any]) -> dict[str, Any]:
    event = {"@type": f"type.googleapis.com/opentera.protobuf.{step['type']}", **step["payload"]}
    if "conn" in step:
        event["connectionId"] = step["conn"]
    header = {"header": {"version": 1, "time": step["time"], "topic": "t"}} if "time" in step else {}
    return {"message": {"@type": "type.googleapis.com/opentera.protobuf.TeraEvent", **header, "events": [event]}}


def _snake(step: dict[str, Any]) -> dict[str, Any]:
    def snake(name: str) -> str:
        return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in name)

    return {snake(name): value for name, value in _plain(step).items()}


def _play(step: dict[str, Any], world: Client, organization: str, form: Any) -> None:
    payload = step["payload"]
    if step["type"] == "update_device_status":
        world.rpc("update_device_status", payload)
        return
    if step["type"] in PRESENCE:
        place, field = PRESENCE[step["type"]]
        topic = f"presence/{place}/{payload[field]}"
    else:
        topic = f"sessions/{payload['sessionUuid']}"
    world.publish(f"{organization}/{topic}", form(step))


@pytest.mark.parametrize("form", [_plain, _wrapped, _snake], ids=["plain", "wrapped", "snake"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: dict[str, Any], form: Any, tenants: Stack) -> None:
    organization = f"case-{next(_organizations)}"
    caller = tenants.client(prefix=f"{organization}/")
    mark = tenants.world.mark()
    for step in case["inputs"]:
        if step["type"] == "_restart":
            caller.rpc("online_users")  # an answer reflects every input before it: all of them are in
            tenants.bridge.kill()
            tenants.bridge.start()
        else:
            _play(step, caller, organization, form)
    for method, expected in case["expect"].items():
        answer = caller.rpc(method)
        if method.startswith("online_"):
            assert isinstance(answer, list), method
            assert sorted(answer) == sorted(expected), method
        elif method.startswith("busy_"):
            assert isinstance(answer, list), method
            assert sorted(answer) == sorted(expected), method
            kind = method.removeprefix("busy_").removesuffix("s")
            for uuid, session in expected.items():
                assert caller.rpc("sessions_of", {"kind": kind, "uuid": uuid})[0] == session, (method, uuid)
        else:
            assert set(answer) == set(expected), method
            for uuid, view in expected.items():
                assert {key: answer[uuid][key] for key in view} == view, (method, uuid)
    assert not [m.json for m in tenants.world.since(mark) if m.topic.endswith("/rejected")]


def test_the_cases_are_all_here() -> None:
    assert len(CASES) == 10
    assert len({case["name"] for case in CASES}) == 10

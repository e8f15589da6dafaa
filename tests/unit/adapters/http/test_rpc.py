"""``POST /rpc/{method}``: each method answers over HTTP what it answers over MQTT."""

import json
from typing import Any

from bridge.domain.methods import METHODS
from bridge.domain.rules import Rules
from tests.unit.adapters.http.api import Api
from tests.unit.world import World

EVENT = {"type": "TeaReadyEvent", "timestamp": "2026-01-01T16:00:00Z"}
JOIN = {"type": "JoinSessionEvent", "sessionUsers": ["ann"], "sessionParticipants": ["p1"]}
MUTE = {"session": "s1", "participant": "p1", "muteStates": {"AUDIO": "MUTE"}}

# In this order; the listings, which take none, come before.
PARAMS: dict[str, Any] = {
    "update_device_status": {"uuid": "lamp", "status": '{"lit": 1.50}', "timestamp": 1_700_000_000},
    "sessions_of": {"kind": "user", "uuid": "ann"},
    "explain": {"kind": "device", "uuid": "lamp"},
    "session_members": {"session": "s1"},
    "media_state": {"session": "s1"},
    "room_parties": {"room": "r1"},
    "call_permissions": {"session": "s1"},
    "mute_participant": MUTE,
    "register_endpoint": {"userId": "bob", "userEndpointId": "bob1", "keepAliveSeconds": 60},
    "keepalive_endpoint": {"userEndpointId": "ann1"},
    "watch_endpoint": {"userEndpointId": "ann1", "watch": ["device:*"]},
    "view_endpoint": {"userEndpointId": "ann1"},
    "list_endpoints": {"userId": "ann"},
    "send_event": {"event": EVENT, "userId": "ann", "qos": 1, "outcomes": True},
    "events": {},
    "unregister_endpoint": {"userEndpointId": "ann1"},
}


def busy_world() -> World:
    world = World(Rules(audit_ms=60_000))
    world.register("ann", "ann1", watch=["device:lamp"])
    world.online("ann")
    world.online("lamp", kind="device")
    world.say("presence/devices/lamp/status", '{"a": [1, 2.5, null, "é"]}')
    world.say("sessions/s1", JOIN)
    world.say("sessions/s1/participants/p1/status", {"event": "e", "state": "sendrecv", "connections": 1})
    world.party("r1", "ann", "tab1")
    return world


async def test_every_method_answers_what_it_answers_over_mqtt() -> None:
    over_mqtt = busy_world()
    async with Api(busy_world()) as api:
        for method in (*sorted(METHODS.keys() - PARAMS.keys()), *PARAMS):
            body = PARAMS.get(method, {})
            answer = await api.ask("POST", f"/rpc/{method}", body)
            assert answer.status_code == 200, (method, answer.text)
            assert answer.headers["content-type"] == "application/json"
            assert answer.json() == {"result": over_mqtt.call(method, json.dumps(body))}, method


async def test_a_parameter_that_there_is_not_is_named() -> None:
    async with Api() as api:
        answer = await api.ask("POST", "/rpc/online_users", {"limitt": 5})
        assert [error["field"] for error in answer.json()["errors"]] == ["limitt"]

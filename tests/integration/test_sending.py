"""send_event over real MQTT: verbatim, counted by PUBACKs, and sent again rather than lost."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.integration.stack import Client, Stack, stack

Fresh = Callable[[str], str]
EVENT = {"type": "OrderPlacedEvent", "timestamp": "2026-01-02T03:04:05.1Z"}


def register(client: Client, user: str, *endpoints: str) -> None:
    for endpoint in endpoints:
        client.rpc("register_endpoint", {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600})


def test_an_event_arrives_as_it_was_given_and_a_repetition_does_not(shared: Stack, fresh: Fresh) -> None:
    world, user = shared.world, fresh("ann")
    register(world, user, first := fresh("one"), second := fresh("two"))
    event_id = fresh("order")
    event = json.dumps({**EVENT, "id": event_id, "price": 12345678901234567890, "text": "é\u2028"}, indent=1).encode()
    mark = world.mark()
    for _ in range(2):
        answer = world.request("rpc/send_event", b'{"qos":1,"userId":"%b","event":%b}' % (user.encode(), event))
        assert answer == {"result": 2}
    listed = {"userId": user, "event": {**EVENT, "last": True}, "qos": 1, "outcomes": True, "userEndpointId": second}
    assert world.rpc("send_event", listed) == [{"userEndpointId": second, "outcome": "acknowledged"}]
    world.expect(lambda m: m.endpoint == second and b"last" in m.payload, mark=mark)
    told = [m for m in world.since(mark, "users/endpoints/") if m.type == "OrderPlacedEvent"]
    assert [(m.endpoint, m.payload) for m in told[:2]] == [(first, event), (second, event)]
    assert [m.user["event-id"] for m in told[:2]] == [event_id, event_id]
    assert len(told) == 3
    assert told[2].user["event-id"]


def test_an_event_that_nobody_hears_counts_as_sent(tmp_path: Path) -> None:
    with stack(tmp_path, hears=("bridge/#",)) as found:
        world = found.world
        register(world, "ann", "ann1", "ann2")
        hearing = found.client()
        hearing.subscribe("users/endpoints/ann2")
        params = {"event": EVENT, "userId": "ann", "qos": 1}
        assert world.rpc("send_event", params) == 2
        assert world.rpc("send_event", {**params, "outcomes": True}) == [
            {"userEndpointId": "ann1", "outcome": "no_subscriber"},
            {"userEndpointId": "ann2", "outcome": "acknowledged"},
        ]
        outcomes = world.rpc("send_event", {**params, "qos": 0, "outcomes": True})
        assert [one["outcome"] for one in outcomes] == ["sent", "sent"]

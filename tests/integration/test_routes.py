"""Routes and registry topics on a real broker: what it keeps, drops, and hands to whoever comes later."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stack import Bridge, Client, Stack, stack

Fresh = Callable[[str], str]

ROUTES = [
    {"event": "UserStatusChangedEvent", "audience": ["self"], "expiry_seconds": 1},
    {"event": "ParticipantStatusChangedEvent", "audience": ["organization"], "expiry_seconds": 60, "qos": 0},
    {"event": "UserPresenceChangedEvent", "audience": ["self"], "retain": True, "expiry_seconds": 60},
    {"event": "DeviceStatusChangedEvent", "audience": []},
]


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("routes"), ROUTES=json.dumps(ROUTES), REGISTRY_TOPICS="true") as found:
        yield found


def register(stack: Stack, user: str, endpoint: str) -> str:
    params = {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600}
    assert stack.world.rpc("register_endpoint", params) == {"id": endpoint}
    return f"users/endpoints/{endpoint}"


def kept(stack: Stack, topic_filter: str) -> dict[str, Any]:
    """What the broker hands to somebody who subscribes now: topic -> JSON."""
    late = Client(stack.broker.port)
    try:
        late.subscribe(topic_filter)
        late.rpc("online_users")  # retained messages come before the answer
        return {message.topic: message.json for message in late.messages if message.retain}
    finally:
        late.close()


def hear_all(stack: Stack, topics: set[str]) -> None:
    """Wait until each of these registry topics holds something, retained or just written."""
    late = stack.client()
    late.subscribe("registry/#")
    late.until(lambda: topics <= {message.topic for message in late.messages if message.payload}, what=str(topics))


def test_an_event_that_expires_reaches_nobody_late(routed: Stack, fresh: Fresh) -> None:
    topic = register(routed, fresh("ann"), fresh("e"))
    absent = routed.client(durable=True)
    absent.subscribe(topic)
    mark = absent.mark()
    absent.paho.reconnect_delay_set(3, 3)
    connection = absent.paho.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    routed.world.publish(f"presence/users/{fresh('ann')}/status", {"stale": True})
    routed.world.publish(f"presence/participants/{fresh('p')}/status", {"fresh": True})
    routed.world.rpc("online_users")
    routed.world.publish(f"presence/users/{fresh('ann')}", "online")
    absent.expect(lambda m: m.topic == topic and m.type == "UserPresenceChangedEvent", mark=mark)
    assert [m.type for m in absent.since(mark, topic)] == ["UserPresenceChangedEvent"]
    assert 50 < absent.messages[-1].properties.MessageExpiryInterval <= 60


def test_the_whole_organization_is_told_and_nobody_is(routed: Stack, fresh: Fresh) -> None:
    topics = {register(routed, fresh(user), fresh(f"e-{user}")) for user in ("ann", "bob")}
    world, mark = routed.world, routed.world.mark()
    world.publish(f"presence/devices/{fresh('lamp')}/status", 1)
    world.publish(f"presence/participants/{fresh('p')}/status", 1)
    world.rpc("online_users")
    heard = world.since(mark, "users/endpoints/")
    assert topics <= {m.topic for m in heard}
    assert {(m.type, m.qos) for m in heard} == {("ParticipantStatusChangedEvent", 0)}


def test_a_retained_event_waits_for_who_subscribes_later_and_goes_with_its_endpoint(
    routed: Stack, fresh: Fresh
) -> None:
    topic = register(routed, fresh("ann"), fresh("e"))
    routed.world.publish(f"presence/users/{fresh('ann')}", "online")
    routed.world.publish(f"presence/users/{fresh('ann')}/status", 1)
    routed.world.rpc("online_users")
    assert kept(routed, topic)[topic]["type"] == "UserPresenceChangedEvent"
    routed.world.rpc("unregister_endpoint", {"userEndpointId": fresh("e")})
    assert kept(routed, topic) == {}


def test_the_registry_can_be_read_from_retained_topics(routed: Stack, fresh: Fresh) -> None:
    lamp = fresh("lamp")
    topic = f"registry/devices/{lamp}"
    live = routed.client()
    live.subscribe(topic)
    mark = live.mark()
    routed.world.publish(f"presence/devices/{lamp}", "online")
    routed.world.publish(f"presence/devices/{lamp}/status", {"on": True})
    routed.world.rpc("online_users")
    found = kept(routed, "registry/devices/+")[topic]
    assert found.keys() == {"organizationId", "about", "version", "timestamp", "uuid", "online", "busy", "status"}
    assert (found["uuid"], found["online"], found["busy"], found["status"]) == (lamp, True, False, {"on": True})
    assert (found["organizationId"], found["about"]) == ("default", f"device/{lamp}")
    routed.world.publish(f"presence/devices/{lamp}", "offline")
    live.expect(lambda m: m.topic == topic and m.payload == b"", mark=mark, what="the topic to be cleared")
    assert topic not in kept(routed, "registry/#")


def test_registry_topics_are_right_after_a_kill_and_after_they_are_switched_on(tmp_path: Path) -> None:
    with stack(tmp_path, hears=("bridge/#",)) as found:
        world = found.world
        world.publish("presence/devices/old", "online")
        world.publish("presence/users/ann/status", "7")
        world.rpc("online_users")
        assert kept(found, "registry/#") == {}
        assert found.bridge.end() == 0
        given = {"MQTT__PORT": str(found.broker.port), "REDIS__URL": found.redis.url, "NAME": "b1"}
        with Bridge(tmp_path / "again", world, {**given, "REGISTRY_TOPICS": "true"}) as bridge:
            hear_all(found, {"registry/devices/old", "registry/users/ann"})
            for number in range(400):
                device = f"d{number % 40}"
                world.send(f"presence/devices/{device}", "offline" if number % 7 == 6 else "online")
                world.send(f"presence/devices/{device}/status", number)
                if number == 200:
                    bridge.kill()
                    bridge.start()
            world.rpc("online_users")
            known = world.rpc("status_devices")
            shown = {topic.rpartition("/")[2]: record for topic, record in kept(found, "registry/devices/+").items()}
            online = {device for device, view in known.items() if view["online"]}
            assert {device for device, record in shown.items() if record["online"]} == online
            for device in online:
                assert json.dumps(shown[device]["status"]) == json.dumps(json.loads(known[device]["status"] or "null"))
            found.broker.kill()
            (tmp_path / "broker" / "mosquitto.db").unlink(missing_ok=True)
            found.broker.start()  # it has forgotten everything, the bridge's session too
            hear_all(found, {f"registry/devices/{device}" for device in shown})

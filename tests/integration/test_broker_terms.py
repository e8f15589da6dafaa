"""The whole bridge beside a broker that takes small packets only, and that forgets the bridge's session."""

import time
from collections.abc import Iterator

import pytest
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.integration.stack import PATIENCE_SECONDS, Stack, stack

CLIENT_ID = "bridge-known-to-the-test"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(
        tmp_path_factory.mktemp("narrow"), broker_lines="max_packet_size 2000", MQTT__CLIENT_ID=CLIENT_ID
    ) as found:
        yield found


def logged(found: Stack, words: str) -> str:
    """Wait for a line of the bridge's log and return it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        for line in found.bridge.log.splitlines():
            if words in line:
                return line
        time.sleep(0.02)
    raise AssertionError(f"{words!r} is not in the log:\n{found.bridge.log}")


def test_an_output_above_the_brokers_maximum_is_named_and_the_rest_goes_on(narrow: Stack) -> None:
    world = narrow.world
    world.rpc(
        "register_endpoint",
        {"userId": "eve", "userEndpointId": "eve1", "keepAliveSeconds": 600, "watch": ["device:lamp"]},
    )
    mark = world.mark()
    world.publish("presence/devices/lamp/status", {"text": "x" * 1_800})
    world.publish("presence/devices/lamp/status", {"text": "short"})
    event = world.expect(lambda message: message.endpoint == "eve1", mark=mark).json
    assert event["status"] == {"text": "short"}
    line = logged(narrow, "Outputs are larger than the broker takes")
    assert "users/endpoints/eve1" in line
    assert "broker_takes_bytes=2000" in line
    assert "xxx" not in line


def test_an_answer_above_the_brokers_maximum_is_an_error(narrow: Stack) -> None:
    for number in range(80):
        narrow.world.send(f"presence/users/somebody-with-a-long-name-{number}", "online")
    error = narrow.world.refused("online_users")
    assert error.code == "too_large"
    assert "the broker takes packets of 2000" in error.message
    assert len(narrow.world.rpc("online_users", {"limit": 20})) == 20


def test_a_session_that_the_broker_lost_is_said_and_survived(narrow: Stack) -> None:
    world = narrow.world
    world.rpc("register_endpoint", {"userId": "ann", "userEndpointId": "ann1", "keepAliveSeconds": 600})
    mark = world.mark()
    thief = Paho(CallbackAPIVersion.VERSION2, client_id=CLIENT_ID, protocol=MQTTProtocolVersion.MQTTv5)
    thief.connect("127.0.0.1", narrow.broker.port)  # with Clean Start, which ends the session of that id
    thief.loop_start()
    world.until(lambda: "offline" in narrow.bridge.states(mark), what="the bridge's will")
    thief.disconnect()
    thief.loop_stop()
    world.until(lambda: narrow.bridge.states(mark)[-1] == "online", what="the bridge is back")
    logged(narrow, "The broker has lost the bridge's session")
    world.publish("presence/users/ann", "online")
    assert world.expect(lambda message: message.endpoint == "ann1", mark=mark).json["cause"] == "connected"


def test_who_publishes_at_qos_2_is_heard(narrow: Stack) -> None:
    narrow.world.publish("presence/users/twice", "online", qos=2)
    assert narrow.world.rpc("online_users", {"limit": 1, "cursor": "twic"}) == ["twice"]

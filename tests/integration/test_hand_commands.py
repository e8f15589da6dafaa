"""The three commands of the README, as somebody types them."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.integration.stack import PATIENCE_SECONDS, Stack

Fresh = Callable[[str], str]


def _run(stack: Stack, *words: str) -> str:
    program = shutil.which(words[0])
    assert program is not None, f"{words[0]} is not installed"
    done = subprocess.run(
        [program, "-p", str(stack.broker.port), *words[1:]],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return done.stdout.strip()


@contextmanager
def _subscriber(stack: Stack, topic: str) -> Iterator[Callable[[], dict[str, object]]]:
    """mosquitto_sub, subscribed; the handle reads its next line as JSON."""
    program = shutil.which("mosquitto_sub")
    assert program is not None
    command = [program, "-d", "-V", "5", "-q", "1", "-p", str(stack.broker.port), "-t", topic]
    ours, its = os.openpty()  # on a pipe it would keep its lines back until it has many
    process = subprocess.Popen(command, stdout=its)
    os.close(its)
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    with os.fdopen(ours, "r") as lines:

        def until(start: str) -> str:
            for line in lines:
                if line.startswith(start):
                    return line
            raise AssertionError(f"mosquitto_sub ended before {start}")

        try:
            until("Subscribed")
            yield lambda: json.loads(until("{"))
        finally:
            watchdog.cancel()
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def test_the_three_commands(shared: Stack, fresh: Fresh) -> None:
    ann, ann1, lamp = fresh("ann"), fresh("ann1"), fresh("lamp")
    params = {"userId": ann, "userEndpointId": ann1, "keepAliveSeconds": 600, "watch": [f"device:{lamp}"]}
    answer = _run(
        shared,
        *("mosquitto_rr", "-V", "5", "-t", "rpc/register_endpoint", "-e", "replies/me", "-m", json.dumps(params)),
    )
    assert json.loads(answer) == {"result": {"id": ann1}}

    with _subscriber(shared, f"users/endpoints/{ann1}") as following:
        _run(shared, "mosquitto_pub", "-q", "1", "-t", f"presence/devices/{lamp}", "-m", "online")
        event = following()
        assert event["type"] == "DevicePresenceChangedEvent"
        assert (event["uuid"], event["online"], event["busy"], event["cause"]) == (lamp, True, False, "connected")
        assert event["organizationId"] == "default"
        assert event["about"] == f"device/{lamp}"
        first = event["version"]
        assert isinstance(first, int)

        _run(shared, "mosquitto_pub", "-q", "1", "-t", f"presence/devices/{lamp}", "-m", "offline")
        event = following()
        assert (event["uuid"], event["online"], event["cause"]) == (lamp, False, "disconnected")
        second = event["version"]
        assert isinstance(second, int)
        assert second > first


def test_as_it_stands_without_a_protocol_version(shared: Stack, fresh: Fresh) -> None:
    """mosquitto_pub speaks MQTT 3.1.1 unless told otherwise; the lamp may."""
    lamp = fresh("lamp")
    _run(shared, "mosquitto_pub", "-V", "mqttv311", "-q", "1", "-t", f"presence/devices/{lamp}", "-m", "online")
    assert lamp in shared.world.rpc("online_devices")


def test_an_abrupt_end_is_told_by_the_last_will(shared: Stack, fresh: Fresh) -> None:
    ann, ann1, lamp = fresh("ann"), fresh("ann1"), fresh("lamp")
    world = shared.world
    world.rpc(
        "register_endpoint",
        {"userId": ann, "userEndpointId": ann1, "keepAliveSeconds": 600, "watch": [f"device:{lamp}"]},
    )
    mark = world.mark()
    device = shared.client(will=(f"presence/devices/{lamp}", "offline"))
    device.publish(f"presence/devices/{lamp}", "online")
    world.expect(lambda m: m.endpoint == ann1 and m.json["online"], mark=mark, what="the lamp comes online")
    device.vanish()
    gone = world.expect(
        lambda m: m.endpoint == ann1 and not m.json["online"], mark=mark, what="the lamp goes offline"
    ).json
    assert (gone["type"], gone["cause"]) == ("DevicePresenceChangedEvent", "disconnected")
    assert lamp not in world.rpc("online_devices")


def test_the_bridge_tells_its_own_state(shared: Stack) -> None:
    late = shared.client()
    late.subscribe("bridge/b1/state")
    state = late.expect(lambda m: m.topic == "bridge/b1/state")
    assert state.retain
    assert state.payload == b"online"

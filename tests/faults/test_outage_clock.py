"""Outages longer than an endpoint's interval, of one part at a time: nobody expires, nobody is told, all go on."""

import time
from collections.abc import Callable

import pytest

from tests.integration.stack import Stack

KEEP_ALIVE_SECONDS = 3
OUTAGE_SECONDS = 3.5


def bridge_is_killed(torn: Stack) -> None:
    torn.bridge.kill()
    time.sleep(OUTAGE_SECONDS)
    torn.bridge.start()


def bridge_is_frozen(torn: Stack) -> None:
    torn.bridge.freeze()
    time.sleep(OUTAGE_SECONDS)
    torn.bridge.thaw()


def broker_is_stopped(torn: Stack) -> None:
    mark = torn.world.mark()
    torn.broker.stop()
    time.sleep(OUTAGE_SECONDS)
    torn.broker.start()
    torn.world.until(lambda: "online" in torn.bridge.states(mark), 30, "the bridge is back")


def broker_is_frozen(torn: Stack) -> None:
    torn.broker.freeze()
    time.sleep(OUTAGE_SECONDS)
    torn.broker.thaw()


def redis_is_stopped(torn: Stack) -> None:
    torn.redis.kill()
    time.sleep(OUTAGE_SECONDS)
    torn.redis.start()


def redis_is_frozen(torn: Stack) -> None:
    torn.redis.freeze()
    time.sleep(OUTAGE_SECONDS)
    torn.redis.thaw()


def bridge_is_restarted(torn: Stack) -> None:
    """However short it is: what was sent at QoS 0 meanwhile is lost."""
    torn.bridge.end()
    torn.bridge.start()


OUTAGES = (
    *(bridge_is_killed, bridge_is_restarted, broker_is_stopped, redis_is_stopped),
    *(pytest.param(slow, marks=pytest.mark.slow) for slow in (bridge_is_frozen, broker_is_frozen, redis_is_frozen)),
)


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_expires_nobody(outage: Callable[[Stack], None], torn: Stack) -> None:
    if not torn.bridge.is_running:  # a test before this one failed halfway
        torn.bridge.start()
    world = torn.world
    lively, asking, silent = [f"{outage.__name__}.{name}" for name in ("lively", "asking", "silent")]

    def states() -> list[str]:
        views = [world.rpc("list_endpoints", {"userId": name}, seconds=30) for name in (lively, asking, silent)]
        return [view["state"] for found in views for view in found]

    for name in (lively, asking, silent):
        params = {"userId": name, "userEndpointId": name, "keepAliveSeconds": KEEP_ALIVE_SECONDS}
        world.rpc("register_endpoint", params)
    mark = world.mark()
    outage(torn)
    up = time.monotonic()
    assert states() == ["UNKNOWN"] * 3
    world.publish(f"users/endpoints/{lively}/keepalive")
    world.rpc("keepalive_endpoint", {"userEndpointId": asking})
    assert states() == ["HEALTHY", "HEALTHY", "UNKNOWN"]
    assert world.since(mark, f"users/endpoints/{outage.__name__}.") == []
    if outage is bridge_is_killed:
        expired = world.expect(lambda m: m.endpoint == silent, mark=mark, what="the silent one's end")
        assert expired.type == "UserEndpointExpiredEvent"
        assert expired.at - up >= KEEP_ALIVE_SECONDS / 2, "an outage must not count as silence"

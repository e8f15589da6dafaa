"""Processes are killed, frozen and restarted in the middle of a load; nothing is lost, nothing is done twice."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from tests.faults.load import Load
from tests.integration.stack import Stack

Make = Callable[..., Load]
Tell = Callable[[dict[str, object]], None]


@pytest.mark.parametrize(
    ("count", "kills"),
    [
        pytest.param(4_000, 2, id="4000-2"),
        pytest.param(20_000, 3, id="20000-3", marks=[pytest.mark.slow, pytest.mark.timeout(180)]),
    ],
)
def test_the_bridge_is_killed(count: int, kills: int, torn: Stack, load: Make, figures: Tell) -> None:
    run = load()
    run.start(count, 2_000)
    for number in range(1, kills + 1):
        run.wait_sent(count * number // (kills + 1))
        torn.bridge.kill()
        torn.bridge.start()
    run.finish()
    figures(run.judge(60))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_bridge_is_killed_again_and_again(torn: Stack, load: Make, figures: Tell) -> None:
    """Also while it starts, and while it sends again what the one before it left."""
    run = load()
    run.start(12_000, 600)
    dice = random.Random(7)
    while run.sent < 11_000:
        torn.bridge.kill()
        starting = threading.Thread(target=_start_if_it_may, args=(torn,))
        starting.start()
        time.sleep(dice.uniform(0.2, 2.0))  # at any moment of its life: that is the point
        assert torn.bridge.process is not None
        torn.bridge.process.kill()
        starting.join(20)
        torn.bridge.kill()
    torn.bridge.start()
    run.finish()
    figures(run.judge(60))


def _start_if_it_may(torn: Stack) -> None:
    with contextlib.suppress(RuntimeError):  # it was killed before it was ready
        torn.bridge.start()


def test_sigterm_under_load(torn: Stack, load: Make, figures: Tell) -> None:
    run = load()
    run.start(2_000, 1_500)
    run.wait_sent(1_000)
    assert torn.bridge.end() == 0
    torn.bridge.start()
    run.finish()
    found = run.judge()
    figures(found)
    assert found["redelivered"] == 0, "what a bridge decided it delivers before it ends in order"


def test_redis_is_killed_and_started_again(torn: Stack, load: Make, figures: Tell) -> None:
    run, bridge = load(), torn.bridge.process
    run.start(3_000, 1_500)
    run.wait_sent(1_000)
    torn.redis.kill()
    run.wait_sent(2_000)
    torn.redis.start()
    run.finish()
    figures(run.judge())
    assert torn.bridge.process is bridge
    assert torn.bridge.is_running


@pytest.mark.slow
def test_redis_is_frozen(torn: Stack, load: Make, figures: Tell) -> None:
    run = load()
    run.start(3_000, 1_500)
    run.wait_sent(1_000)
    torn.redis.freeze()
    time.sleep(3)
    torn.redis.thaw()
    run.finish()
    figures(run.judge())


def test_the_connection_to_redis_is_cut_again_and_again(torn: Stack, load: Make, figures: Tell) -> None:
    """A commit whose answer is lost is asked again and not done twice."""
    run = load()
    redis: Any = Redis.from_url(torn.redis.url)
    cuts = 0
    try:
        run.start(3_000, 1_000)
        while run.sent < 2_500:
            cuts += redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.05)
    finally:
        redis.close()
    run.finish()
    figures({"cuts": cuts, **run.judge()})
    assert cuts > 10


@pytest.mark.slow
def test_the_broker_is_frozen(torn: Stack, load: Make, figures: Tell) -> None:
    run = load()
    run.start(3_000, 1_500)
    run.wait_sent(1_000)
    torn.broker.freeze()
    time.sleep(3)
    torn.broker.thaw()
    run.finish()
    figures(run.judge())


def test_the_connection_to_the_broker_is_cut_again_and_again(torn: Stack, load: Make, figures: Tell) -> None:
    """Both ways at once: PUBACKs that never arrive, outputs that may have arrived. Nobody else is disturbed."""
    redis: Any = Redis.from_url(torn.redis.url, decode_responses=True)
    client_id = redis.hget("eb:facts", "client_id")
    redis.close()
    run, cuts = load(), 0
    run.start(4_000, 1_000)
    while run.sent < 3_500 and cuts < 3:
        mark = torn.world.mark()
        _take_over(torn.broker.port, client_id)
        cuts += 1
        torn.world.until(lambda mark=mark: "online" in torn.bridge.states(mark), 20, "the bridge is back")
    run.finish()
    figures({"cuts": cuts, **run.judge()})


def _take_over(port: int, client_id: str) -> None:
    """Connect as somebody and hang up: the broker ends the other connection and keeps the session."""
    name = client_id.encode()
    variable = b"\x00\x04MQTT\x05\x00\x00\x1e\x05\x11\x00\x00\x0e\x10" + len(name).to_bytes(2, "big") + name
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"\x10" + bytes((len(variable),)) + variable)
        assert connection.recv(1)[0] == 0x20, "no CONNACK"


def test_the_broker_is_restarted(torn: Stack, load: Make, figures: Tell) -> None:
    """In order, with persistence: what it has acknowledged to the publisher it keeps, and the bridge comes back."""
    run, bridge = load(once=False), torn.bridge.process
    run.start(3_000, 1_500)
    run.wait_sent(1_000)
    mark = torn.world.mark()
    torn.broker.restart()
    torn.world.until(lambda: "online" in torn.bridge.states(mark), 30, "the bridge is back")
    run.finish()
    figures(run.judge())
    assert torn.bridge.process is bridge
    assert torn.bridge.is_running

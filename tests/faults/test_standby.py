"""Two bridges beside one broker and one Redis: one is active; whatever happens to it, the other goes on from there."""

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.load import Load
from tests.integration.stack import Bridge, Stack

Make = Callable[..., Load]
Tell = Callable[[dict[str, object]], None]
PATIENCE_SECONDS = 20.0


@pytest.fixture
def standby(torn: Stack) -> Iterator[Bridge]:
    """A second bridge that stands by; the first one is active, before and after."""
    bridge = torn.another_bridge("b2")
    bridge.directory.mkdir(parents=True, exist_ok=True)
    _begin(bridge)
    torn.world.until(lambda: "Standing by" in bridge.log, PATIENCE_SECONDS, "the second stands by")
    yield bridge
    bridge.kill()
    torn.bridge.stop()
    torn.bridge.start()
    assert "Traceback" not in bridge.log, bridge.log


def _begin(bridge: Bridge) -> None:
    """Start it without waiting for it to become active."""
    with (bridge.directory / "log").open("ab") as log:
        bridge.process = subprocess.Popen(bridge.command(), cwd=bridge.directory, stdout=log, stderr=log)


def _is_online(bridge: Bridge, mark: int) -> Callable[[], bool]:
    return lambda: "online" in bridge.states(mark)


def _after(torn: Stack, bridge: Bridge, mark: int) -> float:
    began = time.monotonic()
    torn.world.until(_is_online(bridge, mark), PATIENCE_SECONDS, "the other takes over")
    return round(time.monotonic() - began, 2)


def test_the_active_bridge_is_killed(torn: Stack, standby: Bridge, load: Make, figures: Tell) -> None:
    run = load()
    run.start(3_000, 1_000)
    run.wait_sent(1_000)
    mark = torn.world.mark()
    torn.bridge.kill()
    took_seconds = _after(torn, standby, mark)
    run.finish()
    figures({"took_over_after_seconds": took_seconds, **run.judge()})


def test_the_active_bridge_is_stopped_in_order(torn: Stack, standby: Bridge, load: Make, figures: Tell) -> None:
    run = load()
    run.start(3_000, 1_000)
    run.wait_sent(1_000)
    mark = torn.world.mark()
    assert torn.bridge.end() == 0
    took_seconds = _after(torn, standby, mark)
    run.finish()
    found = run.judge()
    figures({"took_over_after_seconds": took_seconds, **found})
    assert found["redelivered"] == 0


def test_a_frozen_bridge_wakes_up_late_and_does_no_harm(
    torn: Stack, standby: Bridge, load: Make, figures: Tell
) -> None:
    run = load()
    run.start(6_000, 1_000)
    run.wait_sent(1_000)
    mark = torn.world.mark()
    torn.bridge.freeze()
    took_seconds = _after(torn, standby, mark)
    run.wait_sent(4_000)
    torn.bridge.thaw()
    run.finish()
    figures({"took_over_after_seconds": took_seconds, **run.judge()})
    torn.world.until(lambda: "this one stands by" in torn.bridge.log, PATIENCE_SECONDS, "the woken one stands by")
    assert torn.bridge.is_running
    mark = torn.world.mark()
    standby.kill()
    _after(torn, torn.bridge, mark)
    assert torn.world.rpc("online_devices") is not None


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_they_take_turns_under_load(torn: Stack, standby: Bridge, load: Make, figures: Tell) -> None:
    run = load()
    run.start(12_000, 600)
    bridges = [torn.bridge, standby]
    turns = 0
    while run.sent < 10_000:
        active, other = bridges[turns % 2], bridges[(turns + 1) % 2]
        mark = torn.world.mark()
        active.kill()
        _after(torn, other, mark)
        _begin(active)
        turns += 1
        time.sleep(0.5)
    run.finish(120)
    figures({"turns": turns, **run.judge(60)})

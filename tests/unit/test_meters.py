"""Meters: what the bridge counts is shown under the names that the documentation lists."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.meters import COUNTS, STAGES, Meters
from tests.unit.world import World, message

ROOT = Path(__file__).parents[2]


def shown(meters: Meters) -> dict[tuple[str, ...], float]:
    """Sample name and label values -> value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(meters.exposition().decode())
        for sample in family.samples
    }


def test_everything_that_is_counted_has_a_name_and_a_text() -> None:
    counted = set()
    for path in (ROOT / "bridge").rglob("*.py"):
        counted |= set(re.findall(r"""counts\[f?"([a-z0-9_]+)""", path.read_text()))
    assert counted == set(COUNTS)


def test_counts_are_shown_from_the_start_and_rise() -> None:
    meters = Meters()
    assert shown(meters)["endpoint_bridge_commits_total",] == 0
    meters.counts["commits"] += 3
    meters.counts["rejected:not_json"] += 2
    after = shown(meters)
    assert after["endpoint_bridge_commits_total",] == 3
    assert after["endpoint_bridge_rejected_total", "not_json"] == 2


def test_a_batch_is_timed_once_a_stage_however_many_events_it_holds() -> None:
    world = World()
    before = shown(world.meters)
    world.feed(*(message(f"presence/users/u{number}", "online") for number in range(50)))
    after = shown(world.meters)
    rises = {
        stage: after["endpoint_bridge_stage_seconds_count", stage]
        - before["endpoint_bridge_stage_seconds_count", stage]
        for stage in STAGES
    }
    assert rises == {"wait": 1, "load": 1, "decide": 1, "commit": 1, "deliver": 0}  # nobody is told
    assert after["endpoint_bridge_batch_inputs_sum",] == 50
    assert after["endpoint_bridge_received_total",] == 50


def test_delivery_is_timed_until_the_last_puback() -> None:
    world = World(settles=False)
    world.feed(message("rpc/online_users", response_topic="replies/me"))
    assert shown(world.meters)["endpoint_bridge_stage_seconds_count", "deliver"] == 0
    world.broker.settle()
    assert shown(world.meters)["endpoint_bridge_stage_seconds_count", "deliver"] == 1


def test_a_gauge_is_asked_when_somebody_looks() -> None:
    meters = Meters()
    waiting = [1, 2, 3]
    meters.gauge("waiting_inputs", "Messages that wait.", lambda: len(waiting))
    assert shown(meters)["endpoint_bridge_waiting_inputs",] == 3
    waiting.clear()
    assert shown(meters)["endpoint_bridge_waiting_inputs",] == 0


def test_what_the_process_uses_is_shown() -> None:
    meters = Meters()
    meters.watch_process()
    assert shown(meters)["process_resident_memory_bytes",] > 0


@pytest.mark.parametrize("name", [*COUNTS, *STAGES])
def test_the_documentation_tells_every_count_and_stage(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "operations.md").read_text()


def test_the_sweep_is_behind_while_more_is_due_than_one_batch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.SWEEP_BATCH", 2)
    world = World()
    for number in range(5):
        world.register(f"u{number}", f"e{number}", 10)
    world.tick()
    assert world.line.sweep_lag_ms == 0
    lags = []
    monkeypatch.setattr(world.line, "_settle_items", _noting(world, lags))
    world.jump_seconds(60)
    assert lags[0] > 0
    assert world.line.sweep_lag_ms == 0


def _noting(world: World, lags: list[int]):  # type: ignore[no-untyped-def]  # a stand-in for a private method
    settle = world.line._settle_items

    async def noting(items):  # type: ignore[no-untyped-def]
        lags.append(world.line.sweep_lag_ms)
        await settle(items)

    return noting

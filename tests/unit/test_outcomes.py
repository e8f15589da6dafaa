"""Outcomes by themselves; what they do for the line is tested with send_event."""

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from bridge import outcomes as module
from bridge.adapters.memory import MemoryRegistry
from bridge.domain.records import Sent
from bridge.domain.sending import SendAnswer
from bridge.domain.values import Kept
from bridge.errors import RegistryUnavailable
from bridge.outcomes import Asked, Outcomes
from bridge.settlement import Settlement
from tests.unit.world import FakeBroker, World, message

PARAMS = {"event": {"type": "OrderPlacedEvent", "timestamp": "2026-01-02T03:04:05Z", "id": "e"}, "userId": "ann"}


class Away(MemoryRegistry):
    """A registry that goes away when something is to be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 0

    async def keep(self, kept: Mapping[str, Kept], maximum_audit: int) -> list[str]:
        if self.refusals:
            self.refusals -= 1
            raise RegistryUnavailable("away")
        return await super().keep(kept, maximum_audit)


def test_no_answer_before_redis_has_what_a_repetition_must_find(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    registry = Away()
    world = World(registry=registry)
    world.register("ann", "ann1")
    registry.refusals = 3
    assert world.call("send_event", PARAMS) == 1
    assert len(waits) == 3
    assert waits[0] < waits[2] <= 2


async def test_the_line_waits_while_too_many_answers_wait_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_READY", 2)
    broker = FakeBroker()
    settlement = Settlement(broker, Counter())
    outcomes = Outcomes(
        registry=MemoryRegistry(),
        broker=broker,
        settlement=settlement,
        auditor=None,
        maximum_audit=1,
        counts=Counter(),
    )
    asked = [Asked(SendAnswer(Sent("", ()), listed=False), 0, 0, None, None)]
    for _ in range(2):
        await asyncio.wait_for(outcomes.drained(), 1)
        broker.publish([], outcomes.expect(settlement.group("default", None, []), [], asked, {}))
    waiting = asyncio.create_task(outcomes.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    following = asyncio.create_task(outcomes.run())
    await asyncio.wait_for(waiting, 1)
    following.cancel()


def test_commits_are_followed_in_the_order_of_the_line() -> None:
    world = World()
    world.register("ann", "ann1")
    world.broker.settles = False
    for number in range(3):
        world.feed(message("rpc/send_event", {**PARAMS, "outcomes": True}, response_topic=f"replies/{number}"))
    assert not world.outcomes.is_idle
    (_, first), *others = world.broker.waiting
    assert others == []  # the others repeat the first
    first([0])
    assert [output.topic for output in world.work()] == ["replies/0", "replies/1", "replies/2"]
    assert world.outcomes.is_idle

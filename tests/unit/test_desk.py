"""The desk: commands that do not come by MQTT take the line too; callers are told what came of it, or sent away."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from bridge import inbox as inbox_module
from bridge.adapters.memory import MemoryRegistry
from bridge.desk import Desk
from bridge.domain.commands import SERVICE, KeepEndpoint, ListEndpoints, ListSubjects, RegisterEndpoint, SessionsOf
from bridge.domain.methods import Call, decode_call
from bridge.errors import Refusal, RegistryUnavailable
from bridge.inbox import Inbox, Order
from tests.unit.clock import Clock
from tests.unit.world import Caller, World, told, types_of
from tests.unit.world import message as published

ONLINE_USERS = ListSubjects("user", "online")
REGISTER = RegisterEndpoint("user", "ann", "ann1", 600)


# In the line.


def test_an_answer_reflects_every_input_before_it_and_none_after_it() -> None:
    world = World()
    before = world.order(ONLINE_USERS)
    world.arrive(published("presence/users/ann", "online"))
    after = world.order(ONLINE_USERS)
    world.arrive(published("presence/users/ann", "offline"))
    world.work()
    assert (before.told, after.told) == ([], ["ann"])


def test_an_effect_is_committed_and_journaled_before_its_answer() -> None:
    world = World(settles=False)
    world.register("ann", "ann0")
    caller = world.order(REGISTER)
    entries = len(world.journal())
    assert types_of(told(world.work())["ann0"]) == ["UserEndpointRegisteredEvent"]
    assert caller.told == {"id": "ann1"}
    assert len(world.journal()) == entries + 1


def test_what_the_broker_decides_is_answered_when_it_has_and_not_before() -> None:
    world = World(settles=False)
    world.register("ann", "ann1")
    world.broker.settle()
    event = {"type": "OrderPlacedEvent", "timestamp": "2026-01-02T03:04:05Z"}
    params = json.dumps({"event": event, "userId": "ann", "qos": 1, "outcomes": True}).encode()
    caller = world.order(decode_call("send_event", params, Call(SERVICE, world.rules, str), "default")[1])
    world.work()
    assert caller.is_open
    world.broker.settle(0x10)
    world.work()
    assert caller.told == [{"userEndpointId": "ann1", "outcome": "no_subscriber"}]


def test_a_refusal_is_told_to_its_caller_and_not_reported_as_well() -> None:
    world = World()
    caller = world.order(KeepEndpoint("nobody", asked=True))
    assert world.work() == []
    assert caller.told == "not_found"
    assert world.counts["rejected:not_found"] == 1


def test_a_command_whose_caller_has_gone_is_not_done() -> None:
    world = World()
    gone, there = world.order(REGISTER), world.order(ListEndpoints("ann"))
    gone.is_open = False
    world.work()
    assert there.told == []
    assert world.stored() == set()


def test_an_organization_is_the_one_that_the_command_names() -> None:
    world = World()
    caller = world.order(REGISTER, "acme")
    world.work()
    assert caller.told == {"id": "ann1"}
    assert world.stored("acme") == {"user:ann"}
    assert world.stored() == set()


def test_an_endpoint_of_another_organization_is_kept_there_and_answered_once() -> None:
    world = World()
    world.order(REGISTER, "acme")
    world.work()
    caller = world.order(KeepEndpoint("ann1", asked=True))
    world.work()
    assert not caller.is_open
    assert caller.told is None


def test_no_more_may_wait_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_ORDERS", 2)
    inbox = Inbox(Counter())
    for _ in range(2):
        inbox.order(Order("default", ONLINE_USERS, Caller()))
    with pytest.raises(Refusal, match="unavailable: 2 commands wait already"):
        inbox.order(Order("default", ONLINE_USERS, Caller()))
    inbox.take(10)
    inbox.order(Order("default", ONLINE_USERS, Caller()))


# At the desk.


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (a test's bounded look at what has no event)
            await asyncio.sleep(0.005)


class Away(MemoryRegistry):
    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.asked = 0

    async def load(self, *args: Any) -> Any:
        self.asked += 1
        if self.is_away:
            raise RegistryUnavailable("down")
        return await super().load(*args)


def working(world: World) -> "asyncio.Task[None]":
    """The line as a task of the loop, with the real waiting."""
    world.inbox.__class__ = Inbox
    world.inbox.subscribed(1)
    return asyncio.create_task(world.line.run())


async def refused(desk: Desk, command: Any = REGISTER) -> str:
    with pytest.raises(Refusal) as caught:
        await desk.ask("default", command)
    assert caught.value.code == "unavailable"
    return caught.value.message


async def test_what_is_asked_is_answered() -> None:
    world = World()
    task = working(world)
    await until(lambda: world.inbox.waiting == 0)
    question = world.desk.ask("default", SessionsOf("user", "ann"))
    assert await asyncio.gather(world.desk.ask("default", REGISTER), question) == [{"id": "ann1"}, []]
    world.line.stop()
    assert "the bridge stops: nothing was done" in await refused(world.desk)
    await asyncio.wait_for(task, 5)


async def test_before_there_is_a_line_the_desk_is_closed() -> None:
    assert "the bridge starts: nothing was done" in await refused(Desk(5))


async def test_while_the_broker_is_away_keepalives_and_questions_work_and_nothing_else() -> None:
    world = World()
    world.register("ann", "ann1")
    task = working(world)
    await asyncio.sleep(0)
    world.inbox.disconnected(1, "gone")
    assert "the MQTT broker is away: nothing was done" in await refused(world.desk)
    assert await world.desk.ask("default", KeepEndpoint("ann1", asked=True)) is None
    assert await world.desk.ask("default", SessionsOf("user", "ann")) == []
    world.line.stop()
    await asyncio.wait_for(task, 5)


async def test_while_redis_is_away_who_waits_is_sent_away_who_comes_too_and_nothing_is_done_unseen() -> None:
    registry = Away()
    world = World(registry=registry)
    task = working(world)
    await asyncio.sleep(0)
    registry.is_away = True
    assert "Redis is away: it may have been done" in await refused(world.desk)
    assert "Redis is away: nothing was done" in await refused(world.desk)
    registry.is_away = False
    await until(lambda: not world.line.is_redis_away)
    assert await world.desk.ask("default", ListEndpoints("ann")) == []
    world.line.stop()
    await asyncio.wait_for(task, 5)


async def test_nobody_waits_longer_than_the_time_limit_and_what_was_not_decided_by_then_is_not_done() -> None:
    world = World()
    desk = Desk(timeout_seconds=0.02)
    world.inbox.subscribed(1)
    desk.open(world.inbox)
    assert "no answer within 0.02 s: it may have been done" in await refused(desk)
    world.work()
    assert world.stored() == set()


async def test_each_caller_waits_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    world = World()
    desk = Desk(timeout_seconds=100)
    world.inbox.subscribed(1)
    desk.open(world.inbox)
    first = asyncio.create_task(refused(desk))
    await asyncio.sleep(0)
    clock.ahead_seconds = 60
    second, third = (asyncio.create_task(refused(desk)) for _ in range(2))
    await asyncio.sleep(0)
    clock.ahead_seconds = 101
    assert "no answer within 100 s" in await first
    assert not any(task.done() for task in (second, third))
    clock.ahead_seconds = 161
    await asyncio.gather(second, third)
    clock.ahead_seconds = 200
    fourth = asyncio.create_task(refused(desk))
    await asyncio.sleep(0)
    clock.ahead_seconds = 301
    await fourth


class Slow(MemoryRegistry):
    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def load(self, *args: Any) -> Any:
        self.asked.set()
        await self.answers.wait()
        return await super().load(*args)


async def test_what_was_asked_before_the_stop_is_still_answered() -> None:
    registry = Slow()
    world = World(registry=registry)
    task = working(world)
    await asyncio.sleep(0)
    in_hand = asyncio.create_task(world.desk.ask("default", REGISTER))
    await asyncio.wait_for(registry.asked.wait(), 5)
    waiting = asyncio.create_task(world.desk.ask("default", ListEndpoints("ann")))
    await until(lambda: world.inbox.has_orders)
    world.line.stop()
    assert "the bridge stops: nothing was done" in await refused(world.desk)
    registry.answers.set()
    await asyncio.wait_for(task, 5)
    assert await in_hand == {"id": "ann1"}
    assert [view["id"] for view in await asyncio.wait_for(waiting, 5)] == ["ann1"]  # type: ignore[attr-defined]


async def test_at_the_end_of_a_term_who_still_waits_is_sent_away() -> None:
    world = World()
    desk = Desk(timeout_seconds=5)
    world.inbox.subscribed(1)
    desk.open(world.inbox)
    asking = asyncio.create_task(refused(desk))
    await until(lambda: world.inbox.waiting)
    desk.shut("the bridge stops")
    assert not asking.done()
    desk.close("the end")
    assert "the end: it may have been done" in await asking

"""The lease over the registry's model: who is active, who waits, and who is shut out."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from bridge import lease as lease_module
from bridge.adapters.memory import Bridges, MemoryRegistry
from bridge.domain.values import Hold
from bridge.errors import LeaseLost, RegistryUnavailable
from bridge.lease import LASTS_MS, Lease
from tests.contract.conftest import SharedMemory

Waits = Callable[..., "asyncio.Task[None]"]


class OneOf(SharedMemory):
    """One bridge's view of a registry that several share; ``away``: Redis does not answer it."""

    away = False

    async def hold(self, ttl_ms: int, *, instead_of: str = "", least_epoch: int = 0) -> Hold:
        if self.away:
            raise RegistryUnavailable("away")
        return await super().hold(ttl_ms, instead_of=instead_of, least_epoch=least_epoch)


@pytest.fixture
def shared() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0)
    monkeypatch.setattr(lease_module, "ASK_SECONDS", 0)


@pytest.fixture
async def waits() -> AsyncIterator[Waits]:
    tasks: list[asyncio.Task[None]] = []

    def start(lease: Lease, starting: bool = True) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(lease.take(starting=starting)))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_is_active_and_the_second_waits_until_the_lease_runs_out(
    shared: MemoryRegistry, waits: Waits
) -> None:
    one, two = OneOf(shared, "a/1"), OneOf(shared, "b/1")
    first, second = Lease(one, "a/1"), Lease(two, "b/1")
    await first.take(starting=True)
    waiting = waits(second)
    await turns()
    shared.now_ms += LASTS_MS - 1
    await turns()
    assert not waiting.done()
    shared.now_ms += 1
    await asyncio.wait_for(waiting, 5)
    assert (one.epoch, two.epoch) == (1, 2)
    with pytest.raises(LeaseLost, match="b/1"):
        await first.keep()


async def test_what_is_given_back_is_taken_at_once(shared: MemoryRegistry, waits: Waits) -> None:
    one = OneOf(shared, "a/1")
    first, second = Lease(one, "a/1"), Lease(OneOf(shared, "b/1"), "b/1")
    await first.take(starting=True)
    waiting = waits(second)
    await turns()
    await first.release()
    await asyncio.wait_for(waiting, 5)


async def test_a_run_of_the_same_name_is_not_waited_for_at_the_start_only(shared: MemoryRegistry, waits: Waits) -> None:
    one = OneOf(shared, "a/1")
    first, second = Lease(one, "a/1"), Lease(OneOf(shared, "a/2"), "a/2")
    await first.take(starting=True)
    await asyncio.wait_for(second.take(starting=True), 5)
    back = waits(Lease(OneOf(shared, "a/3"), "a/3"), starting=False)
    await turns()
    assert not back.done()


async def test_a_holder_that_wakes_up_while_nobody_wanted_the_lease_goes_on(shared: MemoryRegistry) -> None:
    one = OneOf(shared, "a/1")
    lease = Lease(one, "a/1")
    await lease.take(starting=True)
    shared.now_ms += 60_000
    await lease.confirm()
    assert shared.leader == ("a/1", 1, shared.now_ms + LASTS_MS)


async def test_who_had_it_between_two_looks_is_noticed_by_the_epoch(shared: MemoryRegistry) -> None:
    one = OneOf(shared, "a/1")
    lease = Lease(one, "a/1")
    await lease.take(starting=True)
    shared.now_ms += 60_000
    other = Lease(OneOf(shared, "b/1"), "b/1")
    await other.take(starting=True)
    await other.release()
    with pytest.raises(LeaseLost):
        await lease.confirm()


async def test_redis_away_loses_no_lease(shared: MemoryRegistry) -> None:
    one = OneOf(shared, "a/1")
    lease = Lease(one, "a/1")
    await lease.take(starting=True)
    one.away = True
    keeping = asyncio.create_task(lease.keep())
    confirming = asyncio.create_task(lease.confirm())
    await turns()
    assert not keeping.done()
    assert not confirming.done()
    one.away = False
    await asyncio.wait_for(confirming, 5)
    keeping.cancel()


async def test_a_registry_that_forgot_the_epochs_is_overtaken(shared: MemoryRegistry) -> None:
    one = OneOf(shared, "a/1")
    bridges = Bridges()
    bridges.epoch = 7
    shared.organizations["default"] = {"bridges": bridges}
    await Lease(one, "a/1").take(starting=True)
    assert one.epoch == shared.leader[1] == bridges.epoch == 8

"""Hypothesis strings outages of every kind and length together; who kept itself alive all the while never expires.

Time goes in slices of half a second, as the bridge's PINGREQs do. Clients keep alive by their own clocks, whatever is
out of order: what they send while nobody hears them is lost, what waits somewhere comes later.
"""

import types
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import pipeline
from bridge.adapters.memory import MemoryRegistry
from bridge.errors import RegistryUnavailable
from tests.unit.world import Message, World, message, told

SLICE_MS = 500


class Client(NamedTuple):
    """An endpoint that keeps itself alive: by its own clock a second before its end, or when it is reminded."""

    name: str
    seconds: int
    reminded: bool
    qos: int


CLIENTS = (
    Client("three", 3, reminded=False, qos=0),
    Client("eight", 8, reminded=False, qos=1),
    Client("nine", 9, reminded=True, qos=0),
    Client("thirty", 30, reminded=True, qos=1),
)
SILENT, SILENT_SECONDS = "silent", 10


class Reachable(MemoryRegistry):
    """A registry that can be out of reach."""

    is_away = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if isinstance(found, types.MethodType) and not name.startswith("_") and self.is_away:
            return self._refuse
        return found

    async def _refuse(self, *_: object, **__: object) -> None:
        raise RegistryUnavailable("away")


@types.coroutine
def _a_while(_: float) -> Generator[None, None, None]:
    yield


class Town:
    """A bridge, a broker, a registry and clients, each of which can be out of order."""

    def __init__(self) -> None:
        self.world = World(registry=Reachable())
        self.answers: set[str] = set()
        self.expired: list[str] = []
        self.told: list[tuple[str, Any]] = []
        self.slices = 0
        self.restarts = 1
        for client in CLIENTS:
            self.world.register("ann", client.name, client.seconds, serverKeepAliveReminderOn=client.reminded)
        self.world.register("ann", SILENT, SILENT_SECONDS)

    def passes(self) -> list[Message]:
        """Half a second goes by; returns what the clients send in it."""
        self.world.registry.now_ms += SLICE_MS
        self.slices += 1
        sent = []
        for client in CLIENTS:
            if client.reminded:
                is_time = client.name in self.answers
            else:
                is_time = self.slices % ((client.seconds - 1) * 1000 // SLICE_MS) == 0
            if is_time:
                sent.append(message(f"users/endpoints/{client.name}/keepalive", qos=client.qos))
        self.answers.clear()
        return sent

    def hear(self, events: dict[str, list[Any]]) -> None:
        """The clients hear what is published; a reminder is answered in the next slice."""
        for endpoint, received in events.items():
            for event in received:
                self.told.append((endpoint, event))
                if event["type"] == "UserEndpointKeepAliveReminderEvent":
                    self.answers.add(endpoint)
                if event["type"] == "UserEndpointExpiredEvent" and endpoint == event["userEndpointId"]:
                    self.expired.append(endpoint)

    def step(self, work: Callable[[], object]) -> None:
        before = len(self.world.broker.outputs)
        work()
        self.hear(told(self.world.broker.outputs[before:]))

    def live(self, slices: int) -> None:
        for _ in range(slices):
            sent = self.passes()
            self.step(lambda: (self.world.feed(*sent), self.world.tick()))  # noqa: B023

    # What goes wrong, for so many slices.

    def bridge_is_gone(self, slices: int) -> None:
        kept = [sent for _ in range(slices) for sent in self.passes() if sent.qos]  # the broker keeps QoS 1
        self.restarts += 1
        before = self.world
        self.world = before.restarted(instance=f"i{self.restarts}", owed=before.owed)
        self.hear(told(self.world.broker.outputs))
        self.step(lambda: (self.world.feed(*kept), self.world.tick()))

    def broker_is_gone(self, slices: int) -> None:
        for _ in range(slices):
            self.passes()
        self.step(self.world.connect)

    def way_to_broker_is_cut(self, slices: int) -> None:
        kept = [sent for _ in range(slices) for sent in self.passes() if sent.qos]
        self.step(self.world.connect)
        self.step(lambda: (self.world.feed(*kept), self.world.tick()))

    def redis_is_away(self, slices: int) -> None:
        self.world.registry.is_away = True  # type: ignore[attr-defined]
        for _ in range(slices):
            sent = self.passes()
            self.world.arrive(*sent)
            self.step(self.world.tick)
        self.world.registry.is_away = False  # type: ignore[attr-defined]
        self.step(lambda: (self.world.work(), self.world.tick()))

    def bridge_is_frozen(self, slices: int) -> None:
        self.world.inbox.confirmed(self.world.connection, 0, True)  # answers the last PINGREQ before it froze
        for _ in range(slices):
            self.world.arrive(*self.passes())
        self.step(lambda: (self.world.work(), self.world.tick()))

    def broker_is_frozen(self, slices: int) -> None:
        """It answers the PINGREQ first when it thaws, and only then reads what its other clients sent."""
        held = [sent for _ in range(slices) for sent in self.passes()]
        self.step(self.world.tick)
        self.step(lambda: self.world.feed(*held))

    def broker_holds_back(self, slices: int) -> None:
        """More waits at the broker than the bridge lets it deliver unacknowledged."""
        held: list[Message] = []
        for _ in range(slices):
            held += self.passes()
            self.step(lambda: self.world.tick(caught_up=False))
        self.step(lambda: (self.world.feed(*held), self.world.tick()))

    def inbox_is_full(self, slices: int) -> None:
        """So much comes at QoS 0 that the bridge drops of it."""
        for _ in range(slices):
            kept = [sent for sent in self.passes() if sent.qos]
            self.world.inbox._has_dropped = True
            self.step(lambda: (self.world.feed(*kept), self.world.tick()))  # noqa: B023


FAULTS = (
    *(Town.bridge_is_gone, Town.broker_is_gone, Town.way_to_broker_is_cut, Town.redis_is_away),
    *(Town.bridge_is_frozen, Town.broker_is_frozen, Town.broker_holds_back, Town.inbox_is_full),
)
# Half seconds: around the two seconds up to which a gap may be none, and far beyond.
lengths = st.integers(1, 8) | st.sampled_from((20, 60))


@pytest.fixture(autouse=True)
def _steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "asyncio", SimpleNamespace(sleep=_a_while))
        yield


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(FAULTS), lengths), min_size=1, max_size=6))
def test_whoever_keeps_itself_alive_never_expires_and_whoever_is_silent_does_once(
    story: list[tuple[int, Callable[[Town, int], None], int]],
) -> None:
    town = Town()
    for before, fault, slices in story:
        town.live(before)
        town.told.clear()
        fault(town, slices)
    town.live(2 * SILENT_SECONDS * 11 // 10 + 8)  # its interval and its jitter, and two ticks of patience
    assert town.expired == [SILENT]
    town.live(2 * 10)
    assert town.expired == [SILENT]
    views = town.world.call("list_endpoints", {"userId": "ann"})
    assert {view["id"]: view["state"] for view in views} == {client.name: "HEALTHY" for client in CLIENTS}


@settings(max_examples=60)
@given(st.sampled_from(FAULTS), lengths)
def test_an_outage_tells_nobody_of_unknown_and_lasts_until_the_next_keepalive(
    fault: Callable[[Town, int], None], slices: int
) -> None:
    town = Town()
    town.live(1)
    town.told.clear()
    fault(town, slices)
    is_pause = town.world.registry.resumed_ms > 0
    views = {view["id"]: view["state"] for view in town.world.call("list_endpoints", {"userId": "ann"})}
    assert views.get(SILENT, "UNKNOWN") == ("UNKNOWN" if is_pause else "HEALTHY") or town.expired == [SILENT]
    assert not {event["type"] for _, event in town.told} & {"UserEndpointStateChangedEvent"}
    town.told.clear()
    for client in CLIENTS:
        town.step(lambda: town.world.say(f"users/endpoints/{client.name}/keepalive"))  # noqa: B023
    assert town.told == []
    views = {view["id"]: view["state"] for view in town.world.call("list_endpoints", {"userId": "ann"})}
    assert [views[client.name] for client in CLIENTS] == ["HEALTHY"] * len(CLIENTS)


def test_after_an_outage_reminders_and_ends_come_spread_out() -> None:
    """What registered at once does not end at once."""
    world = World()
    for number in range(500):
        world.register(f"u{number}", f"e{number}", 60, serverKeepAliveReminderOn=True)
    world.pass_seconds(30)
    assert world.pause_seconds(3600) == {}
    assert world.pass_seconds(39.5) == {}
    seconds = [world.pass_seconds(0.5).values() for _ in range(60)]
    types = [[event["type"] for events in told_then for event in events] for told_then in seconds]
    for event_type in ("UserEndpointKeepAliveReminderEvent", "UserEndpointExpiredEvent"):
        counts = [found.count(event_type) for found in types]
        assert sum(counts) >= 500
        assert max(counts) < 2 * sum(counts) / 12, "a tenth of a minute has twelve half seconds"

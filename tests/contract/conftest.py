"""The same contract for every registry: the model, Redis and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from bridge.adapters.memory import Bridges, Journal, MemoryRegistry, Ranks
from bridge.adapters.registry import RedisRegistry
from bridge.domain.values import Commit, Hold, Want, Write
from tests.servers import Flavour, RedisServer

ORG = "default"


def text(version: int, body: str = "{}") -> bytes:
    return f"{version}:1:{body}".encode()


def first(token: str = "1", **rest: Any) -> Commit:
    """A commit that takes once: it creates a record."""
    return Commit(ORG, token, [Write("user:ann", 0, text(5))], journal=b"outputs", **rest)


async def stored(registry: RedisRegistry, key: str = "user:ann") -> bytes | None:
    return (await registry.load({ORG: Want([key])})).organizations[ORG].records[key]


@asynccontextmanager
async def opened(
    place: RedisServer | str, *, timeout_seconds: float = 5, **options: Any
) -> AsyncIterator[RedisRegistry]:
    """A registry on a server or an address."""
    url = place if isinstance(place, str) else place.url
    registry = RedisRegistry(url, bridge="test/1", timeout_seconds=timeout_seconds, **options)
    try:
        await registry.open()
        yield registry
    finally:
        await registry.close()


def acl_command(user: str, password: str) -> list[str]:
    """The one that docs/operations.md gives."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("ACL SETUSER ")]
    return line.replace("SETUSER bridge ", f"SETUSER {user} ").replace(">PASSWORD", f">{password}").split()


class OnMemory:
    """A registry under test, and what only its storage can do to it."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry(bridge="test/1")

    def other(self, bridge: str) -> "SharedMemory":
        """The same registry as another bridge sees it."""
        return SharedMemory(self.registry, bridge)

    def put(self, organization: str, key: str, text: bytes) -> None:
        self.registry.organizations.setdefault(organization, {})[key] = text

    def spoil(self, organization: str, key: str) -> None:
        """Give a key a type that it never has."""
        self.registry.organizations.setdefault(organization, {})[key] = Ranks() if ":" in key else b"spoilt"
        if key.startswith("online:"):
            self.registry.organizations[organization][key] = Journal()

    async def advance(self, ms: int) -> None:
        """Let Redis TIME move on since the last tick."""
        self.registry.now_ms += ms

    def tokens(self, organization: str) -> dict[str, Any]:
        found = self.registry.organizations[organization]["bridges"]
        assert isinstance(found, Bridges)
        return dict(found)


class SharedMemory(MemoryRegistry):
    """A second bridge's view of a model."""

    def __init__(self, first: MemoryRegistry, bridge: str) -> None:
        super().__init__(bridge=bridge)
        self.first = first
        self.organizations = first.organizations

    async def hold(self, ttl_ms: int, *, instead_of: str = "", least_epoch: int = 0) -> Hold:
        self.leader, self.now_ms = self.first.leader, self.first.now_ms
        hold = await super().hold(ttl_ms, instead_of=instead_of, least_epoch=least_epoch)
        self.first.leader = self.leader
        return hold


class OnRedis:
    """The same on a real server, seen by a second client."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client: Any = Redis.from_url(server.url, decode_responses=True)
        self.client.execute_command(*acl_command("bridge", "secret"))
        url = f"redis://bridge:secret@127.0.0.1:{server.port}/0"  # with the rights of the documentation, and no others
        self.registry = RedisRegistry(url, bridge="test/1", timeout_seconds=5)
        self.others: list[RedisRegistry] = []

    def other(self, bridge: str) -> RedisRegistry:
        self.others.append(RedisRegistry(self.server.url, bridge=bridge, timeout_seconds=5))
        return self.others[-1]

    def put(self, organization: str, key: str, text: bytes) -> None:
        self.client.set(f"eb:{{{organization}}}:{key}", text)

    def spoil(self, organization: str, key: str) -> None:
        name = f"eb:{{{organization}}}:{key}"
        self.client.delete(name)
        self.client.rpush(name, "spoilt")

    async def advance(self, ms: int) -> None:
        self.client.hincrby("eb:clock", "tick_ms", -ms)
        await asyncio.sleep(0)

    def tokens(self, organization: str) -> dict[str, Any]:
        fields: dict[str, str] = self.client.hgetall(f"eb:{{{organization}}}:bridges")
        return {field: value for field, value in fields.items() if field.startswith("token:")}


Subject = OnMemory | OnRedis


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Flavour], RedisServer]]:
    """The session's server of each flavour, started when first asked for."""
    with ExitStack() as stack:

        @cache
        def start(flavour: Flavour) -> RedisServer:
            return stack.enter_context(RedisServer(tmp_path_factory.mktemp(flavour), flavour))

        yield start


@asynccontextmanager
async def emptied(server: RedisServer) -> AsyncIterator[OnRedis]:
    found = OnRedis(server)
    found.client.flushall()
    await found.registry.open()
    yield found
    for registry in (found.registry, *found.others):
        await registry.close()
    found.client.close()


@pytest.fixture(params=["memory", "redis", "valkey"])
async def subject(request: pytest.FixtureRequest, running: Callable[[Flavour], RedisServer]) -> AsyncIterator[Subject]:
    if request.param == "memory":
        yield OnMemory()
        return
    async with emptied(running(request.param)) as found:
        yield found


@pytest.fixture
def registry(subject: Subject) -> MemoryRegistry | RedisRegistry:
    return subject.registry


@pytest.fixture(params=["redis", "valkey"])
async def real(request: pytest.FixtureRequest, running: Callable[[Flavour], RedisServer]) -> AsyncIterator[OnRedis]:
    """Only for what no model has: connections, scripts, keys."""
    async with emptied(running(request.param)) as found:
        yield found


@pytest.fixture(params=["redis", "valkey"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that one test may stop and start."""
    with RedisServer(tmp_path, request.param) as running:
        yield running

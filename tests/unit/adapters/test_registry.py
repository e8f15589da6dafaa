"""What the Redis registry says when Redis refuses; what it does when Redis agrees is the contract's matter."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bridge.adapters.registry import REMEDIES, RedisRegistry
from bridge.domain.values import Commit, Want
from bridge.errors import ConfigError, RegistryUnavailable

INFO = "redis_version:7.2.4\r\nmaxmemory_policy:noeviction\r\n"


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[RedisRegistry]:
    """A registry whose Redis answers each command by its upper-case name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while header := await reader.readline():
                parts = []
                for _ in range(int(header[1:])):
                    length = int((await reader.readline())[1:])
                    parts.append((await reader.readexactly(length + 2))[:-2])
                name = parts[0].upper()
                writer.write(b"+OK\r\n" if name == b"CLIENT" else answer(name))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        registry = RedisRegistry(f"redis://127.0.0.1:{port}", bridge="test/1", timeout_seconds=0.2)
        yield registry
        await registry.close()


@pytest.mark.parametrize("code", REMEDIES)
async def test_every_refusal_names_its_code_and_remedy(code: str) -> None:
    async with answering(lambda _: f"-{code} 12 10.0.0.1:7000\r\n".encode()) as registry:
        for call in (registry.open(), registry.commit(Commit("default", "1")), registry.remember("a", "b")):
            with pytest.raises(RegistryUnavailable) as raised:
                await call
            assert code in str(raised.value)
            assert REMEDIES[code] in str(raised.value)


async def test_an_unknown_refusal_is_quoted() -> None:
    async with answering(lambda _: b"-ODD thing happened\r\n") as registry:
        with pytest.raises(RegistryUnavailable, match="Redis refused: ODD thing happened"):
            await registry.load({"default": Want(["user:ann"])})


async def test_what_is_no_redis_is_unavailable() -> None:
    async with answering(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n") as registry:
        with pytest.raises(RegistryUnavailable, match=r"redis\.url"):
            await registry.open()


async def test_nobody_there() -> None:
    registry = RedisRegistry("redis://127.0.0.1:1", bridge="test/1")
    with pytest.raises(RegistryUnavailable, match=r"does not answer.*redis\.url"):
        await registry.open()


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (INFO.replace("7.2.4", "6.2.14"), r"version 6\.2\.14; use Redis 7\.0"),
        (INFO.replace("noeviction", "volatile-ttl"), r"volatile-ttl.*maxmemory-policy noeviction"),
    ],
)
async def test_a_server_that_does_not_fit_is_refused(info: str, message: str) -> None:
    async with answering(lambda name: bulk(info) if name == b"INFO" else b"+OK\r\n") as registry:
        with pytest.raises(ConfigError, match=message):
            await registry.open()


async def test_a_policy_that_cannot_be_read_is_taken() -> None:
    shown = INFO.partition("\r\n")[0]
    async with answering(lambda name: bulk(shown) if name == b"INFO" else b"+OK\r\n") as registry:
        await registry.open()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379", "", "redis://:sec/ret@127.0.0.1"])
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis\.url cannot be read; the form is redis://[a-z:@/]+$"):
        RedisRegistry(url, bridge="test/1")

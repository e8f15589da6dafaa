"""What the connection to Redis says when Redis refuses; what it does when Redis agrees is the contract's matter."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from bridge.adapters.redis_connection import REMEDIES, reason
from bridge.adapters.registry import RedisRegistry
from bridge.domain.values import Commit, Corrupt, Want
from bridge.errors import ConfigError, RegistryUnavailable

INFO = "redis_version:7.2.4\r\nredis_mode:standalone\r\nmaxmemory_policy:noeviction\r\nrole:master\r\n"
OK = b"+OK\r\n"
RESET = struct.pack("ii", 1, 0)  # closing sends RST


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


def fit(answer: bytes) -> Callable[[bytes], bytes]:
    """A server that can be used, and answers all else alike."""
    return lambda name: bulk(INFO) if name == b"INFO" else OK if name == b"SCRIPT" else answer


@asynccontextmanager
async def answering(
    answer: Callable[[bytes], bytes], *, resets: bool = False, path: str = ""
) -> AsyncIterator[RedisRegistry]:
    """A registry whose Redis answers each command by its upper-case name; ``resets``: it does after the first HGET."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal resets
        try:
            while header := await reader.readline():
                parts = []
                for _ in range(int(header[1:])):
                    length = int((await reader.readline())[1:])
                    parts.append((await reader.readexactly(length + 2))[:-2])
                name = parts[0].upper()
                writer.write(OK if name == b"CLIENT" else answer(name))
                if resets and name == b"HGET":
                    resets = False
                    await writer.drain()
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        registry = RedisRegistry(f"redis://127.0.0.1:{port}{path}", bridge="test/1", timeout_seconds=3)
        yield registry
        await registry.close()
        await asyncio.sleep(0)  # lets what it closed in the last moment be closed


@pytest.mark.parametrize("code", REMEDIES)
async def test_every_refusal_names_its_code_and_remedy(code: str) -> None:
    refusal = f"-{code} 12 10.0.0.1:7000\r\n".encode()
    async with answering(fit(refusal)) as registry:
        for call in (registry.recall("a"), registry.commit(Commit("default", "1")), registry.remember("a", "b")):
            with pytest.raises(RegistryUnavailable) as raised:
                await call
            assert code in str(raised.value)
            assert REMEDIES[code] in str(raised.value)


@pytest.mark.parametrize("code", ["NOAUTH", "NOPERM", "LOADING"])
async def test_who_may_not_even_ask_what_server_it_is_learns_why(code: str) -> None:
    async with answering(lambda _: f"-{code} no\r\n".encode()) as registry:
        with pytest.raises(RegistryUnavailable) as raised:
            await registry.open()
        assert REMEDIES[code] in str(raised.value)


async def test_an_unknown_refusal_is_quoted_and_of_a_commit_it_is_final() -> None:
    async with answering(fit(b"-ODD thing happened\r\n")) as registry:
        with pytest.raises(RegistryUnavailable, match="Redis refused: ODD thing happened"):
            await registry.load({"default": Want(["user:ann"])})
    only_scripts = fit(b":1\r\n")
    async with answering(lambda name: b"-ODD thing\r\n" if name == b"EVALSHA" else only_scripts(name)) as registry:
        assert await registry.commit(Commit("default", "1")) == Corrupt("")


async def test_a_refusal_that_repeats_what_was_sent_is_cut() -> None:
    refusal = b"-ERR unknown command 'AUTH', with args beginning with: 'bridge' 'geheim'\r\n"
    async with answering(fit(refusal)) as registry:
        with pytest.raises(RegistryUnavailable, match=r"^Redis refused: unknown command 'AUTH'$"):
            await registry.recall("a")


async def test_what_is_refused_to_the_connection_is_not_the_commits_fault() -> None:
    def refuse(name: bytes) -> bytes:
        return b"-ERR DB index is out of range\r\n" if name == b"SELECT" else OK

    async with answering(refuse, path="/99") as registry:
        with pytest.raises(RegistryUnavailable, match="Redis refused: DB index is out of range"):
            await registry.commit(Commit("default", "1"))


async def test_what_is_no_redis_is_unavailable() -> None:
    async with answering(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n") as registry:
        with pytest.raises(RegistryUnavailable, match=r"redis\.url"):
            await registry.open()


async def test_nobody_there() -> None:
    registry = RedisRegistry("redis://127.0.0.1:1", bridge="test/1")
    with pytest.raises(RegistryUnavailable, match=r"does not answer.*redis\.url"):
        await registry.open()


@pytest.mark.parametrize(
    ("fact", "instead", "message"),
    [
        ("7.2.4", "6.2.14", r"version 6\.2\.14; use Redis 7\.0"),
        ("noeviction", "volatile-ttl", r"volatile-ttl.*maxmemory-policy noeviction"),
        ("redis_mode:standalone", "redis_mode:cluster", r"runs as cluster.*single server"),
        ("redis_mode:standalone", "server_mode:sentinel", r"runs as sentinel.*single server"),
        (INFO, "", r"version 0\.0"),
    ],
)
async def test_a_server_that_does_not_fit_is_refused_at_the_start_and_waited_for_later(
    fact: str, instead: str, message: str
) -> None:
    info = INFO.replace(fact, instead)
    async with answering(lambda name: bulk(info) if name == b"INFO" else OK) as registry:
        with pytest.raises(ConfigError, match=rf"^redis\.url: .*{message}"):
            await registry.open()
        with pytest.raises(RegistryUnavailable, match=message):
            await registry.load({})
        info = INFO
        await registry.open()


async def test_a_replica_is_waited_for() -> None:
    info = INFO.replace("role:master", "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379")
    async with answering(lambda name: bulk(info) if name == b"INFO" else OK) as registry:
        with pytest.raises(RegistryUnavailable, match=r"follows 10\.0\.0\.1:6379: .*redis\.url at the primary"):
            await registry.open()


async def test_a_policy_that_cannot_be_read_is_taken() -> None:
    shown = INFO.partition("\r\n")[0]
    async with answering(lambda name: bulk(shown) if name == b"INFO" else OK) as registry:
        await registry.open()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "127.0.0.1:6379",
        "",
        "redis://:sec/ret@127.0.0.1",
        "redis://127.0.0.1/0?colour=red",
        "redis://127.0.0.1/x",
    ],
)
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis\.url cannot be read; the form is redis://[a-z:@/]+$"):
        RedisRegistry(url, bridge="test/1")


def test_silence_has_a_reason_too() -> None:
    assert "no answer in time" in reason(TimeoutError())


def test_a_connection_that_was_reset_while_nothing_was_asked_is_opened_again() -> None:
    """uvloop refuses to write on what it has closed by an error of its own, neither OSError nor Redis'."""

    async def lose_and_ask() -> str | None:
        async with answering(fit(b"$1\r\nb\r\n"), resets=True) as registry:
            await registry.recall("a")
            await asyncio.sleep(0.1)  # until the loop has seen the reset
            return await registry.recall("a")

    assert uvloop.run(lose_and_ask()) == "b"

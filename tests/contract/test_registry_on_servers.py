"""What only real servers do: forget scripts, cut connections, restart, freeze, fill up, lose an answer."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.adapters.registry import RedisRegistry
from bridge.domain.values import SENT_SECONDS, Claim, Commit, Committed, Corrupt, Kept, Owner, Page, Want, Write
from bridge.errors import ConfigError, RegistryUnavailable
from tests.contract.conftest import OnRedis
from tests.servers import RedisServer, free_port

ORG = "default"


def text(version: int) -> bytes:
    return b"%d:1:{}" % version


def first(token: str = "1", **rest: object) -> Commit:
    return Commit(ORG, token, [Write("user:ann", 0, text(5))], journal=b"outputs", **rest)  # type: ignore[arg-type]


async def stored(registry: RedisRegistry) -> bytes | None:
    return (await registry.load({ORG: Want(["user:ann"])})).organizations[ORG].records["user:ann"]


@asynccontextmanager
async def opened(server: RedisServer, *, port: int = 0, timeout_seconds: float = 5) -> AsyncIterator[RedisRegistry]:
    url = f"redis://127.0.0.1:{port or server.port}/0"
    registry = RedisRegistry(url, bridge="test/1", timeout_seconds=timeout_seconds)
    await registry.open()
    try:
        yield registry
    finally:
        await registry.close()


@asynccontextmanager
async def losing_answers(server: RedisServer, wanted: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A proxy that hands requests on, and cuts the connection instead of answering the first that holds ``wanted``."""
    lost: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            while request := await reader.read(1 << 20):
                upstream_writer.write(request)
                answer = await upstream_reader.read(1 << 20)
                if wanted in request and not lost:
                    lost.append(answer)
                    break
                writer.write(answer)
        finally:
            upstream_writer.close()
            writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield port, lost


async def test_keys_are_those_of_the_design(real: OnRedis) -> None:
    await real.registry.commit(first(members={"online:user": {"ann": True}}, deadlines={"user:ann": 7}, floor=3))
    await real.registry.claim([Claim("a%1", None, Owner(ORG, "user", "ann", 1))])
    await real.registry.remember("client_id", "x")
    await real.registry.tick()
    await real.registry.keep({ORG: Kept(sent={"sent:abc": b"{}"})})
    kinds = {key: real.client.type(key) for key in real.client.keys("*")}
    assert kinds == {
        "eb:{default}:user:ann": "string",
        "eb:{default}:online:user": "zset",
        "eb:{default}:deadlines": "zset",
        "eb:{default}:bridges": "hash",
        "eb:{default}:journal": "stream",
        "eb:{default}:sent:abc": "string",
        "eb:endpoint-owner:a%251": "string",
        "eb:organizations": "set",
        "eb:clock": "hash",
        "eb:facts": "hash",
    }
    [(entry, _)] = real.client.xrange("eb:{default}:journal")
    assert real.client.hgetall("eb:{default}:bridges") == {"floor": "3", "token:test/1": f"1 {entry}"}
    assert SENT_SECONDS - 10 < real.client.ttl("eb:{default}:sent:abc") <= SENT_SECONDS
    assert real.client.get("eb:endpoint-owner:a%251") == '["default","user","ann",1]'


async def test_forgotten_scripts_are_loaded_again(real: OnRedis) -> None:
    await real.registry.commit(first())
    real.client.script_flush()
    assert await real.registry.commit(Commit(ORG, "2", [Write("user:ann", 5, text(6))])) == Committed(None)
    real.client.script_flush()
    assert await real.registry.claim([Claim("e", None, Owner(ORG, "user", "ann", 1))] * 2) == [True, True]
    real.client.script_flush()
    await real.registry.tick()


async def test_a_cut_connection_is_opened_again(real: OnRedis) -> None:
    await real.registry.commit(first())
    for _ in range(3):
        assert real.client.client_kill_filter(_type="normal", skipme=True) >= 1
        assert await stored(real.registry) == text(5)
    real.client.client_kill_filter(_type="normal", skipme=True)
    assert await real.registry.commit(Commit(ORG, "2", [Write("user:ann", 5, text(6))])) == Committed(None)


async def test_flushed_data_bring_the_organization_back(real: OnRedis) -> None:
    await real.registry.commit(first())
    real.client.flushall()
    real.client.client_kill_filter(_type="normal", skipme=True)
    assert isinstance(await real.registry.commit(first()), Committed)
    assert real.client.smembers("eb:organizations") == {ORG}


@pytest.mark.parametrize("real", ["valkey"], indirect=True)
async def test_a_real_pause(real: OnRedis) -> None:
    await real.registry.tick()
    await asyncio.sleep(2.1)
    await real.registry.tick()
    assert (await real.registry.load({})).moment.resumed_ms == 3000


async def test_a_clock_that_is_none_is_said_to_be_so(real: OnRedis) -> None:
    real.client.set("eb:clock", "noon")
    with pytest.raises(RegistryUnavailable, match=r"eb:clock is no clock"):
        await real.registry.load({})
    with pytest.raises(RegistryUnavailable, match="WRONGTYPE"):
        await real.registry.tick()


async def test_an_owner_that_is_none_can_neither_be_read_nor_taken(real: OnRedis) -> None:
    real.client.set("eb:endpoint-owner:e", "nonsense")
    real.client.rpush("eb:endpoint-owner:f", "nonsense")
    assert (await real.registry.load({}, ["e", "f"])).owners == {"e": None, "f": None}
    owner = Owner(ORG, "user", "ann", 1)
    assert await real.registry.claim([Claim("e", None, owner), Claim("f", None, owner)]) == [False, False]


async def test_what_others_wrote_under_our_keys_stops_nothing(real: OnRedis) -> None:
    await real.registry.commit(first(deadlines={"user:ann": 7}, members={"online:user": {"ann": True}}))
    await real.registry.tick()
    real.client.zadd("eb:{default}:deadlines", {b"\xff": 1})
    real.client.zadd("eb:{default}:online:user", {b"\xff": 0})
    real.client.xadd("eb:{default}:journal", {"odd": "entry"})
    assert (ORG, "user:ann") in await real.registry.due(9)
    online = Page("online:user", "", 9)
    assert "ann" in (await real.registry.load({ORG: Want(pages=[online])})).organizations[ORG].pages[online]
    assert [(bridge, batch) for _, _, bridge, batch in await real.registry.journal()] == [
        ("test/1", b"outputs"),
        ("", b""),
    ]


async def test_trips_of_many_tasks_do_not_mix(real: OnRedis) -> None:
    async def one(number: int) -> None:
        key = f"user:{number}"
        await real.registry.commit(Commit(ORG, f"t{number}", [Write(key, 0, text(number + 1))]))
        assert (await real.registry.load({ORG: Want([key])})).organizations[ORG].records == {key: text(number + 1)}

    await asyncio.gather(*map(one, range(50)))


async def test_a_cancelled_trip_leaves_no_answer_behind(real: OnRedis) -> None:
    await real.registry.remember("client_id", "x")
    for _ in range(20):
        task = asyncio.create_task(real.registry.load({ORG: Want(["user:ann"])}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await real.registry.recall("client_id") == "x"


async def test_a_restart_keeps_everything(own_server: RedisServer) -> None:
    async with opened(own_server) as registry:
        await registry.tick()
        await registry.remember("session_epoch", "7")
        done = await registry.commit(first(members={"online:user": {"ann": True}}, deadlines={"user:ann": 7}))
        own_server.restart()
        assert await registry.commit(first()) == done
        assert await stored(registry) == text(5)
        assert await registry.due(9) == [(ORG, "user:ann")]
        assert [entry for _, entry, _, _ in await registry.journal()] == [getattr(done, "entry", None)]
        assert await registry.recall("session_epoch") == "7"


async def test_a_commit_waits_for_a_restart(own_server: RedisServer) -> None:
    async with opened(own_server) as registry:
        await registry.tick()
        own_server.kill()
        waiting = asyncio.create_task(registry.commit(first()))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_server.start)
        assert isinstance(await waiting, Committed)


async def test_a_lost_answer_is_asked_for_again(own_server: RedisServer) -> None:
    async with losing_answers(own_server, b"outputs") as (port, lost), opened(own_server, port=port) as registry:
        answer = await registry.commit(first())
        assert len(lost) == 1
        assert isinstance(answer, Committed)
        assert [entry for _, entry, _, _ in await registry.journal()] == [answer.entry]


async def test_away_and_back(own_server: RedisServer) -> None:
    async with opened(own_server, timeout_seconds=0.5) as registry:
        own_server.stop()
        with pytest.raises(RegistryUnavailable, match=r"does not answer.*redis\.url"):
            await registry.load({})
        with pytest.raises(RegistryUnavailable):
            await registry.commit(first())
        own_server.start()
        assert isinstance(await registry.commit(first()), Committed)


async def test_frozen(own_server: RedisServer) -> None:
    async with opened(own_server, timeout_seconds=0.4) as registry:
        own_server.freeze()
        with pytest.raises(RegistryUnavailable, match="no answer in time"):
            await registry.commit(first())
        with pytest.raises(RegistryUnavailable, match=r"does not answer"):
            await registry.load({})
        own_server.thaw()
        done = await registry.commit(first())
        assert isinstance(done, Committed)
        assert len(await registry.journal()) == 1


async def test_full_and_read_only(own_server: RedisServer) -> None:
    async with opened(own_server) as registry:
        await registry._ask(("CONFIG", "SET", "maxmemory", "1"))
        with pytest.raises(RegistryUnavailable, match=r"OOM.*maxmemory"):
            await registry.commit(first())
        await registry._ask(("CONFIG", "SET", "maxmemory", "0"))
        await registry._ask(
            ("REPLICAOF", "127.0.0.1", str(free_port())), ("CONFIG", "SET", "replica-serve-stale-data", "yes")
        )
        with pytest.raises(RegistryUnavailable, match=r"READONLY.*primary"):
            await registry.commit(first())
        await registry._ask(("REPLICAOF", "NO", "ONE"))
        assert await stored(registry) is None
        assert isinstance(await registry.commit(first()), Committed)


async def test_a_script_that_fails_is_told_apart_from_a_server_that_is_away(
    real: OnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = b'return redis.error_reply("ERR broken")'
    with monkeypatch.context() as patched:
        patched.setattr(real.registry._commit, "text", broken)
        patched.setattr(real.registry._commit, "_sha", hashlib.sha1(broken).hexdigest())
        assert await real.registry.commit(first()) == Corrupt("")
    assert isinstance(await real.registry.commit(first("2")), Committed)


async def test_a_server_that_may_evict_is_refused(own_server: RedisServer) -> None:
    async with opened(own_server) as registry:
        await registry._ask(("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"))
        with pytest.raises(ConfigError, match=r"redis\.url.*allkeys-lru.*noeviction"):
            await registry.open()


async def test_a_server_with_a_password(own_server: RedisServer) -> None:
    async with opened(own_server) as registry:
        await registry._ask(("CONFIG", "SET", "requirepass", "secret"))
        for login, remedy in (("", "NOAUTH"), (":wrong@", "WRONGPASS")):
            other = RedisRegistry(f"redis://{login}127.0.0.1:{own_server.port}", bridge="test/2")
            with pytest.raises(RegistryUnavailable, match=rf"{remedy}.*redis\.url"):
                await other.open()
            await other.close()
        right = RedisRegistry(f"redis://:secret@127.0.0.1:{own_server.port}", bridge="test/2")
        await right.open()
        await right.close()


async def test_rights_that_lack_are_said(own_server: RedisServer) -> None:
    async with opened(own_server) as registry:
        await registry._ask(("ACL", "SETUSER", "bridge", "on", ">secret", "~other:*", "+@all"))
        other = RedisRegistry(f"redis://bridge:secret@127.0.0.1:{own_server.port}", bridge="test/2")
        await other.open()
        with pytest.raises(RegistryUnavailable, match=r"NOPERM.*rights"):
            await other.commit(first())
        await other.close()

"""What a Redis that is not well does to the registry, and what the registry says: nothing is lost or done twice."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from bridge.adapters.registry import RedisRegistry
from bridge.domain.values import Claim, Commit, Committed, Corrupt, Owner, Page, Want, Write
from bridge.errors import ConfigError, RegistryUnavailable
from tests.contract.conftest import ORG, OnRedis, first, opened, stored, text
from tests.servers import Flavour, RedisServer, free_port

ANN = Owner(ORG, "user", "ann", 1)
MIB = 1024 * 1024


@contextmanager
def operator(server: RedisServer) -> Iterator[Any]:
    """A second client, which does to the server what operators and accidents do."""
    client = Redis.from_url(server.url, decode_responses=True)
    yield client
    client.close()


@asynccontextmanager
async def cutting(
    server: RedisServer, wanted: bytes, *, forwards: bool = True
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that cuts the connection instead of answering the first request that holds ``wanted``.

    Yields its address and the requests cut; ``forwards``: the server gets that request nevertheless.
    """
    cut: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            while request := await reader.read(MIB):
                is_wanted = wanted in request and not cut
                if is_wanted:
                    cut.append(request)
                if forwards or not is_wanted:
                    upstream_writer.write(request)
                    answer = await upstream_reader.read(MIB)
                if is_wanted:
                    break
                writer.write(answer)
        finally:
            upstream_writer.close()
            writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield f"redis://127.0.0.1:{port}/0", cut


class TestScripts:
    async def test_forgotten_they_are_loaded_again(self, real: OnRedis) -> None:
        await real.registry.commit(first())
        real.client.script_flush()
        assert await real.registry.commit(Commit(ORG, "2", [Write("user:ann", 5, text(6))])) == Committed(None)
        real.client.script_flush()
        assert await real.registry.claim([Claim("e", None, ANN)] * 2) == [True, True]
        real.client.script_flush()
        await real.registry.tick()

    async def test_flushed_all_the_time(self, real: OnRedis) -> None:
        is_over = threading.Event()

        def flush() -> None:
            while not is_over.is_set():
                real.client.script_flush()

        flushing = threading.Thread(target=flush)
        flushing.start()
        answers: list[object] = []
        try:
            for number in range(100):
                write = Write(f"user:{number}", 0, text(5))
                try:
                    answers.append(await real.registry.commit(Commit(ORG, str(number), [write])))
                except RegistryUnavailable as error:
                    answers.append("NOSCRIPT" in str(error))
        finally:
            is_over.set()
            flushing.join()
        assert set(answers) <= {Committed(None), True}

    async def test_one_that_fails_is_told_apart_from_a_server_that_is_away(
        self, real: OnRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            broken = real.client.script_load('return redis.error_reply("ERR broken")')
            patched.setattr(real.registry._check, "_sha", broken)
            assert await real.registry.commit(first()) == Corrupt("")
        assert isinstance(await real.registry.commit(first("2")), Committed)


class TestConnections:
    async def test_one_that_is_cut_is_opened_again(self, real: OnRedis) -> None:
        await real.registry.commit(first())
        for _ in range(3):
            assert real.client.client_kill_filter(_type="normal", skipme=True) >= 1
            assert await stored(real.registry) == text(5)
        real.client.client_kill_filter(_type="normal", skipme=True)
        assert await real.registry.commit(Commit(ORG, "2", [Write("user:ann", 5, text(6))])) == Committed(None)

    async def test_a_cancelled_trip_leaves_no_answer_behind(self, real: OnRedis) -> None:
        await real.registry.remember("client_id", "x")
        for _ in range(20):
            task = asyncio.create_task(real.registry.load({ORG: Want(["user:ann"])}))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await real.registry.recall("client_id") == "x"

    async def test_one_too_many(self, own_server: RedisServer) -> None:
        with operator(own_server) as client:
            client.config_set("maxclients", 1)
            with pytest.raises(RegistryUnavailable, match="Redis refused: max number of clients reached"):
                async with opened(own_server):
                    pass
            client.config_set("maxclients", 10)
        async with opened(own_server) as registry:
            await registry.tick()


async def commit(registry: RedisRegistry) -> bool:
    return isinstance(await registry.commit(first(members={"online:user": {"ann": True}})), Committed)


async def claim(registry: RedisRegistry) -> bool:
    return await registry.claim([Claim("e", None, ANN), Claim("f", None, ANN)]) == [True, True]


async def release(registry: RedisRegistry) -> bool:
    return await registry.claim([Claim("kept", ANN, None)]) == [True]


async def load(registry: RedisRegistry) -> bool:
    page = Page("online:user", "", 9)
    loading = await registry.load({ORG: Want(["user:bob"], [page])}, ["kept"])
    found = loading.organizations[ORG]
    return (found.records, found.pages, loading.owners) == ({"user:bob": text(5)}, {page: ["bob"]}, {"kept": ANN})


async def due(registry: RedisRegistry) -> bool:
    return await registry.due(9) == [(ORG, "user:bob")]


async def tick(registry: RedisRegistry) -> bool:
    return 1000 <= await registry.tick() <= 3000


async def journal(registry: RedisRegistry) -> bool:
    return [batch for _, _, _, batch in await registry.journal()] == [b"kept"]


async def settle(registry: RedisRegistry) -> bool:
    await registry.settle({ORG: [entry for _, entry, _, _ in await registry.journal()]})
    return await registry.journal() == []


async def remember(registry: RedisRegistry) -> bool:
    await registry.remember("client_id", "new")
    return await registry.recall("client_id") == "new"


class TestLostAnswers:
    """Every method asks again by itself, and what was done already is not done twice."""

    @pytest.mark.parametrize("forwards", [True, False], ids=["done", "not-done"])
    @pytest.mark.parametrize(
        ("method", "wanted"),
        [
            (commit, b"outputs"),
            (claim, b"endpoint-owner:e"),
            (release, b"endpoint-owner:kept"),
            (load, b"MGET"),
            (due, b"ZRANGEBYSCORE"),
            (tick, b"eb:clock"),
            (journal, b"XRANGE"),
            (settle, b"XDEL"),
            (remember, b"HSET"),
        ],
    )
    async def test_each_method(
        self, real: OnRedis, method: Callable[[RedisRegistry], Awaitable[bool]], wanted: bytes, forwards: bool
    ) -> None:
        await real.registry.tick()
        kept = Commit(ORG, "0", [Write("user:bob", 0, text(5))], journal=b"kept")
        kept.members, kept.deadlines = {"online:user": {"bob": True}}, {"user:bob": 7}
        await real.registry.commit(kept)
        await real.registry.claim([Claim("kept", None, ANN)])
        async with cutting(real.server, wanted, forwards=forwards) as (url, cut), opened(url) as registry:
            assert await method(registry)
            assert len(cut) == 1
        if method is commit:
            assert [batch for _, _, _, batch in await real.registry.journal()] == [b"kept", b"outputs"]

    @pytest.mark.parametrize("forwards", [True, False], ids=["done", "not-done"])
    async def test_a_commit_by_a_transaction_alone(self, real: OnRedis, forwards: bool) -> None:
        await real.registry.commit(first())
        async with cutting(real.server, b"MSET", forwards=forwards) as (url, cut), opened(url) as registry:
            window = (await registry.load({ORG: Want(["user:ann"])})).window
            commit = Commit(ORG, "2", [Write("user:ann", 5, text(6))], window=window, journal=b"alone")
            done = await registry.commit(commit)
            assert len(cut) == 1
            assert b"MULTI" in cut[0]
        entries = [(entry, batch) for _, entry, _, batch in await real.registry.journal()]
        assert isinstance(done, Committed)
        assert entries[1:] == [(done.entry, b"alone")]
        assert await stored(real.registry) == text(6)

    async def test_a_commit_by_a_transaction_alone_waits_once(
        self, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(own_server, timeout_seconds=0.4) as registry:
            await registry.commit(first())
            window = (await registry.load({ORG: Want(["user:ann"])})).window
            commit = Commit(ORG, "2", [Write("user:ann", 5, text(6))], window=window, journal=b"alone")
            own_server.freeze()
            with monkeypatch.context() as patched:
                patched.setattr(registry._redis, "ask_then", None)  # which would wait as long again
                with pytest.raises(RegistryUnavailable, match="no answer in time"):
                    await registry.commit(commit)
            own_server.thaw()
            assert isinstance(await registry.commit(commit), Committed)
            assert [batch for _, _, _, batch in await registry.journal()] == [b"outputs", b"alone"]

    async def test_a_commit_that_was_given_up_and_asked_again_later(self, own_server: RedisServer) -> None:
        async with opened(own_server, timeout_seconds=0.4) as registry:
            own_server.freeze()
            with pytest.raises(RegistryUnavailable, match="no answer in time"):
                await registry.commit(first())
            with pytest.raises(RegistryUnavailable, match="does not answer"):
                await registry.load({})
            own_server.thaw()
            done = await registry.commit(first())
            assert isinstance(done, Committed)
            assert [entry for _, entry, _, _ in await registry.journal()] == [done.entry]


class TestRestarts:
    async def test_one_keeps_everything(self, own_server: RedisServer) -> None:
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

    async def test_a_commit_waits_for_one(self, own_server: RedisServer) -> None:
        async with opened(own_server) as registry:
            await registry.tick()
            own_server.kill()
            waiting = asyncio.create_task(registry.commit(first()))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_server.start)
            assert isinstance(await waiting, Committed)

    async def test_away_and_back(self, own_server: RedisServer) -> None:
        async with opened(own_server, timeout_seconds=0.5) as registry:
            own_server.stop()
            with pytest.raises(RegistryUnavailable, match=r"does not answer.*redis\.url"):
                await registry.load({})
            with pytest.raises(RegistryUnavailable):
                await registry.commit(first())
            own_server.start()
            assert isinstance(await registry.commit(first()), Committed)

    async def test_without_its_data_the_organization_comes_back(self, real: OnRedis) -> None:
        await real.registry.commit(first())
        real.client.flushall()
        real.client.client_kill_filter(_type="normal", skipme=True)
        assert isinstance(await real.registry.commit(first()), Committed)
        assert real.client.smembers("eb:organizations") == {ORG}

    async def test_a_commit_waits_while_data_are_loaded(self, own_server: RedisServer) -> None:
        with operator(own_server) as client, client.pipeline(transaction=False) as filling:
            for number in range(4000):
                filling.set(f"other:{number}", "x")
            filling.execute()
        async with opened(own_server) as registry:
            # Half a millisecond for each key: two seconds in all, in which it answers after every 1,024 keys.
            own_server.options = ("--key-load-delay", "500")
            own_server.stop()
            restarting = asyncio.create_task(asyncio.to_thread(own_server.start))
            with pytest.raises(RegistryUnavailable, match=r"LOADING.*wait"):
                await load_until_refused(registry, restarting)
            assert isinstance(await registry.commit(first()), Committed)
            await restarting


async def load_until_refused(registry: RedisRegistry, restarting: asyncio.Task[None]) -> None:
    """Raise what a server says that is there and refuses; while it is not there at all, ask again."""
    while not restarting.done():
        try:
            await registry.load({})
        except RegistryUnavailable as error:
            if "does not answer" not in str(error):
                raise


@contextmanager
def full(client: Any, _server: RedisServer) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def demoted(client: Any, _server: RedisServer) -> Iterator[None]:
    client.replicaof("127.0.0.1", free_port())
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def lonely(client: Any, _server: RedisServer) -> Iterator[None]:
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


@contextmanager
def busy(client: Any, _server: RedisServer) -> Iterator[None]:
    client.config_set("busy-reply-threshold", 1)

    def loop() -> None:
        with pytest.raises(RedisError):
            client.eval("while true do end", 0)

    looping = threading.Thread(target=loop)
    looping.start()
    time.sleep(0.05)
    yield
    with operator(_server) as other:
        other.script_kill()
    looping.join()


@contextmanager
def unsaved(client: Any, server: RedisServer) -> Iterator[None]:
    """Its snapshots fail: a folder stands where the file should go."""
    client.config_set("save", "3600 100000")
    obstacle = server.directory / "dump.rdb"
    (obstacle / "full").mkdir(parents=True)

    def save(status: str) -> None:
        client.bgsave()
        for _ in range(500):
            found = client.info("persistence")
            if not found["rdb_bgsave_in_progress"] and found["rdb_last_bgsave_status"] == status:
                return
            time.sleep(0.01)
        raise AssertionError(f"no snapshot ended as {status}")

    save("err")
    yield
    shutil.rmtree(obstacle)
    save("ok")


class TestRefusals:
    """A server that is there and takes nothing: said with its remedy, and over without a restart of the bridge."""

    @pytest.mark.parametrize(
        ("state", "said", "reads"),
        [
            (full, "OOM.*maxmemory", True),
            (demoted, "READONLY.*primary", False),
            (lonely, "NOREPLICAS.*replicas", True),
            (busy, "BUSY.*SCRIPT KILL", False),
            (unsaved, "MISCONF.*disk", True),
        ],
    )
    async def test_each(self, own_server: RedisServer, state: Any, said: str, reads: bool) -> None:
        async with opened(own_server) as registry:
            await registry.commit(first())
            changed = Commit(ORG, "2", [Write("user:ann", 5, text(6))], members={"online:user": {"ann": True}})
            with operator(own_server) as client, state(client, own_server):
                with pytest.raises(RegistryUnavailable, match=said):
                    await registry.commit(changed)
                if reads:
                    assert await stored(registry) == text(5)
            assert await registry.commit(changed) == Committed(None)

    async def test_a_replica_is_not_even_read(self, own_server: RedisServer) -> None:
        async with opened(own_server) as registry:
            with operator(own_server) as client, demoted(client, own_server):
                with pytest.raises(RegistryUnavailable, match="READONLY"):
                    await registry.commit(first())
                with pytest.raises(RegistryUnavailable, match=r"no primary, it follows 127\.0\.0\.1:\d+.*redis\.url"):
                    await registry.load({})
                with pytest.raises(RegistryUnavailable, match="no primary"):
                    await registry.open()
            await registry.load({})

    async def test_a_policy_that_evicts_is_refused_at_the_start(self, own_server: RedisServer) -> None:
        with operator(own_server) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ConfigError, match=r"redis\.url.*allkeys-lru.*noeviction"):
            async with opened(own_server):
                pass

    async def test_a_policy_that_changes_is_noticed_by_the_next_connection(self, own_server: RedisServer) -> None:
        async with opened(own_server) as registry:
            with operator(own_server) as client:
                client.config_set("maxmemory-policy", "volatile-ttl")
                client.client_kill_filter(_type="normal", skipme=True)
                for _ in range(2):
                    with pytest.raises(RegistryUnavailable, match=r"volatile-ttl.*noeviction"):
                        await registry.commit(first())
                client.config_set("maxmemory-policy", "noeviction")
            assert isinstance(await registry.commit(first()), Committed)

    @pytest.mark.parametrize("flavour", ["redis", "valkey"])
    async def test_a_cluster_is_refused(self, flavour: Flavour, tmp_path: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
        with (
            RedisServer(tmp_path, flavour, options=options) as server,
            pytest.raises(ConfigError, match="runs as cluster, which is not supported"),
        ):
            async with opened(server):
                pass


class TestLimits:
    """What Redis will never take is answered, not asked for again and again; what it takes may be large."""

    @pytest.mark.parametrize("limit", ["proto-max-bulk-len", "client-query-buffer-limit"])
    async def test_a_commit_above_a_limit_of_the_server(self, own_server: RedisServer, limit: str) -> None:
        with operator(own_server) as client:
            client.config_set(limit, MIB)
        async with opened(own_server) as registry:
            large = Commit(ORG, "1", [Write("user:bob", 0, text(5))], journal=bytes(8 * MIB))
            assert await registry.commit(large) == Corrupt("")
            assert await registry.commit(Commit(ORG, "2", [Write("user:bob", 0, text(5))], journal=bytes(MIB // 2)))
            assert await stored(registry, "user:bob") == text(5)

    async def test_large_records_and_journals(self, real: OnRedis) -> None:
        record = text(5, '"%s"' % ("x" * (20 * MIB)))
        done = await real.registry.commit(Commit(ORG, "1", [Write("user:ann", 0, record)], journal=bytes(20 * MIB)))
        assert isinstance(done, Committed)
        assert await stored(real.registry) == record
        [(_, entry, _, batch)] = await real.registry.journal()
        assert (entry, batch) == (done.entry, bytes(20 * MIB))
        assert await real.registry.commit(Commit(ORG, "2", [Write("user:ann", 5, None)])) == Committed(None)

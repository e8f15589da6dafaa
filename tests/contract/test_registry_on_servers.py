"""What only real servers hold: keys by name and type, and what others wrote among them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bridge.adapters import registry as registry_module
from bridge.adapters.redis_connection import Then
from bridge.adapters.redis_wire import Command, Refused, Wire
from bridge.adapters.registry import MAXIMUM_RACES
from bridge.domain.values import (
    SENT_SECONDS,
    Claim,
    Commit,
    CommitAnswer,
    Committed,
    Conflict,
    Corrupt,
    Kept,
    Owner,
    Page,
    Want,
    Write,
)
from bridge.errors import LeaseLost, RegistryUnavailable
from tests.contract.conftest import ORG, OnRedis, first, stored, text


async def test_keys_are_those_of_the_design(real: OnRedis) -> None:
    await real.registry.commit(first(members={"online:user": {"ann": True}}, deadlines={"user:ann": 7}, floor=3))
    await real.registry.claim([Claim("a%1", None, Owner(ORG, "user", "ann", 1))])
    await real.registry.remember("client_id", "x")
    await real.registry.tick()
    await real.registry.keep({ORG: Kept({"sent:abc": b"{}"}, [b"{}"])}, 5)
    kinds = {key: real.client.type(key) for key in real.client.keys("*")}
    assert kinds == {
        "eb:{default}:user:ann": "string",
        "eb:{default}:online:user": "zset",
        "eb:{default}:deadlines": "zset",
        "eb:{default}:bridges": "hash",
        "eb:{default}:journal": "stream",
        "eb:{default}:sent:abc": "string",
        "eb:{default}:audit": "stream",
        "eb:endpoint-owner:a%251": "string",
        "eb:organizations": "set",
        "eb:clock": "hash",
        "eb:facts": "hash",
    }
    [(_, entry)] = real.client.xrange("eb:{default}:journal")
    assert entry == {"bridge": "test/1", "token": "1", "batch": "outputs"}
    assert [fields for _, fields in real.client.xrange("eb:{default}:audit")] == [{"entry": "{}"}]
    assert real.client.hgetall("eb:{default}:bridges") == {"floor": "3", "epoch": "0", "token:test/1": "1 ?"}
    assert SENT_SECONDS - 10 < real.client.ttl("eb:{default}:sent:abc") <= SENT_SECONDS
    assert real.client.get("eb:endpoint-owner:a%251") == '["default","user","ann",1]'


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


class Between:
    """Does something to the server after each check and before the transaction that it allowed, a number of times."""

    def __init__(
        self, real: OnRedis, monkeypatch: pytest.MonkeyPatch, act: Callable[[Any], object], times: int
    ) -> None:
        ask_then = real.registry._redis.ask_then
        self.checks = 0

        async def watched(commands: Sequence[Command], then: Then) -> list[Any]:
            def interrupted(replies: list[Any]) -> Sequence[Command]:
                self.checks += 1
                if self.checks <= times:
                    act(real.client)
                return then(replies)

            return await ask_then(commands, interrupted)

        monkeypatch.setattr(real.registry._redis, "ask_then", watched)


async def test_a_commit_that_another_bridges_overtook_is_checked_again(
    real: OnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await real.registry.commit(first())
    between = Between(real, monkeypatch, lambda client: client.hset("eb:{default}:bridges", "token:other/1", "9 -"), 2)
    assert await real.registry.commit(Commit(ORG, "2", [Write("user:ann", 5, text(6))])) == Committed(None)
    assert between.checks == 3
    assert await stored(real.registry) == text(6)


async def test_one_that_is_overtaken_all_the_time_is_a_conflict(real: OnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    Between(real, monkeypatch, lambda client: client.hincrby("eb:{default}:bridges", "other", 1), MAXIMUM_RACES)
    assert await real.registry.commit(first()) == Conflict("bridges")
    assert await stored(real.registry) is None
    assert isinstance(await real.registry.commit(first()), Committed)


async def test_an_id_that_is_claimed_behind_the_check_is_a_conflict(
    real: OnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    Between(real, monkeypatch, lambda client: client.set("eb:endpoint-owner:e", '["acme","user","bob",1]'), 1)
    assert await real.registry.commit(first(unclaimed=["d", "e"])) == Conflict("endpoint-owner")
    assert await stored(real.registry) is None


@pytest.mark.parametrize("key", ["deadlines", "journal", "online:user"])
async def test_a_key_that_is_spoilt_behind_the_check_is_found(
    real: OnRedis, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    Between(real, monkeypatch, lambda client: client.set(f"eb:{{default}}:{key}", "x"), 1)
    spoilt = first(deadlines={"user:ann": 7}, members={"online:user": {"ann": True}})
    assert await real.registry.commit(spoilt) == Corrupt(key)
    assert await stored(real.registry) is None


async def test_a_batch_takes_two_trips_or_three_and_its_records_pass_through_no_script(
    real: OnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[list[bytes]] = []
    exchange = Wire.exchange

    async def counted(wire: Wire, packed: list[bytes], deadline: float) -> list[Any]:
        trips.append(packed)
        return await exchange(wire, packed, deadline)

    monkeypatch.setattr(Wire, "exchange", counted)
    keys = [f"user:{number}" for number in range(250)]
    await real.registry.load({ORG: Want(keys)})
    body = '"%s"' % ("x" * 700)
    writes = [Write(key, 0, text(5, body)) for key in keys]
    assert isinstance(await real.registry.commit(Commit(ORG, "1", writes, journal=b"outputs")), Committed)
    load, check, changes = trips
    assert (
        len(load) == 10
    )  # two for the right to MULTI, the time, the clock, the watch, the floor, three types, the records
    assert sum(map(len, check)) < 250 * 60
    assert [change.split(b"\r\n", 3)[2] for change in changes] == [b"MSET", b"XADD", b"HSET", b"EXEC"]
    # What was loaded under the same watch is changed at once; a script hears only of what load does not tell.
    window = (await real.registry.load({ORG: Want(keys)})).window
    writes = [Write(key, 5, text(6, body)) for key in keys]
    commit = Commit(ORG, "2", writes, checks={"watchers": 0}, window=window, journal=b"outputs")
    assert isinstance(await real.registry.commit(commit), Committed)
    assert len(trips) == 5
    assert [change.split(b"\r\n", 3)[2] for change in trips[-1]] == [
        b"SADD",
        b"MULTI",
        b"MSET",
        b"XADD",
        b"HSET",
        b"EXEC",
    ]
    window = (await real.registry.load({ORG: Want(keys)})).window
    writes = [Write(key, 6, text(7, body)) for key in keys]
    commit = Commit(ORG, "3", writes, members={"online:user": {"ann": True}}, window=window)
    assert await real.registry.commit(commit) == Committed(None)
    assert len(trips) == 8
    assert sum(map(len, trips[-2])) < 400


class TestUnchecked:
    """A commit by a transaction alone, after a load that told all that a check would."""

    async def late(self, real: OnRedis, act: Callable[[Any], object]) -> CommitAnswer:
        """Commit after something was done to the server since the load."""
        await real.registry.commit(first())
        window = (await real.registry.load({ORG: Want(["user:ann", "watchers"])})).window
        act(real.client)
        writes, deadlines = [Write("user:ann", 5, text(6))], {"user:ann": 7}
        commit = Commit(ORG, "2", writes, {"watchers": 0}, deadlines=deadlines, window=window, journal=b"late")
        return await real.registry.commit(commit)

    async def test_one_that_was_overtaken_is_checked(self, real: OnRedis) -> None:
        done = await self.late(real, lambda client: client.hset("eb:{default}:bridges", "token:other/1", "9 -"))
        assert isinstance(done, Committed)
        assert await stored(real.registry) == text(6)

    async def test_one_whose_record_changed_conflicts(self, real: OnRedis) -> None:
        def act(client: Any) -> None:
            client.set("eb:{default}:user:ann", text(9))
            client.hset("eb:{default}:bridges", "token:other/1", "9 -")

        assert await self.late(real, act) == Conflict("user:ann")
        assert await stored(real.registry) == text(9)

    @pytest.mark.parametrize("key", ["journal", "deadlines", "watchers"])
    async def test_what_was_spoilt_since_the_load_is_found(self, real: OnRedis, key: str) -> None:
        def act(client: Any) -> None:
            client.delete(f"eb:{{default}}:{key}")
            client.rpush(f"eb:{{default}}:{key}", "x")

        assert await self.late(real, act) == Corrupt(key)
        assert await stored(real.registry) == text(5)

    @pytest.mark.parametrize("key", ["journal", "deadlines", "watchers"])
    async def test_what_was_spoilt_before_it_is_found(self, real: OnRedis, key: str) -> None:
        real.client.rpush(f"eb:{{default}}:{key}", "x")
        await real.registry.commit(Commit(ORG, "1", [Write("user:ann", 0, text(5))]))
        window = (await real.registry.load({ORG: Want(["user:ann", "watchers"])})).window
        commit = Commit(ORG, "2", [Write("user:ann", 5, text(6))], {"watchers": 0}, window=window)
        commit.journal, commit.deadlines = b"x", {"user:ann": 7}
        assert await real.registry.commit(commit) == Corrupt(key)
        assert await stored(real.registry) == text(5)

    async def test_a_bridge_that_was_shut_out_is_told_so(self, real: OnRedis) -> None:
        with pytest.raises(LeaseLost):
            await self.late(real, lambda client: client.hset("eb:{default}:bridges", "epoch", "9"))
        assert await stored(real.registry) == text(5)

    async def test_whose_right_to_multi_was_taken_loads_nothing(self, real: OnRedis) -> None:
        """What follows a refused MULTI is done at once, whatever the watch says."""
        await real.registry.commit(first())
        real.client.execute_command("ACL", "SETUSER", "bridge", "-multi")
        try:
            for _ in range(3):  # as often as it is tried
                with pytest.raises(RegistryUnavailable, match="NOPERM"):
                    await real.registry.load({ORG: Want(["user:ann"])})
        finally:
            real.client.execute_command("ACL", "SETUSER", "bridge", "+multi")
        assert (await real.registry.load({ORG: Want(["user:ann"])})).organizations[ORG].records == {"user:ann": text(5)}

    async def test_a_connection_on_which_multi_was_not_tried_is_checked(
        self, real: OnRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await real.registry.commit(first())
        await real.registry.load({ORG: Want(["user:bob"])})
        real.client.client_kill_filter(_type="normal", skipme=True)
        window = (await real.registry.load({ORG: Want(["user:ann"])})).window
        monkeypatch.setattr(real.registry._redis, "ask_under", None)
        commit = Commit(ORG, "2", [Write("user:ann", 5, text(6))], window=window)
        assert await real.registry.commit(commit) == Committed(None)

    async def test_a_load_that_tries_multi_begins_a_window(self, real: OnRedis) -> None:
        """DISCARD ends the watch of the load before it."""
        await real.registry.commit(first())
        await real.registry.load({ORG: Want(["user:bob"])})
        real.client.client_kill_filter(_type="normal", skipme=True)
        before = (await real.registry.load({ORG: Want(["user:ann"])})).window
        assert (await real.registry.load({ORG: Want(["user:bob"])})).window > before

    async def test_a_second_load_keeps_the_watch_of_the_first(self, real: OnRedis) -> None:
        await real.registry.commit(first())
        await real.registry.load({ORG: Want(["user:ann"])})
        real.client.set("eb:{default}:user:ann", text(9))
        real.client.hset("eb:{default}:bridges", "token:other/1", "9 -")
        window = (await real.registry.load({ORG: Want(["user:bob"])})).window
        late = Commit(ORG, "2", [Write("user:ann", 5, text(6))], window=window)
        assert await real.registry.commit(late) == Conflict("user:ann")
        assert await stored(real.registry) == text(9)

    async def test_one_whose_organization_was_forgotten_names_it_again(self, real: OnRedis) -> None:
        done = await self.late(real, lambda client: client.delete("eb:organizations"))
        assert isinstance(done, Committed)
        assert real.client.smembers("eb:organizations") == {ORG}

    async def test_one_that_is_dropped_at_its_end_may_be_tried_again(self, real: OnRedis) -> None:
        """Memory ran out after its last change was queued, say."""
        dropped = [1, b"OK", b"QUEUED", Refused("EXECABORT Transaction discarded because of: OOM command not allowed")]
        with pytest.raises(RegistryUnavailable, match="OOM"):
            registry_module._committed(first(), dropped)

    async def test_one_that_raises_the_floor(self, real: OnRedis) -> None:
        await real.registry.commit(first(floor=3))
        window = (await real.registry.load({ORG: Want(["user:ann"])})).window
        commit = Commit(ORG, "2", [Write("user:ann", 5, None)], floor=5, window=window)
        assert await real.registry.commit(commit) == Committed(None)
        assert real.client.hget("eb:{default}:bridges", "floor") == "5"
        window = (await real.registry.load({ORG: Want(["user:ann"])})).window
        late = Commit(ORG, "3", [Write("user:ann", 0, text(5))], window=window)
        assert await real.registry.commit(late) == Conflict("user:ann")


async def test_a_window_ends_with_its_connection(real: OnRedis) -> None:
    await real.registry.commit(first())
    window = (await real.registry.load({ORG: Want(["user:ann"])})).window
    real.client.client_kill_filter(_type="normal", skipme=True)
    assert isinstance(await real.other("other/1").commit(Commit(ORG, "x", [Write("user:ann", 5, text(6))])), Committed)
    late = Commit(ORG, "2", [Write("user:ann", 5, text(7))], window=window)
    assert await real.registry.commit(late) == Conflict("user:ann")
    again = await real.registry.load({ORG: Want(["user:ann"])})
    assert again.window > window
    assert await stored(real.registry) == text(6)


async def test_a_window_ends_where_scripts_are_loaded_again(real: OnRedis) -> None:
    await real.registry.commit(first())
    window = (await real.registry.load({ORG: Want(["user:ann"])})).window
    assert isinstance(await real.other("other/1").commit(Commit(ORG, "x", [Write("user:ann", 5, text(6))])), Committed)
    real.client.script_flush()
    late = Commit(ORG, "2", [Write("user:ann", 5, text(7))], window=window)
    assert await real.registry.commit(late) == Conflict("user:ann")
    assert await stored(real.registry) == text(6)


async def test_the_entry_of_a_lost_answer_is_found_among_many(real: OnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "JOURNAL_CHUNK", 2)
    mine = await real.registry.commit(first())
    for number in range(5):
        real.client.xadd("eb:{default}:journal", {"bridge": "other/1", "token": str(number), "batch": "x"})
    assert await real.registry.commit(first()) == mine
    assert isinstance(mine, Committed)
    await real.registry.settle({ORG: [mine.entry or ""]})
    assert await real.registry.commit(first()) == Committed(None)

"""What only real servers hold: keys by name and type, and what others wrote among them."""

import asyncio

import pytest

from bridge.domain.values import SENT_SECONDS, Claim, Commit, Kept, Owner, Page, Want, Write
from bridge.errors import RegistryUnavailable
from tests.contract.conftest import ORG, OnRedis, first, text


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
    [(entry, _)] = real.client.xrange("eb:{default}:journal")
    assert [fields for _, fields in real.client.xrange("eb:{default}:audit")] == [{"entry": "{}"}]
    assert real.client.hgetall("eb:{default}:bridges") == {"floor": "3", "token:test/1": f"1 {entry}"}
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

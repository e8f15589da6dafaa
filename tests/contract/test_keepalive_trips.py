"""What keepalives ask of Redis: a regression that no clock blurs."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from bridge.domain.records import Subject
from bridge.domain.schema import decode_record
from bridge.settings import Settings
from scripts.load.house import feed, registrations
from tests.servers import Flavour, RedisServer

COUNT = 1_000  # a batch


def calls(client: Any) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in client.info("commandstats").items()}


@pytest.mark.parametrize("flavour", ["redis", "valkey"])
def test_a_batch_of_them_is_a_load_and_a_commit(running: Callable[[Flavour], RedisServer], flavour: Flavour) -> None:
    server = running(flavour)
    client: Any = Redis.from_url(server.url)
    client.flushall()
    settings = Settings.model_validate({"redis": {"url": server.url}})
    feed(settings, registrations("", COUNT))
    client.config_resetstat()
    feed(settings, ())
    idle = calls(client)  # a bridge comes and goes
    client.config_resetstat()
    feed(settings, ((f"users/endpoints/u{number:06d}~0/keepalive", "") for number in range(COUNT)))
    asked = {name: count - idle.get(name, 0) for name, count in calls(client).items() if count > idle.get(name, 0)}
    assert asked == {
        # Whether MULTI is allowed, the moment and the clock; the watch, the floor, what is looked at by type, and the
        # records: one trip.
        "discard": 1,
        "time": 1,
        "hmget": 2,
        "watch": 1,
        "type": 3,
        "mget": 1,
        # No record passes through a script (check.lua), and nothing is left to look at: one more.
        "sadd": 1,
        "multi": 2,
        "mset": 1,
        "zadd": 1,
        "hset": 1,
        "exec": 1,
    }
    clock_ms = int(client.hget("eb:clock", "clock_ms"))
    for stored in client.mget(f"eb:{{default}}:user:u{number:06d}" for number in range(COUNT)):
        record, _ = decode_record("user", stored)
        assert isinstance(record, Subject)
        assert all(endpoint.renewed_ms >= clock_ms for endpoint in record.endpoints.values())
    client.close()

"""What a registered endpoint costs Redis, in bytes and keys: a regression that no clock blurs."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from bridge.settings import Settings
from scripts.load.house import feed, registrations
from tests.servers import Flavour, RedisServer

USERS, ENDPOINTS = 1_000, 2
MOST: dict[tuple[Flavour, str], tuple[float, float]] = {
    # Bytes and keys: half a record, and half a deadline; nothing else where the id names its owner.
    ("redis", "~"): (205, 0.5),
    ("valkey", "~"): (185, 0.5),
    # And who has claimed the id.
    ("redis", "."): (325, 1.5),
    ("valkey", "."): (270, 1.5),
}


@pytest.mark.parametrize(("flavour", "mark"), MOST)
def test_what_an_endpoint_costs(running: Callable[[Flavour], RedisServer], flavour: Flavour, mark: str) -> None:
    server = running(flavour)
    client = Redis.from_url(server.url)
    client.flushall()
    settings = Settings.model_validate({"redis": {"url": server.url}})
    feed(settings, registrations("", 1, letter="v", mark=mark))
    once = _cost(client)
    feed(settings, registrations("", USERS, ENDPOINTS, mark=mark))
    size_bytes, keys = ((after - before) / USERS / ENDPOINTS for after, before in zip(_cost(client), once, strict=True))
    most_bytes, most_keys = MOST[flavour, mark]
    assert most_bytes * 0.8 < size_bytes <= most_bytes
    assert keys == most_keys
    client.close()


def _cost(client: Any) -> tuple[int, int]:
    """All bytes of all keys, by the server's own word, but for what bridges keep of themselves."""
    kept = [key for key in client.keys("*") if not key.endswith((b":journal", b":bridges", b"eb:facts"))]
    return sum(client.memory_usage(key, samples=0) for key in kept), len(kept)

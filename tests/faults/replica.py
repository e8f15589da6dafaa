"""A replica of Redis becomes the primary: handed over in order, or promoted after a death."""

import shutil
import time
from collections.abc import Callable
from typing import Any

from redis import Redis

from tests.faults.proxy import Proxy
from tests.servers import RedisServer

PATIENCE_SECONDS = 30.0


def hand_over(primary: RedisServer, replica: RedisServer) -> None:
    """Let a replica follow, and swap the two by FAILOVER, which holds writes back and so loses nothing.

    Raises:
        AssertionError: it takes too long.
    """
    _follow(replica, primary.port)
    _until(lambda: _info(primary).get("slave0", {}).get("state") == "online", "the primary knows that it has")
    with _ask(primary) as redis:
        redis.execute_command("FAILOVER", "TO", "127.0.0.1", replica.port)
    _until(lambda: _info(replica)["role"] == "master", "the replica is promoted")
    primary.stop()


def fail_over(primary: RedisServer, replica: RedisServer, behind_seconds: float) -> None:
    """Let a replica follow, fall behind by so long, and become the primary when that one is killed.

    What the old primary took in that time is gone: replication is not acknowledged to clients.

    Raises:
        AssertionError: it takes too long.
    """
    way = Proxy(primary.port)
    try:
        _follow(replica, way.port)
        way.freeze()
        time.sleep(behind_seconds)
        primary.kill()
    finally:
        way.close()
    with _ask(replica) as redis:
        redis.execute_command("REPLICAOF", "NO", "ONE")


def _follow(replica: RedisServer, port: int) -> None:
    shutil.rmtree(replica.directory, ignore_errors=True)
    replica.start()
    with _ask(replica) as redis:
        redis.execute_command("REPLICAOF", "127.0.0.1", port)
    _until(lambda: _has_all(_info(replica)), "the replica has all, on its disk too")


def _has_all(info: dict[str, Any]) -> bool:
    is_linked = info.get("master_link_status") == "up" and not info.get("master_sync_in_progress")
    return is_linked and not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]


def _ask(server: RedisServer) -> Any:
    return Redis(port=server.port, decode_responses=True, socket_timeout=5)


def _info(server: RedisServer) -> dict[str, Any]:
    with _ask(server) as redis:
        found: dict[str, Any] = redis.info()
        return found


def _until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)

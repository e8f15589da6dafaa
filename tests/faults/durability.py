"""What Redis and Mosquitto lose, by their settings, of what the bridge or the broker itself has acknowledged.

Each input makes another device online, so each that was lost is missing at the end: what was published is compared with
what the registry knows once all are back and everything that waited was taken. `scripts/faults --durability` prints it.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.faults import disk
from tests.faults.publisher import Publisher
from tests.integration.stack import Bridge, Client
from tests.servers import MosquittoServer, RedisServer, Server

INPUTS, PER_SECOND = 2_500, 500
TIMES = {"stopped in order": 1, "killed": 3, "power lost": 3}
PAGE = 5_000
PATIENCE_SECONDS = 60.0

REDIS: Mapping[str, Callable[[Path], RedisServer]] = {
    "`appendfsync always`": lambda path: RedisServer(path, fsync="always"),
    "`appendfsync everysec`": lambda path: RedisServer(path, fsync="everysec"),
    "`appendfsync no`": lambda path: RedisServer(path, fsync="no"),
    "`appendonly no`": lambda path: RedisServer(path, options=("--appendonly", "no")),
}
BROKER: Mapping[str, Callable[[Path], MosquittoServer]] = {
    "`autosave_interval 1`": lambda path: MosquittoServer(path, extra="autosave_interval 1"),
    "`autosave_interval 2`": lambda path: MosquittoServer(path, extra="autosave_interval 2"),
    "`autosave_interval 1800`, its default": lambda path: MosquittoServer(path, extra="autosave_interval 1800"),
    "`persistence false`": lambda path: MosquittoServer(path, extra="persistence false"),
}


def _stopped(server: Server, _: disk.Disk | None) -> None:
    server.stop()


def _killed(server: Server, _: disk.Disk | None) -> None:
    server.kill()


def _without_power(server: Server, its_disk: disk.Disk | None) -> None:
    assert its_disk is not None
    server.freeze()
    its_disk.photograph()
    server.kill()
    its_disk.lose_power()


ENDS: Mapping[str, Callable[[Server, disk.Disk | None], None]] = {
    "stopped in order": _stopped,
    "killed": _killed,
    "power lost": _without_power,
}


def rows() -> Iterator[str]:
    """Measure everything; yields the lines of a table, each when it is known."""
    yield f"Lost of {INPUTS:,} inputs, {PER_SECOND} a second, the most of {TIMES['killed']} times:\n"
    yield f"| server | setting | {' | '.join(ENDS)} |\n|---|---|{'---|' * len(ENDS)}"
    for name, make in REDIS.items():
        yield _row("Redis", name, lambda end, make=make: _lost(end, redis=make))
    for is_away in (False, True):
        server = "Mosquitto, the bridge away" if is_away else "Mosquitto"
        for name, make_broker in BROKER.items():
            yield _row(
                server, name, lambda end, make=make_broker, is_away=is_away: _lost(end, broker=make, is_away=is_away)
            )


def _row(server: str, setting: str, lost: Callable[[str], int]) -> str:
    found: list[str] = []
    for end in ENDS:
        if end == "power lost" and not disk.is_possible():
            found.append("not measured")
        else:
            found.append(f"{max(lost(end) for _ in range(TIMES[end])):,}")
    return f"| {server} | {setting} | {' | '.join(found)} |"


def _lost(
    end: str,
    *,
    redis: Callable[[Path], RedisServer] | None = None,
    broker: Callable[[Path], MosquittoServer] = MosquittoServer,
    is_away: bool = False,
) -> int:
    """Let the server that was given end in the middle of a load, and return how many inputs are missing at the end."""
    with contextlib.ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="endpoint-bridge-durability-")))
        its_disk = ends.enter_context(disk.Disk(folder)) if end == "power lost" else None
        its_folder = its_disk.path if its_disk is not None else folder
        the_redis = (redis or RedisServer)((its_folder if redis else folder) / "redis")
        the_broker = broker((folder if redis else its_folder) / "broker")
        ends.enter_context(the_redis)
        ends.enter_context(the_broker)
        bridge = _bridge(folder, the_redis, the_broker, ends)
        if is_away:
            bridge.stop()
        publisher = Publisher(the_broker.port)
        ends.callback(publisher.close)
        names = _publish(publisher)
        server: Server = the_redis if redis else the_broker
        ENDS[end](server, its_disk)
        server.start()
        if is_away:
            _bridge(folder, the_redis, the_broker, ends)
        publisher.wait(PATIENCE_SECONDS)
        return len(names - _known(the_broker.port))


def _bridge(folder: Path, redis: RedisServer, broker: MosquittoServer, ends: contextlib.ExitStack) -> Bridge:
    """Start a bridge. What watches it is new, since a broker may have lost older sessions."""
    watch = Client(broker.port)
    ends.callback(watch.close)
    watch.subscribe("bridge/#")
    settings = {"MQTT__PORT": str(broker.port), "REDIS__URL": redis.url, "NAME": "b1", "MQTT__CLIENT_ID": "durable"}
    return ends.enter_context(Bridge(folder / "bridge", watch, settings))


def _publish(publisher: Publisher) -> set[str]:
    began, names = time.monotonic(), set[str]()
    while len(names) < INPUTS:
        due = min(INPUTS, (time.monotonic() - began) * PER_SECOND)
        while len(names) < due:
            name = f"d{len(names)}"
            names.add(name)
            publisher.put(f"presence/devices/{name}", b"online")
        time.sleep(0.005)
    return names


def _known(port: int) -> set[str]:
    """Who is online; the answer comes after everything that waited for the bridge before the question."""
    client = Client(port)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        known: list[Any] = []
        while True:
            with contextlib.suppress(AssertionError):
                page = client.rpc("online_devices", {"limit": PAGE, "cursor": known[-1] if known else ""}, seconds=2)
                known += page
                if len(page) < PAGE:
                    return set(known)
            assert time.monotonic() < end, "the bridge does not answer"
    finally:
        client.close()

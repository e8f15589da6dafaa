"""What the fault runs break: broker, Redis and bridges, with proxies between the bridges and the other two."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from tests.faults.proxy import Proxy
from tests.integration.stack import ROOT
from tests.servers import Flavour, MosquittoServer, RedisServer, free_port

PATIENCE_SECONDS = 30.0
SECOND_PREFIX = "second/"
LEASE_SECONDS = 10
SETTINGS = {
    "PRESENCE__LEASE_SECONDS": str(LEASE_SECONDS),
    "REDIS__TIMEOUT_SECONDS": "1",  # so that answers are lost when Redis is frozen for longer
}


class Stand:
    """Everything is on loopback, on free ports, in one directory; a context manager.

    Args:
        directory: for data and logs.
        without: guards that the bridges run without, see `tests.faults.victim`.
        has_second: a second bridge is active beside ``b1`` over the same registry, on inputs of its own under
            `SECOND_PREFIX`. Neither has a lease: only compare-and-set is between them.
        fsync: of Redis' append-only file.
        flavour: which Redis.

    Attributes:
        redis: the primary.
        bridges: name -> its process; ``b1`` always, ``b2`` while it stands by.
    """

    def __init__(
        self,
        directory: Path,
        *,
        without: Sequence[str] = (),
        has_second: bool = False,
        fsync: str = "always",
        flavour: Flavour = "redis",
    ) -> None:
        self.directory = directory
        self.redis = RedisServer(directory / "redis", flavour, fsync=fsync)
        self._other_redis = RedisServer(directory / "redis2", flavour, fsync=fsync)
        self.broker = MosquittoServer(directory / "broker", extra="autosave_interval 1\nmax_queued_bytes 0")
        self.bridges: dict[str, subprocess.Popen[bytes]] = {}
        self._without = [*without, "lease"] if has_second else list(without)
        self._has_second = has_second
        self._proxies: dict[str, Proxy] = {}
        self._http_ports: dict[str, int] = {}

    def __enter__(self) -> "Stand":
        self.redis.start()
        self.broker.start()
        self._proxies = {"redis": Proxy(self.redis.port), "broker": Proxy(self.broker.port)}
        self.start_bridge("b1")
        self._wait_subscribed("b1")
        if self._has_second:
            self.start_bridge("b2", PREFIX=SECOND_PREFIX, MQTT__CLIENT_ID="second")
            self._wait_subscribed("b2")
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.bridges):
            self.kill_bridge(name)
        for proxy in self._proxies.values():
            proxy.close()
        self.broker.stop()
        self.redis.stop()
        self._other_redis.stop()

    def way_to(self, server: str) -> Proxy:
        """The proxy between the bridges and ``redis`` or ``broker``."""
        return self._proxies[server]

    # Bridges.

    def http_ports(self) -> list[int]:
        """Where bridges listen now; a standby answers 503."""
        return [port for name, port in list(self._http_ports.items()) if name in self.bridges]

    def start_bridge(self, name: str, *, options: Sequence[str] = (), clock: Path | None = None, **more: str) -> None:
        """Start a bridge; it may come to be active or stand by.

        Args:
            name: its own.
            options: for `tests.faults.victim`.
            clock: a file that says by how many seconds its wall clock is wrong: ``-3600``.
            more: settings, named as in the environment.
        """
        port = self._http_ports[name] = free_port()
        settings = {
            **SETTINGS,
            "NAME": name,
            "HTTP__PORT": str(port),
            "MQTT__PORT": str(self.way_to("broker").port),
            "REDIS__URL": f"redis://127.0.0.1:{self.way_to('redis').port}/0",
            **more,
        }
        environment = {**os.environ, **{f"ENDPOINT_BRIDGE_{key}": value for key, value in settings.items()}}
        if clock is not None:
            environment |= _faked_by(clock)
        options = [*options, *(word for guard in self._without for word in ("--without", guard))]
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("ab") as log:
            self.bridges[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.victim", *options, "run"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill_bridge(self, name: str, number: int = signal.SIGKILL) -> int:
        """End a bridge by a signal; returns its exit code."""
        process = self.bridges.pop(name)
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        return process.wait(PATIENCE_SECONDS)

    def wait_dead(self, name: str, seconds: float) -> bool:
        """Wait until a bridge has killed itself; False where it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.bridges[name].wait(seconds)
            del self.bridges[name]
            return True
        return False

    @property
    def active(self) -> str:
        """The name of the bridge that holds the lease; the first one where nobody is known to."""
        try:
            with self.ask_redis() as redis:
                holder = str(redis.hget("eb:leader", "bridge") or "").partition("/")[0]
        except Exception:  # Redis is what is being broken
            holder = ""
        return holder if holder in self.bridges else next(iter(self.bridges))

    def revive(self) -> list[str]:
        """Start those bridges again that ended by themselves; returns them with the ends of their logs."""
        died = [name for name, bridge in self.bridges.items() if bridge.poll() is not None]
        logs = [f"{name}: {self.log(name)[-2000:]}" for name in died]
        for name in died:
            self.start_bridge(name)
        return logs

    def log(self, name: str) -> str:
        path = self.directory / name / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _wait_subscribed(self, name: str) -> None:
        """What comes before a bridge subscribes the broker keeps for nobody."""
        end = time.monotonic() + PATIENCE_SECONDS
        while "subscribed" not in self.log(name):
            assert time.monotonic() < end, f"{name} does not subscribe:\n{self.log(name)[-2000:]}"
            time.sleep(0.05)

    # Redis.

    def keep_evidence(self) -> None:
        """Keep a copy of what Redis has written, which shows every commit since its last rewrite."""
        shutil.copytree(self.redis.directory / "appendonlydir", self.directory / "evidence")

    def replace_redis(self, replaced: Callable[[RedisServer, RedisServer], None]) -> None:
        """Make a replica the primary, as ``replaced(primary, replica)`` does it; the bridges' way leads there then."""
        replaced(self.redis, self._other_redis)
        self.redis, self._other_redis = self._other_redis, self.redis
        self.way_to("redis").retarget(self.redis.port)

    @contextlib.contextmanager
    def ask_redis(self) -> Any:
        """A client of its own, around the proxy."""
        client: Any = Redis(port=self.redis.port, decode_responses=True, socket_timeout=5)
        try:
            yield client
        finally:
            client.close()


def _faked_by(clock: Path) -> dict[str, str]:
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
    if library is None:
        raise FileNotFoundError("libfaketime is not installed")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock.resolve()),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",  # a stepped clock changes the time of day alone
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

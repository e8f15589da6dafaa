"""What the fault runs break: broker, Redis and bridges, with proxies between the bridges and the other two."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from redis import Redis

from tests.faults.proxy import Proxy
from tests.integration.stack import ROOT
from tests.servers import Flavour, MosquittoServer, RedisServer

PATIENCE_SECONDS = 30.0
REDIS_TIMEOUT_SECONDS = 1.0  # so that answers are lost when Redis is frozen for longer


class Stand:
    """Everything is on loopback, on free ports, in one directory; a context manager.

    Args:
        directory: for data and logs.
        without: a guard that the bridges run without, see `tests.faults.victim`.
        fsync: of Redis' append-only file.
        flavour: which Redis.

    Attributes:
        bridges: name -> its process; ``b1`` always, ``b2`` while it stands by.
    """

    def __init__(
        self, directory: Path, *, without: str = "", fsync: str = "always", flavour: Flavour = "redis"
    ) -> None:
        self.directory = directory
        self.redis = RedisServer(directory / "redis", flavour, fsync=fsync)
        self.broker = MosquittoServer(directory / "broker", extra="autosave_interval 1\nmax_queued_bytes 0")
        self.bridges: dict[str, subprocess.Popen[bytes]] = {}
        self._without = without
        self._proxies: dict[str, Proxy] = {}

    def __enter__(self) -> "Stand":
        self.redis.start()
        self.broker.start()
        self._proxies = {"redis": Proxy(self.redis.port), "broker": Proxy(self.broker.port)}
        self.start_bridge("b1")
        self.wait_subscribed(0)  # what comes earlier the broker keeps for nobody
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.bridges):
            self.kill_bridge(name)
        for proxy in self._proxies.values():
            proxy.close()
        self.broker.stop()
        self.redis.stop()

    def way_to(self, server: str) -> Proxy:
        """The proxy between the bridges and ``redis`` or ``broker``."""
        return self._proxies[server]

    # Bridges.

    def start_bridge(self, name: str, *, die_at: str = "") -> None:
        """Start a bridge; it may come to be active or stand by."""
        options = ["--die-at", die_at] if die_at else []
        if self._without:
            options += ["--without", self._without]
        settings = {
            "NAME": name,
            "HTTP__PORT": "0",
            "MQTT__PORT": str(self.way_to("broker").port),
            "REDIS__URL": f"redis://127.0.0.1:{self.way_to('redis').port}/0",
            "REDIS__TIMEOUT_SECONDS": str(REDIS_TIMEOUT_SECONDS),
        }
        environment = {**os.environ, **{f"ENDPOINT_BRIDGE_{key}": value for key, value in settings.items()}}
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

    def died(self) -> list[str]:
        """The bridges that ended by themselves, which no fault here makes right; with the ends of their logs."""
        return [
            f"{name}: {self.log(name)[-2000:]}" for name, bridge in self.bridges.items() if bridge.poll() is not None
        ]

    def log(self, name: str) -> str:
        path = self.directory / name / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def subscriptions(self) -> int:
        """How often any bridge has subscribed so far."""
        return sum(path.read_text(errors="replace").count("subscribed") for path in self.directory.glob("b?/log"))

    def wait_subscribed(self, before: int) -> None:
        """Wait until a bridge has subscribed since there were ``before`` subscriptions."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.subscriptions <= before:
            assert time.monotonic() < end, f"no bridge subscribes:\n{self.log('b1')[-2000:]}"
            time.sleep(0.05)

    # Redis.

    @contextlib.contextmanager
    def ask_redis(self) -> Any:
        """A client of its own, around the proxy."""
        client: Any = Redis(port=self.redis.port, decode_responses=True, socket_timeout=5)
        try:
            yield client
        finally:
            client.close()

    def wait_redis(self) -> None:
        """Wait until Redis takes commands again."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if self.redis.ready():
                    return
            except OSError:
                pass
            assert time.monotonic() < end, f"Redis does not come back:\n{self.redis.log[-2000:]}"
            time.sleep(0.02)

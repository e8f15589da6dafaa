import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from bridge import cli
from bridge.config import documented_defaults
from tests.unit.adapters.http.identity import RSA, pem

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["endpoint-bridge", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_check_config_says_ok(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ENDPOINT_BRIDGE_NAME", "b1")
    assert called(monkeypatch, "check-config") == 0
    assert capsys.readouterr().out.startswith("ok: bridge 'b1', broker 127.0.0.1:1883, topics without a prefix, 1 of ")


@pytest.mark.parametrize("command", ["check-config", "show-config", "run"])
def test_a_bad_setting_is_told_in_plain_words_with_code_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENDPOINT_BRIDGE_MQTT__PORT", "0")
    assert called(monkeypatch, command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "endpoint-bridge: the configuration cannot be used:\n"
        '  mqtt.port: "0" is not allowed; use a whole number from 1 to 65535 (environment ENDPOINT_BRIDGE_MQTT__PORT)\n'
    )


@pytest.mark.parametrize("command", ["check-config", "run"])
def test_what_only_the_rooms_refuse_is_told_by_check_config_too(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENDPOINT_BRIDGE_ROUTES", '[{"event": "LampDimmedEvent"}]')
    assert called(monkeypatch, command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        "endpoint-bridge: the configuration cannot be used:\n"
        "  routes[0].event: LampDimmedEvent is not made by this bridge: choose one of "
    )
    assert len(err.splitlines()) == 2


def test_check_config_reads_the_keys_for_tokens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    monkeypatch.setenv("ENDPOINT_BRIDGE_AUTH__MODE", "jwt")
    monkeypatch.setenv("ENDPOINT_BRIDGE_AUTH__KEY_FILE", str(key))
    assert called(monkeypatch, "check-config") == 2
    assert capsys.readouterr().err == (
        f"endpoint-bridge: auth.key_file: {key} cannot be read (No such file or directory); name a file that exists\n"
    )
    key.write_text("-----BEGIN PRIVATE KEY-----\nCANARY\n")
    assert called(monkeypatch, "check-config") == 2
    assert "holds a private key" in (told := capsys.readouterr().err)
    assert "CANARY" not in told
    key.write_bytes(pem(RSA))
    assert called(monkeypatch, "check-config") == 0


def test_check_config_loads_neither_redis_nor_the_line() -> None:
    asked = "import sys, bridge.cli; print({'redis', 'mqtt5', 'bridge.app'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=ROOT).stdout == "set()\n"


def test_show_config_prints_toml(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text("[mqtt]\nport = 1884\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mqtt.password").write_text("geheim")
    assert called(monkeypatch, "show-config", "--config", "c.toml", "--secrets", "secrets") == 0
    out = capsys.readouterr().out
    assert tomllib.loads(out)["mqtt"]["port"] == 1884
    assert "port = 1884  # c.toml" in out
    assert 'password = "(hidden)"  # secrets secrets/mqtt.password' in out


def test_show_config_prints_the_documented_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "show-config", "--defaults") == 0
    assert capsys.readouterr().out == documented_defaults()


def test_acl_prints_the_rules_in_force_or_says_what_to_choose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "acl", "--config", str(ROOT / "config" / "bridge.production.toml")) == 0
    assert capsys.readouterr().out == (ROOT / "mosquitto" / "acl").read_text()
    assert called(monkeypatch, "acl", "--config", str(ROOT / "config" / "bridge.tenants.toml")) == 2
    assert "--organization NAME" in capsys.readouterr().err
    assert called(monkeypatch, "acl") == 2
    out, err = capsys.readouterr()
    assert (out, 'choose endpoints.id_policy = "bound"' in err) == ("", True)


def test_help_shows_examples_and_version_the_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--help") == 0
    assert "  endpoint-bridge demo --no-demo --data data\n" in capsys.readouterr().out
    assert called(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("endpoint-bridge ")


def test_an_unknown_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, "runn") == 2

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from bridge.config import Settings, Source, documented_defaults, effective, load_settings, load_with_sources, rooms
from bridge.errors import ConfigError
from tests.certificates import Authority

ROOT = Path(__file__).parents[2]
NOTHING = Path("/dev/null")


def written(folder: Path, text: str, name: str = "bridge.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(config: Path | None = NOTHING, secrets: Path | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config, secrets, {f"ENDPOINT_BRIDGE_{name}": value for name, value in environ.items()})
    return str(caught.value)


def test_the_shipped_file_is_the_documentation_of_the_defaults() -> None:
    assert (ROOT / "config" / "bridge.toml").read_text() == documented_defaults()


def test_the_shipped_file_changes_nothing() -> None:
    assert load_settings(ROOT / "config" / "bridge.toml", None, {}) == load_settings(NOTHING, None, {})


def test_every_setting_is_described() -> None:
    lines = documented_defaults().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"\w+ = ", line):
            assert before.startswith("# "), line


@pytest.mark.parametrize("name", ["bridge.dev.toml", "bridge.production.toml", "bridge.tenants.toml"])
def test_the_other_shipped_files_can_be_used(name: str) -> None:
    rooms(load_settings(ROOT / "config" / name, None, {}))


@pytest.mark.parametrize(("section", "switch"), [("mqtt", {"tls": True}), ("redis", {"url": "rediss://host"})])
def test_what_is_wrong_with_the_tls_files_shows_before_anything_is_opened(
    tmp_path: Path, section: str, switch: dict[str, object]
) -> None:
    settings = Settings.model_validate({section: {**switch, "ca_file": str(tmp_path / "ca.pem")}})
    with pytest.raises(ConfigError, match=rf"{section}\.ca_file: .*ca\.pem cannot be read"):
        rooms(settings)


def test_a_renewed_certificate_counts_at_the_next_connection(tmp_path: Path) -> None:
    assert rooms(Settings()).broker_tls is rooms(Settings()).redis_tls is None
    authority = Authority(tmp_path)
    make = rooms(Settings.model_validate({"mqtt": {"tls": True, "ca_file": str(authority.file)}})).broker_tls
    assert make is not None
    old = make().get_ca_certs()
    Authority(tmp_path)
    assert make().get_ca_certs() != old


def test_secrets_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    config = written(tmp_path, '[mqtt]\nhost = "file"\nusername = "file"\nclient_id = "file"\n')
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    written(secrets, "secret\n", "mqtt.client_id")
    environ = {"ENDPOINT_BRIDGE_MQTT__USERNAME": "environment", "ENDPOINT_BRIDGE_MQTT__CLIENT_ID": "environment"}
    settings, sources = load_with_sources(config, secrets, environ)
    assert (settings.mqtt.host, settings.mqtt.username, settings.mqtt.client_id) == ("file", "environment", "secret")
    assert sources["mqtt.host"] == Source("file", str(config))
    assert sources["mqtt.username"] == Source("environment", "environment ENDPOINT_BRIDGE_MQTT__USERNAME")
    assert sources["mqtt.client_id"].kind == "secrets"
    assert sources["mqtt.port"].kind == "default"


def test_the_environment_may_name_the_file_and_the_folder(tmp_path: Path) -> None:
    config = written(tmp_path, 'name = "here"\n')
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    written(secrets, "quiet", "mqtt.password")
    written(secrets, "not a setting", ".hidden")
    environ = {"ENDPOINT_BRIDGE_CONFIG": str(config), "ENDPOINT_BRIDGE_SECRETS": str(secrets)}
    settings = load_settings(None, None, environ)
    assert settings.name == "here"
    assert settings.mqtt.password.get_secret_value() == "quiet"


def test_without_a_file_the_one_in_the_working_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, None, {}).mqtt.port == 1883
    (tmp_path / "config").mkdir()
    written(tmp_path / "config", "[mqtt]\nport = 1884\n")
    assert load_settings(None, None, {}).mqtt.port == 1884


def test_lists_are_json_in_the_environment() -> None:
    environ = {
        "ENDPOINT_BRIDGE_ENDPOINTS__DEFAULT_WATCH": '["*"]',
        "ENDPOINT_BRIDGE_ROUTES": '[{"event": "DeviceStatusChangedEvent", "qos": 0}]',
    }
    settings = load_settings(NOTHING, None, environ)
    assert settings.endpoints.default_watch == ["*"]
    assert settings.routes[0].qos == 0
    assert "endpoints.default_watch: is not a JSON list" in problems(ENDPOINTS__DEFAULT_WATCH="*")


def test_the_documented_route_can_be_used() -> None:
    example = re.search(
        r"\[\[routes\]\] (event = .*), (audience = .*), (qos = \d), (expiry_seconds = \d+)\.",
        Settings.model_fields["routes"].description or "",
    )
    assert example is not None
    route = tomllib.loads("[[routes]]\n" + "\n".join(example.groups()))
    assert rooms(Settings.model_validate(route)).router


def test_an_event_that_the_bridge_does_not_make_is_named() -> None:
    with pytest.raises(ConfigError, match="LampDimmedEvent is not made by this bridge"):
        rooms(Settings.model_validate({"routes": [{"event": "LampDimmedEvent"}]}))


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    config = written(
        tmp_path,
        'redis = 1\n[mqtt]\nprot = 1\nport = 99999\n[log]\nlevel = "loud"\n[presence]\nfrom_endpoints = "maybe"\n'
        '[sessions]\nsession_hours = nan\n[[routes]]\nevent = "fooEvent"\nqos = 2\nx = 1\n[[routes]]\nqos = 1\n',
    )
    text = problems(config, LOG__LEVLE="x", QUITE_ELSE="x")
    for line in (
        f"redis: is a section, not a value; write [redis] above its settings ({config})",
        f"mqtt.prot: unknown setting; did you mean mqtt.port? ({config})",
        f"mqtt.port: 99999 is not allowed; use a whole number from 1 to 65535 ({config})",
        f"log.level: \"loud\" is not allowed; use 'debug', 'info', 'warning' or 'error' ({config})",
        "log.levle: unknown setting; did you mean log.level? (environment ENDPOINT_BRIDGE_LOG__LEVLE)",
        "quite_else: unknown setting; `endpoint-bridge show-config --defaults` lists all",
        'presence.from_endpoints: "maybe" is not allowed; use true or false',
        "sessions.session_hours: nan is not allowed; use a number above 0 to 8760",
        'routes[0].event: "fooEvent" is not an event type',
        "routes[0].qos: 2 is not allowed; use 0 or 1",
        "routes[0].x: unknown setting; known are event, audience, qos, expiry_seconds, retain",
        "routes[1].event: is missing; add it",
    ):
        assert line in text
    assert len(text.splitlines()) == 13


def test_a_setting_in_the_wrong_section_is_led_to_the_right_one(tmp_path: Path) -> None:
    assert "did you mean endpoints.id_policy?" in problems(written(tmp_path, 'id_policy = "bound"\n'))


def test_a_problem_between_settings_names_both_and_their_sources() -> None:
    text = problems(MQTT__MAXIMUM_PACKET_BYTES="500000")
    assert "mqtt: maximum_packet_bytes must be above payload_limit_bytes" in text
    assert "(environment ENDPOINT_BRIDGE_MQTT__MAXIMUM_PACKET_BYTES)" in text


def test_the_value_of_a_secret_is_never_told(tmp_path: Path) -> None:
    written(tmp_path, "http://:geheim@host\n", "redis.url")
    assert "geheim" not in problems(NOTHING, tmp_path)
    assert "geheim" not in problems(NOTHING, None, REDIS__URL="geheim", MQTT__PORT="x")
    environ = {
        "ENDPOINT_BRIDGE_MQTT__PASSWORD": "geheim",
        "ENDPOINT_BRIDGE_MQTT__CLIENT_ID": "geheim",
        "ENDPOINT_BRIDGE_REDIS__URL": "redis://ann:geheim@host:1/0?password=geheim&db=1",
    }
    settings, sources = load_with_sources(NOTHING, None, environ)
    assert "geheim" not in repr(settings)
    shown = effective(settings, sources)
    assert "geheim" not in shown
    assert tomllib.loads(shown)["redis"]["url"] == "redis://ann:(hidden)@host:1/0?password=(hidden)&db=1"
    assert tomllib.loads(shown)["mqtt"]["password"] == "(hidden)"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('mqtt.host = "mqtt://bridge:geheim@host:1883"', 'mqtt.host: "(hidden)@host:1883" is not a host name'),
        ('mqtt.host = "bridge:ge/he:geheim@host"', 'mqtt.host: "(hidden)@host" is not a host name'),
        ('auth.jwks_url = "https://ann:geheim@host/keys"', 'auth.jwks_url: "(hidden)@host/keys" is not an address'),
        ('auth.secret = "geheim"', "auth.secret: is taken from the secrets folder only"),
        ('auth.secert = "geheim"', "auth.secert: unknown setting; did you mean auth.secret?"),
        ('redis = "redis://:geheim@host"', "redis: is a section, not a value"),
        ('mqtt.password = ["geheim"]', "mqtt.password: this value is not allowed; use text"),
        ('redis.url = ["redis://:geheim@host"]', "redis.url: this value is not allowed; use text"),
        ('redis.url = "redis://:geheim@host:port"', "redis.url: is not a Redis address"),
        ('redis.url = "redis://host?passwort=geheim"', "redis.url: has an option that is not known"),
        ("mqtt.password = geheim", "is not TOML"),
        ('log.level = "redis://:geheim@host"', 'log.level: "(hidden)@host" is not allowed'),
    ],
)
def test_a_secret_in_a_wrong_place_is_not_told(tmp_path: Path, text: str, fault: str) -> None:
    told = problems(written(tmp_path, text))
    assert fault in told
    assert "geheim" not in told


def test_what_is_in_force_can_be_read_again(tmp_path: Path) -> None:
    settings, sources = load_with_sources(
        written(tmp_path, 'name = "x"\n[[routes]]\nevent = "DeviceStatusChangedEvent"\naudience = ["self"]\n'), None, {}
    )
    shown = effective(settings, sources)
    assert f'name = "x"  # {tmp_path / "bridge.toml"}' in shown
    assert load_settings(written(tmp_path, shown), None, {}) == settings


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "cannot be read (No such file or directory)"), ("= 1", "is not TOML"), ("\xff", "is not")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "bridge.toml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    assert f"{path}: {reason}" in problems(path)


def test_secrets_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: cannot be read" in problems(NOTHING, tmp_path / "none")
    (tmp_path / "mqtt.password").write_bytes(b"\xff")
    (tmp_path / "redis.url").mkdir()
    (tmp_path / "mqtt.passwort").write_text("geheim")
    text = problems(NOTHING, tmp_path)
    assert "mqtt.password: cannot be read as text" in text
    assert "redis.url: cannot be read as text" in text
    assert "mqtt.passwort: unknown setting; did you mean mqtt.password?" in text


def test_the_secret_for_tokens_is_taken_from_the_secrets_folder_only(tmp_path: Path) -> None:
    auth = '[auth]\nmode = "jwt"\nalgorithms = ["HS256"]\n'
    secret = "s" * 40
    in_file = problems(written(tmp_path, f'{auth}secret = "{secret}"\n'))
    assert "auth.secret: is taken from the secrets folder only; move it to a file of that name there" in in_file
    assert secret not in in_file + problems(AUTH__SECRET=secret)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    written(secrets, secret, "auth.secret")
    settings = load_settings(written(tmp_path, auth), secrets, {})
    assert settings.auth.secret.get_secret_value() == secret

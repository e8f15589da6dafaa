from typing import Any

import pytest
from pydantic import ValidationError

from bridge.settings import Auth, Settings


def refused(**given: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "template", "reason"),
    [
        ("user", "presence/users", "must hold {id} once each"),
        ("user", "presence/{id}/{id}", "must hold {id} once each"),
        ("user", "presence/{id}/{user}", "must hold {id} once each"),
        ("user", "presence/u{id}", "stands for a whole level"),
        ("user", "presence/{id", "stands for a whole level"),
        ("user", "presence/+/{id}", "must not hold + or #"),
        ("user", "presence/#/{id}", "must not hold + or #"),
        ("user", "presence/\x00/{id}", "control characters"),
        ("user", "$SYS/{id}", "must not start with $"),
        ("user", "/presence/{id}", "empty topic level"),
        ("user", "presence//{id}", "empty topic level"),
        ("user", "", "empty topic level"),
        ("user", "presence/{id}/", "must not end with a slash"),
        ("client_rpc", "clients/rpc/{method}", "{user} and {method}"),
        ("endpoint", "user/{user}", "must hold {endpoint}"),
        ("endpoint", "user/{organization}/{endpoint}", "must hold {endpoint}"),
        ("replies", "replies", "must end with a slash"),
        ("replies", "replies/{user}/", "no placeholder"),
        ("state", "bridge/state", "must hold {name}"),
    ],
)
def test_a_bad_template_is_refused_with_its_reason(name: str, template: str, reason: str) -> None:
    assert reason in refused(topics={name: template})


@pytest.mark.parametrize("template", ["{endpoint}", "user/{user}/{endpoint}", "e/{endpoint}/x"])
def test_the_endpoint_template_may_name_the_user(template: str) -> None:
    assert Settings.model_validate({"topics": {"endpoint": template}}).topics.endpoint == template


@pytest.mark.parametrize(
    ("templates", "pair"),
    [
        ({"participant": "presence/users/{id}"}, "user and participant"),
        ({"device": "presence/{id}/users"}, "user and device"),
        ({"registry_device": "registry/users/{id}"}, "registry_user and registry_device"),
        # The bridge would take its own outputs for inputs.
        ({"endpoint": "presence/{user}/{endpoint}"}, "user and endpoint"),
        ({"registry_user": "presence/users/{id}"}, "user and registry_user"),
        # A caller could let the bridge publish there.
        ({"replies": "presence/"}, "user and replies"),
        ({"endpoint": "replies/{endpoint}"}, "endpoint and replies"),
        ({"client_replies": "registry/{user}/"}, "registry_user and client_replies"),
        ({"replies": "rpc/"}, "rpc and replies"),
    ],
)
def test_no_topic_may_fit_two_templates(templates: dict[str, str], pair: str) -> None:
    assert f"{pair} match the same topics; make one level of them differ" in refused(topics=templates)


@pytest.mark.parametrize(
    "templates",
    [{"device": "things/{id}"}, {"replies": "rpc/answers/to/"}, {"endpoint": "users/endpoints/{endpoint}/x"}],
)
def test_templates_of_other_lengths_or_levels_are_told_apart(templates: dict[str, str]) -> None:
    Settings.model_validate({"topics": templates})


@pytest.mark.parametrize("prefix", ["", "{organization}/", "a/{organization}/b/", "site/"])
def test_a_good_prefix(prefix: str) -> None:
    assert Settings(prefix=prefix).prefix == prefix


@pytest.mark.parametrize("prefix", ["a", "/", "a//", "+/", "#/", "{name}/", "x{organization}/", "$share/a/"])
def test_a_bad_prefix(prefix: str) -> None:
    refused(prefix=prefix)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "a b"},
        {"name": "x" * 65},
        {"default_organization": ""},
        {"default_organization": "a/b"},
        {"mqtt": {"receive_maximum": 0}},
        {"mqtt": {"receive_maximum": 65536}},
        {"mqtt": {"rpc_payload_limit_bytes": 1_048_576}},
        {"mqtt": {"ca_file": "ca.pem"}},
        {"mqtt": {"server_name": "broker", "tls": False}},
        {"mqtt": {"tls": True, "key_file": "bridge.key"}},
        {"redis": {"url": "http://host"}},
        {"redis": {"url": "redis://host:port"}},
        {"redis": {"key_prefix": "e{b}"}},
        {"redis": {"timeout_seconds": 0}},
        {"presence": {"lease_seconds": -1}},
        {"sessions": {"session_hours": 0}},
        {"endpoints": {"minimum_keep_alive_seconds": 60, "maximum_keep_alive_seconds": 59}},
        {"endpoints": {"default_watch": ["lamp"]}},
        {"endpoints": {"default_watch": ["device:"]}},
        {"endpoints": {"default_watch": ["device:a/b"]}},
        {"endpoints": {"default_watch": ["*"], "maximum_watch": 0}},
        {"endpoints": {"id_policy": "loose"}},
        {"endpoints": {"reminder_event": "reminderEvent"}},
        {"endpoints": {"reminder_event": "A" * 124 + "Event"}},
        {"routes": [{"event": "DeviceStatusChangedEvent", "expiry_seconds": -1}]},
        {"routes": [{"event": "DeviceStatusChangedEvent", "expiry_seconds": 4_294_967_296}]},
        {"routes": [{"event": "DeviceStatusChangedEvent", "audience": ["all"]}]},
        {"routes": [{"event": "DeviceStatusChangedEvent", "audience": ["house"]}]},
        {"endpoints": {"default_watch": ["robot:a"]}},
        {"endpoints": {"default_watch": ["device:\x9f"]}},
        {"endpoints": {"default_watch": ["device:" + "x" * 129]}},
        {"unknown": 1},
    ],
)
def test_bad_values(given: dict[str, Any]) -> None:
    refused(**given)


def test_tls_settings_that_are_not_whole_name_what_is_missing() -> None:
    assert "ca_file and server_name need tls = true; set it" in refused(mqtt={"ca_file": "a", "server_name": "b"})
    assert "key_file needs certificate_file" in refused(mqtt={"tls": True, "key_file": "a"})


def test_an_unnamed_bridge_is_named_after_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "büro 1")
    assert Settings().name == "b-ro-1"


def test_tests_may_use_tiny_times() -> None:
    settings = Settings.model_validate({"sessions": {"session_hours": 0.0001}, "endpoints": {"grace_seconds": 0.5}})
    assert settings.sessions.session_hours == 0.0001
    assert settings.endpoints.grace_seconds == 0.5


def test_the_watch_list_is_read_by_the_rules_own_words() -> None:
    settings = Settings.model_validate({"endpoints": {"default_watch": ["*", "device:*", "user:ann", "*"]}})
    assert settings.endpoints.default_watch == ["*", "device:*", "user:ann"]
    assert "default_watch[1] names no subject" in refused(endpoints={"default_watch": ["*", "lamp"]})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().mqtt.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:6379/15",
        "redis://[::1]:6379/0?db=3",
        "rediss://ann:secret@host:6379/0",
        "unix:///run/redis/redis.sock?db=1&username=ann&password=secret",
        "unix://ann:secret@/run/redis.sock",
    ],
)
def test_redis_addresses(url: str) -> None:
    assert Settings.model_validate({"redis": {"url": url}}).redis.url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host/zero", "is not a Redis address"),
        ("redis://host/0/1", "is not a Redis address"),
        ("redis://host:0", "is not a Redis address"),
        ("unix://", "is not a Redis address"),
        ("unix:///", "is not a Redis address"),
        ("redis://host?decode_responses=true", "only db (a number), username and password"),
        ("redis://host?db=one", "only db (a number), username and password"),
        ("rediss://host?ssl_cert_reqs=none", "only db (a number), username and password"),
    ],
)
def test_no_redis_addresses(url: str, reason: str) -> None:
    assert reason in refused(redis={"url": url})


@pytest.mark.parametrize(
    ("redis", "reason"),
    [
        ({"ca_file": "ca.pem", "key_file": "key.pem"}, "ca_file and key_file need a url that begins with rediss://"),
        ({"url": "unix:///run/redis", "certificate_file": "c.pem"}, "certificate_file need a url that begins with"),
        ({"url": "rediss://host", "key_file": "key.pem"}, "key_file needs certificate_file"),
    ],
)
def test_tls_with_redis_is_whole(redis: dict[str, str], reason: str) -> None:
    assert reason in refused(redis=redis)


LONG = "s" * 32


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"mode": "jwt"}, "needs one of jwks_url, jwks_file, key_file, secret, and only one; 0 are set"),
        ({"mode": "jwt", "key_file": "a", "jwks_file": "b"}, "2 are set"),
        ({"key_file": "a"}, 'key_file would not be used with mode = "none"'),
        ({"mode": "jwt", "key_file": "a", "algorithms": ["RS256", "HS256"]}, "must not mix HS256 with others"),
        ({"mode": "jwt", "secret": LONG, "algorithms": ["RS256", "HS256"]}, "must not mix HS256 with others"),
        ({"mode": "jwt", "key_file": "a", "algorithms": ["HS256"]}, "belong together"),
        ({"mode": "jwt", "secret": LONG}, "belong together"),
        ({"mode": "jwt", "secret": "short", "algorithms": ["HS256"]}, "at least 32 bytes"),
        ({"mode": "jwt", "secret": LONG, "algorithms": ["HS256", "HS512"]}, "at least 64 bytes"),
        ({"mode": "jwt", "key_file": "a", "algorithms": []}, "at least 1 item"),
        ({"mode": "jwt", "key_file": "a", "algorithms": ["none"]}, "algorithms.0"),
        ({"mode": "jwt", "key_file": "a", "token_endpoint": True}, "token_endpoint can sign only with secret"),
        ({"mode": "jwt", "jwks_url": "http://id.example/keys"}, "http on loopback only"),
        ({"mode": "jwt", "jwks_url": "file:///etc/passwd"}, "http on loopback only"),
        ({"mode": "jwt", "jwks_url": "https://"}, "http on loopback only"),
        ({"mode": "jwt", "jwks_url": "https://id:port/"}, "http on loopback only"),
    ],
)
def test_auth_that_would_not_protect_is_refused(given: dict[str, Any], reason: str) -> None:
    assert reason in refused(auth=given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"token_endpoint": True},
        {"mode": "jwt", "jwks_url": "https://id.example/keys"},
        {"mode": "jwt", "jwks_url": "http://127.0.0.1:8080/keys"},
        {"mode": "jwt", "secret": LONG, "algorithms": ["HS256"], "token_endpoint": True},
    ],
)
def test_good_auth(given: dict[str, Any]) -> None:
    Settings.model_validate({"auth": given})


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, 'auth.mode = "none" lets everybody in'),
        ({"mode": "jwt", "secret": LONG, "algorithms": ["HS256"], "token_endpoint": True}, "auth.token_endpoint lets"),
        ({"mode": "jwt", "key_file": "a"}, None),
    ],
)
def test_what_lets_everybody_in_listens_on_loopback_only(given: dict[str, Any], fault: str | None) -> None:
    auth = Auth.model_validate(given)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert auth.binding_fault(host) is None
    for host in ("0.0.0.0", "::", "10.0.0.1", "", "example.org", "127.0.0.1.example.org"):
        found = auth.binding_fault(host)
        assert found is None if fault is None else found and fault in found

"""From topic and bytes to commands: limits, and which requests are answered."""

import json
from typing import Any

import pytest

from bridge.domain.commands import Caller, Ignore, KeepEndpoint, ListEndpoints, Reject, ReportPresence, ReportStatus
from bridge.domain.inputs import Input
from bridge.domain.intake import ECHO, LONGEST_CACHED_TOPIC, Intake, Limits, answer, error_answer
from bridge.domain.rules import Rules
from bridge.domain.topics import EndpointTopics, InputTopics
from bridge.errors import Refusal
from bridge.settings import Topics


def intake(prefix: str = "") -> Intake:
    return Intake(
        InputTopics(Topics().model_dump(), prefix, "default"),
        EndpointTopics("users/endpoints/{endpoint}", "replies/", "clients/{user}/replies/", prefix),
        Rules(organization_in_topic="{organization}" in prefix),
        Limits(),
        lambda: "R",
    )


def refused(topic: str, payload: bytes = b"", **rest: Any) -> str:
    with pytest.raises(Refusal) as raised:
        intake().decode(Input(topic, payload, **rest))
    return raised.value.code


def test_each_input_goes_to_its_codec() -> None:
    assert intake().decode(Input("presence/devices/lamp", b"online")).commands == [
        ReportPresence("device", "lamp", True)
    ]
    [status] = intake("{organization}/").decode(Input("acme/presence/users/ann/status", b"1")).commands
    assert isinstance(status, ReportStatus)
    decoded = intake("{organization}/").decode(Input("acme/users/endpoints/e1/keepalive", b""))
    assert (decoded.organization, [*decoded.commands], decoded.reply) == ("acme", [KeepEndpoint("e1")], None)


def test_a_topic_that_no_template_fits() -> None:
    assert refused("presence/robots/r2") == "unknown_type"
    assert refused("presence/users/" + "x" * 60_000) == "invalid_field"
    assert refused("x/" * (LONGEST_CACHED_TOPIC // 2) + "x") == "unknown_type"


def test_what_the_bridge_published_itself_is_passed_over() -> None:
    for topic in ("users/endpoints/e1", "bridge/b1/rejected", "replies/x"):
        assert intake().decode(Input(topic, b"{}")).commands is ECHO
    assert intake("{organization}/").decode(Input("acme/registry/users/ann", b"{}")).commands is ECHO


def test_an_input_of_no_events_still_has_a_command_so_that_it_is_acknowledged() -> None:
    for topic in ("presence/users/ann", "sessions/s1"):
        for payload in (b'{"events":[]}', b'{"message":{"events":[]}}'):
            assert list(intake().decode(Input(topic, payload)).commands) == [Ignore()]


@pytest.mark.parametrize(
    ("topic", "limit"),
    [
        ("presence/users/ann", 65_536),
        ("sessions/s1", 65_536),
        ("users/endpoints/e1/keepalive", 65_536),
        ("presence/users/ann/status", 16_384),
        ("presence/devices/lamp/status", 16_384),
    ],
)
def test_limits(topic: str, limit: int) -> None:
    for size in (limit + 1, 200 * 1024):
        assert refused(topic, b" " * size) == "too_large"
    with pytest.raises(Refusal) as raised:
        intake().decode(Input(topic, b"x" * limit))
    assert raised.value.code != "too_large"


def request(method: str, payload: bytes = b"", branch: str = "", **rest: Any) -> Any:
    given = Input(f"{branch}rpc/{method}", payload, response_topic=f"{branch}replies/me", correlation=b"7", **rest)
    return intake().decode(given)


def test_a_request_of_a_service_and_of_a_user() -> None:
    decoded = request("list_endpoints", b'{"userId":"ann"}')
    assert decoded.commands == (ListEndpoints("ann"),)
    assert tuple(decoded.reply) == ("replies/me", b"7")
    decoded = request("keepalive_endpoint", b'["e1"]', "clients/ann/")
    assert decoded.commands == (KeepEndpoint("e1", True, Caller("ann")),)
    assert decoded.reply.topic == "clients/ann/replies/me"


@pytest.mark.parametrize(
    ("method", "payload", "code"),
    [
        ("nonsense", b"", "unknown_method"),
        ("", b"", "unknown_method"),
        ("online_users", b"\xff", "invalid_params"),
        ("online_users", b"{", "invalid_params"),
        ("online_users", b"5", "invalid_params"),
        ("online_users", b"[" * 10_000 + b"]" * 10_000, "invalid_params"),
        ("online_users", b"[" * 10_000, "invalid_params"),
        ("online_users", b" " * 524_289, "too_large"),
        ("online_users", b'{"cursor":"' + b"x" * 200 * 1024 + b'"}', None),
    ],
)
def test_a_request_with_a_good_response_topic_is_always_answered(method: str, payload: bytes, code: str | None) -> None:
    decoded = request(method, payload)
    assert decoded.reply.topic == "replies/me"
    [command] = decoded.commands
    assert (command.code if isinstance(command, Reject) else None) == code


def test_a_request_that_nobody_waits_for_is_done_or_refused_alike() -> None:
    decoded = intake().decode(Input("rpc/nonsense", b""))
    assert decoded.reply is None
    assert isinstance(decoded.commands[0], Reject)


@pytest.mark.parametrize("response", ["users/endpoints/e1", "replies/+", "acme/replies/x", ""])
def test_a_bad_response_topic_is_refused_before_anything_is_done(response: str) -> None:
    assert refused("rpc/online_users", response_topic=response) == "not_allowed"


def test_the_user_of_the_topic_is_an_id_like_any_other() -> None:
    rest = {"response_topic": "clients//replies/x"}
    assert refused("clients//rpc/list_endpoints", **rest) == "empty_id"
    assert refused("clients/$x/rpc/list_endpoints") == "invalid_field"
    assert refused("clients/a\x07/rpc/list_endpoints") == "invalid_field"


def test_answers() -> None:
    assert json.loads(answer([1])) == {"result": [1]}
    assert json.loads(answer(None)) == {"result": None}
    assert json.loads(error_answer(Refusal("not_found", "gone"))) == {"error": {"code": "not_found", "message": "gone"}}
    # What is no code of an RPC is a fault of its parameters.
    assert json.loads(error_answer(Refusal("too_deep", "x")))["error"]["code"] == "invalid_params"

"""The gate, the health of the bridge, and the server on a real socket."""

import asyncio
import re
import socket
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest
import structlog

from bridge import app as wiring
from bridge.adapters.http import gate as gate_module
from bridge.adapters.http.gate import Gate
from bridge.adapters.http.health import HEALTH_PATHS
from bridge.adapters.http.server import serving
from bridge.errors import ConfigError
from bridge.settings import Http, Settings
from tests.unit.adapters.http.api import BASE, JWT, Api, bearer
from tests.unit.clock import Clock

LIMIT = 1000


async def through_gate(app: Any, method: str = "GET", path: str = "/", content: Any = None, **http: Any) -> Any:
    gate = Gate(app, Settings.model_validate({"http": http}).http)
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.request(method, path, content=content)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def never(*_: Any) -> None:
    await asyncio.Event().wait()


async def broken(*_: Any) -> None:
    raise LookupError("the secret canary")


async def breaks_halfway(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise LookupError("the secret canary")


# The gate.


async def test_a_body_at_the_limit_is_read_and_one_above_it_is_not() -> None:
    assert (await through_gate(echo, "POST", content=b"x" * LIMIT, body_limit_bytes=LIMIT)).content == b"x" * LIMIT
    answer = await through_gate(never, "POST", content=b"x" * (LIMIT + 1), body_limit_bytes=LIMIT)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["connection"] == "close"


async def test_a_body_that_does_not_say_its_length_is_bounded_too() -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield b"x" * (LIMIT // 5)

    answer = await through_gate(never, "POST", content=chunks(), body_limit_bytes=LIMIT)
    assert answer.status_code == 413


async def test_what_takes_too_long_is_given_up() -> None:
    answer = await through_gate(never, timeout_seconds=0.1)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "it may have been done" in answer.json()["detail"]


async def test_one_request_more_than_may_be_in_hand_is_sent_away() -> None:
    gate = Gate(never, Settings.model_validate({"http": {"maximum_concurrent": 2, "timeout_seconds": 1}}).http)
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(3)))
    details = [answer.json()["detail"] for answer in answers]
    assert sorted("maximum_concurrent" in detail for detail in details) == [False, False, True]
    assert {answer.status_code for answer in answers} == {503}


async def test_health_is_told_however_many_requests_are_in_hand() -> None:
    async def held(scope: Any, *rest: Any) -> None:
        await (never if scope["path"] == "/" else echo)(scope, *rest)

    http = Settings.model_validate({"http": {"maximum_concurrent": 1, "timeout_seconds": 1}}).http
    transport = httpx.ASGITransport(Gate(held, http, never_full=HEALTH_PATHS))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        first = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0)
        answers = [await client.get(path) for path in (*HEALTH_PATHS, "/other")]
        await first
    assert [answer.status_code for answer in answers] == [200, 200, 200, 503]


async def test_a_body_that_does_not_come_is_not_waited_for_and_nothing_is_done() -> None:
    async def pieces() -> Any:
        yield b"{"
        await never()

    answer = await through_gate(echo, "POST", content=pieces(), timeout_seconds=0.1)
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")
    assert "nothing was done" in answer.json()["detail"]


async def test_the_answer_has_the_whole_time_however_long_the_body_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(gate_module, "perf_counter", clock.time)

    async def pieces() -> Any:
        yield b"{"
        clock.ahead_seconds += 90
        yield b"}"

    async def slow(*rest: Any) -> None:
        clock.ahead_seconds += 90
        for _ in range(3):  # in which the loop ends what has taken too long
            await asyncio.sleep(0)
        await echo(*rest)

    assert (await through_gate(slow, "POST", content=pieces(), timeout_seconds=100)).content == b"{}"


async def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MAXIMUM_HELD_BYTES", 3 * LIMIT)
    gate = Gate(echo, Settings().http)
    go_on = asyncio.Event()

    async def pieces() -> Any:
        yield b"x" * 2 * LIMIT
        await go_on.wait()

    transport = httpx.ASGITransport(gate)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        first = asyncio.create_task(client.post("/", content=pieces()))
        await asyncio.sleep(0.01)
        second = await client.post("/", content=b"x" * 2 * LIMIT)
        go_on.set()
        assert (second.status_code, (await first).status_code) == (503, 200)
        assert (await client.post("/", content=b"x" * 2 * LIMIT)).status_code == 200


async def test_who_goes_away_before_its_body_is_whole_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    coming: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> MutableMapping[str, Any]:
        return coming.pop(0)

    async def send(_: MutableMapping[str, Any]) -> None:
        raise AssertionError("nobody is there")

    scope = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "headers": []}
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(gate_module, "log", structlog.get_logger("bridge.http"))
        await Gate(broken, Settings().http)(scope, receive, send)
    assert [(line["event"], line["log_level"]) for line in logs] == [("Gone before it was answered.", "debug")]


async def test_the_log_shows_a_path_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(gate_module, "log", structlog.get_logger("bridge.http"))
        await through_gate(echo, path="/%1b[31mred%0d%0aline")
    assert logs[0]["path"] == "/%1b[31mred%0d%0aline"


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8080", True),
        ("LOCALHOST:8080", True),
        ("[::1]:8080", True),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("[", False),
        ("é", False),
        ("", False),
    ],
)
async def test_a_bridge_that_lets_everybody_in_is_reached_by_this_machines_names_only(
    host: str, is_answered: bool
) -> None:
    headers = {"Host": host.encode()}
    for open_to_all in ({}, JWT | {"token_endpoint": True}):
        async with Api(auth=open_to_all) as api:
            answer = await api.ask("GET", "/healthz", headers=headers)
            assert answer.status_code == (200 if is_answered else 403)
            if not is_answered:
                assert answer.json()["detail"].startswith("Host names another machine")
    async with Api(auth=JWT) as api:
        assert (await api.ask("GET", "/healthz", headers=headers)).status_code == 200


async def test_a_bug_is_an_error_that_tells_nothing_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(gate_module, "log", structlog.get_logger("bridge.http"))
        answer = await through_gate(broken)
    assert "canary" not in answer.text
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert [line["event"] for line in logs] == ["A request failed. This is a bug.", "Answered."]


async def test_a_bug_in_the_middle_of_an_answer_is_logged_and_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    sent: list[str] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": []}
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(gate_module, "log", structlog.get_logger("bridge.http"))
        await Gate(breaks_halfway, Settings().http)(scope, receive, send)
    assert sent == ["http.response.start"]
    assert logs[0]["event"] == "A request failed. This is a bug."


async def test_the_log_of_a_request_holds_neither_query_nor_body_nor_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(gate_module, "log", structlog.get_logger("bridge.http"))
        async with Api(auth=JWT) as api:
            await api.get("?userId=canary", headers=bearer(sub="canary"))
            await api.post("/sendEvent", {"event": {"canary": 1}}, headers=bearer(sub="canary"))
            await api.get(headers={"Authorization": "Bearer canary"})
    lines = [line for line in logs if line["event"] == "Answered."]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", BASE, 200),
        ("POST", f"{BASE}/sendEvent", 400),
        ("GET", BASE, 401),
    ]
    assert [line["log_level"] for line in lines] == ["debug", "info", "info"]
    assert "canary" not in str(logs)


async def test_what_is_not_http_is_turned_away() -> None:
    told: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nothing is read")

    await Gate(broken, Settings().http)({"type": "websocket"}, receive, send)
    assert told == []


# What the application refuses before any rule is asked.


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Content-Type": "text/plain"}, "Content-Type"),
        ({"Content-Type": ""}, "Content-Type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "Content-Encoding"),
    ],
)
async def test_a_body_in_another_form_is_not_read(headers: dict[str, str], field: str) -> None:
    async with Api() as api:
        answer = await api.post("", {"userId": "ann", "keepAliveSeconds": 9}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert answer.json()["detail"].startswith(field)
        assert api.world.stored() == set()


async def test_json_may_name_its_character_set() -> None:
    async with Api() as api:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        answer = await api.post("", {"userId": "ann", "keepAliveSeconds": 9}, headers=headers)
        assert answer.status_code == 200


async def test_a_path_or_method_that_there_is_not() -> None:
    async with Api() as api:
        answer = await api.ask("GET", "/nowhere")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        for path, allowed in (
            (BASE, "GET, HEAD, POST"),
            (f"{BASE}/register", "POST"),
            (f"{BASE}/ann1", "GET, HEAD"),
            ("/rpc/online_users", "POST"),
            ("/rpc/update_device_status", "POST"),
        ):
            answer = await api.ask("DELETE", path)
            assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
            assert answer.headers["allow"] == allowed


async def test_health_needs_no_token() -> None:
    async with Api(auth=JWT) as api:
        assert (await api.ask("GET", "/healthz")).json() == {"status": "ok"}
        answer = await api.ask("GET", "/readyz")
        assert (answer.status_code, answer.json()["faults"]) == (503, ["the bridge starts"])
        api.health.faults = list
        assert (await api.ask("GET", "/readyz")).json() == {"status": "ready"}
        api.health.exposition = api.world.meters.exposition
        answer = await api.ask("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "endpoint_bridge_received_total" in answer.text


async def test_the_bridge_tells_what_it_lacks() -> None:
    async with Api() as api:
        inbox, line = api.world.inbox, api.world.line
        assert wiring._faults(inbox, line) == []
        inbox.is_subscribed = False
        line.is_redis_away = True
        line._moved_at -= 60
        line._clock_ms += 31_000
        broker, redis, silent, lag = wiring._faults(inbox, line)
        assert broker.startswith("the MQTT broker is away")
        assert redis == "Redis is away"
        assert re.fullmatch(r"the broker or Redis has not answered for 6[0-9] s", silent)
        assert lag == "expiries are 31 s late"


@pytest.mark.parametrize("path", [*HEALTH_PATHS, "/openapi.json"])
async def test_head_is_answered_as_get_without_the_body(path: str) -> None:
    async with Api() as api:
        get = await api.ask("GET", path)
        async with serving(api.app, Http(port=0)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HEAD %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
    assert head.startswith(b"HTTP/1.1 %d " % get.status_code)
    assert f"content-length: {get.headers['content-length']}".encode() in head
    assert body == b""


# The server.


async def test_it_serves_on_a_socket_and_leaves_nothing_behind() -> None:
    async with serving(echo, Http(port=0)) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answer = await client.post("/", content=b"hello")
        assert answer.content == b"hello"
        assert "server" not in answer.headers
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


async def test_an_address_that_cannot_be_listened_on_is_the_operators_to_mend() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"http\.port: 127\.0\.0\.1:{port} cannot be listened on"):
            async with serving(echo, Http(port=port)):
                pass
    with pytest.raises(ConfigError, match=r"http\.host"):
        async with serving(echo, Http(host="no such host", port=0)):
            pass


@pytest.mark.parametrize(
    ("settings", "is_taken"),
    [
        ({"http": {"host": "0.0.0.0"}}, False),
        ({"http": {"host": "0.0.0.0", "port": 0}}, True),
        ({"http": {"host": "0.0.0.0"}, "auth": JWT}, True),
        ({"http": {"host": "0.0.0.0"}, "auth": JWT | {"token_endpoint": True}}, False),
        ({"http": {"host": "::1"}}, True),
        ({"http": {"host": "localhost"}}, True),
    ],
)
def test_who_lets_everybody_in_listens_on_loopback_only(settings: dict[str, Any], is_taken: bool) -> None:
    if is_taken:
        Settings.model_validate(settings)
    else:
        with pytest.raises(ValueError, match=r"http\.host must be a loopback address"):
            Settings.model_validate(settings)

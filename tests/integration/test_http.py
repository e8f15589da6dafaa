"""HTTP on the real stack: what a caller is answered while all is well, while one of them is away, and at a standby."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.stack import PATIENCE_SECONDS, Client, Stack, stack
from tests.servers import free_port

Fresh = Callable[[str], str]
API = "/rtc-api/users/endpoints"
EVENT = {"type": "TeaReadyEvent", "timestamp": "2026-01-02T03:04:05Z"}


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose broker and Redis may be taken away, and come back."""
    with stack(
        tmp_path_factory.mktemp("http"),
        hears=("bridge/#",),
        durable=True,
        HTTP__PORT=str(free_port()),
        HTTP__BODY_LIMIT_BYTES="20000",
        HTTP__MAXIMUM_CONCURRENT="20",
        REDIS__TIMEOUT_SECONDS="1",
    ) as found:
        yield found


@pytest.fixture(scope="module")
def web(torn: Stack) -> httpx.Client:
    return torn.web()


def register(web: httpx.Client, user: str, endpoint: str, seconds: int = 600) -> None:
    body = {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": seconds}
    answer = web.post(API, json=body)
    assert (answer.status_code, answer.json()) == (200, endpoint)


def sent(web: httpx.Client, user: str, **more: Any) -> httpx.Response:
    return web.post(f"{API}/sendEvent", json={"event": EVENT, "userId": user, "organizationId": "default", **more})


def until(is_so: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)


def ready(web: httpx.Client) -> Callable[[], bool]:
    return lambda: web.get("/readyz").status_code == 200


def unavailable(answer: httpx.Response, reason: str) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["code"] == "unavailable"
    assert reason in answer.json()["detail"]


# While all is well.


def test_from_registration_to_the_end(torn: Stack, web: httpx.Client, fresh: Fresh) -> None:
    user, one, two = fresh("ann"), fresh("one"), fresh("two")
    hearing = torn.client()
    for endpoint in (one, two):
        hearing.subscribe(f"users/endpoints/{endpoint}")
        register(web, user, endpoint)
    event = json.dumps({**EVENT, "price": 12345678901234567890, "text": "é\u2028"}, indent=1)
    body = f'{{"qos": 1, "userId": "{user}", "organizationId": "default", "event": {event}}}'
    answer = web.post(f"{API}/sendEvent", content=body.encode(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.text) == (200, "2")
    for endpoint in (one, two):
        hearing.expect(lambda m, at=endpoint: m.endpoint == at and m.payload == event.encode())  # type: ignore[misc]
    assert web.post(f"{API}/keepalive", json={"userEndpointId": one}).status_code == 204
    views = web.get(API, params={"userId": user}).json()
    assert {view["id"]: (view["userId"], view["state"]) for view in views} == dict.fromkeys(
        (one, two), (user, "HEALTHY")
    )
    ending = web.post(f"{API}/unregister", json={"userEndpointId": one, "reason": "User logout"})
    assert (ending.status_code, ending.content) == (204, b"")
    told = hearing.expect(lambda m: m.endpoint == two and m.type == "UserEndpointUnregisteredEvent")
    assert (told.json["userEndpointId"], told.json["reason"]) == (one, "User logout")
    assert web.post(f"{API}/keepalive", json={"userEndpointId": one}).status_code == 404
    assert web.get(f"{API}/{one}").status_code == 404


def test_outcomes_are_the_brokers_word(torn: Stack, web: httpx.Client, fresh: Fresh) -> None:
    user = fresh("ann")
    heard, unheard = fresh("heard"), fresh("unheard")
    register(web, user, heard)
    register(web, user, unheard)
    torn.client().subscribe(f"users/endpoints/{heard}")
    answer = web.post(
        f"{API}/sendEvent?outcomes=true",
        json={"event": EVENT, "userId": user, "organizationId": "default", "qos": 1},
    )
    assert answer.json() == [
        {"userEndpointId": heard, "outcome": "acknowledged"},
        {"userEndpointId": unheard, "outcome": "no_subscriber"},
    ]
    assert sent(web, fresh("nobody"), qos=1).json() == 0


def test_a_repetition_with_the_same_key_is_answered_and_not_sent(torn: Stack, web: httpx.Client, fresh: Fresh) -> None:
    user, endpoint = fresh("ann"), fresh("e")
    register(web, user, endpoint)
    hearing = torn.client()
    hearing.subscribe(f"users/endpoints/{endpoint}")
    with ThreadPoolExecutor(8) as pool:
        body = {"event": EVENT, "userId": user, "organizationId": "default", "qos": 1}
        ask = lambda _: web.post(f"{API}/sendEvent", json=body, headers={"Idempotency-Key": fresh("key")})  # noqa: E731
        assert [answer.json() for answer in pool.map(ask, range(8))] == [1] * 8
    assert sent(web, user, event={**EVENT, "last": 1}, qos=1).json() == 1
    hearing.expect(lambda m: b"last" in m.payload)
    assert len([m for m in hearing.since(0, f"users/endpoints/{endpoint}") if m.type == "TeaReadyEvent"]) == 2


def test_http_and_mqtt_callers_see_one_registry(torn: Stack, web: httpx.Client, fresh: Fresh) -> None:
    user, endpoint = fresh("ann"), fresh("e")
    world = torn.world
    world.rpc("register_endpoint", {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600})
    assert web.get(f"{API}/{endpoint}").json()["userId"] == user
    body = {"userId": fresh("bob"), "userEndpointId": endpoint, "keepAliveSeconds": 600}
    assert web.post(API, json=body).status_code == 409
    world.publish(f"presence/users/{user}", "online")
    assert user in world.rpc("online_users")  # answered after it, so it is decided
    assert user in web.post("/rpc/online_users", json={}).json()["result"]
    assert web.post("/rpc/unregister_endpoint", json={"userEndpointId": endpoint}).status_code == 200
    assert world.rpc("list_endpoints", {"userId": user}) == []


def test_bodies_are_bounded_on_the_wire_too(torn: Stack, web: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    large = web.post(API, content=pieces(), headers=headers)  # no length is told before
    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    assert web.post(API, content=b" " * 20_001, headers=headers).status_code == 413
    assert web.post(API, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert web.post(API, content=b"{}", headers={**headers, "Content-Encoding": "gzip"}).status_code == 415
    assert web.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST " + API.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"POST "
        + API.encode()
        + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        b"POST "
        + API.encode()
        + b' HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"keep',
    ],
)
def test_bytes_that_are_no_request_cost_one_connection(torn: Stack, web: httpx.Client, text: bytes) -> None:
    port = int(torn.bridge.http_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        try:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except OSError:  # it is cut off
            pass
    assert web.get("/readyz").status_code == 200


def test_who_asks_while_too_many_are_in_hand_is_told_to_come_again(torn: Stack, web: httpx.Client) -> None:
    """Requests whose bodies do not end hold all the places; once they are gone all is as before."""
    port = int(torn.bridge.http_url.rpartition(":")[2])
    head = (
        b"POST "
        + API.encode()
        + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
    held = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) for _ in range(20)]
    try:
        for connection in held:
            connection.sendall(head)
        until(lambda: web.get("/openapi.json").status_code == 503, "all places are taken")
        assert web.get("/healthz").status_code == 200
        unavailable(web.get(API, params={"userId": "ann"}), "http.maximum_concurrent")
    finally:
        for connection in held:
            connection.close()
    until(lambda: web.get("/openapi.json").status_code == 200, "the places are free again")


# While one of them is away.


def test_without_the_broker_endpoints_are_kept_alive_and_questions_answered(
    torn: Stack, web: httpx.Client, fresh: Fresh
) -> None:
    user, kept, silent = fresh("ann"), fresh("kept"), fresh("silent")
    register(web, user, kept, seconds=2)
    register(web, user, silent, seconds=2)
    torn.broker.stop()
    try:
        until(lambda: not ready(web)(), "the bridge notices that the broker is away")
        faults = web.get("/readyz")
        unavailable_for = faults.json()["faults"]
        assert faults.status_code == 503
        assert any("broker is away" in fault for fault in unavailable_for)
        assert web.get("/healthz").status_code == 200
        end = time.monotonic() + 3  # longer than the endpoints live
        while time.monotonic() < end:
            assert web.post(f"{API}/keepalive", json={"userEndpointId": kept}).status_code == 204
            time.sleep(0.2)
        assert {view["id"] for view in web.get(API, params={"userId": user}).json()} == {kept, silent}
        assert web.post(f"{API}/keepalive", json={"userEndpointId": fresh("none")}).status_code == 404
        body = {"userId": user, "userEndpointId": kept, "keepAliveSeconds": 600}
        unavailable(web.post(API, json=body), "broker is away: nothing was done")
        unavailable(web.post(f"{API}/unregister", json={"userEndpointId": kept}), "broker is away")
        unavailable(sent(web, user, qos=1), "broker is away")
    finally:
        torn.broker.start()
    until(ready(web), "the bridge works again")
    assert {view["id"] for view in web.get(API, params={"userId": user}).json()} >= {kept}
    register(web, user, kept)


def test_a_broker_that_falls_silent_lets_nobody_wait_for_ever(torn: Stack, web: httpx.Client, fresh: Fresh) -> None:
    user = fresh("ann")
    register(web, user, fresh("e"))
    torn.broker.freeze()
    try:
        answer = sent(web, user, qos=1)
        unavailable(answer, "it may have been done")
        until(lambda: not ready(web)(), "the silence shows")
        assert any("has not answered for" in fault for fault in web.get("/readyz").json()["faults"])
    finally:
        torn.broker.thaw()
    until(ready(web), "the bridge works again")
    assert sent(web, user, qos=1).json() == 1


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_without_redis_nothing_is_promised(torn: Stack, web: httpx.Client, fresh: Fresh, how: str) -> None:
    user, endpoint = fresh("ann"), fresh("e")
    register(web, user, endpoint)
    (torn.redis.stop if how == "stopped" else torn.redis.freeze)()
    try:
        answers = [
            web.post(f"{API}/keepalive", json={"userEndpointId": endpoint}),
            web.get(API, params={"userId": user}),
            web.post(API, json={"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600}),
            sent(web, user, qos=1),
        ]
        for answer in answers:
            unavailable(answer, "")
        ready_answer = web.get("/readyz")
        assert ready_answer.status_code == 503
        assert "Redis is away" in ready_answer.json()["faults"]
        assert web.get("/healthz").status_code == 200
    finally:
        (torn.redis.start if how == "stopped" else torn.redis.thaw)()
    until(ready(web), "the bridge works again")
    assert [view["id"] for view in web.get(API, params={"userId": user}).json()] == [endpoint]
    assert web.post(f"{API}/keepalive", json={"userEndpointId": endpoint}).status_code == 204


def test_a_standby_answers_503_until_it_is_the_active_one(torn: Stack, web: httpx.Client, fresh: Fresh) -> None:
    user, endpoint = fresh("ann"), fresh("e")
    register(web, user, endpoint)
    other = torn.another_bridge("b2", HTTP__PORT=str(free_port()))
    other.directory.mkdir(parents=True, exist_ok=True)
    with (other.directory / "log").open("ab") as log:
        other.process = subprocess.Popen(other.command(), cwd=other.directory, stdout=log, stderr=log)
    try:
        second = torn.web(other)
        until(lambda: "Standing by" in other.log, "the second stands by")
        assert second.get("/healthz").status_code == 200
        assert second.get("/readyz").json() == {"status": "not ready", "faults": ["this bridge is not the active one"]}
        assert second.get("/metrics").status_code == 200
        for answer in (
            second.get(f"{API}/{endpoint}"),
            second.post(f"{API}/keepalive", json={"userEndpointId": endpoint}),
        ):
            unavailable(answer, "not the active one: nothing was done")
        torn.bridge.kill()
        until(ready(second), "the second takes over")
        assert second.get(f"{API}/{endpoint}").json()["userId"] == user
        assert sent(second, user, qos=1).json() == 1
    finally:
        other.kill()
        torn.bridge.stop()
        torn.bridge.start()
    until(ready(web), "the first is active again")
    assert web.get(f"{API}/{endpoint}").status_code == 200


def test_who_waits_while_the_bridge_stops_is_answered(torn: Stack, web: httpx.Client, fresh: Fresh) -> None:
    user = fresh("ann")
    register(web, user, fresh("e"))
    torn.broker.freeze()
    assert torn.bridge.process is not None
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(sent, torn.web(), user, qos=1)
            time.sleep(0.3)  # usually it waits for its PUBACK by now
            torn.bridge.process.terminate()
            unavailable(waiting.result(), "done; ask again later")
            torn.bridge.process.wait(PATIENCE_SECONDS)
    finally:
        torn.broker.thaw()
        torn.bridge.stop()
        torn.bridge.start()
    until(ready(web), "it works again")


# With tokens.


def test_tokens_of_the_development_endpoint_open_what_is_ones_own(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "auth.secret").write_text("s" * 64)
    with stack(
        tmp_path,
        HTTP__PORT=str(free_port()),
        AUTH__MODE="jwt",
        AUTH__ALGORITHMS='["HS256"]',
        AUTH__TOKEN_ENDPOINT="true",
        SECRETS=str(secrets),
    ) as found:
        form = {"grant_type": "password", "username": "ann", "password": "pass-CANARY"}
        tokens = found.web().post("/rtc-api/security/oauth/token", data=form).json()
        ann = found.web(headers={"Authorization": f"Bearer {tokens['access_token']}"})
        assert found.web().post(API, json={"keepAliveSeconds": 15}).status_code == 401
        endpoint = ann.post(API, json={"keepAliveSeconds": 15}).json()
        assert endpoint.startswith("ann~")
        hearing: Client = found.client()
        hearing.subscribe(f"users/endpoints/{endpoint}")
        body = {"event": EVENT, "userId": "ann", "qos": 1}
        assert ann.post(f"{API}/sendEvent", json=body).json() == 1
        hearing.expect(lambda m: m.type == "TeaReadyEvent")
        again = found.web().post(
            "/rtc-api/security/oauth/token",
            data={"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]},
        )
        assert again.json()["sub"] == "ann"
        for secret in ("CANARY", tokens["access_token"], tokens["refresh_token"], "s" * 64):
            assert secret not in found.bridge.log

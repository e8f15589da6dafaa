"""The calls of ``/rooms``: statuses and numbers, who may call, session tokens, organizations."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from bridge.adapters.http import gate as gate_module
from bridge.adapters.http.problems import KINDS, ROOM_KINDS
from bridge.domain.token_rooms import CODES, Errno
from tests.unit.adapters.http.api import JWT, Api, bearer

JOIN = {"action": "join", "displayName": "A", "clientMaxSize": 9}
STATUS = {"action": "status", "event": "e", "state": "waiting", "connections": 1, "sendStreams": 0, "recvStreams": 0}


def basic(token: str, colon: str = ":") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{token}{colon}".encode()).decode()}


async def create(api: Api, seats: object = 2, headers: dict[str, str] | None = None, **fields: Any) -> str:
    answer = await api.ask("POST", "/rooms", {"roomName": "Tea", "maxSize": seats, **fields}, headers=headers or {})
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["roomToken"]
    return token


async def act(api: Api, room: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
    return await api.ask("POST", f"/rooms/{room}", body, headers=headers or {})


def number(answer: httpx.Response) -> tuple[int, int]:
    """Status and errno of an error, which has a body whatever the settings say."""
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == answer.status_code
    assert said["code"]
    assert said["detail"]
    return answer.status_code, said["errno"]


async def test_from_the_creation_to_the_end() -> None:
    async with Api(rooms={"api_key": "key-1"}, auth=JWT) as api:
        owner = bearer(sub="ann")
        room = await create(api, 3, owner)
        joined = (await act(api, room, JOIN, owner)).json()
        assert joined == {
            "apiKey": "key-1",
            "sessionId": room,
            "sessionToken": joined["sessionToken"],
            "roomConnectionId": joined["roomConnectionId"],
            "mediaRole": "moderator",
            "expires": 300,
        }
        guest = (await act(api, room, {**JOIN, "displayName": "G"})).json()
        assert guest["mediaRole"] == "publisher"
        view = await api.ask("GET", f"/rooms/{room}", headers=owner)
        assert view.json() == {
            "roomToken": room,
            "roomName": "Tea",
            "maxSize": 3,
            "participants": [
                {"displayName": "A", "roomConnectionId": joined["roomConnectionId"], "owner": True},
                {"displayName": "G", "roomConnectionId": guest["roomConnectionId"], "owner": False},
            ],
            "expiresAt": view.json()["expiresAt"],
        }
        assert (await act(api, room, STATUS, owner)).status_code == 204
        for colon in (":", "", ":password"):
            answer = await act(api, room, {"action": "refresh"}, basic(guest["sessionToken"], colon))
            assert (answer.status_code, answer.json()) == (200, {"expires": 300})
        left = await act(api, room, {"action": "leave"}, basic(guest["sessionToken"]))
        assert (left.status_code, left.content) == (204, b"")
        assert number(await act(api, room, {"action": "leave"}, basic(guest["sessionToken"]))) == (400, 203)
        assert number(await act(api, room, {"action": "refresh"}, basic(guest["sessionToken"]))) == (410, 111)
        gone = await api.ask("DELETE", f"/rooms/{room}", headers=owner)
        assert (gone.status_code, gone.content) == (204, b"")
        assert number(await api.ask("GET", f"/rooms/{room}", headers=owner)) == (404, 105)
        assert number(await act(api, room, JOIN)) == (404, 105)


CALLERS: dict[str, dict[str, Any] | None] = {
    "nobody": None,
    "Ann": {"sub": "ann"},
    "Bob": {"sub": "bob"},
    "another organization": {"sub": "ann", "organization_id": "blue"},
    "a service": {"sub": None, "organization_id": None, "roles": ["SERVICE"]},
    "operations": {"sub": None, "organization_id": None, "roles": ["OPS"]},
}

# Call -> method, body, and status for each caller in the order of `CALLERS`; the room is Ann's, of acme.
CALLS: dict[str, tuple[str, Any, tuple[int, ...]]] = {
    "create": ("POST", {"maxSize": 2}, (401, 201, 201, 201, 201, 403)),
    "read": ("GET", None, (401, 200, 200, 404, 200, 200)),
    "delete": ("DELETE", None, (401, 204, 403, 404, 204, 403)),
    "join": ("POST", JOIN, (200, 200, 200, 404, 200, 200)),
    "refresh, never having joined": ("POST", {"action": "refresh"}, (401, 410, 410, 404, 401, 401)),
    "leave, never having joined": ("POST", {"action": "leave"}, (401, 400, 400, 404, 401, 401)),
    "status, never having joined": ("POST", STATUS, (401, 400, 400, 404, 401, 401)),
}


@pytest.mark.parametrize("call", CALLS)
async def test_who_may_call(call: str) -> None:
    method, body, expected = CALLS[call]
    found = []
    for claims in CALLERS.values():
        async with Api(auth=JWT, http={"empty_error_bodies": True}) as api:
            room = await create(api, headers=bearer(sub="ann"))
            before = len(api.world.broker.outputs)
            path = "/rooms" if call == "create" else f"/rooms/{room}"
            answer = await api.ask(method, path, body, headers=bearer(**claims) if claims is not None else {})
            found.append(answer.status_code)
            if answer.status_code >= 400:
                number(answer)
                assert len(api.world.broker.outputs) == before
    assert tuple(found) == expected


@pytest.mark.parametrize("action", ["refresh", "leave", "status"])
@pytest.mark.parametrize("mode", [{}, JWT], ids=["none", "jwt"])
async def test_nobody_may_only_join_whether_the_room_exists_or_not(action: str, mode: dict[str, Any]) -> None:
    async with Api(auth=mode) as api:
        room = await create(api, headers=bearer(sub="ann"))
        for each in (room, "nope"):
            answer = await act(api, each, {**STATUS, "action": action})
            assert number(answer) == (401, 110)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert number(await act(api, "nope", JOIN)) == (404, 105)
        assert (await act(api, room, JOIN)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        basic("nobody.secret"),
        basic(""),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Hawk id=1"},
    ],
)
async def test_credentials_that_do_not_count(headers: dict[str, str]) -> None:
    async with Api(auth=JWT) as api:
        room = await create(api, headers=bearer(sub="ann"))
        assert number(await act(api, room, {"action": "refresh"}, headers)) == (401, 110)
        assert number(await api.ask("GET", f"/rooms/{room}", headers=headers)) == (401, 110)


async def test_what_is_wrong_with_a_body_has_a_number() -> None:
    async with Api(http={"empty_error_bodies": True, "body_limit_bytes": 500}) as api:
        room, json = await create(api), {"Content-Type": "application/json"}
        assert number(await act(api, room, b"{", json)) == (400, 106)
        assert number(await act(api, room, b"[]", json)) == (400, 106)
        assert number(await act(api, room, None)) == (400, 108)
        assert number(await act(api, room, {"action": "dance"})) == (400, 107)
        assert number(await act(api, room, {**JOIN, "clientMaxSize": "many"})) == (400, 107)
        assert number(await act(api, room, b"{}", {"Content-Type": "text/plain"})) == (415, 999)
        assert number(await act(api, room, {**JOIN, "more": "x" * 500})) == (413, 113)
        assert number(await api.ask("POST", "/rooms", {"maxSize": "two"})) == (400, 107)
        assert number(await api.ask("POST", "/rooms", {})) == (400, 108)
        assert number(await api.ask("POST", "/rooms", {"maxSize": 2, "organizationId": 5})) == (400, 107)
        assert number(await api.ask("PUT", f"/rooms/{room}")) == (405, 999)
        assert number(await api.ask("GET", f"/rooms/{room}/more")) == (404, 105)
        elsewhere = await api.ask("GET", "/roomsnotquite")
        assert (elsewhere.status_code, elsewhere.content) == (404, b"")


async def test_that_there_is_no_room_goes_before_what_is_wrong_with_a_body() -> None:
    async with Api() as api:
        for body in ({**JOIN, "clientMaxSize": "many"}, {"action": "dance"}, {}):
            assert number(await act(api, "nope", body)) == (404, 105)


@pytest.mark.parametrize("room", ["$x", "a~", "a~b~c", "a~b c", "x" * 129, "%2e%2e", "a%00b"])
async def test_a_token_that_can_be_none(room: str) -> None:
    async with Api() as api:
        assert number(await act(api, room, JOIN)) == (404, 105)
        assert not api.world.registry.organizations


async def test_full_rooms_have_their_numbers() -> None:
    async with Api() as api:
        room = await create(api, 2)
        assert (await act(api, room, JOIN)).status_code == 200
        assert number(await act(api, room, {**JOIN, "clientMaxSize": 1})) == (400, 121)
        assert (await act(api, room, JOIN)).status_code == 200
        assert number(await act(api, room, JOIN)) == (400, 202)


async def test_without_redis_it_is_said_with_a_number_and_when_to_ask_again() -> None:
    async with Api() as api:
        room = await create(api)
        api.world.desk.shut("Redis is away")
        answer = await act(api, room, JOIN)
        assert number(answer) == (503, 201)
        assert int(answer.headers["retry-after"]) > 0


async def test_without_the_broker_who_is_in_stays_in() -> None:
    async with Api() as api:
        room = await create(api)
        joined = (await act(api, room, JOIN)).json()
        api.world.inbox.is_subscribed = False
        assert number(await act(api, room, JOIN)) == (503, 201)
        assert (await act(api, room, {"action": "refresh"}, basic(joined["sessionToken"]))).status_code == 200
        assert (await api.ask("GET", f"/rooms/{room}")).status_code == 200


async def test_a_guest_finds_the_room_of_another_organization_by_its_token() -> None:
    async with Api(auth=JWT) as api:
        room = await create(api, 5, bearer(sub="ann"))
        assert room.endswith("~acme")
        joined = (await act(api, room, JOIN)).json()
        assert joined["sessionId"] == room
        assert f"room:{room}" in api.world.stored("acme")
        assert not api.world.stored("default")
        service = bearer(sub=None, organization_id=None, roles=["SERVICE"])
        other = await create(api, 5, service, organizationId="blue")
        assert other.endswith("~blue")
        assert (await api.ask("GET", f"/rooms/{other}", headers=service)).status_code == 200
        assert number(await api.ask("GET", f"/rooms/{other}", headers=bearer(sub="ann"))) == (404, 105)
        forbidden = await api.ask("POST", "/rooms", {"maxSize": 2, "organizationId": "blue"}, headers=bearer(sub="ann"))
        assert number(forbidden) == (403, 999)


async def test_who_works_for_operations_owns_nothing_of_another_organization() -> None:
    async with Api(auth=JWT) as api:
        room = await create(api, headers=bearer(sub="ann", organization_id="blue"))
        namesake = bearer(sub="ann", roles=["OPS"])
        assert (await api.ask("GET", f"/rooms/{room}", headers=namesake)).status_code == 200
        assert (await api.ask("DELETE", f"/rooms/{room}", headers=namesake)).status_code == 403
        named = {"maxSize": 2, "organizationId": "blue"}
        assert (await api.ask("POST", "/rooms", named, headers=namesake)).status_code == 403
        assert (await api.ask("POST", "/rooms", {"maxSize": 2}, headers=namesake)).status_code == 201


async def test_the_first_join_by_a_body_token_needs_no_header() -> None:
    async with Api(auth=JWT) as api:
        room = await create(api, headers=bearer(sub="ann"))
        token = (await act(api, room, JOIN)).json()["sessionToken"]
        assert (await act(api, room, {"action": "refresh", "sessionToken": token})).status_code == 200
        assert (await act(api, room, {"action": "leave", "sessionToken": token})).status_code == 204


async def test_a_session_token_looks_and_neither_deletes_nor_creates() -> None:
    async with Api(auth=JWT) as api:
        room = await create(api, headers=bearer(sub="ann"))
        guest = basic((await act(api, room, JOIN)).json()["sessionToken"])
        assert (await api.ask("GET", f"/rooms/{room}", headers=guest)).status_code == 200
        assert number(await api.ask("DELETE", f"/rooms/{room}", headers=guest)) == (403, 999)
        assert number(await api.ask("POST", "/rooms", {"maxSize": 2}, headers=guest)) == (401, 110)
        other = await create(api, headers=bearer(sub="ann"))
        assert number(await api.ask("GET", f"/rooms/{other}", headers=guest)) == (401, 110)


async def test_neither_log_nor_registry_hold_what_lets_somebody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(gate_module, "log", structlog.get_logger("bridge.http"))
        async with Api() as api:
            room = await create(api)
            token: str = (await act(api, room, JOIN)).json()["sessionToken"]
            await act(api, room, {"action": "dance"}, basic(token))
            await api.ask("GET", "/rooms/nope")
    assert [line["path"] for line in logs if line["event"] == "Answered."] == ["/rooms", *["/rooms/*"] * 3]
    assert room not in str(logs)
    assert token not in str(logs)
    secret = token.partition(".")[2].encode()
    assert len(secret) >= 32
    values = api.world.registry.organizations["default"]
    assert all(secret not in value for value in values.values() if isinstance(value, bytes))


def test_the_documents_name_every_number() -> None:
    text = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text()
    table = text[text.index("| status | `errno` |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    documented = {int(errno): {int(status) for status in statuses.split(", ")} for statuses, errno, _ in rows[:-1]}
    for errno in Errno:
        status = ROOM_KINDS[errno].status if errno in ROOM_KINDS else KINDS[CODES[errno]].status
        assert documented.pop(errno) == {status}
    assert documented == {113: {413}, 201: {500, 503}}

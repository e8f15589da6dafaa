"""What the document of the API says, and that it says no other than what is so."""

from typing import Any

import pytest

from bridge.adapters.http.problems import ROOM_KINDS
from bridge.adapters.http.rpc_schemas import UNDESCRIBED, described
from bridge.adapters.http.schemas import Bodies
from bridge.domain.methods import METHODS
from bridge.domain.rules import Rules
from tests.unit.adapters.http.api import BASE, JWT, Api


async def document(**settings: Any) -> Any:
    async with Api(**settings) as api:
        return (await api.ask("GET", "/openapi.json")).json()


async def test_the_document_of_the_api_holds_each_call_with_its_errors() -> None:
    found = await document(auth={"token_endpoint": True})
    calls = {(method, path) for path, methods in found["paths"].items() for method in methods}
    assert {
        ("post", BASE),
        ("get", BASE),
        ("get", f"{BASE}/{{endpoint}}"),
        *(("post", f"{BASE}/{name}") for name in ("register", "keepalive", "unregister", "sendEvent")),
        *(("post", f"/rpc/{name}") for name in METHODS.keys() - UNDESCRIBED),
        ("post", "/rooms"),
        *((method, "/rooms/{token}") for method in ("get", "post", "delete")),
        ("post", "/security/oauth/token"),
        ("post", "/rtc-api/security/oauth/token"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    } == calls
    sending = found["paths"][f"{BASE}/sendEvent"]["post"]
    assert sending["responses"].keys() >= {"200", "400", "401", "403", "404", "409", "413", "415", "500", "503"}
    assert sending["requestBody"]["content"]["application/json"]["schema"]["example"]["userId"] == "ann"


async def test_it_says_that_a_valid_join_of_a_full_room_is_refused() -> None:
    responses = (await document())["paths"]["/rooms/{token}"]["post"]["responses"]
    said = responses["400"]["description"]
    assert all(f"{errno:d} " in said for errno, kind in ROOM_KINDS.items() if kind.status == 400)
    assert "202 the room is full" in said


async def test_what_a_service_must_say_is_required_where_nobody_shows_a_token() -> None:
    for settings, required in (({}, {"userId", "organizationId"}), ({"auth": JWT}, set())):
        paths = (await document(**settings))["paths"]
        bodies = [
            paths[f"{BASE}{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
            for path in ("", "/register", "/sendEvent")
        ]
        asked = {name for body in bodies for name in body["required"]} - {"keepAliveSeconds", "event"}
        assert asked == required | {"userId"}
        assert paths[BASE]["get"]["parameters"][0]["required"] == bool(required)


async def test_the_numbers_are_those_of_the_configuration() -> None:
    bodies = Bodies(Rules(minimum_keep_alive_seconds=20, maximum_keep_alive_seconds=30, maximum_watch=5), is_open=True)
    fields = bodies.registration["properties"]
    assert (fields["keepAliveSeconds"]["minimum"], fields["keepAliveSeconds"]["maximum"]) == (20, 30)
    assert bodies.registration["example"]["keepAliveSeconds"] == 20
    assert bodies.watch["maxItems"] == 5


async def test_tokens_are_asked_for_where_they_are_checked() -> None:
    found = await document(auth={**JWT, "token_endpoint": True})
    [scheme] = found["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert found["security"] == [{"bearer": []}]
    free = {path for path, calls in found["paths"].items() for call in calls.values() if call.get("security") == []}
    tokens = {"/security/oauth/token", "/rtc-api/security/oauth/token"}
    assert free == {"/healthz", "/readyz", "/metrics", "/rooms/{token}", *tokens}
    assert "security" not in await document()


@pytest.mark.parametrize("is_open", [True, False])
def test_the_parameters_described_are_those_of_the_table(is_open: bool) -> None:
    found = described(Bodies(Rules(), is_open=is_open))
    assert found.keys() == METHODS.keys() - UNDESCRIBED
    for method, (params, _) in found.items():
        by_name, *in_order = params.get("anyOf", [params])
        names = METHODS[method].params.__struct_encode_fields__
        assert tuple(by_name["properties"]) == names, method
        for shape in in_order:
            assert shape["prefixItems"] == list(by_name["properties"].values())
        assert set(by_name["required"]) <= set(names)

"""The endpoint registration API: each call, status, body and rule of the reference."""

import json
from typing import Any

import pytest

from bridge.adapters.http.problems import KINDS
from bridge.domain.methods import RPC_CODES
from tests.unit.adapters.http.api import JWT, Api, bearer
from tests.unit.world import World

EVENT = {"type": "TeaReadyEvent", "timestamp": "2026-01-01T16:00:00.5Z", "cup": {"sugar": 1.0}}
SEND = {"event": EVENT, "userId": "ann", "organizationId": "default"}


async def test_a_registration_answers_the_id_and_is_renewed_by_the_same_user() -> None:
    async with Api() as api:
        body = {"keepAliveSeconds": 15, "userId": "ann", "userEndpointId": "ann1", "brand": "ignored"}
        answer = await api.post("", body)
        assert (answer.status_code, answer.json()) == (200, "ann1")
        assert answer.headers["content-type"] == "application/json"
        first = (await api.get("/ann1")).json()
        assert first == {
            "id": "ann1",
            "userId": "ann",
            "organizationId": "default",
            "keepAliveSeconds": 15,
            "state": "HEALTHY",
            "version": first["version"],
        }
        answer = await api.post("/register?whatever=1", body | {"keepAliveSeconds": 20})
        assert (answer.status_code, answer.json()) == (200, {"id": "ann1"})
        second = (await api.get("/ann1")).json()
        assert second["version"] > first["version"]
        assert second["keepAliveSeconds"] == 20
        assert (await api.get("?userId=ann")).json() == [second]


async def test_the_server_gives_an_id_where_none_is_asked_for() -> None:
    async with Api() as api:
        made = (await api.post("", {"keepAliveSeconds": 15, "userId": "ann"})).json()
        assert made.startswith("ann~")
        other = (await api.post("", {"keepAliveSeconds": 15, "userId": "ann"})).json()
        assert other != made


async def test_keepalive_and_unregister_answer_nothing_and_an_unknown_endpoint_is_404() -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        for call, more in (("/keepalive", {"userId": "ann"}), ("/unregister", {"reason": "User logout"})):
            answer = await api.post(call, {"userEndpointId": "ann1", **more})
            assert (answer.status_code, answer.content) == (204, b"")
            assert "content-type" not in answer.headers
        assert api.told()["ann1"][-1]["reason"] == "User logout"
        for call in ("/keepalive", "/unregister"):
            answer = await api.post(call, {"userEndpointId": "ann1"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert (await api.get("/ann1")).status_code == 404
        answer = await api.post("/sendEvent", SEND | {"userEndpointId": "ann1"})
        assert answer.status_code == 404


async def test_another_users_id_is_a_conflict() -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        answer = await api.post("", {"keepAliveSeconds": 15, "userId": "bob", "userEndpointId": "ann1"})
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"userId": "ann"}, "keepAliveSeconds"),
        ("", {"userId": "ann", "keepAliveSeconds": None}, "keepAliveSeconds"),
        ("", {"userId": "ann", "keepAliveSeconds": "15"}, "keepAliveSeconds"),
        ("", {"userId": "ann", "keepAliveSeconds": True}, "keepAliveSeconds"),
        ("", {"userId": "ann", "keepAliveSeconds": 15.5}, "keepAliveSeconds"),
        ("", {"userId": "ann", "keepAliveSeconds": 0}, "keepAliveSeconds"),
        ("", {"userId": "ann", "keepAliveSeconds": 86401}, "keepAliveSeconds"),
        ("", {"userId": "ann", "keepAliveSeconds": 9, "serverKeepAliveReminderOn": "yes"}, "serverKeepAliveReminderOn"),
        ("", {"userId": "ann", "keepAliveSeconds": 9, "userEndpointId": "a/b"}, "userEndpointId"),
        ("", {"userId": "ann", "keepAliveSeconds": 9, "userEndpointId": ""}, "userEndpointId"),
        ("", {"userId": "ann", "keepAliveSeconds": 9, "userEndpointId": "x" * 129}, "userEndpointId"),
        ("", {"userId": "a/b", "keepAliveSeconds": 9}, "userId"),
        ("", {"keepAliveSeconds": 9}, "userId"),
        ("", {"userId": 5, "keepAliveSeconds": 9}, "userId"),
        ("", {"userId": "ann", "keepAliveSeconds": 9, "organizationId": "a b"}, "organizationId"),
        ("", {"userId": "ann", "keepAliveSeconds": 9, "organizationId": 5}, "organizationId"),
        ("/keepalive", {}, "userEndpointId"),
        ("/keepalive", {"userEndpointId": 5}, "userEndpointId"),
        ("/unregister", {"userEndpointId": "a b"}, "userEndpointId"),
        ("/unregister", {"userEndpointId": "ann1", "reason": 5}, "reason"),
        ("/unregister", {"userEndpointId": "ann1", "reason": "x" * 1025}, "reason"),
        ("", b'{"userId": "ann", "keepAliveSeconds": 1e400}', "keepAliveSeconds"),
        ("", b'{"userId": "ann", "keepAliveSeconds": 9, "watch": ["\xff"]}', "watch"),
        ("/sendEvent", {"event": EVENT, "userId": "ann"}, "organizationId"),
        ("/sendEvent", {"userId": "ann", "organizationId": "default"}, "event"),
        ("/sendEvent", SEND | {"event": 5}, "event"),
        ("/sendEvent", SEND | {"event": {"timestamp": EVENT["timestamp"]}}, "event.type"),
        ("/sendEvent", SEND | {"event": EVENT | {"type": "Event"}}, "event.type"),
        ("/sendEvent", SEND | {"event": EVENT | {"timestamp": "2026-01-01T16:00:00+01:00"}}, "event.timestamp"),
        ("/sendEvent", {"event": EVENT, "organizationId": "default"}, "userId"),
        ("/sendEvent?outcomes=perhaps", SEND, "outcomes"),
        ("/sendEvent", SEND | {"masks": ["$.["]}, "masks[0]"),
        ("/sendEvent", SEND | {"masks": "$.cup"}, "masks"),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(path: str, body: Any, field: str) -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        before = api.world.registry.organizations, len(api.world.broker.outputs)
        answer = await api.post(path, body)
        said = answer.json()
        assert answer.status_code == 400, said
        assert answer.headers["content-type"] == "application/problem+json"
        assert said["status"] == 400
        assert said["detail"]
        assert [error["field"] for error in said["errors"]] == [field], said
        assert (api.world.registry.organizations, len(api.world.broker.outputs)) == before


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"null", b"{", b"\xff", b'{"keepAliveSeconds":', b'"\\ud800"'])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    async with Api() as api:
        for path in ("", "/keepalive", "/sendEvent"):
            answer = await api.post(path, body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_params")


async def test_an_event_is_delivered_to_the_letter() -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        await api.register("ann", "ann2")
        text = json.dumps(EVENT, indent=3)
        body = f'{{"userId":"ann","organizationId":"default","qos":1,"masks":["$.cup.sugar"],"event":{text}}}'.encode()
        answer = await api.post("/sendEvent", body)
        assert (answer.status_code, answer.json()) == (200, 2)
        sent = api.world.broker.outputs[-2:]
        assert [output.topic for output in sent] == ["users/endpoints/ann1", "users/endpoints/ann2"]
        assert {output.payload for output in sent} == {text.encode()}
        assert {output.qos for output in sent} == {1}


@pytest.mark.parametrize(
    ("qos", "word"), [(0, "sent"), (1, "acknowledged"), (2, "sent"), ("1", "sent"), (None, "sent")]
)
async def test_outcomes_are_listed_on_demand_and_any_qos_but_one_is_at_most_once(qos: object, word: str) -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        answer = await api.post("/sendEvent?outcomes=true", SEND | {"qos": qos})
        assert answer.json() == [{"userEndpointId": "ann1", "outcome": word}]


async def test_somebody_without_endpoints_is_sent_nothing_and_that_is_no_error() -> None:
    async with Api() as api:
        answer = await api.post("/sendEvent", SEND)
        assert (answer.status_code, answer.json()) == (200, 0)


async def test_an_idempotency_key_makes_a_repetition_harmless() -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        headers = {"Idempotency-Key": "k1"}
        answers = [await api.post("/sendEvent", SEND | {"qos": 1}, headers=headers) for _ in range(2)]
        assert [answer.json() for answer in answers] == [1, 1]
        assert len(api.told()["ann1"]) == 1
        answer = await api.post("/sendEvent", SEND | {"qos": 0}, headers=headers)
        assert answer.status_code == 409
        answer = await api.post("/sendEvent", SEND, headers={"Idempotency-Key": "k" * 257})
        assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_repetition_is_one_of_the_same_service() -> None:
    async with Api(auth=JWT) as api:
        await api.register("ann", "ann1", organizationId="default")

        async def send(service: str, qos: int, key: str = "k1", **more: Any) -> Any:
            headers = bearer(roles=["SERVICE"], sub=service) | ({"Idempotency-Key": key} if key else {})
            return await api.post("/sendEvent", SEND | {"qos": qos, **more}, headers=headers)

        for service, qos in (("billing", 1), ("shop", 0), ("ann", 1)):
            assert [(await send(service, qos)).json() for _ in range(2)] == [1, 1]
        assert len(api.told()["ann1"]) == 3
        assert (await send("shop", 1)).status_code == 409
        named = {"event": EVENT | {"id": "e1"}}
        assert [(await send(service, 1, "", **named)).json() for service in ("billing", "shop", "shop")] == [1, 1, 1]
        assert len(api.told()["ann1"]) == 5
        ann = bearer(sub="ann", organization_id="default") | {"Idempotency-Key": "k1"}
        answer = await api.post("/sendEvent", SEND | {"qos": 0}, headers=ann)
        assert (answer.status_code, answer.json()) == (200, 1)  # a user of that name is another caller still


async def test_empty_error_bodies_where_clients_take_any_json_for_success() -> None:
    async with Api(http={"empty_error_bodies": True}) as api:
        for answer, status in (
            (await api.post("/keepalive", {"userEndpointId": "nobody"}), 404),
            (await api.post("", {}), 400),
            (await api.post("", b"x" * 600_000), 413),
            (await api.ask("GET", "/nowhere"), 404),
        ):
            assert (answer.status_code, answer.content) == (status, b"")


async def test_rpc_over_http_is_the_same_table() -> None:
    async with Api() as api:
        answer = await api.ask("POST", "/rpc/register_endpoint", ["ann", 600, False, "ann1"])
        assert (answer.status_code, answer.json()) == (200, {"result": {"id": "ann1"}})
        answer = await api.ask("POST", "/rpc/online_users")
        assert answer.json() == {"result": []}
        for method, body, status, code in (
            ("nothing", {}, 404, "unknown_method"),
            ("online_users", {"limitt": 5}, 400, "invalid_params"),
            ("keepalive_endpoint", ["nobody"], 404, "not_found"),
        ):
            answer = await api.ask("POST", f"/rpc/{method}", body)
            assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_service_names_the_organization_in_body_or_query() -> None:
    async with Api() as api:
        await api.register("ann", "ann1", organizationId="acme")
        assert api.world.stored("acme") == {"user:ann"}
        assert (await api.get("?userId=ann")).json() == []
        assert len((await api.get("?userId=ann&organizationId=acme")).json()) == 1
        answer = await api.ask("POST", "/rpc/list_endpoints?organizationId=acme", {"userId": "ann"})
        assert len(answer.json()["result"]) == 1
        # An id is enough: it is unique over all organizations.
        assert (await api.post("/keepalive", {"userEndpointId": "ann1"})).status_code == 204


async def test_with_a_prefix_a_service_reaches_each_tenant() -> None:
    async with Api(World(prefix="{organization}/"), prefix="{organization}/") as api:
        await api.register("ann", "ann1", organizationId="acme")
        answer = await api.post("/sendEvent", SEND | {"organizationId": "acme"})
        assert answer.json() == 1
        answer = await api.ask("POST", "/rpc/send_event", SEND | {"organizationId": "acme"})
        assert answer.json() == {"result": 1}
        assert api.world.broker.outputs[-1].topic == "acme/users/endpoints/ann1"


async def test_while_the_broker_is_away_keepalives_and_questions_are_answered_and_nothing_else() -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        api.world.inbox.is_subscribed = False
        assert (await api.post("/keepalive", {"userEndpointId": "ann1"})).status_code == 204
        assert (await api.get("/ann1")).status_code == 200
        for answer in (
            await api.post("", {"userId": "ann", "keepAliveSeconds": 9}),
            await api.post("/unregister", {"userEndpointId": "ann1"}),
            await api.post("/sendEvent", SEND),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"] == "2"


async def test_a_bridge_that_stands_by_says_so() -> None:
    async with Api() as api:
        api.world.desk.close("this bridge is not the active one")
        answer = await api.get("?userId=ann")
        assert answer.status_code == 503
        assert "not the active one" in answer.json()["detail"]


def test_each_code_has_a_status() -> None:
    assert KINDS.keys() >= RPC_CODES


async def test_a_number_is_the_same_however_json_writes_it() -> None:
    async with Api() as api:
        body = {"userId": "ann", "userEndpointId": "ann1", "keepAliveSeconds": 15.0}
        assert (await api.post("", body)).json() == "ann1"
        assert (await api.get("/ann1")).json()["keepAliveSeconds"] == 15
        assert (await api.post("", {**body, "keepAliveSeconds": 15.5})).status_code == 400

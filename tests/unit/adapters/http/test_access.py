"""Who may call what over HTTP: the table of docs/protocol.md, call by caller, and tokens that do not count."""

from pathlib import Path
from typing import Any

import pytest

from bridge.domain.methods import METHODS
from tests.unit.adapters.http.api import BASE, JWT, Api, bearer
from tests.unit.adapters.http.identity import OTHER_RSA, RSA, now, pem, token
from tests.unit.world import World

EVENT = {"type": "TeaReadyEvent", "timestamp": "2026-01-01T16:00:00Z"}
SEND = {"userId": "ann", "event": EVENT, "organizationId": "acme"}

# Caller -> claims of its token, None: no token. The endpoint ann1 is Ann's, of acme.
CALLERS: dict[str, dict[str, Any] | None] = {
    "nobody": None,
    "Ann": {"sub": "ann"},
    "Bob": {"sub": "bob"},
    "another organization": {"sub": "ann", "organization_id": "blue"},
    "a service": {"sub": None, "organization_id": None, "roles": ["SERVICE"]},
    "operations": {"sub": None, "organization_id": None, "roles": ["OPS"]},
}

# Call -> method, path, body, and the status for each caller in the order of `CALLERS`.
CALLS: dict[str, tuple[str, str, Any, tuple[int, ...]]] = {
    "register": (
        "POST",
        BASE,
        {"keepAliveSeconds": 60, "userId": "ann", "organizationId": "acme"},
        (401, 200, 403, 403, 200, 403),
    ),
    "register an id that is Ann's": (
        "POST",
        BASE,
        {"keepAliveSeconds": 60, "userEndpointId": "ann1"},
        (401, 200, 409, 409, 400, 403),
    ),
    "keepalive": ("POST", f"{BASE}/keepalive", {"userEndpointId": "ann1"}, (401, 204, 403, 403, 204, 403)),
    "unregister": ("POST", f"{BASE}/unregister", {"userEndpointId": "ann1"}, (401, 204, 403, 403, 204, 403)),
    "view": ("GET", f"{BASE}/ann1", None, (401, 200, 403, 403, 200, 200)),
    "list": ("GET", f"{BASE}?userId=ann&organizationId=acme", None, (401, 200, 403, 403, 200, 200)),
    "sendEvent": ("POST", f"{BASE}/sendEvent", SEND, (401, 200, 200, 403, 200, 403)),
    "sendEvent without organizationId": (
        "POST",
        f"{BASE}/sendEvent",
        {"userId": "ann", "event": EVENT},
        (401, 200, 200, 200, 400, 403),
    ),
    "rpc for services": ("POST", "/rpc/online_users?organizationId=acme", None, (401, 403, 403, 403, 200, 200)),
    "rpc for users": ("POST", "/rpc/keepalive_endpoint", ["ann1"], (401, 200, 403, 403, 200, 403)),
}


@pytest.mark.parametrize("call", CALLS)
async def test_who_may_call(call: str) -> None:
    method, path, body, expected = CALLS[call]
    found = []
    for claims in CALLERS.values():
        async with Api(auth=JWT) as api:
            await api.register("ann", "ann1", organizationId="acme")
            before = len(api.world.broker.outputs)
            headers = bearer(**claims) if claims is not None else {}
            answer = await api.ask(method, path, body, headers=headers)
            found.append(answer.status_code)
            if answer.status_code >= 400:
                assert answer.json()["detail"]
                assert len(api.world.broker.outputs) == before
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
    assert tuple(found) == expected


def test_the_documents_show_the_same_table() -> None:
    text = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text()
    table = text[text.index("| call | nobody") :].split("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert header[1:] == list(CALLERS)
    assert {row[0]: tuple(int(cell) for cell in row[1:]) for row in rows} == {
        call: statuses for call, (_, _, _, statuses) in CALLS.items()
    }


def _forged(public: bytes) -> str:
    """An HS256 token signed with the text of the public key (RFC 8725, 2.1)."""
    import base64
    import hmac
    import json

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode())
    claims = {"sub": "ann", "organization_id": "acme", "exp": now() + 3600, "roles": ["SERVICE"]}
    signed = f"{head}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(public, signed.encode(), 'sha256'))}"


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        ("Basic YW5uOmFubg==", "no bearer token"),
        ("Bearer", "no bearer token"),
        ("Bearer nonsense", "cannot be read"),
        (f"Bearer {token(exp=1)}", "has expired"),
        (f"Bearer {token(nbf=now() + 3600)}", "not valid yet"),
        (f"Bearer {token(exp=None)}", "has no exp"),
        (f"Bearer {token(OTHER_RSA)}", "not signed with a key that is trusted"),
        (f"Bearer {token('', 'none')}", "algorithm"),
        (f"Bearer {_forged(pem(RSA))}", "algorithm"),
        (f"Bearer {token(sub=None)}", "no sub"),
        (f"Bearer {token(organization_id=None)}", "no organization_id"),
    ],
)
async def test_a_token_that_does_not_count(tmp_path: Path, authorization: str, reason: str) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(pem(RSA))
    async with Api(auth={"mode": "jwt", "algorithms": ["RS256"], "key_file": str(key)}) as api:
        answer = await api.get(headers={"Authorization": authorization})
        said = answer.json()
        assert (answer.status_code, said["code"]) == (401, "unauthorized")
        assert reason in said["detail"]
        assert authorization.partition(" ")[2] not in said["detail"] or len(authorization) < 10
        good = await api.get(headers={"Authorization": f"Bearer {token()}"})
        assert good.status_code == 200


async def test_a_scope_that_lacks_global_is_forbidden() -> None:
    async with Api(auth=JWT) as api:
        answer = await api.get(headers=bearer(scope="profile"))
        assert answer.status_code == 403


async def test_a_service_that_is_somebody_registers_itself() -> None:
    async with Api(auth=JWT) as api:
        headers = bearer(sub="crm", roles=["SERVICE"])
        answer = await api.post("", {"keepAliveSeconds": 60, "userEndpointId": "crm1"}, headers=headers)
        assert answer.json() == "crm1"
        assert api.world.stored("acme") == {"user:crm"}


async def test_who_works_for_operations_and_is_a_user_keeps_its_own_rights() -> None:
    async with Api(auth=JWT) as api:
        headers = bearer(sub="ann", roles=["OPS"])
        assert (await api.post("", {"keepAliveSeconds": 60}, headers=headers)).status_code == 200
        assert (await api.ask("POST", "/rpc/online_users", headers=headers)).status_code == 200
        body = {"keepAliveSeconds": 60, "userId": "bob"}
        assert (await api.post("", body, headers=headers)).status_code == 403


async def test_who_works_for_operations_is_a_user_of_its_own_organization_only() -> None:
    async with Api(auth=JWT) as api:
        await api.register("ann", "ann1", organizationId="blue")
        await api.register("ann", "ann2", organizationId="default")
        before = len(api.world.broker.outputs)
        for claims, endpoint, organization in (
            ({"organization_id": "acme"}, "ann1", "blue"),  # of the same name, elsewhere
            ({"organization_id": None}, "ann1", "blue"),
            ({"organization_id": None}, "ann2", "default"),  # of no organization, so no user of any
        ):
            headers = bearer(sub="ann", roles=["OPS"], **claims)
            named = {"organizationId": organization, "userEndpointId": endpoint}
            for call, body in (
                ("", {"keepAliveSeconds": 60, **named}),
                ("/keepalive", named),
                ("/unregister", named),
                ("/sendEvent", SEND | named),
            ):
                answer = await api.post(call, body, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (call, organization)
            look = await api.get(f"/{endpoint}?organizationId={organization}", headers=headers)
            assert look.json()["organizationId"] == organization
        assert len(api.world.broker.outputs) == before


# Method -> parameters that concern Ann of blue; asked by Ann of acme, who is somebody else.
ELSEWHERE: dict[str, Any] = {
    "register_endpoint": {"keepAliveSeconds": 60, "userEndpointId": "ann1"},
    "keepalive_endpoint": {"userEndpointId": "ann1"},
    "unregister_endpoint": {"userEndpointId": "ann1"},
    "watch_endpoint": {"userEndpointId": "ann1", "watch": ["*"]},
    "view_endpoint": {"userEndpointId": "ann1"},
    "list_endpoints": {"userId": "ann"},
    "send_event": {"userId": "ann", "event": EVENT, "qos": 1},
    "media_state": {"session": "s1"},
    "call_permissions": {"session": "s1"},
    "mute_participant": {"session": "s1", "participant": "ann", "muteStates": {"AUDIO": "MUTE"}},
}


@pytest.mark.parametrize("prefix", ["", "site/", "{organization}/"])
async def test_of_another_organization_nothing_is_seen_heard_or_changed(prefix: str) -> None:
    assert ELSEWHERE.keys() == {name for name, method in METHODS.items() if method.users}
    ann = bearer(sub="ann")
    async with Api(World(prefix=prefix), prefix=prefix, auth=JWT) as api:
        world = api.world
        await api.register("ann", "ann1", organizationId="blue")
        blue, outputs = dict(world.registry.organizations["blue"]), len(world.broker.outputs)
        for method, params in ELSEWHERE.items():
            for query, more in (("", {}), ("?organizationId=blue", {}), ("", {"organizationId": "blue"})):
                answer = await api.ask("POST", f"/rpc/{method}{query}", params | more, headers=ann)
                # What one has of one's own, which is nothing; everything else is refused.
                is_own = not query and not more and method in ("list_endpoints", "send_event")
                assert (
                    answer.json().get("result") == ([] if method == "list_endpoints" else 0)
                    if is_own
                    else (answer.status_code in (400, 403, 404, 409))
                ), (method, query, more, answer.text)
        for path in ("/ann1", "/ann1?organizationId=blue", "?userId=ann&organizationId=blue"):
            assert (await api.get(path, headers=ann)).status_code == 403
        assert (await api.get("?userId=ann", headers=ann)).json() == []
        assert world.registry.organizations["blue"] == blue
        assert len(world.broker.outputs) == outputs


@pytest.mark.parametrize("call", ["/keepalive", "/unregister"])
async def test_a_client_that_says_it_is_another_user_is_refused(call: str) -> None:
    async with Api(auth=JWT) as api:
        await api.register("ann", "ann1", organizationId="acme")
        answer = await api.post(call, {"userEndpointId": "ann1", "userId": "bob"}, headers=bearer(sub="ann"))
        assert answer.status_code == 403
        answer = await api.post(call, {"userEndpointId": "ann1", "userId": "ann"}, headers=bearer(sub="ann"))
        assert answer.status_code == 204


async def test_without_checks_the_claims_of_a_token_are_taken() -> None:
    async with Api() as api:
        await api.register("ann", "ann1")
        ann = {"Authorization": f"Bearer {token(sub='ann', organization_id='default')}"}
        assert len((await api.get(headers=ann)).json()) == 1
        assert (await api.ask("POST", "/rpc/online_users", headers=ann)).status_code == 403


async def test_the_token_endpoint_gives_tokens_that_count() -> None:
    async with Api(auth=JWT | {"token_endpoint": True}) as api:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for path in ("/security/oauth/token", "/rtc-api/security/oauth/token"):
            answer = await api.ask("POST", path, b"grant_type=password&username=ann&password=x", headers=form)
            assert answer.headers["cache-control"] == "no-store"
            bearer_token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            assert (await api.get(headers=bearer_token)).json() == []
        answer = await api.ask("POST", "/security/oauth/token", b"grant_type=magic", headers=form)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "grant_type")
    async with Api(auth=JWT) as api:
        assert (await api.ask("POST", "/security/oauth/token", b"")).status_code == 404

import base64
from urllib.parse import urlencode

import pytest

from bridge.adapters.http.issuer import MAXIMUM_FIELDS, TokenIssuer
from bridge.adapters.http.tokens import Claims, Tokens
from bridge.errors import Refusal
from bridge.settings import Auth
from tests.unit.adapters.http.identity import SECRET, auth

CHECKED = auth(secret=SECRET, algorithms=["HS512"], audience="bridge", issuer="dev", token_endpoint=True)
UNCHECKED = Auth(token_endpoint=True)


def form(**fields: str) -> bytes:
    return urlencode(fields).encode()


async def claims_of(settings: Auth, answer: dict[str, str | int]) -> Claims:
    return await Tokens(settings).claims(f"Bearer {answer['access_token']}")


@pytest.mark.parametrize("settings", [CHECKED, UNCHECKED])
async def test_each_grant_gives_a_token_that_counts(settings: Auth) -> None:
    issuer = TokenIssuer(settings, "default")
    answer = issuer.issue(form(grant_type="password", username="ann", password="x"))
    assert answer.keys() == {"access_token", "refresh_token", "expires_in", "sub", "token_type"}
    assert (answer["sub"], answer["token_type"], answer["expires_in"]) == ("ann", "bearer", 3600)
    ann = Claims("ann", "default", frozenset(), is_service=False, is_ops=False)
    assert await claims_of(settings, answer) == ann

    again = issuer.issue(form(grant_type="refresh_token", refresh_token=str(answer["refresh_token"])))
    assert await claims_of(settings, again) == ann
    assert again["access_token"] != answer["access_token"]

    service = issuer.issue(b"", "grant_type=client_credentials&client_id=sender&organization=acme")
    assert await claims_of(settings, service) == Claims("sender", "acme", frozenset({"SERVICE", "OPS"}), True, True)


async def test_a_client_may_name_itself_in_the_header_and_the_form_wins_over_the_query() -> None:
    header = f"Basic {base64.b64encode(b'my%20client:x').decode()}"
    issuer = TokenIssuer(CHECKED, "default")
    assert issuer.issue(form(grant_type="client_credentials"), authorization=header)["sub"] == "my client"
    answer = issuer.issue(form(grant_type="client_credentials", client_id="form"), "client_id=query", header)
    assert answer["sub"] == "form"


async def test_a_refresh_token_is_no_access_token() -> None:
    answer = TokenIssuer(CHECKED, "default").issue(form(grant_type="password", username="ann", password="x"))
    with pytest.raises(Refusal, match="unauthorized"):
        await Tokens(CHECKED).claims(f"Bearer {answer['refresh_token']}")


@pytest.mark.parametrize(
    ("body", "authorization", "reason"),
    [
        (b"", None, "invalid_params: grant_type"),
        (b"\xff\x00=&&;", None, "invalid_params: grant_type"),
        (form(grant_type="implicit"), None, "invalid_params: grant_type"),
        (form(grant_type="password", username="ann"), None, "invalid_params: password"),
        (form(grant_type="password", password="x"), None, "invalid_params: username"),
        (form(grant_type="password", password="x", username="a/b"), None, "invalid_params: username"),
        (form(grant_type="password", password="x", username="a", organization="?"), None, "invalid_params: organ"),
        (form(grant_type="password", password="x", username="a", organization=""), None, "invalid_params: organ"),
        (form(grant_type="password", password="x", username="a") + b"&username=b", None, "invalid_params: username is"),
        (form(grant_type="client_credentials"), None, "invalid_params: client_id"),
        (form(grant_type="client_credentials"), "Basic ?", "invalid_params: the header"),
        (form(grant_type="refresh_token"), None, "invalid_params: refresh_token"),
        (form(grant_type="refresh_token", refresh_token="x"), None, "unauthorized: refresh_token"),
        (form(**{f"f{number}": "" for number in range(MAXIMUM_FIELDS + 1)}), None, "invalid_params: form"),
    ],
)
def test_what_is_asked_wrongly(body: bytes, authorization: str | None, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        TokenIssuer(UNCHECKED, "default").issue(body, authorization=authorization)


def test_the_refresh_token_of_another_bridge_does_not_count() -> None:
    answer = TokenIssuer(CHECKED, "default").issue(form(grant_type="password", username="ann", password="x"))
    with pytest.raises(Refusal, match="unauthorized"):
        TokenIssuer(CHECKED, "default").issue(
            form(grant_type="refresh_token", refresh_token=str(answer["refresh_token"]))
        )

import asyncio
import base64
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest

from bridge.adapters.http.tokens import MAXIMUM_TOKEN_LENGTH, Claims, Tokens
from bridge.errors import Refusal
from bridge.settings import Auth
from tests.unit.adapters.http.identity import EC, OTHER_RSA, RSA, SECRET, auth, jwk, jwks, now, pem, token


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    (tmp_path / "keys.json").write_bytes(jwks(jwk(RSA, "one"), jwk(EC, "two")))
    return Tokens(auth(jwks_file=str(tmp_path / "keys.json"), audience="bridge", issuer="https://id", leeway_seconds=5))


def bearer(*args: Any, **claims: Any) -> str:
    return f"Bearer {token(*args, **({'aud': 'bridge', 'iss': 'https://id'} | claims))}"


async def refused(tokens: Tokens, authorization: str | None) -> str:
    with pytest.raises(Refusal) as caught:
        await tokens.claims(authorization)
    return str(caught.value)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed_with_the_public_key() -> str:
    """What PyJWT refuses to make: HS256 with the text of a public key as its secret."""
    text = (
        f"{part({'alg': 'HS256', 'kid': 'one'})}.{part({'sub': 'ann', 'organization_id': 'acme', 'exp': now() + 3600})}"
    )
    signature = hmac.digest(pem(RSA), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_the_claims_of_a_good_token(tokens: Tokens) -> None:
    ann = Claims("ann", "acme", frozenset(), is_service=False, is_ops=False)
    assert await tokens.claims(bearer()) == ann
    assert await tokens.claims(bearer(EC, "ES256", "two").replace("Bearer", "bearer")) == ann
    assert await tokens.claims(bearer(aud=["x", "bridge"], scope="read global")) == ann
    assert await tokens.claims(bearer(scope=["global"], exp=now() - 2, nbf=now() + 2)) == ann


async def test_roles_make_services_and_ops_who_need_no_user_and_no_organization(tokens: Tokens) -> None:
    service = await tokens.claims(bearer(sub=None, organization_id=None, roles=["SERVICE", "x"]))
    assert service == Claims(None, None, frozenset({"SERVICE", "x"}), is_service=True, is_ops=False)
    ops = await tokens.claims(bearer(roles="OPS"))
    assert (ops.user, ops.is_service, ops.is_ops) == ("ann", False, True)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": now() - 60}, "unauthorized: the token has expired"),
        ({"exp": None}, "unauthorized: the token has no exp"),
        ({"exp": "soon"}, "unauthorized: the token cannot be read"),
        ({"exp": float("inf")}, "unauthorized: the token cannot be read"),
        ({"nbf": now() + 3600}, "unauthorized: the token is not valid yet"),
        ({"aud": "other"}, "unauthorized: the token is for another audience"),
        ({"aud": None}, "unauthorized: the token has no aud"),
        ({"iss": "https://other"}, "unauthorized: the token is of another issuer"),
        ({"iss": None}, "unauthorized: the token has no iss"),
        ({"sub": None}, "unauthorized: the token has no sub"),
        ({"sub": ""}, "unauthorized: the token's sub cannot name"),
        ({"sub": "a/#"}, "unauthorized: the token's sub cannot name"),
        ({"organization_id": None}, "unauthorized: the token has no organization_id"),
        ({"organization_id": 7}, "unauthorized: the token's organization_id cannot name"),
        ({"organization_id": "a/b"}, "unauthorized: the token's organization_id cannot name"),
        ({"roles": {"SERVICE": True}}, "unauthorized: the token's roles is neither"),
        ({"roles": [1]}, "unauthorized: the token's roles is neither"),
        ({"scope": "read globals"}, "forbidden: the token's scope does not hold global"),
        ({"scope": ""}, "forbidden: the token's scope does not hold global"),
    ],
)
async def test_a_claim_that_does_not_do(tokens: Tokens, claims: dict[str, Any], reason: str) -> None:
    assert reason in await refused(tokens, bearer(**claims))


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "no token: send the header"),
        ("", "holds no bearer token"),
        ("Basic YW5uOng=", "holds no bearer token"),
        ("Bearer", "holds no bearer token"),
        ("Bearer x", "cannot be read"),
        ("Bearer a.b.c", "cannot be read"),
        ("Bearer ü.ü.ü", "cannot be read"),
        (f"Bearer {'x' * (MAXIMUM_TOKEN_LENGTH + 1)}", "is longer than"),
        (f"Bearer {base64.urlsafe_b64encode(b'[' * 9000).decode()}.e30.x", "cannot be read"),
        (f"Bearer {part({'alg': 'RS256', 'kid': 1})}.e30.x", "cannot be read"),
        (f"Bearer {part({'alg': ['RS256']})}.e30.eA", "algorithm"),
        (bearer(OTHER_RSA), "is not signed with a key that is trusted"),
        (bearer(None, "none"), "algorithm"),
        (bearer("s" * 32, "HS256"), "algorithm"),
        (f"Bearer {signed_with_the_public_key()}", "algorithm"),
        (bearer(RSA, "PS256"), "algorithm"),
        # The algorithm is allowed, and not for this key.
        (bearer(EC, "ES256", "one"), "algorithm"),
        (bearer(RSA, "RS256", "two"), "algorithm"),
        (bearer(kid=None), "names no key (kid)"),
        (bearer(kid="../../dev/null"), "names no key (kid)"),
        (bearer(kid="' or 1 = 1"), "names no key (kid)"),
        (bearer(kid="k" * 5000), "names no key (kid)"),
    ],
)
async def test_what_is_no_token_of_ours(tokens: Tokens, authorization: str | None, reason: str) -> None:
    refusal = await refused(tokens, authorization)
    assert refusal.startswith("unauthorized: ")
    assert reason in refusal


async def test_a_changed_payload_breaks_the_signature(tokens: Tokens) -> None:
    header, _, signature = bearer().split(".")
    payload = part({"sub": "bob", "organization_id": "acme", "exp": now() + 60})
    assert "is not signed with a key" in await refused(tokens, f"{header}.{payload}.{signature}")


async def test_the_key_in_the_token_itself_is_not_looked_at(tokens: Tokens) -> None:
    claims = {"sub": "ann", "organization_id": "acme", "exp": now() + 60, "aud": "bridge", "iss": "https://id"}
    own = {"kid": "one", "jwk": jwk(OTHER_RSA, "one"), "jku": "http://127.0.0.1/keys", "x5u": "http://127.0.0.1/x"}
    forged = jwt.encode(claims, OTHER_RSA, "RS256", headers=own)
    assert "is not signed with a key" in await refused(tokens, f"Bearer {forged}")


async def test_a_key_file_needs_no_kid(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem(RSA))
    tokens = Tokens(auth(key_file=str(tmp_path / "key.pem")))
    for kid in (None, "any"):
        assert (await tokens.claims(f"Bearer {token(kid=kid)}")).user == "ann"
    # Without auth.audience a token for somebody else counts, as the settings say.
    assert (await tokens.claims(f"Bearer {token(aud='other')}")).user == "ann"


async def test_a_shared_secret() -> None:
    tokens = Tokens(auth(secret=SECRET, algorithms=["HS256", "HS512"]))
    assert (await tokens.claims(f"Bearer {token(SECRET, 'HS512')}")).user == "ann"
    assert "algorithm" in await refused(tokens, f"Bearer {token(SECRET, 'HS384')}")
    assert "algorithm" in await refused(tokens, f"Bearer {token()}")
    assert "not signed" in await refused(tokens, f"Bearer {token('x' * 64, 'HS256')}")


async def test_without_checks_the_claims_are_taken_and_no_token_means_a_service() -> None:
    tokens = Tokens(Auth())
    everything = await tokens.claims(None)
    assert everything == Claims(None, None, frozenset({"SERVICE", "OPS"}), is_service=True, is_ops=True)
    for made in (token(exp=1), token(None, "none"), token("k" * 32, "HS256", roles=[])):
        assert await tokens.claims(f"Bearer {made}") == Claims("ann", "acme", frozenset(), False, False)
    assert (await tokens.claims(f"Bearer {token(organization_id=None)}")).organization is None
    for authorization, reason in [
        ("Basic YW5uOng=", "unauthorized"),
        ("Bearer x", "unauthorized"),
        (f"Bearer {token(sub=None)}", "unauthorized"),
        (f"Bearer {token(sub='a/b')}", "unauthorized"),
        (f"Bearer {base64.urlsafe_b64encode(b'[' * 9000).decode()}.e30.x", "unauthorized"),
        (f"Bearer {token(scope='read')}", "forbidden"),
    ]:
        assert (await refused(tokens, authorization)).startswith(reason)


async def test_a_new_key_in_the_file_counts_as_soon_as_a_token_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.adapters.http.keys.PAUSE_SECONDS", 0)
    file = tmp_path / "keys.json"
    file.write_bytes(jwks(jwk(RSA, "one")))
    tokens = Tokens(auth(jwks_file=str(file)))
    assert (await tokens.claims(f"Bearer {token()}")).user == "ann"
    file.write_bytes(jwks(jwk(OTHER_RSA, "new")))
    many = (tokens.claims(f"Bearer {token(OTHER_RSA, kid='new')}") for _ in range(5))
    assert [claims.user for claims in await asyncio.gather(*many)] == ["ann"] * 5
    assert "names no key" in await refused(tokens, f"Bearer {token()}")

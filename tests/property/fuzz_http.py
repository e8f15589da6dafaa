"""Random HTTP requests and tokens: every answer is one that is documented, and no forged token is anybody's."""

import asyncio
import base64
import hmac
import json
import logging
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from bridge.adapters.http.tokens import Claims, Tokens
from bridge.errors import Refusal
from tests.property.found import Found
from tests.property.fuzz_inputs import CANARY, METHODS, one_id, payload_of
from tests.unit.adapters.http.api import BASE, JWT, Api
from tests.unit.adapters.http.identity import EC, OTHER_RSA, RSA, SECRET, auth, jwk, jwks, now, pem, token

CASES_PER_HOUSE = 200  # which takes some time to build; what one of them leaves there the next may meet
STATUSES = frozenset((200, 201, 204, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 431, 503))
CALLS = (
    *(("POST", BASE), ("POST", f"{BASE}/register"), ("POST", f"{BASE}/keepalive"), ("POST", f"{BASE}/unregister")),
    *(("POST", f"{BASE}/sendEvent"), ("GET", BASE), ("GET", f"{BASE}/{{}}"), ("POST", "/rpc/{method}")),
    *(("POST", "/rpc/{method}"), ("POST", "/rooms"), ("GET", "/rooms/{}"), ("DELETE", "/rooms/{}")),
    *(
        ("POST", "/rooms/{}"),
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing/{}"),
    ),
    *(("GET", "//"), ("GET", "/%00"), ("GET", f"{BASE}/../../metrics")),
)
OPEN = ("/rooms", "/healthz", "/metrics", "/openapi.json")


class Http:
    """Requests to an API that asks for tokens.

    Args:
        seed: of the dice.
        timed: takes no part here: what the machine does besides is too much of it.

    Attributes:
        seen: how many requests ended how.
    """

    PROMISE = "no failure, no answer that is not documented, nothing for who shows no good token"
    slowest_seconds = 0.0
    slowest_number = 0

    def __init__(self, seed: int, *, timed: bool) -> None:
        self._seed = seed
        self._api: Api | None = None
        self.seen: Counter[str] = Counter()

    def case(self, number: int) -> None:
        """Try one.

        Raises:
            Found: it may not do that.
        """
        dice = random.Random(f"{self._seed}/{number}")
        if self._api is None or number % CASES_PER_HOUSE == 0:
            self._api = Api(auth=JWT)
        with capture_logs() as lines:
            asyncio.run(self._ask(self._api, dice))
        for line in lines:
            if "bug" in line["event"] or CANARY in str(line):
                raise Found(f"logged {line}")

    async def _ask(self, api: Api, dice: random.Random) -> None:
        method, template = dice.choice(CALLS)
        if dice.random() < 0.1:
            method = dice.choice(("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "X"))
        path = template.replace("{method}", dice.choice(METHODS)).replace("{}", one_id(dice))
        path = path.encode("ascii", "backslashreplace").decode().replace("#", "%23").replace("\x00", "%00")
        is_good, headers = _authorization(dice)
        if dice.random() < 0.2:
            headers["Content-Type"] = dice.choice(("text/plain", "application/json; charset=utf-16", "x", "a/b" * 99))
        if dice.random() < 0.1:
            headers["Idempotency-Key"] = dice.choice(("k1", "", "x" * 500, CANARY))
        if dice.random() < 0.2:
            path += dice.choice(("?userId=ann", "?userId=", "?userId=ann&userId=bob", "?outcomes=true", "?a=%ff", "?="))
        likely = "send_event" if "sendEvent" in path else path if "rpc/" in path else "register_endpoint"
        body = payload_of(dice, likely) if method != "GET" or dice.random() < 0.1 else None
        answer = await api.ask(method, path, body, headers=headers)
        shown = f"{method} {path[:300]} {headers} {body!r:.1000} -> {answer.status_code} {answer.text[:500]}"
        self.seen[str(answer.status_code)] += 1
        if answer.status_code not in STATUSES:
            raise Found(f"no answer that is documented: {shown}")
        if answer.status_code >= 400 and answer.content:
            if answer.headers["content-type"] != "application/problem+json" or "code" not in answer.json():
                raise Found(f"no problem as documented: {shown}")
            # What is fit to be an endpoint's id is named to who asks for it.
            if CANARY in answer.text.replace(f"userEndpointId {CANARY} ", ""):
                raise Found(f"it repeats what was sent: {shown}")
        if answer.is_success and not is_good and not path.startswith(OPEN) and "metrics" not in path:
            raise Found(f"it was done for nobody: {shown}")


def _authorization(dice: random.Random) -> tuple[bool, dict[str, str]]:
    """A header with a good token or none, and whether it is good."""
    kind = dice.random()
    if kind < 0.15:
        return False, {}
    claims: dict[str, Any] = {"organization_id": dice.choice(("default", "default", "acme"))}
    if kind < 0.6:
        claims["roles"] = dice.choice((["SERVICE"], ["SERVICE", "OPS"], "OPS"))
    text = token(SECRET, "HS256", None, **claims)
    if kind < 0.85:
        return True, {"Authorization": f"Bearer {text}"}
    bad = (text[:-5], text + "x", text.replace(".", "", 1), "", "null", CANARY, "x" * 20_000, text.swapcase())
    return False, {"Authorization": dice.choice(("Bearer ", "bearer ", "Basic ", "")) + dice.choice(bad)}


class Forged:
    """Tokens torn, mended, or signed by others or with something else: each is refused, or says what it said."""

    PROMISE = "nobody's token was taken"
    slowest_seconds = 0.0
    slowest_number = 0

    def __init__(self, seed: int, *, timed: bool) -> None:
        self._seed = seed
        self.seen: Counter[str] = Counter()
        logging.getLogger("bridge").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "keys.json"
            file.write_bytes(jwks(jwk(RSA, "one"), jwk(EC, "two")))
            self._tokens = Tokens(auth(jwks_file=str(file), algorithms=["RS256", "ES256"], audience="bridge"))
            asyncio.run(self._tokens.claims(f"Bearer {token(aud='bridge')}"))  # the keys are read

    def case(self, number: int) -> None:
        """Try one.

        Raises:
            Found: it may not do that.
        """
        dice = random.Random(f"{self._seed}/{number}")
        key, algorithm, kid = dice.choice(((RSA, "RS256", "one"), (EC, "ES256", "two")))
        claims = {"aud": "bridge", "roles": dice.choice((["SERVICE"], [], "OPS", 7)), "sub": one_id(dice)}
        text, is_whole = token(key, algorithm, kid, **claims), True
        kind = dice.random()
        if kind < 0.1:
            text, is_whole = token(OTHER_RSA, "RS256", dice.choice(("one", "two", None)), **claims), False
        elif kind < 0.9:
            text, is_whole = _forged(dice, text), False
        try:
            found = asyncio.run(self._tokens.claims(f"Bearer {text}"))
        except Refusal as refusal:
            self.seen[refusal.code] += 1
            if text[20:60] in refusal.message:
                raise Found(f"the refusal repeats the token: {refusal.message}") from None
            return
        self.seen["taken"] += 1
        if is_whole:
            return
        honest = asyncio.run(self._tokens.claims(f"Bearer {token(key, algorithm, kid, **claims)}"))
        if found != honest or not isinstance(found, Claims):  # the last bits of base64 may differ and mean nothing
            raise Found(f"taken as {found}: {text}")


def _forged(dice: random.Random, text: str) -> str:
    header, body, signature = text.split(".")
    kind = dice.randint(0, 6)
    if kind == 0:
        alg = dice.choice(("none", "None", "HS256", "RS512", "ES384", "", None, 7))
        header = _part({"alg": alg, "kid": dice.choice(("one", "two", "../one", "", 1, None))})
        signature = dice.choice((signature, "", _part(b"x" * 32)))
    elif kind == 1:
        body = _part({"sub": "root", "organization_id": "acme", "exp": now() + 3600, "aud": "bridge", "roles": ["OPS"]})
    elif kind == 2:
        header, body = _part(dice.randbytes(dice.choice((0, 3, 50)))), _part(json.dumps([1] * 9).encode())
    elif kind == 3:
        header = _part({"alg": "RS256", "jwk": jwk(OTHER_RSA, "one"), "jku": "http://127.0.0.1:1/", "kid": "x"})
    elif kind == 4:
        header = _part({"alg": "HS256", "kid": "one"})
        signature = _part(hmac.digest(pem(RSA), f"{header}.{body}".encode(), "sha256"))
    parts = ".".join((header, body, signature))
    if kind >= 5:
        for _ in range(dice.choice((1, 2, 5))):
            place = dice.randint(0, len(parts) - 1)
            parts = parts[:place] + dice.choice("AZaz09-_.=+/ é\x00") + parts[place + dice.randint(0, 1) :]
    return parts


def _part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

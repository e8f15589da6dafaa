import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bridge.adapters.http import keys as module
from bridge.adapters.http.keys import FRESH_SECONDS, PAUSE_SECONDS, KeySet, fetch, key_set, keys_of
from bridge.errors import ConfigError, Refusal
from tests.unit.adapters.http.identity import EC, OTHER_RSA, RSA, auth, jwk, jwks, pem

ALLOWED = ["RS256", "ES256"]


class Source:
    """A set that changes, and that counts how often it is read."""

    def __init__(self, text: bytes | Exception) -> None:
        self.text = text
        self.reads = 0
        self.now = 1000.0
        self.keys = KeySet(self.read, ALLOWED, lambda: self.now)

    def read(self) -> bytes:
        assert threading.current_thread() is not threading.main_thread(), "the loop was blocked"
        self.reads += 1
        if isinstance(self.text, Exception):
            raise self.text
        return self.text


async def test_an_unknown_kid_reads_once_for_all_and_then_not_for_a_while() -> None:
    source = Source(jwks(jwk(RSA, "one")))
    assert all(await asyncio.gather(*(source.keys.find("one") for _ in range(5))))
    assert source.reads == 1
    for number in range(20):
        assert await source.keys.find(f"guess{number}") is None
    assert source.reads == 1
    source.now += PAUSE_SECONDS
    source.text = jwks(jwk(RSA, "two"))
    assert await source.keys.find("two") is not None
    assert await source.keys.find("one") is None
    assert await source.keys.find("x" * 1000) is None
    assert source.reads == 2


async def test_an_old_set_serves_while_it_is_read_again() -> None:
    source = Source(jwks(jwk(RSA, "one")))
    await source.keys.find("one")
    source.now += FRESH_SECONDS + 1
    source.text = jwks(jwk(RSA, "two"))
    assert await source.keys.find("one") is not None
    assert await source.keys.find("two") is not None
    assert await source.keys.find("one") is None
    assert source.reads == 2


@pytest.mark.parametrize("fault", [OSError("away"), TimeoutError("slow"), b"{}", b"not json", b"[" * 100_000])
async def test_while_the_issuer_is_away_known_keys_serve_and_without_any_one_has_to_wait(fault: Any) -> None:
    source = Source(fault)
    with pytest.raises(Refusal, match="unavailable"):
        await source.keys.find("one")
    source.now += PAUSE_SECONDS
    source.text = jwks(jwk(RSA, "one"))
    assert await source.keys.find("one") is not None
    source.now += PAUSE_SECONDS
    source.text = fault
    assert await source.keys.find("other") is None
    assert await source.keys.find("one") is not None


async def test_a_caller_that_goes_away_leaves_the_others_their_keys() -> None:
    source = Source(jwks(jwk(RSA, "one")))
    first, second = (asyncio.create_task(source.keys.find("one")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None


def test_of_a_set_only_public_keys_for_allowed_algorithms_count() -> None:
    private = jwk(RSA, "private") | {"d": "AQAB"}
    entries = [
        jwk(RSA, "rsa"),
        jwk(EC, "ec"),
        jwk(RSA, "encryption", use="enc"),
        jwk(RSA, "other", alg="RS512"),
        jwk(RSA, "strange", alg=["RS256"]),
        jwk(RSA, "broken", n="?"),
        private,
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "XX", "kid": "unknown"},
        {},
    ]
    found = key_set(jwks(*entries), ALLOWED)
    assert {kid: key.algorithms for kid, key in found.items()} == {"rsa": ("RS256",), "ec": ("ES256",)}
    assert key_set(jwks(jwk(RSA, "rsa", alg="RS512")), ["RS256", "RS512"])[None].algorithms == ("RS512",)
    with pytest.raises(ValueError, match="no public key for ES256"):
        key_set(jwks(jwk(RSA, "rsa")), ["ES256"])


@pytest.mark.parametrize(
    ("setting", "text", "reason"),
    [
        ("key_file", None, "cannot be read"),
        ("key_file", b"no pem", "is not a public key as PEM"),
        ("key_file", b"", "is not a public key as PEM"),
        ("key_file", pem(RSA), "holds a key for RS256 or .* PS512, not for ES256"),
        ("key_file", EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "holds a private key"),
        ("jwks_file", None, "cannot be read"),
        ("jwks_file", b"[]", "is not a JWKS"),
        ("jwks_file", b"{", "is not a JWKS"),
        ("jwks_file", b"\xff", "is not a JWKS"),
        ("jwks_file", jwks(), "holds no public key for ES256"),
        ("jwks_file", jwks(jwk(OTHER_RSA, "one")), "holds no public key for ES256"),
    ],
)
def test_a_file_without_a_key_that_fits_is_named_at_the_start(
    tmp_path: Path, setting: str, text: bytes | None, reason: str
) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(ConfigError, match=f"auth.{setting}: .*{reason}"):
        keys_of(auth(**{setting: str(file)}, algorithms=["ES256"]))


class Issuer(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {
        "/keys": (200, jwks(jwk(RSA, "one"))),
        "/large": (200, b" " * (module.MAXIMUM_SET_BYTES + 1)),
        "/elsewhere": (302, b""),
    }

    def do_GET(self) -> None:
        status, text = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Location", "/keys")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def issuer() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Issuer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_keys_come_from_the_configured_address_only(issuer: str) -> None:
    key = await keys_of(auth(jwks_url=f"{issuer}/keys")).find("one")
    assert key is not None
    assert key.algorithms == ("RS256",)
    for path, reason in (("/elsewhere", "302"), ("/missing", "404")):
        with pytest.raises(OSError, match=reason):
            fetch(issuer + path)
    with pytest.raises(ValueError, match="longer than"):
        fetch(f"{issuer}/large")


def test_an_address_that_is_slow_is_given_up(issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_SECONDS", 1e-9)
    with pytest.raises(OSError):  # noqa: PT011 - refused by the socket or by the clock, whichever comes first
        fetch(f"{issuer}/keys")

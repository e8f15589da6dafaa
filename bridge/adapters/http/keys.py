"""With which key a token is checked: a fixed one, or one of a JWKS (RFC 7517) that changes while the bridge runs."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.error import HTTPError

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bridge.errors import ConfigError, Refusal
from bridge.settings import Auth

log = structlog.get_logger("bridge.keys")

PAUSE_SECONDS = 10  # between two readings, however many tokens name a key that nobody knows
FRESH_SECONDS = 600  # after which a set is read again while its keys go on serving, so that a withdrawn one goes
FETCH_SECONDS = 5
MAXIMUM_SET_BYTES = 1024 * 1024
MAXIMUM_KID_LENGTH = 256

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVE_ALGORITHMS = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}


class Key(NamedTuple):
    """A key and the algorithms that a token may be signed with by it."""

    material: Any
    algorithms: tuple[str, ...]


class Keys(Protocol):
    """Where keys are found."""

    async def find(self, kid: str | None) -> Key | None:
        """Return the key that a token names, None where there is no such key.

        Raises:
            Refusal: ``unavailable``, no key could be read yet.
        """


class FixedKey:
    """The one key of a file or of the secrets folder, whatever a token calls it."""

    def __init__(self, key: Key) -> None:
        self._key = key

    async def find(self, kid: str | None) -> Key:  # noqa: ARG002 - one key needs no name
        """Return the key."""
        return self._key


class KeySet:
    """The keys of a JWKS by their ids. It is read in a thread, by one reader at a time, and seldom.

    Args:
        read: returns the text of the set; called outside the loop.
        allowed: algorithms that tokens may be signed with.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self, read: Callable[[], bytes], allowed: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._allowed = allowed
        self._clock = clock
        self._keys: dict[str | None, Key] = {}
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Read the set at once, before the loop runs.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds no key that can be used.
        """
        self._keys = key_set(self._read(), self._allowed)
        self._read_at = self._tried_at = self._clock()

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of that id; for an unknown one the set is read again first, unless it just was."""
        if kid is not None and len(kid) > MAXIMUM_KID_LENGTH:
            return None
        key = self._keys.get(kid)
        if key is None:
            await self._read_again()
            if not self._keys:
                raise Refusal("unavailable", "the keys of auth.jwks_url cannot be read: try again later")
            return self._keys.get(kid)
        if self._clock() - self._read_at > FRESH_SECONDS:
            self._begin()
        return key

    def _begin(self) -> None:
        if self._reading is None and self._clock() - self._tried_at >= PAUSE_SECONDS:
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._renew(), name="keys")

    async def _read_again(self) -> None:
        self._begin()
        if self._reading is not None:
            await asyncio.shield(self._reading)  # a caller that goes away does not end it for the others

    async def _renew(self) -> None:
        try:
            self._keys = key_set(await asyncio.to_thread(self._read), self._allowed)
            self._read_at = self._clock()
        except (OSError, ValueError) as error:
            log.warning("the keys for tokens cannot be read; those known stay in use", reason=str(error))
        finally:
            self._reading = None


def keys_of(auth: Auth) -> Keys:
    """Return the keys that the settings name, with ``mode = "jwt"``.

    Raises:
        ConfigError: a file cannot be read or holds no key that fits ``auth.algorithms``. What is wrong with an address
            shows at the first token.
    """
    if secret := auth.secret.get_secret_value():
        return FixedKey(Key(secret.encode(), tuple(auth.algorithms)))
    if auth.jwks_url:
        return KeySet(partial(fetch, auth.jwks_url), auth.algorithms)
    setting, path = ("key_file", auth.key_file) if auth.key_file else ("jwks_file", auth.jwks_file)
    try:
        if setting == "key_file":
            return FixedKey(_one_key(Path(path).read_bytes(), auth.algorithms))
        keys = KeySet(Path(path).read_bytes, auth.algorithms)
        keys.load()
    except OSError as error:
        raise ConfigError(
            f"auth.{setting}: {path} cannot be read ({error.strerror}); name a file that exists"
        ) from None
    except ValueError as error:
        raise ConfigError(f"auth.{setting}: {path} {error}; name another file, or change auth.algorithms") from None
    return keys


def _one_key(text: bytes, allowed: Sequence[str]) -> Key:
    """Return the key of a PEM file.

    Raises:
        ValueError: says what it is instead, and nothing of what is in it.
    """
    if b"PRIVATE KEY-----" in text:
        raise ValueError("holds a private key, which only the issuer of the tokens should have; write the public one")
    try:
        material = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a public key as PEM (-----BEGIN PUBLIC KEY-----)") from None
    return _public_key(material, allowed)


def key_set(text: bytes, allowed: Sequence[str]) -> dict[str | None, Key]:
    """Return the usable keys of a JWKS by id; the only one also stands under None, for tokens that name none.

    What is for encryption, private, symmetric, or for algorithms that are not allowed is left out.

    Raises:
        ValueError: it is not a JWKS, or nothing remains.
    """
    try:
        entries = json.loads(text)["keys"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError('is not a JWKS: an object with a list "keys"') from None
    keys = [
        (entry.get("kid"), key)
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and (key := _entry(entry, allowed))
    ]
    if not keys:
        raise ValueError(f"holds no public key for {' or '.join(allowed)}")
    found: dict[str | None, Key] = {kid: key for kid, key in keys if isinstance(kid, str)}
    if len(keys) == 1:
        found[None] = keys[0][1]
    return found


def _entry(entry: dict[str, Any], allowed: Sequence[str]) -> Key | None:
    named = entry.get("alg")
    if entry.get("use", "sig") != "sig" or (named and named not in allowed):
        return None
    try:
        return _public_key(jwt.PyJWK(entry).key, [named] if named else allowed)
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _public_key(material: Any, allowed: Sequence[str]) -> Key:
    """Tie a key to the algorithms of its own type: that a token names another one then leads nowhere."""
    match material:
        case RSAPublicKey():
            fitting: tuple[str, ...] = RSA_ALGORITHMS
        case EllipticCurvePublicKey():
            fitting = CURVE_ALGORITHMS.get(material.curve.name, ())
        case Ed25519PublicKey():
            fitting = ("EdDSA",)
        case _:
            fitting = ()
    algorithms = tuple(name for name in allowed if name in fitting)
    if not algorithms:
        raise ValueError(
            f"holds a key for {' or '.join(fitting) or 'none that is known'}, not for {' or '.join(allowed)}"
        )
    return Key(material, algorithms)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keys come from the address that was configured, and from no other that it might name."""

    def redirect_request(self, *_: Any) -> None:
        return None


def fetch(url: str) -> bytes:
    """Return what is at an address that `bridge.settings.Auth` has checked.

    Raises:
        OSError: it does not answer with 200, or not in time.
        ValueError: its answer is too large.
    """
    end = time.monotonic() + FETCH_SECONDS
    text = b""
    try:
        with urllib.request.build_opener(_NoRedirect).open(url, timeout=FETCH_SECONDS) as answer:
            while chunk := answer.read1(65_536):
                text += chunk
                if len(text) > MAXIMUM_SET_BYTES:
                    raise ValueError(f"the answer is longer than {MAXIMUM_SET_BYTES} bytes")
                if time.monotonic() > end:
                    raise TimeoutError(f"the answer takes longer than {FETCH_SECONDS} s")
    except HTTPError as error:
        error.close()
        raise OSError(f"the answer is {error.code}, not 200") from None
    except HTTPException as error:
        raise OSError(f"the answer is not HTTP: {type(error).__name__}") from None
    return text

"""What `doctor` looks at, one thing a function; each says what it found and, where something is wrong, what to do."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Literal, NamedTuple
from urllib.error import HTTPError

from bridge.acl import access_rules
from bridge.adapters.http.keys import fetch, key_set, keys_of
from bridge.adapters.mqtt.dial import exposes_password
from bridge.adapters.mqtt.handshake import LARGEST_PACKET_BYTES, lack, topic_filters
from bridge.adapters.redis_connection import RedisConnection
from bridge.errors import ConfigError, Refusal, RegistryUnavailable, Unreachable
from bridge.shell.caller import Caller, Place, calling

HTTP_SECONDS: Final = 5.0
FEW_IN_FLIGHT: Final = 100
PACKET_OVERHEAD_BYTES: Final = 2_048  # of an RPC request around its parameters
SLOW_MS: Final = 250

Verdict = Literal["ok", "warn", "fault"]


class Finding(NamedTuple):
    """What one look has shown."""

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""


async def examine(place: Place) -> AsyncIterator[Finding]:
    """Look at everything, from the settings to an answer of the bridge."""
    for finding in settings(place):
        yield finding
    async for finding in redis(place):
        yield finding
    async for finding in broker(place):
        yield finding
    for finding in await asyncio.to_thread(lambda: list(http(place))):
        yield finding


def settings(place: Place) -> Iterator[Finding]:
    """Look at what the settings say together; that each is right by itself is known by now."""
    auth = place.settings.auth
    yield Finding("settings", "ok", f"bridge {place.settings.name}, organization {place.organization}")
    if auth.mode == "jwt":
        try:
            keys_of(auth)
            if auth.jwks_url:
                key_set(fetch(auth.jwks_url), auth.algorithms)
            yield Finding("keys", "ok", "the keys for tokens can be read")
        except ConfigError as error:
            yield Finding("keys", "fault", str(error))
        except (OSError, ValueError) as error:
            yield Finding("keys", "fault", f"auth.jwks_url {error}", "name the address of the issuer's JWKS")
    try:
        access_rules(place.settings, place.organization if "{organization}" in place.settings.prefix else None)
        yield Finding("isolation", "ok", "`endpoint-bridge acl` prints rules that isolate endpoints")
    except ConfigError as error:
        yield Finding("isolation", "warn", "no access rules of the broker can isolate endpoints", str(error))


async def redis(place: Place) -> AsyncIterator[Finding]:
    """Look at Redis: whether it answers, may lose records, and whom it knows."""
    given = place.settings.redis
    try:
        connection = RedisConnection(
            given.url, timeout_seconds=given.timeout_seconds, scripts=(), tls=place.rooms.redis_tls
        )
        began = asyncio.get_running_loop().time()
        info, organizations = await connection.ask(("INFO",), ("SMEMBERS", f"{given.key_prefix}:organizations"))
        milliseconds = (asyncio.get_running_loop().time() - began) * 1000
        await connection.close()
    except (RegistryUnavailable, ConfigError) as error:
        yield Finding("redis", "fault", str(error))
        return
    facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    version = facts.get("valkey_version") or facts.get("redis_version", "?")
    yield Finding(
        "redis", "ok", f"version {version} answers in {milliseconds:.0f} ms; maxmemory-policy noeviction, no cluster"
    )
    for finding in (*_persistence(facts), *_memory(facts)):
        yield finding
    known = {name.decode() for name in organizations} if isinstance(organizations, set | list) else set()
    others = sorted(known - {place.settings.default_organization})
    if others and "{organization}" not in place.settings.prefix:
        yield Finding(
            "organizations",
            "warn",
            f"{', '.join(others[:5])}{' and more' if len(others) > 5 else ''}: reached over HTTP only. All "
            f"that comes by MQTT is {place.settings.default_organization}'s, so presence does not concern them",
            'if it should: set prefix = "{organization}/", and a listener for each (config/bridge.tenants.toml)',
        )
    else:
        yield Finding("organizations", "ok", f"{len(known | {place.settings.default_organization})} known")


def _persistence(facts: dict[str, str]) -> Iterator[Finding]:
    if facts.get("aof_enabled") != "1":
        yield Finding(
            "persistence",
            "warn",
            "Redis keeps no append-only file: a crash of it loses what was acknowledged since its last snapshot",
            "set appendonly yes and appendfsync everysec, or always (docs/operations.md)",
        )
    elif facts.get("aof_last_write_status", "ok") != "ok":
        yield Finding("persistence", "fault", "Redis cannot write its append-only file", "look at its disk and its log")
    else:
        yield Finding("persistence", "ok", "Redis keeps an append-only file")


def _memory(facts: dict[str, str]) -> Iterator[Finding]:
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if most and used > 0.8 * most:
        yield Finding(
            "memory",
            "warn",
            f"Redis uses {100 * used // most} % of its maxmemory; when it is full nothing is acknowledged any more",
            "raise maxmemory, or lower audit.maximum_entries",
        )


async def broker(place: Place) -> AsyncIterator[Finding]:
    """Look at the broker, what it says of the bridge, and whether the bridge answers through it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    at = f"{place.settings.mqtt.host}:{place.settings.mqtt.port}"
    try:
        async with calling(place, place.topic("state")) as caller:
            yield Finding("broker", "ok", f"{at} answers in {(loop.time() - began) * 1000:.0f} ms")
            for finding in _terms(place, caller):
                yield finding
            answer = await _answer(caller)
            for finding in (*_states(place, caller), answer):
                yield finding
    except (Unreachable, ConfigError) as error:
        yield Finding("broker", "fault", str(error))


def _terms(place: Place, caller: Caller) -> Iterator[Finding]:
    welcome, mqtt = caller.guest.welcome, place.settings.mqtt
    lacking = lack(welcome, topic_filters(place.guest(place.rooms.inputs.filters)))
    largest = welcome.max_packet_size or LARGEST_PACKET_BYTES
    needed = max(mqtt.rpc_payload_limit_bytes, mqtt.payload_limit_bytes) + PACKET_OVERHEAD_BYTES
    said = f"Receive Maximum {welcome.receive_max}, Maximum Packet Size {largest}"
    if lacking:
        yield Finding("limits", "fault", lacking)
    elif largest < needed:
        yield Finding(
            "limits",
            "warn",
            f"{said}: requests within mqtt.rpc_payload_limit_bytes do not fit",
            f"raise max_packet_size of the broker to {needed}, or lower the limits of [mqtt]",
        )
    elif welcome.receive_max < FEW_IN_FLIGHT:
        yield Finding(
            "limits",
            "warn",
            f"{said}: a batch of outputs waits for PUBACKs after every {welcome.receive_max}",
            "raise max_inflight_messages of the broker, to 1000 for instance",
        )
    else:
        yield Finding("limits", "ok", said)
    peer = caller.guest.peer
    if exposes_password(place.guest(()), peer):
        yield Finding("password", "warn", "the bridge's password goes over the network in clear", "set mqtt.tls = true")


def _states(place: Place, caller: Caller) -> Iterator[Finding]:
    """What the state topics say, which came before the answer to the call."""
    found: dict[str, str] = {}
    while not caller.others.empty():
        heard = caller.others.get_nowait()
        if heard is not None:
            found[heard.topic] = heard.payload.decode(errors="replace")
    own = place.topic("state", name=place.settings.name)
    others = "".join(f"; {topic} says {state}" for topic, state in sorted(found.items()) if topic != own)
    match found.get(own):
        case "online":
            yield Finding("bridge", "ok", f"{own} says online{others}")
        case None:
            yield Finding(
                "bridge",
                "warn" if "online" in found.values() else "fault",
                f"nothing stands at {own}{others}",
                "start the bridge, or set name to that of the one that runs",
            )
        case state:
            yield Finding(
                "bridge",
                "warn" if "online" in found.values() else "fault",
                f"{own} says {state[:40]!r}{others}",
                "start the bridge; its log says why it ended",
            )


async def _answer(caller: Caller) -> Finding:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await caller.ask("session_members", session="doctor")
    except Unreachable as error:
        return Finding("rpc", "fault", str(error))
    except Refusal as error:
        return Finding("rpc", "fault", f"the bridge refuses a question: {error}", "look into its log")
    milliseconds = (loop.time() - began) * 1000
    if milliseconds > SLOW_MS:
        return Finding("rpc", "warn", f"the bridge answers after {milliseconds:.0f} ms", "see its /metrics")
    return Finding("rpc", "ok", f"the bridge answers in {milliseconds:.0f} ms")


def http(place: Place) -> Iterator[Finding]:
    """Ask the bridge itself how it is."""
    given = place.settings.http
    if not given.port:
        return
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(given.host, given.host)  # noqa: S104 - what was configured
    url = f"http://{f'[{host}]' if ':' in host else host}:{given.port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=HTTP_SECONDS) as answer:
            answer.read()
        yield Finding("http", "ok", f"{url} says ready")
    except HTTPError as error:
        with error:
            yield Finding("http", "fault", f"{url} says {error.code}: {'; '.join(_faults(error.read()))}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        yield Finding("http", "fault", f"{url} does not answer ({reason})", "start the bridge, or set http.port")


def _faults(text: bytes) -> list[str]:
    try:
        found: Any = json.loads(text)
        return [str(fault) for fault in found["faults"]]
    except (ValueError, KeyError, TypeError):
        return ["no bridge of this kind listens there"]

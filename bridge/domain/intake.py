"""Intake: from a topic and its bytes to the commands of one input. The table from input to its codec.

An RPC with a valid response topic is always answered, also one that cannot be read or is too large.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import msgspec

from bridge.domain.codec import decode_keepalive, decode_presence, decode_status
from bridge.domain.commands import SERVICE, Caller, Command, Ignore, KeepEndpoint, Reject
from bridge.domain.ids import is_endpoint_id, require_id
from bridge.domain.inputs import Input
from bridge.domain.media_codec import decode_client_media, decode_media
from bridge.domain.methods import RPC_CODES, Call, decode_call
from bridge.domain.permission_codec import decode_permissions
from bridge.domain.room_codec import decode_client_room, decode_room
from bridge.domain.rules import Rules
from bridge.domain.session_codec import decode_session
from bridge.domain.topics import EndpointTopics, InputTopics
from bridge.errors import Refusal

LONGEST_CACHED_TOPIC = 512


class Limits(msgspec.Struct, frozen=True):
    """The largest payloads that are read, in bytes."""

    payload_bytes: int = 65_536
    rpc_bytes: int = 524_288
    status_bytes: int = 16_384


class Reply(NamedTuple):
    """Where an RPC's answer goes: full topic, and the Correlation Data to send back."""

    topic: str
    correlation: bytes | None


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """What one input asks for, and of whom; ``reply`` None where nobody waits for an answer."""

    organization: str
    commands: Sequence[Command]
    reply: Reply | None = None


ECHO: Sequence[Command] = (Ignore(),)
"""The commands of what the bridge itself published and received again."""

_Codec = Callable[[Sequence[str], Input], list[Command]]

_CODECS: dict[str, _Codec] = {
    "user": partial(decode_presence, "user"),
    "participant": partial(decode_presence, "participant"),
    "device": partial(decode_presence, "device"),
    "user_status": partial(decode_status, "user"),
    "participant_status": partial(decode_status, "participant"),
    "device_status": partial(decode_status, "device"),
    "room": decode_room,
    "client_room": decode_client_room,
    "session": decode_session,
    "media": decode_media,
    "client_media": decode_client_media,
    "permissions": decode_permissions,
    "participant_permissions": decode_permissions,
    "keepalive": decode_keepalive,
}


class Intake:
    """Decodes inputs.

    Args:
        topics: the input templates.
        endpoint_topics: checks response topics.
        rules: for the methods' parameters.
        limits: the largest payloads.
        new_random: makes unguessable text for ids that the server gives; the only randomness, handed in here.
    """

    def __init__(
        self,
        topics: InputTopics,
        endpoint_topics: EndpointTopics,
        rules: Rules,
        limits: Limits,
        new_random: Callable[[], str],
    ) -> None:
        self._topics = topics
        # Publishers repeat their topics; a miss costs little more than no cache.
        self._cached_source = lru_cache(maxsize=16_384)(self._source)
        self._endpoint_topics = endpoint_topics
        self._rules = rules
        self._rpc_bytes = limits.rpc_bytes
        self._new_random = new_random
        status = dict.fromkeys(("user_status", "participant_status", "device_status"), limits.status_bytes)
        self._codecs = {source: (codec, status.get(source, limits.payload_bytes)) for source, codec in _CODECS.items()}

    def decode(self, inbound: Input) -> Decoded:
        """Return what an input asks for.

        Raises:
            Refusal: it cannot be taken, and nobody can be answered.
        """
        topic = inbound.topic
        # A topic may have 65,535 bytes: what is longer than any good one does not fill the cache.
        find = self._cached_source if len(topic) <= LONGEST_CACHED_TOPIC else self._source
        source = find(topic)
        if source is None:
            if self._topics.is_own(topic):
                return Decoded(self._topics.default_organization, ECHO)
            raise Refusal("unknown_type", "topic fits no template of the configuration")
        organization, ids, codec, limit_bytes, keepalive = source
        if keepalive is not None and not inbound.payload:
            return keepalive
        if codec is None:
            return self._decode_call(organization, ids, inbound)
        if len(inbound.payload) > limit_bytes:
            raise _too_large(inbound, limit_bytes)
        # A wrapper may hold no event at all; its input is to be acknowledged like any other.
        return Decoded(organization, codec(ids, inbound) or (Ignore(),))

    def _source(self, topic: str) -> tuple[str, tuple[str, ...], _Codec | None, int, Decoded | None] | None:
        """Return whose input a topic brings, the ids it names, its codec (None: a call) and its largest size.

        And what it asks for, where the topic alone says that. None where the topic is no input's.
        """
        match = self._topics.match(topic)
        if match is None:
            return None
        codec, limit_bytes = self._codecs.get(match.source, (None, self._rpc_bytes))
        keepalive = None
        if match.source == "keepalive" and is_endpoint_id(match.ids[0]):
            keepalive = Decoded(match.organization, (KeepEndpoint(match.ids[0]),))
        return match.organization, match.ids, codec, limit_bytes, keepalive

    def _decode_call(self, organization: str, ids: Sequence[str], inbound: Input) -> Decoded:
        if inbound.retained:
            return Decoded(organization, (Ignore(),))  # a request is made once, not at every new subscription
        *users, method = ids
        user = require_id(users[0], "user in the topic") if users else None
        reply = None
        if inbound.response_topic is not None:
            topic = self._endpoint_topics.reply_topic(organization, user, inbound.response_topic)
            reply = Reply(topic, inbound.correlation)
        try:
            if len(inbound.payload) > self._rpc_bytes:
                raise _too_large(inbound, self._rpc_bytes)
            caller, rules = SERVICE if user is None else Caller(user), self._rules
            call = Call(caller, rules, self._new_random, may_name_organization=not rules.organization_in_topic)
            named, command = decode_call(method, inbound.payload, call, organization)
        except Refusal as refusal:
            return Decoded(organization, (Reject(refusal.code, refusal.message),), reply)
        return Decoded(named, (command,), reply)


def answer(result: object) -> bytes:
    """Return the payload of an RPC's answer."""
    return msgspec.json.encode({"result": result})


def error_answer(refusal: Refusal) -> bytes:
    """Return the payload of an RPC's error."""
    code = refusal.code if refusal.code in RPC_CODES else "invalid_params"
    return msgspec.json.encode({"error": {"code": code, "message": refusal.message}})


def _too_large(inbound: Input, limit_bytes: int) -> Refusal:
    return Refusal("too_large", f"payload has {len(inbound.payload)} bytes: at most {limit_bytes} here")

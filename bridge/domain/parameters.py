"""What each RPC method takes: its parameters by name and type, and how they are read.

They come as a JSON object, as an array in the order of the fields, or not at all. Unknown ones are refused, so that a
misspelt one is not silently without effect.
"""

from typing import Any

import msgspec

from bridge.domain.codec import read_document, read_json
from bridge.errors import Refusal


class Params(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What one method takes; the classes below are named for it."""


class Page(Params):
    """Of ``online_<kind>s``, ``busy_<kind>s``, ``status_<kind>s``."""

    limit: int | None = None
    cursor: str = ""


class DeviceStatus(Params):
    """Of ``update_device_status``."""

    uuid: str
    status: str
    timestamp: int | float | str


class Subject(Params):
    """Of ``sessions_of`` and ``explain``."""

    kind: str
    uuid: str


class Session(Params):
    """Of ``session_members``."""

    session: str


class Participant(Session):
    """Of ``media_state`` and ``call_permissions``."""

    participant: str | None = None


class Room(Params):
    """Of ``room_parties``."""

    room: str


class Mute(Params):
    """Of ``mute_participant``; read further by `bridge.domain.permission_codec`."""

    session: str
    participant: Any = None
    mute_all: bool = False
    mute_states: Any = None
    requested_media: Any = None
    admin_id: Any = None
    room_id: Any = None


class Register(Params):
    """Of ``register_endpoint``."""

    user_id: str | None = None
    keep_alive_seconds: int | None = None
    server_keep_alive_reminder_on: bool = False
    user_endpoint_id: str | None = None
    kind: str = "user"
    watch: list[str] | None = None
    organization_id: str | None = None


class Endpoint(Params):
    """Of ``keepalive_endpoint`` and ``view_endpoint``."""

    user_endpoint_id: str


class Unregister(Endpoint):
    """Of ``unregister_endpoint``."""

    reason: str | None = None


class Watch(Endpoint):
    """Of ``watch_endpoint``."""

    watch: list[str]


class Send(Params):
    """Of ``send_event``."""

    event: msgspec.Raw = msgspec.Raw()
    user_id: str | None = None
    user_endpoint_id: str | None = None
    qos: object = 0
    masks: object = None
    organization_id: str | None = None
    outcomes: bool = False


class AuditFilter(Params):
    """Which entries ``events`` is to answer."""

    user_id: str | None = None
    type: str | None = None
    room: str | None = None
    session: str | None = None


class Events(Params):
    """Of ``events``."""

    since: str | None = None
    filter: AuditFilter | None = None
    limit: int | None = None


class User(Params):
    """Of ``list_endpoints``."""

    user_id: str | None = None


def invalid(message: str) -> Refusal:
    """Return what refuses a call for its parameters."""
    return Refusal("invalid_params", message)


# Each value as text, since an event is delivered as it was given.
_decode_values = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw]).decode


def read_parameters(params: type[Params], payload: bytes, *, strict: bool) -> Params:
    """Read a method's parameters.

    Args:
        params: which.
        payload: JSON text; empty: none were given.
        strict: refuse unknown ones; else they are passed over.

    Raises:
        Refusal: ``invalid_params``, or what is wrong with the JSON.
    """
    texts = read_json(_decode_values, payload) if payload else {}
    names = params.__struct_encode_fields__
    if isinstance(texts, list):
        if len(texts) > len(names):
            raise invalid(f"{len(texts)} parameters given: at most {len(names)} ({', '.join(names)})")
        texts = dict(zip(names, texts, strict=False))
    verbatim = _VERBATIM.get(params)
    given = {
        name: text if name == verbatim else _value(name, text)
        for name, text in texts.items()
        if strict or name in names
    }
    try:
        return msgspec.convert(given, params)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None


def _value(name: str, text: msgspec.Raw) -> object:
    try:
        value = read_document(bytes(text))
    except Refusal as refusal:
        raise invalid(f"{name}: {refusal.message}") from None
    # JSON knows one kind of number: 15.0 is 15.
    return int(value) if isinstance(value, float) and value.is_integer() else value


_VERBATIM: dict[type[Params], str] = {Send: "event"}

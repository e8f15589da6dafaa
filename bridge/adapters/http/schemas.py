"""What goes in and out over HTTP, as JSON Schemas; `documents.py` makes the documents of the calls of them.

A value that fits is taken, and one that does not is refused; where a schema cannot tell the two apart (which text is a
JSONPath?) it says nothing, and the description does.
"""

from collections.abc import Sequence
from typing import Any, Final

from bridge.domain.methods import MAXIMUM_REASON_LENGTH
from bridge.domain.mute_table import MEDIA, MUTE_STATES
from bridge.domain.rules import Rules
from bridge.domain.subjects import MAXIMUM_ANSWER
from bridge.domain.values import KINDS

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TRUTH: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
KIND: Final[Schema] = {"type": "string", "enum": list(KINDS)}
VERSION: Final[Schema] = {"type": "integer", "description": "Grows with each change of the record; gaps mean nothing."}

_REST_OF_ID = r"[^+#/\u0000-\u001f\u007f-\u009f]"
_ID = rf"[^$+#/\u0000-\u001f\u007f-\u009f]{_REST_OF_ID}{{0,127}}"
ID: Final[Schema] = {"type": "string", "pattern": f"^{_ID}$"}
ENDPOINT_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^[A-Za-z0-9._~@-]{1,128}$",
    "description": "Id of an endpoint.",
}
ORGANIZATION: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
USER: Final[Schema] = ID | {"description": "Id of a user."}

_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    "(?:(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    f"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_INSTANT = rf"{_DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?Z"
INSTANT: Final[Schema] = {
    "type": "string",
    "pattern": f"^{_INSTANT}$",
    "description": "ISO-8601 in UTC with Z, any fraction of a second.",
}
_WATCHED = rf"\*|(?:{'|'.join(KINDS)}):{_ID}"

VIEW: Final[Schema] = {
    "type": "object",
    "required": ["id", "keepAliveSeconds", "organizationId", "state", "userId", "version"],
    "properties": {
        "id": ENDPOINT_ID,
        "keepAliveSeconds": {"type": "integer"},
        "organizationId": ORGANIZATION,
        "state": {"type": "string", "enum": ["HEALTHY", "SICK", "UNKNOWN"]},
        "userId": USER,
        "version": VERSION,
    },
    "example": {
        "id": "ann-phone",
        "keepAliveSeconds": 15,
        "organizationId": "default",
        "state": "HEALTHY",
        "userId": "ann",
        "version": 1795314496805,
    },
}
OUTCOMES: Final[Schema] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["userEndpointId", "outcome"],
        "properties": {
            "userEndpointId": ENDPOINT_ID,
            "outcome": {"type": "string", "enum": ["acknowledged", "no_subscriber", "sent", "refused"]},
        },
    },
}
SENT: Final[Schema] = {"oneOf": [COUNT, OUTCOMES]}
REGISTERED: Final[Schema] = {"type": "object", "required": ["id"], "properties": {"id": ENDPOINT_ID}}
TOKENS: Final[Schema] = {
    "type": "object",
    "required": ["access_token", "refresh_token", "expires_in", "sub", "token_type"],
    "properties": {
        "access_token": TEXT,
        "refresh_token": TEXT,
        "expires_in": {"type": "integer"},
        "sub": TEXT,
        "token_type": TEXT,
    },
}

NAMED: Final[Schema] = {
    "type": "object",
    "required": ["userEndpointId"],
    "properties": {"userEndpointId": ENDPOINT_ID},
    "example": {"userEndpointId": "ann-phone"},
}
UNREGISTRATION: Final[Schema] = {
    "type": "object",
    "required": ["userEndpointId"],
    "properties": {
        "userEndpointId": ENDPOINT_ID,
        "reason": {"type": ["string", "null"], "maxLength": MAXIMUM_REASON_LENGTH},
    },
    "example": {"userEndpointId": "ann-phone", "reason": "User logout"},
}

EVENT: Final[Schema] = {
    "type": "object",
    "required": ["type", "timestamp"],
    "properties": {
        "type": {"type": "string", "pattern": "^[A-Z][A-Za-z0-9]*[A-Z][A-Za-z0-9]*Event$", "maxLength": 128},
        "timestamp": INSTANT,
    },
}

LIMIT: Final[Schema] = {"type": ["integer", "null"], "minimum": 1, "maximum": MAXIMUM_ANSWER}
SINCE: Final[Schema] = {
    "type": ["string", "null"],
    "pattern": rf"^(?:[0-9]{{13}}-[0-9]{{1,9}}|{_INSTANT})$",
    "description": "An ISO time, or the id of the last entry seen.",
}
PERSON: Final[Schema] = {
    "anyOf": [
        ID,
        {
            "type": "object",
            "required": ["id"],
            "properties": {"id": ID, "type": {}, "deviceIdx": {"type": ["integer", "null"]}},
        },
    ]
}
MEDIA_LIST: Final[Schema] = {"type": "array", "items": {"type": "string", "enum": list(MEDIA)}}


ONE_MUTE_STATE: Final[Schema] = {
    "anyOf": [
        {"type": "object", "propertyNames": {"enum": list(MEDIA)}, "additionalProperties": {"const": state}}
        for state in MUTE_STATES
    ],
    "description": "Of each medium the same state.",
}


def or_null(schema: Schema) -> Schema:
    """Return the schema of a field that may also be null, as if it was left out."""
    return {"anyOf": [schema, {"type": "null"}]}


def an_object(properties: Schema, required: Sequence[str] = (), **more: Any) -> Schema:
    """Return the schema of an object; what is not among its properties is passed over."""
    return {"type": "object", "properties": properties, "required": list(required), **more}


class Bodies:
    """The bodies that depend on the configuration.

    Args:
        rules: the configuration's numbers.
        is_open: who shows no token is a service, which has to say for whom it calls.

    Attributes:
        registration: of ``POST /users/endpoints``.
        sending: of ``POST /users/endpoints/sendEvent``.
        keep_alive_seconds: an interval.
        watch: a list of subjects to watch.
        user: the user that a call is about.
        by_services: fields that have to be there where callers are services.
    """

    def __init__(self, rules: Rules, *, is_open: bool) -> None:
        low, high = rules.minimum_keep_alive_seconds, rules.maximum_keep_alive_seconds
        self.by_services = ["userId"] if is_open else []
        self.user = USER if is_open else or_null(USER)
        self.keep_alive_seconds: Schema = {"type": "integer", "minimum": low, "maximum": high}
        self.watch: Schema = {
            "type": "array",
            "maxItems": rules.maximum_watch,
            "items": {"type": "string", "pattern": f"^(?:{_WATCHED})$"},
            "description": "Subjects like device:lamp, device:* or *.",
        }
        self.registration = an_object(
            {
                "keepAliveSeconds": self.keep_alive_seconds,
                "serverKeepAliveReminderOn": TRUTH | {"default": False},
                "userEndpointId": or_null(ENDPOINT_ID),
                "userId": self.user,
                "kind": KIND | {"default": "user"},
                "watch": or_null(self.watch),
                "organizationId": or_null(ORGANIZATION),
            },
            ["keepAliveSeconds", *self.by_services],
            example={
                "keepAliveSeconds": max(low, min(15, high)),
                "serverKeepAliveReminderOn": True,
                "userEndpointId": "ann-phone",
                **dict.fromkeys(self.by_services, "ann"),
            },
        )
        self.sending = an_object(
            SENDING | {"organizationId": ORGANIZATION if is_open else or_null(ORGANIZATION)},
            ["event", "userId", *(["organizationId"] if is_open else [])],
            example=SENDING_EXAMPLE | ({"organizationId": "default"} if is_open else {}),
            description=MASKS,
        )


SENDING: Final[Schema] = {
    "event": EVENT,
    "userId": USER,
    "userEndpointId": or_null(ENDPOINT_ID),
    "qos": {"default": 0, "description": "1: at least once. All else: at most once."},
}
SENDING_EXAMPLE: Final[Schema] = {
    "event": {"type": "OrderPlacedEvent", "timestamp": "2011-12-03T10:15:30.123Z", "card": "4111"},
    "userId": "ann",
    "qos": 1,
    "masks": ["$.card"],
}
MASKS: Final = (
    "`masks`, an array of JSONPath expressions or null, says what of the event the audit stream hides: "
    '`["$.card", "$..phone", "$.lines[?(@.secret == true)].text"]`.'
)

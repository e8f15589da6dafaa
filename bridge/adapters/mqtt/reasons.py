"""MQTT 5 reason codes in words: what the broker said, and what an operator can do about it.

One table a packet, code -> (reason, remedy), with every code that a broker may send and that is no success: MQTT 5
sections 3.2.2.2 (CONNACK), 3.9.3 (SUBACK), 3.4.2.1 (PUBACK) and 3.14.2.1 (DISCONNECT).
"""

from typing import Final

Table = dict[int, tuple[str, str]]

_LONGEST_QUOTE: Final = 200

_BROKER_LOG: Final = "Look into the broker's log for the reason."
_REPORT: Final = "Report this with the broker's log:"
_RIGHTS: Final = (
    "Let the bridge's user read the inputs and write the rest in the broker's access rules: "
    "`endpoint-bridge show-config` prints the prefix and the templates under [topics]."
)

# What more than one packet may say, and means the same in each.
_MALFORMED: Final = ("malformed packet", f"{_REPORT} the bridge sent what the broker cannot read.")
_PROTOCOL: Final = ("protocol error", f"{_REPORT} the bridge broke a rule of MQTT.")
_UNSPECIFIED: Final = ("unspecified error", _BROKER_LOG)
_IMPLEMENTATION: Final = ("implementation specific error", _BROKER_LOG)
_BUSY: Final = ("server busy", "Wait, or give the broker more room.")
_TOPIC_FILTER: Final = ("topic filter invalid", "Correct the template under [topics].")
_TOPIC_NAME: Final = ("topic name invalid", "Correct the prefix and the templates under [topics].")
_PACKET_ID: Final = ("packet identifier in use", f"{_REPORT} the bridge took a number twice.")
_TOO_LARGE: Final = ("packet too large", "Raise the broker's max_packet_size.")
_PAYLOAD: Final = ("payload format invalid", f"{_REPORT} the bridge marks no payload format.")
_RETAIN: Final = (
    "retain not supported",
    "Set retain_available true in the broker: the bridge's state is a retained message.",
)
_QOS: Final = ("QoS not supported", "Set max_qos 1 or 2 in the broker's listener.")
_ANOTHER: Final = ("use another server", "Set mqtt.host to the server that the broker or its log names.")
_MOVED: Final = ("server moved", "Set mqtt.host to the broker's new address.")
_RATE: Final = ("connection rate exceeded", "Wait, or raise the broker's connection rate.")
_SHARED: Final = ("shared subscriptions not supported", "Allow shared subscriptions in the broker.")
_IDENTIFIERS: Final = ("subscription identifiers not supported", f"{_REPORT} the bridge asks for none.")
_WILDCARDS: Final = ("wildcard subscriptions not supported", "Allow wildcards in the broker.")

CONNACK: Final[Table] = {
    0x80: _UNSPECIFIED,
    0x81: _MALFORMED,
    0x82: _PROTOCOL,
    0x83: _IMPLEMENTATION,
    0x84: ("unsupported protocol version", "Use a broker that speaks MQTT 5, for example Mosquitto 2."),
    0x85: ("client identifier not valid", "Allow the bridge's client id in the broker (Mosquitto: clientid_prefixes)."),
    0x86: ("bad user name or password", "Check mqtt.username and mqtt.password against the broker's password file."),
    0x87: ("not authorized", "Check mqtt.username and mqtt.password, and that the broker lets this user connect."),
    0x88: ("server unavailable", _BROKER_LOG),
    0x89: _BUSY,
    0x8A: ("banned", "Lift the ban of the bridge's user or client id in the broker."),
    0x8C: ("bad authentication method", "Use a listener of the broker that takes a user name and a password."),
    0x90: _TOPIC_NAME,
    0x95: _TOO_LARGE,
    0x97: ("quota exceeded", "Raise the broker's connection limits."),
    0x99: _PAYLOAD,
    0x9A: _RETAIN,
    0x9B: _QOS,
    0x9C: _ANOTHER,
    0x9D: _MOVED,
    0x9F: _RATE,
}

SUBACK: Final[Table] = {
    0x00: ("granted at QoS 0 only, where messages can be lost", "Set max_qos 1 or 2 in the broker's listener."),
    0x80: _UNSPECIFIED,
    0x83: _IMPLEMENTATION,
    0x87: ("not authorized", _RIGHTS),
    0x8F: _TOPIC_FILTER,
    0x91: _PACKET_ID,
    0x97: ("quota exceeded", "Raise the broker's subscription limit."),
    0x9E: _SHARED,
    0xA1: _IDENTIFIERS,
    0xA2: _WILDCARDS,
}

PUBACK: Final[Table] = {
    0x80: _UNSPECIFIED,
    0x83: _IMPLEMENTATION,
    0x87: ("not authorized", _RIGHTS),
    0x90: _TOPIC_NAME,
    0x91: _PACKET_ID,
    0x95: _TOO_LARGE,  # no broker's word: said by the outbox of what it does not send
    0x97: ("quota exceeded", "Raise the broker's limits for the bridge."),
    0x99: _PAYLOAD,
}

DISCONNECT: Final[Table] = {
    0x00: ("normal disconnection", _BROKER_LOG),
    0x80: _UNSPECIFIED,
    0x81: _MALFORMED,
    0x82: _PROTOCOL,
    0x83: _IMPLEMENTATION,
    0x87: ("not authorized", _RIGHTS),
    0x89: _BUSY,
    0x8B: ("server shutting down", "Start the broker again."),
    0x8D: ("keep alive timeout", "Look for a busy machine or a slow network between bridge and broker."),
    0x8E: (
        "session taken over",
        "Another client uses the bridge's client id: stop it, or set use_username_as_clientid in the broker.",
    ),
    0x8F: _TOPIC_FILTER,
    0x90: _TOPIC_NAME,
    0x93: ("receive maximum exceeded", f"{_REPORT} the bridge sent more than the broker allows."),
    0x94: ("topic alias invalid", f"{_REPORT} the bridge uses no topic aliases."),
    0x95: _TOO_LARGE,
    0x96: ("message rate too high", "Raise the broker's rate limit for the bridge, which publishes for everybody."),
    0x97: ("quota exceeded", "Raise the broker's limits for the bridge."),
    0x98: ("administrative action", "An administrator of the broker ended the connection: ask why."),
    0x99: _PAYLOAD,
    0x9A: _RETAIN,
    0x9B: _QOS,
    0x9C: _ANOTHER,
    0x9D: _MOVED,
    0x9E: _SHARED,
    0x9F: _RATE,
    0xA0: ("maximum connect time", "Lift the broker's limit on how long the bridge may stay connected."),
    0xA1: _IDENTIFIERS,
    0xA2: _WILDCARDS,
}


def explain(table: Table, code: int, words: str | None = None, server: str | None = None) -> str:
    """Say a reason code in words: ``not authorized (0x87). Let ...``, ending with a full stop.

    Args:
        table: of the packet that brought it.
        code: reason code; one that is not in the table is shown as a number.
        words: the packet's Reason String.
        server: the packet's Server Reference; the bridge does not follow it, since it would take its password there.
    """
    reason, remedy = table.get(code, ("reason code", _BROKER_LOG))
    told = "".join(
        f" The broker {verb} {text[:_LONGEST_QUOTE]!r}." for verb, text in (("says", words), ("names", server)) if text
    )
    return f"{reason} (0x{code:02X}). {remedy}{told}"

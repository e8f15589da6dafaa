"""MQTT 5 reason codes in words: what the broker said, and what an operator can do about it.

One table a packet, code -> (reason, remedy), after MQTT 5 sections 3.2.2.2 (CONNACK), 3.9.3 (SUBACK) and
3.14.2.1 (DISCONNECT). A code that is not here is shown as a number.
"""

from typing import Final

Table = dict[int, tuple[str, str]]

_BROKER_LOG: Final = "Look into the broker's log for the reason."
_RIGHTS: Final = (
    "Let the bridge's user read the inputs and write the rest in the broker's access rules: "
    "`endpoint-bridge show-config` prints the prefix and the templates under [topics]."
)

CONNACK: Final[Table] = {
    0x84: ("unsupported protocol version", "Use a broker that speaks MQTT 5, for example Mosquitto 2."),
    0x85: ("client identifier not valid", "Allow the bridge's client id in the broker (Mosquitto: clientid_prefixes)."),
    0x86: ("bad user name or password", "Check mqtt.username and mqtt.password against the broker's password file."),
    0x87: ("not authorized", "Check mqtt.username and mqtt.password, and that the broker lets this user connect."),
    0x88: ("server unavailable", _BROKER_LOG),
    0x89: ("server busy", "Wait, or give the broker more room."),
    0x8A: ("banned", "Lift the ban of the bridge's user or client id in the broker."),
    0x8C: ("bad authentication method", "Use a listener of the broker that takes a user name and a password."),
    0x95: ("packet too large", "Raise the broker's max_packet_size."),
    0x97: ("quota exceeded", "Raise the broker's connection limits."),
    0x9A: (
        "retain not supported",
        "Set retain_available true in the broker: the bridge's state is a retained message.",
    ),
    0x9B: ("QoS not supported", "Set max_qos 1 or 2 in the broker's listener."),
    0x9C: ("use another server", "Set mqtt.host to the server that the broker's log names."),
    0x9D: ("server moved", "Set mqtt.host to the broker's new address."),
    0x9F: ("connection rate exceeded", "Wait, or raise the broker's connection rate."),
}

SUBACK: Final[Table] = {
    0x00: ("granted at QoS 0 only, where messages can be lost", "Set max_qos 1 or 2 in the broker's listener."),
    0x87: ("not authorized", _RIGHTS),
    0x8F: ("topic filter invalid", "Correct the template under [topics]."),
    0x97: ("quota exceeded", "Raise the broker's subscription limit."),
    0x9E: (
        "shared subscriptions not supported",
        "Report this with the broker's name and version: the bridge asks for none.",
    ),
    0xA2: ("wildcard subscriptions not supported", "Allow wildcards in the broker, or use topics without them."),
}

DISCONNECT: Final[Table] = {
    0x00: ("normal disconnection", _BROKER_LOG),
    0x81: ("malformed packet", "Report this with the broker's log: the bridge sent what the broker cannot read."),
    0x82: ("protocol error", "Report this with the broker's log: the bridge broke a rule of MQTT."),
    0x87: ("not authorized", _RIGHTS),
    0x89: ("server busy", "Wait, or give the broker more room."),
    0x8B: ("server shutting down", "Start the broker again."),
    0x8D: ("keep alive timeout", "Look for a busy machine or a slow network between bridge and broker."),
    0x8E: (
        "session taken over",
        "Another client uses the bridge's client id: stop it, or set use_username_as_clientid in the broker.",
    ),
    0x93: (
        "receive maximum exceeded",
        "Report this with the broker's log: the bridge sent more than the broker allows.",
    ),
    0x95: ("packet too large", "Raise the broker's max_packet_size."),
    0x97: ("quota exceeded", "Raise the broker's limits for the bridge."),
    0x98: ("administrative action", "An administrator of the broker ended the connection: ask why."),
    0x9A: CONNACK[0x9A],
    0x9B: CONNACK[0x9B],
    0x9C: CONNACK[0x9C],
    0x9D: CONNACK[0x9D],
}


def explain(table: Table, code: int) -> str:
    """Say a reason code in words: ``not authorized (0x87). Give ...``, ending with a full stop."""
    reason, remedy = table.get(code, ("reason code", _BROKER_LOG))
    return f"{reason} (0x{code:02X}). {remedy}"

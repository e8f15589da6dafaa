"""The journal entry: what one commit still owes to the broker, and which inputs it came from (DESIGN 2 and 3.1)."""

import msgspec

from bridge.domain.values import Output


class JournalEntry(msgspec.Struct, frozen=True, array_like=True):
    """What must survive a crash between a commit and the broker's acknowledgements.

    Attributes:
        session_epoch: the MQTT session in which the inputs came; packet ids mean nothing in another.
        inputs: (packet id, digest of topic and payload) of each input whose effect the commit holds.
        outputs: the messages to publish, in order.
    """

    session_epoch: str
    inputs: list[tuple[int, int]]
    outputs: list[Output]


encode_entry = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(JournalEntry).decode

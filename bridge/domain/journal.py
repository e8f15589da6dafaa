"""The journal entry: what one commit still owes to the broker, and which inputs it came from (DESIGN 2 and 3.1)."""

from math import ceil

import msgspec

from bridge.domain.values import Output

replace = msgspec.structs.replace


class JournalEntry(msgspec.Struct, frozen=True, array_like=True):
    """What must survive a crash between a commit and the broker's acknowledgements.

    Attributes:
        session_epoch: the MQTT session in which the inputs came; packet ids mean nothing in another.
        inputs: (packet id, digest of topic and payload) of each input whose effect the commit holds.
        outputs: the messages to publish, in order.
        shown: keys of the subjects whose registry topics are to show them anew.
    """

    session_epoch: str
    inputs: list[tuple[int, int]]
    outputs: list[Output]
    shown: list[str] = []


def copies(entry_id: str, entry: JournalEntry, now_ms: int) -> list[Output]:
    """Return the outputs of an entry as they are sent again after a crash.

    Each is marked ``redelivered``. What has expired since the commit is left out; what has not carries what is left.
    Both times are Redis TIME: an entry's id begins with that of its commit.
    """
    age_seconds = (now_ms - int(entry_id.partition("-")[0])) / 1000
    again: list[Output] = []
    for output in entry.outputs:
        left_seconds = output.expiry_seconds and ceil(output.expiry_seconds - age_seconds)
        if left_seconds > 0 or not output.expiry_seconds:
            again.append(replace(output, redelivered=True, expiry_seconds=left_seconds))
    return again


encode_entry = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(JournalEntry).decode

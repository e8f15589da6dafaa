"""Records as they are stored: readable JSON after a version and a schema number, ``1763771000123:1:{...}``.

A record of an older schema is upgraded whenever it is read, and is stored in the present one at its next change. So a
registry may hold any mix of them, and nothing has to be migrated before the start.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from bridge.domain.records import EMPTY, Record

Fields = dict[str, msgspec.Raw]
"""A record's fields as JSON texts. What an upgrade leaves alone stays as it was, to the byte."""

UPGRADES: tuple[Callable[[str, Fields], Fields], ...] = ()
"""What makes the next schema's fields of a record's noun and fields; the first one upgrades schema 1.

One belongs here when a field changes its name, its type or its meaning, and when an older bridge must not write back
what it does not know. A new field whose default suits all older records needs none.
"""

SCHEMA = 1 + len(UPGRADES)
"""The schema that is written."""

_SCHEMA = b"%d" % SCHEMA

_encode = msgspec.json.Encoder().encode
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    noun: msgspec.json.Decoder(type(record)) for noun, record in EMPTY.items()
}
_decode_fields = msgspec.json.Decoder(Fields).decode


def encode_record(record: Record, version: int) -> bytes:
    """Return a record's stored text."""
    return b"%d:%b:%b" % (version, _SCHEMA, _encode(record))


def decode_record(noun: str, stored: bytes) -> tuple[Record, int]:
    """Return the record and the version of a stored text.

    Raises:
        ValueError: it is not a record of this noun, or one of a newer schema; says which.
    """
    try:
        version, _, rest = stored.partition(b":")
        schema, _, text = rest.partition(b":")
        if schema != _SCHEMA:
            text = _upgraded(noun, schema, text)
        return _DECODERS[noun].decode(text), int(version)
    except (ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"not a {noun} record: {error}") from None


def _upgraded(noun: str, number: bytes, text: bytes) -> bytes:
    """Return the JSON of an older schema's record as the present schema has it."""
    if not number.isdigit() or not 0 < int(number) < SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}: was it written by a newer bridge?")
    fields = _decode_fields(text)
    for upgrade in UPGRADES[int(number) - 1 :]:
        fields = upgrade(noun, fields)
    return _encode(fields)

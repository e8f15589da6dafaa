"""Records as text: what is written can be read again, also by the bridge after the next one."""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bridge.domain import schema
from bridge.domain.changes import commit_of
from bridge.domain.loaded import CorruptRecord
from bridge.domain.records import EMPTY, Connection, Subject
from bridge.domain.schema import SCHEMA, UPGRADES, Fields, decode_record, encode_record
from bridge.domain.values import Write
from tests.unit.domain.test_state import ANN, NOW, state
from tests.unit.world import World, message

LAMP = Subject(connections={"c": Connection(1, 2)}, status=msgspec.Raw(b'{"on": 1.50}'))


@pytest.mark.parametrize("noun", EMPTY)
def test_what_is_written_can_be_read(noun: str) -> None:
    stored = encode_record(EMPTY[noun], 1_763_771_000_123)
    assert stored == b"1763771000123:%d:{}" % SCHEMA
    assert decode_record(noun, stored) == (EMPTY[noun], 1_763_771_000_123)


def test_there_is_an_upgrade_from_every_older_schema() -> None:
    assert len(UPGRADES) + 1 == SCHEMA


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", "its schema is not 1"),
        (b"5", "its schema is not 1"),
        (b"5:", "its schema is not 1"),
        (b"5:{}", "its schema is not 1"),
        (b"5:0:{}", "its schema is not 1"),
        (b"5:-1:{}", "its schema is not 1"),
        (b"5:2:{}", "its schema is not 1: was it written by a newer bridge?"),
        (b"5:\xc2\xb2:{}", "its schema is not 1"),
        (b"x:1:{}", "invalid literal"),
        (b"5:1:", "truncated"),
        (b"5:1:[]", "Expected `object`"),
    ],
)
def test_what_cannot_be_read_says_why(stored: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^not a device record: .*{re.escape(reason)}"):
        decode_record("device", stored)


# A bridge two schemas later: the second renamed ``connections``, the third counts status changes.


def renamed(noun: str, fields: Fields) -> Fields:
    if noun == "device" and "links" in fields:
        fields["connections"] = fields.pop("links")
    return fields


def in_milliseconds(noun: str, fields: Fields) -> Fields:
    if "status_seconds" in fields:
        fields["status_ms"] = msgspec.Raw(b"%d" % (1000 * json.loads(bytes(fields.pop("status_seconds")))))
    return fields


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def upgrade(*upgrades: Any) -> None:
        monkeypatch.setattr(schema, "UPGRADES", upgrades)
        monkeypatch.setattr(schema, "SCHEMA", 1 + len(upgrades))
        monkeypatch.setattr(schema, "_SCHEMA", b"%d" % (1 + len(upgrades)))

    return upgrade


def test_every_older_schema_is_read(later: Callable[..., None]) -> None:
    later(renamed, in_milliseconds)
    old = b'7:1:{"links":{"c":[1,2]},"status":{"on": 1.50},"status_seconds":3}'
    older_twice = b'7:2:{"connections":{"c":[1,2]},"status":{"on": 1.50},"status_seconds":3}'
    present = b'7:3:{"connections":{"c":[1,2]},"status":{"on": 1.50},"status_ms":3000}'
    wanted = msgspec.structs.replace(LAMP, status_ms=3000)
    assert decode_record("device", old) == decode_record("device", older_twice) == (wanted, 7)
    assert decode_record("device", present) == (wanted, 7)
    assert encode_record(wanted, 7) == present  # the status is as its sender wrote it, to the byte


def test_an_upgrade_may_look_at_the_noun_and_a_broken_record_stays_corrupt(later: Callable[..., None]) -> None:
    later(renamed)
    assert decode_record("user", b'7:1:{"links":{"c":[1,2]}}') == (Subject(), 7)
    for broken in (b"7:1:[]", b"7:1:", b'7:1:{"links":1}', b"7:3:{}", b"x:1:{}"):
        with pytest.raises(ValueError, match=r"^not a device record: "):
            decode_record("device", broken)


def test_only_reading_writes_nothing_and_a_change_writes_the_present_schema(later: Callable[..., None]) -> None:
    later(in_milliseconds)
    made = state({ANN: b'7:1:{"status":"x","status_seconds":3}'})
    assert made.subject("user", "ann").status_ms == 3000
    assert commit_of(made, "t").writes == []
    made.save(ANN, msgspec.structs.replace(made.subject("user", "ann"), status=msgspec.Raw(b'"y"')))
    made.keep()
    assert commit_of(made, "t").writes == [Write(ANN, 7, b'%d:2:{"status":"y","status_ms":3000}' % NOW)]


def test_a_newer_schema_is_corrupt_and_names_itself() -> None:
    with pytest.raises(CorruptRecord, match=r"^user:ann: .*its schema is not 1: was it written by a newer bridge\?"):
        state({ANN: b"7:2:{}"}).subject("user", "ann")


def test_a_registry_written_by_the_previous_bridge_goes_on(later: Callable[..., None]) -> None:
    world = World()
    world.feed(message("presence/devices/lamp", "online"))
    values = world.registry.organizations["default"]
    written = values["device:lamp"]
    assert isinstance(written, bytes)
    values["device:lamp"] = written.replace(b'"connections"', b'"links"')
    later(renamed)
    world.feed(message("presence/devices/lamp/status", '"on"'))
    stored = values["device:lamp"]
    assert isinstance(stored, bytes)
    assert stored.split(b":")[1] == b"2"
    record = decode_record("device", stored)[0]
    assert isinstance(record, Subject)
    assert (list(record.connections), bytes(record.status)) == ([""], b'"on"')

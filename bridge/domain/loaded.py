"""What a batch has loaded of one organization, each record decoded once.

Reading what is not there raises `NotLoaded`; the line loads it and decides again.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import filterfalse
from typing import Any

import msgspec

from bridge.domain.ids import (
    WATCHERS_KEY,
    part_key,
    party_key,
    permissions_key,
    room_key,
    session_key,
    subject_key,
    views_key,
)
from bridge.domain.records import (
    EMPTY,
    EMPTY_SUBJECT,
    Media,
    Mutes,
    Party,
    Permissions,
    Record,
    Room,
    Session,
    Subject,
    Views,
    Watchers,
)
from bridge.domain.schema import decode_record, encode_record
from bridge.domain.values import Kind, Loaded, Owner, Page


class NotLoaded(Exception):
    """A decision needs what was not loaded.

    Attributes:
        keys: record keys of this organization.
        pages: index pages.
        owners: endpoint ids whose owners are needed.
        foreign: a record of another organization: (organization, key).
    """

    def __init__(
        self,
        keys: tuple[str, ...] = (),
        pages: tuple[Page, ...] = (),
        owners: tuple[str, ...] = (),
        foreign: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.keys = keys
        self.pages = pages
        self.owners = owners
        self.foreign = foreign


class CorruptRecord(Exception):
    """A stored record cannot be read. Only the commands that need it are rejected."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key


class Entry(msgspec.Struct, eq=False, gc=False):
    """One record in the unit of work: as loaded (version 0, empty record: absent) and as it now stands."""

    loaded: Record
    loaded_version: int
    record: Record
    version: int


class LoadedState:
    """The records of one organization that a batch has loaded, as they now stand; the base of the unit of work.

    Args:
        organization: whose records.
        corrupt: keys that an earlier try to commit found to hold another type.

    Attributes:
        floor: above it the version of an absent record starts.
        raw: record key -> its text as stored, None where there is none.
        pages: the index pages that were loaded.
        owners: endpoint id -> who has claimed it, over all organizations.
        foreign: (organization, record key) -> the text of another organization's record.
        entries: record key -> the record, decoded.
        relied: record key -> version of those that were used as text alone; the commit depends on them, too.
        unreadable: keys of the records that were passed over.
        window: in which all of it was loaded, 0: not in one; None: nothing was loaded yet.
    """

    def __init__(self, organization: str, corrupt: Collection[str]) -> None:
        self.organization = organization
        self.floor = 0
        self.raw: dict[str, bytes | None] = {}
        self.pages: dict[Page, list[str]] = {}
        self.owners: dict[str, Owner | None] = {}
        self.foreign: dict[tuple[str, str], bytes | None] = {}
        self.entries: dict[str, Entry] = {}
        self.relied: dict[str, int] = {}
        self.unreadable: set[str] = set()
        self.window: int | None = None
        self._corrupt = corrupt

    def add(self, loaded: Loaded, owners: Mapping[str, Owner | None], window: int = 0) -> None:
        """Take what one load trip brought."""
        self.window = window if self.window in (None, window) else 0
        self.raw.update(loaded.records)
        self.pages.update(loaded.pages)
        self.owners.update(owners)
        self.floor = max(self.floor, loaded.floor)

    def entry(self, key: str) -> Entry:
        """Return a record's entry, decoded once.

        Raises:
            NotLoaded: the key was not loaded.
            CorruptRecord: the stored text cannot be read.
        """
        return self.entries.get(key) or self._decoded(key)

    def _decoded(self, key: str) -> Entry:
        try:
            raw = self.raw[key]
        except KeyError:
            raise NotLoaded((key,)) from None
        noun = key.partition(":")[0]
        if self._corrupt and key in self._corrupt:
            raise CorruptRecord(key, "holds another type: an operator must mend or delete the key")
        record, version = (EMPTY[noun], 0) if raw is None else _decode(key, noun, raw)
        entry = self.entries[key] = Entry(record, version, record, version)
        return entry

    def _record(self, key: str) -> Any:
        return (self.entries.get(key) or self._decoded(key)).record

    def texts(self, keys: Iterable[str]) -> list[bytes | None]:
        """Return loaded records as they would be stored now, None where one is absent; to be named in ``relied``."""
        raw, known = self.raw, self.entries.get
        return [
            raw[key]
            if (entry := known(key)) is None or entry.record is entry.loaded
            else encode_record(entry.record, entry.version)
            for key in keys
        ]

    def subject(self, kind: Kind, subject: str) -> Subject:
        """Return a subject's record; the empty one where it is unknown."""
        record: Subject = self._record(subject_key(kind, subject))
        return record

    def subject_at(self, key: str) -> Subject:
        """Return the record of the subject whose key is ``key``; see `subject`."""
        record: Subject = self._record(key)
        return record

    def is_readable(self, key: str) -> bool:
        """Tell whether a record can be read; who passes over one that cannot lets nobody else suffer for it."""
        try:
            self._record(key)
        except CorruptRecord:
            self.unreadable.add(key)
            return False
        return True

    def readable(self, key: str) -> Subject:
        """Return a subject's record, the empty one where it cannot be read."""
        return self.subject_at(key) if self.is_readable(key) else EMPTY_SUBJECT

    def session(self, session: str) -> Session:
        """Return a session's record; the empty one where it is unknown."""
        record: Session = self._record(session_key(session))
        return record

    def room(self, room: str) -> Room:
        """Return a room's record; the empty one where nobody is in it."""
        record: Room = self._record(room_key(room))
        return record

    def party(self, room: str, party: str) -> Party:
        """Return the record of a party in a room; the empty one where it is unknown."""
        record: Party = self._record(party_key(room, party))
        return record

    def watchers(self) -> Watchers:
        """Return who watches whole kinds, or everything."""
        record: Watchers = self._record(WATCHERS_KEY)
        return record

    def media(self, session: str, participant: str) -> Media:
        """Return what a participant last reported of its media; the empty record where it reported nothing."""
        record: Media = self._record(part_key("media", session, participant))
        return record

    def views(self, session: str) -> Views:
        """Return how far a session's participants agree on the number of connections."""
        record: Views = self._record(views_key(session))
        return record

    def permissions(self, session: str) -> Permissions:
        """Return what a session's participants have in common of their permissions."""
        record: Permissions = self._record(permissions_key(session))
        return record

    def mutes(self, session: str, participant: str) -> Mutes:
        """Return what a participant has of its own of them."""
        record: Mutes = self._record(part_key("mutes", session, participant))
        return record

    def require(self, keys: Iterable[str], owners: Iterable[str] = (), pages: Iterable[Page] = ()) -> None:
        """Ask for many records, endpoint owners and pages at once, so that they come in one wave.

        Raises:
            NotLoaded: naming every one that is missing.
        """
        missing = tuple(filterfalse(self.raw.__contains__, keys))
        unknown = tuple(filterfalse(self.owners.__contains__, owners))
        absent = tuple(filterfalse(self.pages.__contains__, pages))
        if missing or unknown or absent:
            raise NotLoaded(missing, absent, unknown)

    def is_known(self, key: str) -> bool:
        """Tell whether anything was ever reported of the record's subject; to be watched alone does not count."""
        record = self._record(key)
        if isinstance(record, Subject) and record.watchers:
            record = msgspec.structs.replace(record, watchers={})
        return bool(record != EMPTY[key.partition(":")[0]])

    def owned_subject(self, owner: Owner) -> Subject:
        """Return the record of an endpoint's owner, also in another organization."""
        if owner.organization == self.organization:
            return self.subject(owner.kind, owner.subject)
        place = (owner.organization, subject_key(owner.kind, owner.subject))
        try:
            raw = self.foreign[place]
        except KeyError:
            raise NotLoaded(foreign=place) from None
        if raw is None:
            return EMPTY_SUBJECT
        record, _ = _decode(place[1], owner.kind, raw)
        assert isinstance(record, Subject)
        return record


def _decode(key: str, noun: str, raw: bytes) -> tuple[Record, int]:
    try:
        return decode_record(noun, raw)
    except ValueError as error:
        raise CorruptRecord(key, str(error)) from None

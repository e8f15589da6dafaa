"""The unit of work: what one organization's batch has read and changed so far.

What a command changes stands at once, and what stood before it is kept until the command is: one that is refused, or
must be decided again, is dropped and leaves no trace. Reading what is not loaded raises `NotLoaded`; the line loads it.
"""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from bridge.domain.ids import (
    WATCHERS_KEY,
    Ref,
    endpoint_member,
    parse_endpoint_member,
    parse_part_key,
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
    Sent,
    Session,
    Subject,
    Views,
    Watchers,
)
from bridge.domain.rules import Rules
from bridge.domain.schema import decode_record
from bridge.domain.seats import Seat, seat_of, seats_of, seats_page
from bridge.domain.values import Claim, Kind, Loaded, Moment, Owner, Page

ALL_ENDPOINTS = Page("endpoints", "", 1_000_000)
"""The whole index of an organization's endpoints. Long before the limit what it makes is too large to be committed."""

_decode_sent = msgspec.json.Decoder(Sent).decode


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


class CommitFirst(Exception):
    """What was decided so far must be committed before this command can be decided.

    ``key`` names a record with work left over that must be finished in between.
    """

    def __init__(self, key: str | None = None) -> None:
        super().__init__()
        self.key = key


class Elsewhere(Exception):
    """The command concerns an endpoint of another organization."""

    def __init__(self, organization: str) -> None:
        super().__init__(organization)
        self.organization = organization


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


class State:
    """What one organization's batch reads and changes; see the module's docstring.

    Args:
        organization: whose records.
        moment: when the batch is decided.
        rules: the configuration's numbers.
        id_prefix: time-ordered text, unique to this batch; event ids are ``<id_prefix><counter><id_suffix>``.
        id_suffix: unique to this bridge.
        timestamp: ``moment.now_ms`` as the events write it.
        told_ms: (organization, endpoint id) -> epoch ms when it was last told that nobody holds it, by earlier batches.
        in_hand: (organization, record key) -> a send by an earlier batch whose outcome is not kept yet.
        corrupt: keys that an earlier try to commit found to hold another type.

    Attributes:
        audiences: session -> the endpoints of its members and their owners, for the present command only.
        unreadable: keys of the records that were passed over.
    """

    def __init__(
        self,
        organization: str,
        moment: Moment,
        rules: Rules,
        *,
        id_prefix: str,
        id_suffix: str,
        timestamp: str,
        told_ms: Mapping[tuple[str, str], int],
        in_hand: Mapping[tuple[str, str], Sent] = MappingProxyType({}),
        corrupt: Collection[str] = (),
    ) -> None:
        self.organization = organization
        self.moment = moment
        self.rules = rules
        self.timestamp = timestamp
        self.told: dict[tuple[str, str], int] = {}
        self.floor = 0
        self.raw: dict[str, bytes | None] = {}
        self.pages: dict[Page, list[str]] = {}
        self.owners: dict[str, Owner | None] = {}
        self.foreign: dict[tuple[str, str], bytes | None] = {}
        self.entries: dict[str, Entry] = {}
        self.claims: dict[str, Claim] = {}
        self.unfinished: list[str] = []
        self.touched: set[str] = set()
        self.unfiled: set[str] = set()
        self.audiences: dict[str, dict[str, str]] = {}
        self.unreadable: set[str] = set()
        self.sends: dict[str, Sent] = {}
        self._id_prefix = id_prefix
        self._id_suffix = id_suffix
        self._told_before = told_ms
        self._in_hand = in_hand
        self._corrupt = corrupt
        self._events = 0
        self._seats: dict[str, dict[str, Seat]] = {}
        self._now_ms = moment.now_ms
        self._before: dict[str, tuple[Record, int]] = {}  # what the present command has changed -> as it stood before
        self._has_more = False  # the present command has changed more than records
        self._new_claims: dict[str, Claim] = {}
        self._new_unfinished: list[str] = []
        self._new_touched: list[str] = []
        self._new_told: list[tuple[str, str]] = []
        self._new_send: tuple[str, Sent] | None = None

    def add(self, loaded: Loaded, owners: Mapping[str, Owner | None]) -> None:
        """Take what one load trip brought."""
        self.raw.update(loaded.records)
        self.pages.update(loaded.pages)
        self.owners.update(owners)
        self.floor = max(self.floor, loaded.floor)

    # One command.

    def keep(self) -> bool:
        """End a command: its changes stand. Returns whether there were any."""
        changed = bool(self._before)
        if changed:
            if self._seats:
                for key in self._before:
                    record = self.entries[key].record
                    if isinstance(record, Party):
                        _seat(self._seats, key, record)
            self._before.clear()
        if self.audiences:
            self.audiences.clear()
        if self._has_more:
            if self._new_send is not None:
                key, sent = self._new_send
                self.sends[key] = sent
            for endpoint, claim in self._new_claims.items():
                first = self.claims.get(endpoint, claim)
                self.claims[endpoint] = Claim(endpoint, first.expected, claim.owner)
            self.unfinished += self._new_unfinished
            self.touched.update(self._new_touched)
            self.told.update(dict.fromkeys(self._new_told, self._now_ms))
            self.drop()
        return changed

    def drop(self) -> None:
        """Forget what the present command changed."""
        for key, (record, version) in self._before.items():
            entry = self.entries[key]
            entry.record, entry.version = record, version
        self._before.clear()
        self.audiences.clear()
        self._has_more = False
        self._new_claims = {}
        self._new_unfinished = []
        self._new_touched = []
        self._new_told = []
        self._new_send = None

    # Reading.

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

    def seats(self, room: str) -> dict[str, Seat]:
        """Return who is in a room, by party, as the present command leaves it; not to be changed.

        Raises:
            NotLoaded: the room's record or its index was not loaded. Both come together, so that a commit that meets
                another record knows that the index changed, too.
        """
        seats = self._seats.get(room)
        if seats is None:
            self.require([room_key(room)], pages=[seats_page(room)])
            self.room(room)  # from now on the commit depends on it
            seats = self._seats[room] = seats_of(self.pages[seats_page(room)])
            for key, entry in self.entries.items():
                record = self._before[key][0] if key in self._before else entry.record
                if isinstance(record, Party) and record is not entry.loaded:
                    _seat(self._seats, key, record)
        mine = [(key, record) for key in self._before if isinstance(record := self.entries[key].record, Party)]
        if not mine:
            return seats
        changed = {room: dict(seats)}
        for key, record in mine:
            _seat(changed, key, record)
        return changed[room]

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
        missing = tuple(key for key in keys if key not in self.entries and key not in self.raw)
        unknown = tuple(endpoint for endpoint in owners if endpoint not in self.owners)
        absent = tuple(page for page in pages if page not in self.pages)
        if missing or unknown or absent:
            raise NotLoaded(missing, absent, unknown)

    def is_known(self, key: str) -> bool:
        """Tell whether anything was ever reported of the record's subject; to be watched alone does not count."""
        record = self._record(key)
        if isinstance(record, Subject) and record.watchers:
            record = msgspec.structs.replace(record, watchers={})
        return bool(record != EMPTY[key.partition(":")[0]])

    def version(self, key: str) -> int:
        """Return a record's present version; for an absent one the version that it would start with."""
        return self.entry(key).version or self.next_version(key)

    def next_version(self, key: str) -> int:
        """Return the version that `save` would give the record: in milliseconds, and above all it ever had."""
        return self._above(self.entry(key).version)

    def page(self, page: Page) -> list[str]:
        """Return one page of an index, as it stands after everything before this command.

        Raises:
            CommitFirst: the batch has changed records, so the index in Redis is behind.
            NotLoaded: the page was not loaded.
        """
        if any(entry.record is not entry.loaded for entry in self.entries.values()):
            raise CommitFirst
        try:
            return self.pages[page]
        except KeyError:
            raise NotLoaded(pages=(page,)) from None

    def endpoints(self) -> dict[str, str]:
        """Return every endpoint of the organization -> its owner's id, as the present command leaves them.

        Raises:
            NotLoaded: the index was not loaded.
        """
        try:
            page = self.pages[ALL_ENDPOINTS]
        except KeyError:
            raise NotLoaded(pages=(ALL_ENDPOINTS,)) from None
        members = dict.fromkeys(page)
        for key, entry in self.entries.items():
            record = self._record(key)
            if record is not entry.loaded and isinstance(record, Subject) and isinstance(entry.loaded, Subject):
                for endpoint in entry.loaded.endpoints:
                    members.pop(endpoint_member(endpoint, key), None)
                members.update((endpoint_member(endpoint, key), None) for endpoint in record.endpoints)
        return dict(map(parse_endpoint_member, members))

    def owner(self, endpoint: str) -> Owner | None:
        """Return who holds an endpoint id, over all organizations.

        Raises:
            NotLoaded: it was not loaded.
        """
        claim = self._new_claims.get(endpoint) or self.claims.get(endpoint)
        if claim is not None:
            return claim.owner
        try:
            return self.owners[endpoint]
        except KeyError:
            raise NotLoaded(owners=(endpoint,)) from None

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

    def sent(self, key: str) -> Sent | None:
        """Return the send under record key ``key``: of this batch, still in hand, or kept of the last ten minutes.

        Raises:
            NotLoaded: it was not looked up.
        """
        sent = self.sends.get(key) or self._in_hand.get((self.organization, key))
        if sent is not None:
            return sent
        try:
            raw = self.raw[key]
        except KeyError:
            raise NotLoaded((key,)) from None
        try:
            return None if raw is None else _decode_sent(raw)
        except msgspec.DecodeError:
            return None  # not ours; it would not be better for being refused

    # Changing.

    def save(self, key: str, record: Record) -> int:
        """Put a new record in place of the present one and return its version."""
        entry = self.entries.get(key) or self._decoded(key)
        if key not in self._before:
            self._before[key] = (entry.record, entry.version)
        entry.record = record
        entry.version = version = self._above(entry.version)
        return version

    def _above(self, version: int) -> int:
        lowest = (version or self.floor) + 1
        if lowest > self._now_ms:
            return lowest
        return self._now_ms

    def save_subject(self, ref: Ref | tuple[Kind, str], record: Subject) -> int:
        """Save a subject's record; see `save`."""
        return self.save(subject_key(*ref), record)

    def claim(self, endpoint: str, owner: Owner | None) -> None:
        """Change who owns an endpoint id: taken before the commit for a new owner, after it for a release (None)."""
        self._has_more = True
        self._new_claims[endpoint] = Claim(endpoint, self.owner(endpoint), owner)

    def send(self, key: str, sent: Sent) -> None:
        """Let whatever comes under ``key`` from now on be a repetition of ``sent``."""
        self._has_more = True
        self._new_send = (key, sent)

    def go_on(self, key: str) -> None:
        """The record is due again at once: its rest goes before the next batch."""
        self._has_more = True
        self._new_unfinished.append(key)

    def unfile(self, key: str) -> None:
        """Take the deadline of a record that cannot be read off."""
        self.unfiled.add(key)

    def touch(self, key: str) -> None:
        """File the record's deadline anew, also where the record does not change."""
        self._has_more = True
        self._new_touched.append(key)

    def is_first_telling(self, endpoint: str, every_ms: int) -> bool:
        """Note that nobody holds the endpoint id; True where this was not told within ``every_ms``."""
        told = (self.organization, endpoint)  # one tenant's question must not silence another's
        told_ms = self.told.get(told) or self._told_before.get(told, 0)
        if told_ms + every_ms > self.moment.now_ms:
            return False
        self._has_more = True
        self._new_told.append(told)
        return True

    # Making events.

    def stamp(self, about: str, version: int) -> tuple[str, str, str, str, int]:
        """Return the fields common to all events: id, timestamp, organization, about, version."""
        self._events += 1
        event_id = f"{self._id_prefix}{self._events:06x}{self._id_suffix}"
        return event_id, self.timestamp, self.organization, about, version


def _seat(rooms: Mapping[str, dict[str, Seat]], key: str, record: Party) -> None:
    """Seat a party where it is present, in those of ``rooms`` that it is in; unseat it where it is not."""
    room, party = parse_part_key(key)
    seats = rooms.get(room)
    if seats is None:
        return
    if record.is_present:
        seats[party] = seat_of(party, record)
    else:
        seats.pop(party, None)


def _decode(key: str, noun: str, raw: bytes) -> tuple[Record, int]:
    try:
        return decode_record(noun, raw)
    except ValueError as error:
        raise CorruptRecord(key, str(error)) from None

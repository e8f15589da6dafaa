"""The unit of work: what one organization's batch has read and changed so far.

What a command changes stands at once, and what stood before it is kept until the command is: one that is refused, or
must be decided again, is dropped and leaves no trace.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import msgspec

from bridge.domain.ids import Ref, parse_key, parse_part_key, room_key, subject_key
from bridge.domain.loaded import Entry, LoadedState, NotLoaded
from bridge.domain.records import Party, Record, Sent, Subject
from bridge.domain.rules import Rules
from bridge.domain.seats import Seat, seat_of, seats_of, seats_page
from bridge.domain.values import KINDS, Claim, Kind, Moment, Owner, Page

ALL_DEADLINES = Page("deadlines", None, 1_000_000)
"""All of an organization's records that anything is ever due on, so all subjects that have endpoints. Long before the
limit what is told to all of these is too large to be committed."""

_decode_sent = msgspec.json.Decoder(Sent).decode


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


class State(LoadedState):
    """What one organization's batch reads and changes; see the module's docstring.

    Args:
        organization: whose records.
        moment: when the batch is decided.
        rules: the configuration's numbers.
        id_prefix: time-ordered text, unique to this batch; event ids are ``<id_prefix><counter><id_suffix>``.
        id_suffix: unique to this bridge.
        home: the organization whose users hold what ids name them without a claim; see `bridge.domain.owners`.
        timestamp: ``moment.now_ms`` as the events write it.
        told_ms: (organization, endpoint id) -> epoch ms when it was last told that nobody holds it, by earlier batches.
        in_hand: (organization, record key) -> a send by an earlier batch whose outcome is not kept yet.
        corrupt: keys that an earlier try to commit found to hold another type.

    Attributes:
        audiences: session -> the endpoints of its members and their owners, for the present command only.
    """

    def __init__(
        self,
        organization: str,
        moment: Moment,
        rules: Rules,
        *,
        home: str,
        id_prefix: str,
        id_suffix: str,
        timestamp: str,
        told_ms: Mapping[tuple[str, str], int],
        in_hand: Mapping[tuple[str, str], Sent] = MappingProxyType({}),
        corrupt: Collection[str] = (),
    ) -> None:
        super().__init__(organization, corrupt)
        self.moment = moment
        self.rules = rules
        self.home = home
        self.timestamp = timestamp
        self.told: dict[tuple[str, str], int] = {}
        self.claims: dict[str, Claim] = {}
        self.unclaimed: set[str] = set()
        self.unfinished: list[str] = []
        self.touched: set[str] = set()
        self.unfiled: set[str] = set()
        self.audiences: dict[str, dict[str, str]] = {}
        self.sends: dict[str, Sent] = {}
        self._id_prefix = id_prefix
        self._id_suffix = id_suffix
        self._told_before = told_ms
        self._in_hand = in_hand
        self._events = 0
        self._seats: dict[str, dict[str, Seat]] = {}
        self._now_ms = moment.now_ms
        self._before: dict[str, tuple[Record, int]] = {}  # what the present command has changed -> as it stood before
        self._has_more = False  # the present command has changed more than records
        self._new_claims: dict[str, Claim] = {}
        self._new_unclaimed: list[str] = []
        self._new_unfinished: list[str] = []
        self._new_touched: list[str] = []
        self._new_told: list[tuple[str, str]] = []
        self._new_send: tuple[str, Sent] | None = None

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
            self.unclaimed.update(self._new_unclaimed)
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
        self._new_unclaimed = []
        self._new_unfinished = []
        self._new_touched = []
        self._new_told = []
        self._new_send = None

    # Reading, with what the batch has changed.

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
            NotLoaded: the deadlines, or the record of a subject in them, were not loaded.
        """
        self.require((), pages=(ALL_DEADLINES,))
        changed = [key for key, entry in self.entries.items() if isinstance(entry.record, Subject)]
        keys = sorted({*(key for key in self.pages[ALL_DEADLINES] if key.partition(":")[0] in KINDS), *changed})
        self.require(keys)
        return {endpoint: parse_key(key)[1] for key in keys for endpoint in self.readable(key).endpoints}

    def owner(self, endpoint: str) -> Owner | None:
        """Return who has claimed an endpoint id, over all organizations.

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

    def is_owner_known(self, endpoint: str) -> bool:
        """Tell whether it is known who has claimed an endpoint id."""
        return endpoint in self.owners or endpoint in self._new_claims or endpoint in self.claims

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

    def save_for_good(self, entry: Entry, record: Record) -> None:
        """Put a new record in place of the present one, for a command that nothing can stop any more."""
        entry.record = record
        entry.version = self._above(entry.version)

    def _above(self, version: int) -> int:
        lowest = (version or self.floor) + 1
        if lowest > self._now_ms:
            return lowest
        return self._now_ms

    def save_subject(self, ref: Ref | tuple[Kind, str], record: Subject) -> int:
        """Save a subject's record; see `save`."""
        return self.save(subject_key(*ref), record)

    def claim(self, endpoint: str, owner: Owner | None) -> None:
        """Change who has claimed an endpoint id: before the commit for a new owner, after it for a release (None)."""
        self._has_more = True
        self._new_claims[endpoint] = Claim(endpoint, self.owner(endpoint), owner)

    def leave_unclaimed(self, endpoint: str) -> None:
        """Let the commit conflict where anybody has claimed an endpoint id by then."""
        self._has_more = True
        self._new_unclaimed.append(endpoint)

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

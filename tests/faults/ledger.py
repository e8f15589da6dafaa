"""The ledger: what must come, what came, and what came that must not."""

import threading
import time
from collections import Counter
from typing import Any, NamedTuple

from tests.faults.subscriber import Heard

MOST_TOLD, LONGEST_TOLD = 10, 600  # of each kind; characters
REMEMBERED_INPUTS = 50_000  # a copy of an older input than these is not told from a new one
REMEMBERED_EVENTS = 200  # per endpoint and record


class Settled(NamedTuple):
    """What is to be judged after a fault: (endpoint, input number) of what never came; what was too much, as text."""

    missing: list[tuple[str, int]]
    decided_again: list[str]
    went_back: list[str]


class Ledger:
    """Every method may be called from any thread.

    Attributes:
        counts: of everything that the table shows.
        awaited: (endpoint, input number) -> since when, monotonic seconds.
        faults: the first of what must not be, as text.
        came_at: when the last of what had to come came, monotonic seconds.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.awaited: dict[tuple[str, int], float] = {}
        self.faults: list[str] = []
        self.came_at = 0.0
        self._newest = 0
        self._times_sent: dict[int, int] = {}
        self._came: dict[int, set[str]] = {}
        self._decided: dict[int, dict[tuple[str, str], str]] = {}
        self._decided_again: list[tuple[int, str]] = []
        self._went_back: list[str] = []
        self._given_up: dict[tuple[str, int], float] = {}
        self._events: dict[tuple[str, str], dict[str, None]] = {}
        self._highest: dict[tuple[str, str], int] = {}

    def sent(self, number: int) -> None:
        """The witness heard input ``number``: once, or more often where the broker itself has it twice."""
        with self.lock:
            self._times_sent[number] = self._times_sent.get(number, 0) + 1
            if number > self._newest:
                self._newest = number
                for remembered in (self._times_sent, self._came, self._decided):
                    remembered.pop(number - REMEMBERED_INPUTS, None)

    def expect(self, endpoint: str, number: int) -> None:
        """``endpoint`` must be told of input ``number``."""
        with self.lock:
            if number > self._newest - REMEMBERED_INPUTS and endpoint not in self._came.get(number, ()):
                self.awaited.setdefault((endpoint, number), time.monotonic())

    def came(self, endpoint: str, number: int) -> None:
        """``endpoint`` was told of input ``number``."""
        with self.lock:
            self._came.setdefault(number, set()).add(endpoint)
            if self.awaited.pop((endpoint, number), None) is not None:
                self.came_at = time.monotonic()
            given_up_at = self._given_up.pop((endpoint, number), None)
            if given_up_at is not None:
                self.counts["came after they were given up"] += 1

    def heard(self, endpoint: str, event: dict[str, Any], number: int | None, delivery: Heard) -> None:
        """An endpoint was told of an event, of input ``number`` where it bears one."""
        with self.lock:
            self.counts["outputs"] += 1
            place = endpoint, event["about"]
            known = self._events.setdefault(place, {})
            if event["id"] in known:
                is_marked = delivery.redelivered or delivery.duplicate
                self.counts["copies, marked" if is_marked else "copies, unmarked"] += 1
                return
            known[event["id"]] = None
            if len(known) > REMEMBERED_EVENTS:
                del known[next(iter(known))]
            version = event["version"]
            if version < self._highest.get(place, 0) and not delivery.redelivered:
                self._went_back.append(f"{endpoint}: {event['about']} went back to {version}: {event}")
            self._highest[place] = max(version, self._highest.get(place, 0))
            if number is None:
                return
            decided = self._decided.setdefault(number, {})
            first = decided.setdefault((event["type"], event["about"]), event["id"])
            if first != event["id"]:
                decided[event["type"], event["about"]] = event["id"]
                self._decided_again.append((number, f"input {number} made {first} and {event}"))

    def is_told(self, kind: str) -> bool:
        """Whether the next fault of a kind is told of, and not only counted."""
        return self.counts[kind] < MOST_TOLD

    def fault(self, kind: str, what: str) -> None:
        """Note what must not be."""
        with self.lock:
            is_told = self.is_told(kind)
            self.counts[kind] += 1
            if is_told:
                self.faults.append(f"{kind}: {what[:LONGEST_TOLD]}")

    def settle(self) -> Settled:
        """Return what is to be judged, and wait for it no longer; the witness has heard all that was sent."""
        with self.lock:
            again = [what for number, what in self._decided_again if self._times_sent.get(number, 0) < 2]
            self.counts["sent twice"] += len(self._decided_again) - len(again)
            settled = Settled(list(self.awaited), again, self._went_back)
            self._given_up.update(dict.fromkeys(settled.missing, time.monotonic()))
            self.awaited.clear()
            self._decided_again, self._went_back = [], []
            return settled

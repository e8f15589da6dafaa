"""A fault run: load, one fault after another, and after each the question whether everything came and stands."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.catalogue import BRIDGE, BROKER, FAULTS, LOSING, RARE, REDIS, WAYS
from tests.faults.schedules import SCHEDULED, Schedule
from tests.faults.stand import SECOND_PREFIX, Stand
from tests.faults.traffic import Traffic

CONVERGE_SECONDS = 60.0  # then it is given up; what is promised is less, but a machine that is busy must fail no run
HARM_SECONDS = 10.0  # where a guard is out, and harm is what is looked for
LOST_SECONDS = 5.0  # all is published, and what has not come by then the broker or Redis have lost
PROMISES = (
    "lost",
    "ghosts",
    "false expiries",
    "version regressions",
    "decided twice",
    "bridges that died",
    "not converged",
)
PAIRS = 0.15  # share of the faults that come two at once


class Run:
    """One run on one stand.

    Args:
        seed: of everything that is chosen.
        per_second: inputs.
        directory: for data and logs.
        without: guards that are taken out.
        has_second: two bridges are active, see `Stand`.

    Attributes:
        done: name of a fault -> how often it was done.
        counts: of everything that the table shows.
        faults: the first of what must not be, as text.
        converged: each fault (or two at once), with the seconds from its end until all had come that was not lost.
        seconds: how long it took.
        patience_seconds: how long what must come is waited for.
    """

    def __init__(
        self,
        seed: int,
        per_second: float,
        directory: Path,
        *,
        without: Sequence[str] = (),
        has_second: bool = False,
    ) -> None:
        self.seed = seed
        self.per_second = per_second
        self.done: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.converged: list[tuple[str, float]] = []
        self.seconds = 0.0
        self.patience_seconds = CONVERGE_SECONDS
        self._dice = random.Random(seed)
        self._has_second = has_second
        self._stand = Stand(directory, without=without, has_second=has_second)

    @classmethod
    def of(cls, schedule: Schedule, directory: Path, *, without: str = "") -> "Run":
        """Run a schedule to its end, with a guard or without."""
        run = cls(1, 300, directory, without=[without] if without else [], has_second=schedule.has_second)
        if without:
            run.patience_seconds = HARM_SECONDS
        run.go((name,) for name in schedule.breaks)
        return run

    def go(
        self,
        breaks: Iterator[Sequence[str]],
        seconds: float = float("inf"),
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        """Break and mend as ``breaks`` says, for at most so long: each names the faults that come at once."""
        began = time.monotonic()
        with self._stand as stand:
            second = SECOND_PREFIX if self._has_second else ""
            traffic = Traffic(
                stand.broker.port, self.per_second, self.seed, http_ports=stand.http_ports, second_prefix=second
            )
            self.counts = traffic.ledger.counts
            try:
                self._settle(stand, traffic, "the start")
                for names in breaks:
                    self._break(stand, traffic, names)
                    self.seconds = time.monotonic() - began
                    after_each()
                    if self.seconds >= seconds:
                        break
                for one in traffic.never_ending(CONVERGE_SECONDS):
                    traffic.ledger.fault("ghosts", f"it never kept itself alive and is still there: {one}")
            finally:
                traffic.close()
                self.faults = traffic.ledger.faults

    def _break(self, stand: Stand, traffic: Traffic, names: Sequence[str]) -> None:
        what = " + ".join(names)
        loser = next((LOSING[name] for name in names if name in LOSING), "")
        traffic.resume()
        time.sleep(self._dice.uniform(0.3, 1.0))
        with ThreadPoolExecutor(len(names)) as threads:
            for broken in [threads.submit(self._do, stand, name, self._dice.random()) for name in names]:
                broken.result()
        mended = time.monotonic()
        if loser:
            traffic.pause()
            if not traffic.is_answered(self.patience_seconds):
                traffic.ledger.fault("not converged", f"after {what}: no bridge answers")
            traffic.say_all_again()
            traffic.resume()
        time.sleep(self._dice.uniform(0.1, 0.5))
        traffic.pause()
        self.converged.append((what, max(0.0, self._settle(stand, traffic, what, loser) - mended)))

    def _do(self, stand: Stand, name: str, seed: float) -> None:
        SCHEDULED[name](stand, random.Random(seed))
        self.done[name] += 1

    def _settle(self, stand: Stand, traffic: Traffic, what: str, loser: str = "") -> float:
        """Judge once all has come, or is given up; returns since when."""
        settled_at = self._wait(stand, traffic, what, loser)
        if traffic.must_say_again:
            traffic.say_all_again()
            self._wait(stand, traffic, what, loser)
        try:
            for kind, difference in traffic.differences():
                traffic.ledger.fault(kind, f"after {what}: {difference}")
        except AssertionError as error:
            traffic.ledger.fault("not converged", f"after {what}: {error}")
        if traffic.ledger.faults and not self.faults:
            self.faults = traffic.ledger.faults
            stand.keep_evidence()
        return settled_at

    def _wait(self, stand: Stand, traffic: Traffic, what: str, loser: str) -> float:
        end = time.monotonic() + self.patience_seconds
        while not traffic.is_settled and time.monotonic() < end:
            for death in stand.revive():
                traffic.ledger.fault("bridges that died", f"after {what}: {death}")
            if loser and traffic.is_published:
                end = min(end, time.monotonic() + LOST_SECONDS)
            time.sleep(0.02)
        settled_at = traffic.ledger.came_at if loser and traffic.ledger.awaited else time.monotonic()
        self._judge(traffic, what, loser)
        return settled_at

    def _judge(self, traffic: Traffic, what: str, loser: str) -> None:
        """Count what is missing or too much; a loser forgot inputs and acknowledgements, so it is due to that one."""
        ledger = traffic.ledger
        missing, decided_again, went_back = ledger.settle()
        if loser:
            ledger.counts[f"lost by {loser}"] += len(missing)
            ledger.counts[f"brought back by {loser}"] += len(decided_again) + len(went_back)
            return
        for endpoint, number in missing:
            if traffic.was_heard(endpoint, number):
                ledger.counts["lost by the broker"] += 1
            else:
                said = traffic.describe(number) if ledger.is_told("lost") else f"input {number}"
                ledger.fault("lost", f"after {what}: {endpoint} was not told of {said}")
        for kind, findings in (("decided twice", decided_again), ("version regressions", went_back)):
            for finding in findings:
                ledger.fault(kind, f"after {what}: {finding}")

    @property
    def is_clean(self) -> bool:
        return not any(self.counts[promise] for promise in PROMISES)


def drawn(seed: int, only: Sequence[str] = ()) -> Iterator[Sequence[str]]:
    """Draw faults for ever, now and then two at once: one of the bridge and one of its surroundings."""
    dice = random.Random(seed)
    around = {**BROKER, **REDIS, **WAYS}
    names = list(only or FAULTS)
    weights = [1 if name in RARE else 3 for name in names]
    while True:
        if not only and dice.random() < PAIRS:
            yield dice.choice(list(BRIDGE)), dice.choice(list(around))
        else:
            yield dice.choices(names, weights)

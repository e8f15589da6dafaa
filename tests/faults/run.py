"""A fault run: load, one fault after another, and after each the question whether everything came and stands.

``scripts/faults --help``. Prints a table, and ends with exit code 1 where anything was lost or shown that is not so.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from tests.faults.catalogue import FAULTS, LOSING
from tests.faults.stand import Stand
from tests.faults.traffic import Traffic
from tests.faults.victim import GUARDS

CONVERGE_SECONDS = 60.0
PROMISES = ("lost", "ghosts", "false expiries", "version regressions", "bridges that died", "not converged")


class Run:
    """One run on one stand.

    Args:
        seed: of everything that is chosen.
        per_second: inputs.
        directory: for data and logs.
        without: a guard that is taken out.
        only: names of faults to choose from; all where empty.
    """

    def __init__(
        self, seed: int, per_second: float, directory: Path, *, without: str = "", only: tuple[str, ...] = ()
    ) -> None:
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.converged_seconds: list[float] = []
        self._per_second = per_second
        self._dice = random.Random(seed)
        self._names = list(only or FAULTS)
        self._stand = Stand(directory, without=without)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def go(self, seconds: float, faults: int | None = None) -> None:
        """Break and mend for so long, or so many times."""
        with self._stand as stand:
            traffic = Traffic(stand.broker.port, self._per_second, self.seed)
            try:
                self._settle(traffic, "start")
                end = time.monotonic() + seconds
                while time.monotonic() < end and (faults is None or self.done.total() < faults):
                    self._break(stand, traffic, self._dice.choice(self._names))
            finally:
                traffic.close()
                self.counts, self.faults = traffic.ledger.counts, traffic.ledger.faults

    def _break(self, stand: Stand, traffic: Traffic, name: str) -> None:
        traffic.resume()
        time.sleep(self._dice.uniform(0.3, 1.0))
        subscriptions = stand.subscriptions
        FAULTS[name](stand, self._dice)
        self.done[name] += 1
        mended = time.monotonic()
        if name in LOSING:
            traffic.pause()
            stand.wait_subscribed(subscriptions)
            traffic.say_all_again()
            traffic.resume()
        time.sleep(0.3)
        traffic.pause()
        self._settle(traffic, name)
        self.converged_seconds.append(time.monotonic() - mended)
        for death in stand.died():
            traffic.ledger.fault("bridges that died", f"after {name}: {death}")

    def _settle(self, traffic: Traffic, name: str) -> None:
        end = time.monotonic() + CONVERGE_SECONDS
        while not traffic.is_settled and time.monotonic() < end:
            if name in LOSING and traffic.publisher.acknowledged >= traffic.publisher.given:
                end = min(end, time.monotonic() + 5)
            time.sleep(0.02)
        missing = traffic.ledger.give_up()
        if missing and name in LOSING:
            traffic.ledger.counts["lost by the broker"] += len(missing)
        elif missing:
            traffic.ledger.fault("lost", f"after {name}: {len(missing)} outputs never came: {missing[:10]}")
        try:
            traffic.compare(name)
        except AssertionError as error:
            traffic.ledger.fault("not converged", f"after {name}: {error}")

    @property
    def is_clean(self) -> bool:
        return not any(self.counts[promise] for promise in PROMISES)

    def table(self) -> str:
        """What was done and what came of it."""
        waits = sorted(self.converged_seconds) or [0.0]
        rows: list[tuple[str, object]] = [
            ("seed", self.seed),
            ("faults", self.done.total()),
            ("inputs", self.counts["inputs"]),
            ("outputs heard", self.counts["outputs"]),
            *((promise, self.counts[promise]) for promise in PROMISES),
            *((name, self.counts[name]) for name in ("lost by the broker", "copies, marked", "copies, unmarked")),
            ("converged within, median / worst", f"{median(waits):.1f} s / {waits[-1]:.1f} s"),
        ]
        lines = [f"| {name:<34} | {value!s:>14} |" for name, value in rows]
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))
        return "\n".join([lines[0], f"|{'-' * 36}|{'-' * 16}|", *lines[1:], "", f"faults: {kinds}", *self.faults])


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/faults",
        description="Breaks broker, Redis, bridges and the ways between them under load, and counts what was lost.",
        epilog="Example: scripts/faults --seed 7 --minutes 10",
    )
    parser.add_argument("--seed", type=int, help="of every choice (default: a new one, printed)")
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--faults", type=int, help="end after so many faults")
    parser.add_argument("--rate", type=float, default=300, help="inputs a second (300)")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), default=[], help="choose from these only")
    parser.add_argument("--without", choices=sorted(GUARDS), default="", help="take a guard out, to see it noticed")
    parser.add_argument("--keep", type=Path, help="folder for data and logs (default: one removed at the end)")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"faults: seed {seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="endpoint-bridge-faults-") as folder:
        directory = given.keep or Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        run = Run(seed, given.rate, directory, without=given.without, only=tuple(given.only))
        run.go(given.minutes * 60, given.faults)
    print(run.table())
    return 0 if run.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())

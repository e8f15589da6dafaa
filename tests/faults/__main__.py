"""``scripts/faults``: fault runs from the command line. Ends with exit code 1 where anything promised was not kept."""

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.faults import durability, report
from tests.faults.catalogue import FAULTS
from tests.faults.run import Run, drawn
from tests.faults.schedules import SCHEDULES


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/faults",
        description="Breaks broker, Redis, bridges and the ways between them under load, and counts what was lost.",
        epilog="Example: scripts/faults --seed 7 --minutes 10",
    )
    parser.add_argument("--seed", type=int, help="of every choice (default: a new one, printed)")
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--rate", type=float, default=300, help="inputs a second (300)")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), default=[], help="choose from these only")
    parser.add_argument(
        "--without",
        action="append",
        choices=["all", *SCHEDULES],
        default=[],
        help="run the schedule of this guard with it, and without it: only then something must be lost",
    )
    parser.add_argument("--keep", type=Path, help="folder for data and logs (default: one removed at the end)")
    parser.add_argument("--record", type=Path, help="append the figures to this file, a JSON line for each run")
    parser.add_argument("--durability", action="store_true", help="measure what the servers lose by their own settings")
    parser.add_argument("--totals", action="store_true", help=f"add up what {report.RECORD} holds, and run nothing")
    given = parser.parse_args()
    if given.totals:
        print(report.totals(report.RECORD))
        return 0
    if given.keep and given.keep.exists() and any(given.keep.iterdir()):
        parser.error(f"{given.keep} holds something already: an older run's data would stand in the registry")
    if given.durability:
        for row in durability.rows():
            print(row, flush=True)
        return 0
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell lets what it runs in the background ignore the second
        signal.signal(number, lambda *_: sys.exit(2))
    if given.without:
        return _compare(SCHEDULES if "all" in given.without else given.without)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"faults: seed {seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="endpoint-bridge-faults-") as folder:
        directory = given.keep or Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        run = Run(seed, given.rate, directory)
        try:
            run.go(drawn(seed, given.only), given.minutes * 60, after_each=_progress(run))
        finally:
            print(report.table(run), flush=True)
    if given.record:
        report.record(run, given.record)
    return 0 if run.is_clean else 1


def _progress(run: Run) -> Callable[[], None]:
    """Return what says once a minute how far the run is, on standard error."""
    told_minutes = 0

    def tell() -> None:
        nonlocal told_minutes
        if run.seconds // 60 > told_minutes:
            told_minutes = int(run.seconds // 60)
            print(f"faults: {report.progress(run)}", file=sys.stderr, flush=True)

    return tell


def _compare(guards: Iterable[str]) -> int:
    """Run the schedules of these guards with and without them; 0 where each guard makes the difference."""
    print(report.guard_head(), flush=True)
    are_needed = True
    for guard in guards:
        runs = []
        for without in ("", guard):
            with tempfile.TemporaryDirectory(prefix="endpoint-bridge-faults-") as folder:
                runs.append(Run.of(SCHEDULES[guard], Path(folder), without=without))
        print(report.guard_row(guard, *runs), flush=True)
        are_needed &= runs[0].is_clean and not runs[1].is_clean
    return 0 if are_needed else 1


if __name__ == "__main__":
    sys.exit(main())

"""The command line of ``scripts/bench``: progress on standard error, the result on standard output."""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from scripts.load import (
    broker,
    counts,
    fanout,
    http,
    keepalive,
    latency,
    masks,
    million,
    peers,
    profile,
    relay,
    rooms,
    sweep,
)
from scripts.load.picture import draw
from scripts.load.report import Report, text, write
from scripts.load.stand import ROOT, SOURCES, StandError, end_on_signals, find_program
from scripts.load.work import Plan, Result

WORKS: dict[str, tuple[str, Callable[[Plan], Result]]] = {
    "relay": ("a status event to one endpoint, against null relays in C", relay.measure),
    "latency": ("the same at half of each one's maximum, and at 5,000/s", latency.measure),
    "fanout": ("a status event to ten endpoints of its user", fanout.measure),
    "keepalive": ("keepalives at QoS 0, against the broker's direct rate", keepalive.measure),
    "peers": ("a status event, against what somebody would write instead", peers.measure),
    "million": ("what a million registered endpoints cost", million.measure),
    "sweep": ("very many endpoints expire in the same second", sweep.measure),
    "rooms": ("joins told to all of a room", rooms.measure),
    "http": ("calls over HTTP, against the same in FastAPI that do nothing", http.measure),
    "masks": ("masks alone, usual and hostile ones", masks.measure),
    "broker": ("what each shipped setting of Mosquitto does", broker.measure),
    "counts": ("instructions and bytes of an event, which no clock blurs", counts.measure),
    "profile": ("what the bridge's time goes to under the loads of relay and keepalive", profile.measure),
}
FULL, QUICK = (5, 3.0), (2, 1.0)  # rounds, seconds of each sample
USERS = 10_000
DOCS = ROOT / "docs"
FULL_ONLY = ("broker", "counts", "profile")  # unless they are asked for


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the bridge: each work against its peers, in rounds, on servers of its own.",
        epilog="works:\n" + "\n".join(f"  {name:<10} {summary}" for name, (summary, _) in WORKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "works",
        nargs="*",
        metavar="work",
        help=f"which, in this order; default: all, {', '.join(FULL_ONLY)} in the full form alone",
    )
    parser.add_argument("--full", action="store_true", help="the form for the record: 5 rounds of 3 s, full sizes")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (2; 5 in the full form)")
    parser.add_argument("--seconds", type=float, help="measured seconds of each variant in a round (1; 3)")
    parser.add_argument("--redis", choices=["redis", "valkey"], help="default: the system's Redis, else Valkey")
    parser.add_argument("--json", action="store_true", help="only JSON on standard output")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="measure nothing: make docs/benchmarks.md of what --json printed"
    )
    given = parser.parse_args()
    unknown = [name for name in given.works if name not in WORKS]
    if unknown:
        parser.error(f"no such work: {', '.join(unknown)}; there are: {', '.join(WORKS)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds: at least 1")
    if given.seconds is not None and not 0.5 <= given.seconds <= 60:
        parser.error("--seconds: 0.5 to 60")
    return given


def _plan(given: argparse.Namespace) -> Plan:
    rounds, seconds = FULL if given.full else QUICK
    return Plan(given.full, USERS, given.rounds or rounds, given.seconds or seconds, given.redis, _say)


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()} {platform.machine()}"


def _git_hash() -> str:
    git = find_program("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - our own words
    return done.stdout.strip() or "unknown"


def _write(report: Report) -> None:
    (DOCS / "benchmarks.md").write_text(write((SOURCES / "benchmarks.md").read_text(), report))
    drawn = draw(report)
    if drawn is not None:
        (DOCS / "benchmarks.svg").write_text(drawn)


def main() -> int:
    """Measure and print, or write down what was measured.

    Returns:
        The exit code: 0, or 1 where something of a stand failed; the other works are measured all the same.
    """
    given = _arguments()
    if given.write is not None:
        _write(msgspec.json.decode(given.write.read_bytes(), type=Report))
        return 0
    end_on_signals()
    plan = _plan(given)
    load_average = os.getloadavg()[0]
    results: list[Result] = []
    failed: dict[str, str] = {}
    for name in given.works or [name for name in WORKS if given.full or name not in FULL_ONLY]:
        began = time.monotonic()
        try:
            results.append(WORKS[name][1](plan))
        except (StandError, subprocess.SubprocessError) as error:
            failed[name] = str(error)
            _say(f"{name} failed: {error}")
        _say(f"{name} took {time.monotonic() - began:.0f} s")
    report = Report(
        date=time.strftime("%Y-%m-%d"),
        machine=_machine(),
        load_average=round(load_average, 2),
        bridge=_git_hash(),
        is_full=plan.is_full,
        rounds=plan.rounds,
        seconds=plan.seconds,
        results=results,
        failed=failed,
    )
    print(msgspec.json.format(msgspec.json.encode(report)).decode() if given.json else text(report))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

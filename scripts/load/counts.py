"""The work ``counts``: what an event costs where no clock is asked: machine instructions of the bridge, bytes to Redis.

The bridge runs under valgrind's callgrind, fifty times slower, and is otherwise as shipped. Only what it does while the
load comes is counted, its ticks included. Two runs differ by some percent, where times on a shared machine differ by a
third: so a change of the code shows.
"""

import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scripts.load.house import feed, registrations
from scripts.load.rooms import Crowd, crowd_of, joins
from scripts.load.rounds import Variant, run_sample, status_events
from scripts.load.stand import PRIMARY, Stand, StandError, find_program
from scripts.load.work import Cell, Column, Plan, Result, Table

FAN_OUT = 10
CROWD = Crowd(rooms=10, parties=100, joins_per_second=0)

METHOD = """\
Instructions of the bridge's process per input, in thousands, counted by valgrind (callgrind) while the load comes, and
by the program or library that they belong to; hash seed 0. Beside them the bytes that Redis was sent and sent back per
input. 512 messages are on their way at once, 96 of those to ten endpoints, 9 of the joins; every 51st message of the
keepalives is a status event. Whoever joins is sent a roster. One alone is a batch by itself: what it takes besides is
what every batch takes, whatever its size."""

LIBRARIES = {
    "python": "Python",
    "libpython": "Python",
    "_core": "msgspec",
    "hiredis": "hiredis",
    "mqtt5": "mqtt5",
    "loop": "uvloop",
    "libc": "libc",
}
"""How an object file's name begins -> whose it is; all others are ``other``."""
OWNERS = (*dict.fromkeys(LIBRARIES.values()), "other")


class Load(NamedTuple):
    """What comes in.

    Attributes:
        name: in words.
        options: the load generator's.
        inputs_each: how many inputs one of its messages is.
    """

    name: str
    options: dict[str, object]
    inputs_each: int = 1


LOADS = (
    Load("status event to one endpoint, QoS 1", {}),
    Load("the same alone, one at a time", {"window": 1}),
    Load(
        f"status event to {FAN_OUT} endpoints, QoS 1",
        {"topic": "presence/users/w%%%%%%/status", "fanout": FAN_OUT, "window": 96},
    ),
    Load(
        "keepalive, QoS 0",
        {"fill": 50, "fill-topic": "users/endpoints/u%%%%%%~0/keepalive", "window": 16, "order": "turn"},
        inputs_each=51,
    ),
)
JOIN = f"join told to a room of {CROWD.parties}, QoS 1"


def measure(plan: Plan) -> Result:
    """Load a bridge under callgrind.

    Raises:
        StandError: a part of the stand failed, or valgrind is missing.
    """
    valgrind, control = find_program("valgrind"), find_program("callgrind_control")
    if valgrind is None or control is None:
        raise StandError("valgrind is missing, and with it the counts: apt-get install valgrind")
    rows: list[list[Cell]] = []
    paced = {"users": min(plan.users, 1_000), "warmup": 1, "duration": 10 if plan.is_full else 3, "drain": 60}
    with Stand(plan.flavour) as stand:
        bridge = stand.configure(PRIMARY)
        feed(bridge.settings, registrations(bridge.prefix, paced["users"]))
        feed(bridge.settings, registrations(bridge.prefix, paced["users"], FAN_OUT, letter="w"))
        feed(bridge.settings, crowd_of(bridge, CROWD))
        file = stand.folder / "callgrind"
        under = [valgrind, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={file}"]
        with stand.bridge(bridge, under):
            plain = status_events(stand, bridge, 1)
            # So that all is imported and cached.
            run_sample(plan, plain, **paced)
            run_sample(plan, plain._replace(options={**paced, **joins(stand, bridge, CROWD, "i"), "window": 9}))
            join = Load(JOIN, {**joins(stand, bridge, CROWD), "window": 9, "duration": 3 * paced["duration"]})
            for number, load in enumerate((*LOADS, join), start=1):
                variant = plain._replace(options={**plain.options, **paced, **load.options})
                counts, figures = _count(plan, control, Path(f"{file}.{number}"), variant, load)
                plan.say(f"counts: {load.name}: {counts.total():,.0f} instructions each")
                thousands = [counts[owner] / 1000 for owner in OWNERS]
                rows.append([load.name, counts.total() / 1000, *thousands, *figures])
        versions = {**stand.versions(), "valgrind": _version(valgrind)}
    columns = [Column("input"), Column("instructions/1000", 1), *(Column(owner, 1) for owner in OWNERS)]
    columns += [Column("to Redis bytes"), Column("from Redis bytes"), Column("batch")]
    return Result("counts", METHOD, [Table("", columns, rows)], versions=versions)


def _count(
    plan: Plan, control: str, file: Path, variant: Variant, load: Load
) -> tuple[Counter[str], tuple[float, float, float]]:
    """Count one load: instructions by their owner; bytes to and from Redis, each per input; inputs of a commit."""
    stand = variant.stand
    pid = str(stand.pid(variant.worker or ""))
    _control(control, "--instr=on", pid)
    line, commits = run_sample(plan, variant)
    stats: Any = stand.redis.info("stats")
    _control(control, "--instr=off", pid)
    _control(control, "--dump", pid)
    inputs = line["sent"] * load.inputs_each
    with file.open() as lines:
        counts = instructions(lines)
    sent, received = (stats[f"total_net_{way}_bytes"] / inputs for way in ("input", "output"))
    each = Counter({owner: round(count / inputs) for owner, count in counts.items()})
    return each, (sent, received, inputs / max(commits, 1))


def instructions(lines: Iterable[str]) -> Counter[str]:
    """Add up a callgrind file's own costs by whose code it was.

    The format is that of valgrind's manual, "Callgrind Format Specification": ``ob=`` names the object file of the
    lines that follow, by a number once it was named; the line after ``calls=`` is the cost of what was called.
    """
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    owner, is_call = "other", False
    for line in lines:
        key, equals, rest = line.rstrip().partition("=")
        if equals and key in ("ob", "cob"):
            number, _, name = rest.partition(" ")
            if name:
                names[number] = _owner(name)
            if key == "ob":
                owner = names.get(number, "other")
        elif key == "calls":
            is_call = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not is_call:
                counts[owner] += int(line.split()[-1])
            is_call = False
    return counts


def _owner(path: str) -> str:
    name = Path(path).name
    return next((owner for start, owner in LIBRARIES.items() if name.startswith(start)), "other")


def _control(program: str, order: str, pid: str) -> None:
    done = subprocess.run([program, order, pid], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own words
    if done.returncode:
        raise StandError(f"callgrind_control {order} failed: {(done.stderr or done.stdout).strip()}")


def _version(valgrind: str) -> str:
    done = subprocess.run([valgrind, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - our own words
    return done.stdout.strip().removeprefix("valgrind-")

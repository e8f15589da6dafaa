"""The work ``profile``: what the bridge's time goes to under the load of ``relay`` and of ``keepalive``, by py-spy.

The stacks stay in ``build/load/profile-*.txt``, in the form that flame graph tools take.
"""

import contextlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from scripts.load.extras import python_packages
from scripts.load.house import feed, registrations
from scripts.load.keepalive import FILL, keepalives
from scripts.load.relay import route
from scripts.load.rounds import LONGEST_WARM_UP_SECONDS, Variant, run_sample, status_events
from scripts.load.stand import BUILD, PRIMARY, SOURCES, Stand, StandError
from scripts.load.work import Cell, Column, Plan, Result, Table

SAMPLES_PER_SECOND = 500
TOP = 12

METHOD = """\
Stacks of the bridge's process under the loads of `relay` and `keepalive`, 500 a second, while it was on a CPU (py-
spy; what the sampler itself takes is in the rates). Each is counted for the innermost function of the bridge's own
that stands in it, so that a package's time is with its caller."""

STAGES = {
    "MQTT: reading, PUBLISH, PUBACK": ("adapters/mqtt",),
    "Redis: packing, sending, reading": ("adapters/redis_connection", "adapters/registry"),
    "decode: topic and document": ("inbox", "domain/intake", "domain/topics", "domain/codec", "domain/ids"),
    "route: audience and event": ("domain/routing", "domain/routes", "domain/events", "domain/clock"),
    "records, indexes, journal as text": ("domain/changes", "domain/schema", "domain/journal"),
    "settle": ("settlement", "outcomes", "domain/audit"),
    "the line itself": ("pipeline", "batch", "meters", "reporter", "app"),
    "decide: rules and unit of work": ("domain/",),
}
"""Stage -> modules of ``bridge/``; the first that fits."""
LOOP = "the event loop"


def measure(plan: Plan) -> Result:
    """Take a profile at each QoS, and one of keepalives.

    Raises:
        StandError: a part of the stand failed, or py-spy cannot be had.
    """
    program = python_packages(SOURCES / "profile.lock") / "bin" / "py-spy"
    tables: list[Table] = []
    with Stand(plan.flavour) as stand:
        for qos in (1, 0):
            made = stand.configure(f"qos{qos}" if qos == 0 else PRIMARY, route(qos=qos))
            feed(made.settings, registrations(made.prefix, plan.users))
            with stand.bridge(made):
                file = BUILD / f"profile-qos{qos}.txt"
                rate = _record(plan, status_events(stand, made, qos), program, file)
                tables += _tables(f"QoS {qos} at {rate:,.0f} events/s", file)
                if qos == 0:
                    file = BUILD / "profile-keepalive.txt"
                    rate = FILL * _record(plan, keepalives(stand, "bridge", made.name, made.prefix), program, file)
                    tables += _tables(f"keepalives at {rate:,.0f}/s", file)
        versions = stand.versions()
    return Result("profile", METHOD, tables, versions=versions)


def _tables(title: str, file: Path) -> list[Table]:
    stacks = read_stacks(file.read_text().splitlines())
    return [
        _table(f"{title}, by stage", "stage", by(stage_of, stacks)),
        _table(f"{title}, the first {TOP} functions", "function", by(own_function, stacks)),
    ]


def _record(plan: Plan, variant: Variant, program: Path, file: Path) -> float:
    seconds = max(plan.seconds, 3)
    command = [str(program), "record", "-p", str(variant.stand.pid(variant.worker or "")), "-f", "raw", "-o", str(file)]
    command += ["-d", f"{seconds:.0f}", "-r", str(SAMPLES_PER_SECOND)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as recording:  # noqa: S603 - our own words
        try:
            line, _ = run_sample(plan._replace(seconds=seconds + LONGEST_WARM_UP_SECONDS), variant)
            with contextlib.suppress(subprocess.TimeoutExpired):
                recording.wait(10)
        finally:
            recording.kill()
        if recording.returncode:
            raise StandError(f"py-spy failed: {(recording.stderr.read() if recording.stderr else '').strip()}")
    return float(line["rate"])


Stack = list[str]
"""Frames from the outermost, each ``function (file:line)``."""


def read_stacks(lines: Iterable[str]) -> list[tuple[Stack, int]]:
    """Read collapsed stacks: frames between semicolons, then how often they were met."""
    stacks = []
    for line in lines:
        frames, _, count = line.rpartition(" ")
        stacks.append((frames.split(";"), int(count)))
    return stacks


def by(name: Callable[[Stack], str], stacks: Iterable[tuple[Stack, int]]) -> Counter[str]:
    """Count stacks by what they are named."""
    counts: Counter[str] = Counter()
    for stack, count in stacks:
        counts[name(stack)] += count
    return counts


def own_function(stack: Stack) -> str:
    """The innermost function of the bridge's own, ``module.function``."""
    for frame in reversed(stack):
        function, _, place = frame.partition(" (")
        if place.startswith("bridge/") and not place.startswith("bridge/cli"):
            return f"{_module(place)}: {function}"
    return LOOP


def stage_of(stack: Stack) -> str:
    """The stage that a stack belongs to."""
    module = own_function(stack).partition(": ")[0]
    for stage, modules in STAGES.items():
        if module.startswith(modules):
            return stage
    return LOOP


def _module(place: str) -> str:
    return place.removeprefix("bridge/").partition(".py")[0]


def _table(title: str, what: str, counts: Counter[str]) -> Table:
    total = counts.total() or 1
    rows: list[list[Cell]] = [[name, 100 * count / total] for name, count in counts.most_common(TOP)]
    return Table(title, [Column(what), Column("%", 1)], rows)

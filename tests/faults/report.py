"""What a run saw: as a table, as a line of a record, and the sums of many lines."""

import json
import platform
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from tests.faults.run import PROMISES, Run
from tests.faults.schedules import SCHEDULES
from tests.integration.stack import ROOT
from tests.servers import program, redis_program

RECORD = Path(__file__).with_name("record.jsonl")
CONVERGES_SECONDS = 5.0
APART = (
    "lost by the broker",
    "lost by Redis",
    "brought back by the broker",
    "brought back by Redis",
    "came after they were given up",
    "sent twice",
    "expired, the judge was late",
    "HTTP requests answered",
)


def table(run: Run) -> str:
    """What was done and what came of it."""
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(run.done.items()))
    rows: dict[str, object] = {"seed": run.seed, "minutes": f"{run.seconds / 60:.1f}", **_figures(run)}
    late = [f"late: {seconds:.1f} s after {what}" for what, seconds in run.converged if seconds > CONVERGES_SECONDS]
    return "\n".join([_rows(rows), "", f"faults: {kinds}", *late, *run.faults])


def progress(run: Run) -> str:
    """How far a run is, in a line."""
    return f"{run.seconds / 60:.0f} min, {run.done.total()} faults, {_harm(run)}"


def guard_head() -> str:
    """The head of the table of guards."""
    return "| guard | what happens | with it | without it |\n|---|---|---|---|"


def guard_row(guard: str, kept: Run, lacking: Run) -> str:
    """What a guard's schedule did with it and without it."""
    return f"| {guard} | {SCHEDULES[guard].name} | {_harm(kept)} | {_harm(lacking)} |"


def _harm(run: Run) -> str:
    harm = ", ".join(f"{promise} {run.counts[promise]}" for promise in PROMISES if run.counts[promise])
    return f"{harm or 'nothing'}; {run.counts['inputs']:,} inputs"


def record(run: Run, path: Path) -> None:
    """Append the run's figures to a file, with what they were measured on."""
    line = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _said("git", "rev-parse", "--short=10", "HEAD"),
        "machine": f"{_processor()}, {_said('nproc')} virtual cores",
        "versions": f"Python {platform.python_version()}, {_mosquitto()}, {_redis()}",
        "seed": run.seed,
        "seconds": round(run.seconds),
        "rate": run.per_second,
        **_figures(run),
        "converged": [round(seconds, 2) for _, seconds in run.converged],
        "kinds": dict(sorted(run.done.items())),
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def totals(path: Path) -> str:
    """The sums of a record."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    sums: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for line in lines:
        sums.update({name: value for name, value in line.items() if isinstance(value, int)})
        kinds.update(line["kinds"])
    waits = sorted(one for line in lines for one in line["converged"])
    names = ("faults", "inputs", "outputs", *PROMISES, *APART, "copies, marked", "copies, unmarked")
    rows = {
        "runs": len(lines),
        "minutes": round(sums["seconds"] / 60),
        **{name: f"{sums[name]:,}" for name in names},
        **_convergence(waits),
    }
    told = [_rows(rows), "", "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))]
    measured_on = ("machine", "versions", "commit", "date")
    told += (f"{name}: " + "; ".join(sorted({line[name] for line in lines})) for name in measured_on)
    return "\n".join(told)


def _figures(run: Run) -> dict[str, object]:
    names = ("inputs", "outputs", *PROMISES, *APART, "copies, marked", "copies, unmarked")
    return {
        "faults": run.done.total(),
        **{name: run.counts[name] for name in names},
        **_convergence(sorted(seconds for _, seconds in run.converged)),
    }


def _convergence(waits: list[float]) -> dict[str, object]:
    waits = waits or [0.0]
    return {
        "converged within, median": f"{median(waits):.1f} s",
        "converged within, 99 of 100": f"{waits[len(waits) * 99 // 100]:.1f} s",
        "converged within, worst": f"{waits[-1]:.1f} s",
        "converged later than 5 s": sum(one > CONVERGES_SECONDS for one in waits),
    }


def _rows(rows: dict[str, object]) -> str:
    return "\n".join(["| what | seen |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _mosquitto() -> str:
    found = re.search(r"mosquitto version (\S+)", _said(program("mosquitto"), "-h"))
    return f"Mosquitto {found[1] if found else '?'}"


def _redis() -> str:
    found = re.search(r"v=(\S+)", _said(redis_program("redis"), "--version"))
    return f"Redis {found[1] if found else '?'}"

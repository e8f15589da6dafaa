"""The arithmetic of the bench: from the load generator's lines and Redis' counters to one table. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

PLAIN, COALESCING, BRIDGE = "C relay, plain", "C relay, coalescing 100 us", "bridge"
VARIANTS = (PLAIN, COALESCING, BRIDGE)
PROCESSES = ("bridge", "relay", "redis", "broker", "loadgen")
COLUMNS = (
    *("variant", "events/s", "to plain", "to coalescing"),
    *("bridge us", "relay us", "redis us", "broker us", "loadgen us"),
    *("batch", "lost", "disordered", "p50 ms", "p99 ms", "at events/s"),
)


class Sample(NamedTuple):
    """One variant's part of one round.

    Attributes:
        rate: events/s that arrived.
        cpu_us: process -> microseconds of CPU per event that arrived.
        lost: events that never arrived.
        disordered: events that arrived after a later one.
        p50_ms: half of the events took no longer.
        p99_ms: nor 99 of 100 longer than this.
        batch: events per commit; 0 where nothing commits.
    """

    rate: float
    cpu_us: Mapping[str, float]
    lost: int
    disordered: int
    p50_ms: float
    p99_ms: float
    batch: float = 0


Round = Mapping[str, Sample]
"""Variant -> its sample."""


def sample_of(line: Mapping[str, Any], batch: float = 0) -> Sample:
    """Read the load generator's JSON line."""
    return Sample(
        rate=line["rate"],
        cpu_us=line["cpu_us_per_msg"],
        lost=line["lost"],
        disordered=line["out_of_order"],
        p50_ms=line["p50_ms"],
        p99_ms=line["p99_ms"],
        batch=batch,
    )


def command_stats(info: Mapping[str, Mapping[str, float]], events: int) -> dict[str, dict[str, float]]:
    """Read Redis' ``INFO commandstats``: command -> calls, microseconds a call, and microseconds per event."""
    return {
        name.removeprefix("cmdstat_"): {
            "calls": stats["calls"],
            "us_per_call": stats["usec_per_call"],
            "us_per_event": round(stats["usec"] / events, 3) if events else 0.0,
        }
        for name, stats in sorted(info.items(), key=lambda entry: -entry[1]["usec"])
    }


def ratio(rounds: Sequence[Round], variant: str, base: str) -> float:
    """Median over the rounds of the ratio within a round, which drifts less than either rate."""
    return median(one[variant].rate / one[base].rate for one in rounds)


def summary(rounds: Sequence[Round], latency: Sequence[Round] = ()) -> list[dict[str, Any]]:
    """One row per variant: medians, and for loss and disorder sums.

    Args:
        rounds: the closed-loop rounds, at least one.
        latency: the open-loop rounds at half load; empty where there were none.
    """
    rows: list[dict[str, Any]] = []
    for variant in VARIANTS:
        samples = [one[variant] for one in rounds]
        paced = [one[variant] for one in latency]
        every = [*samples, *paced]
        rows.append(
            {
                "variant": variant,
                "rate": round(median(sample.rate for sample in samples)),
                "rates": [round(sample.rate) for sample in samples],
                "to_plain": round(ratio(rounds, variant, PLAIN), 2),
                "to_coalescing": round(ratio(rounds, variant, COALESCING), 2),
                "cpu_us": {
                    process: round(median(sample.cpu_us[process] for sample in samples), 1)
                    for process in PROCESSES
                    if all(process in sample.cpu_us for sample in samples)
                },
                "batch": round(median(sample.batch for sample in samples), 1),
                "lost": sum(sample.lost for sample in every),
                "disordered": sum(sample.disordered for sample in every),
                "half_load": {
                    "rate": round(median(sample.rate for sample in paced)),
                    "p50_ms": round(median(sample.p50_ms for sample in paced), 2),
                    "p99_ms": round(median(sample.p99_ms for sample in paced), 2),
                }
                if paced
                else None,
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `summary` as a Markdown table."""
    cells = [list(COLUMNS)]
    for row in rows:
        half = row["half_load"] or {}
        cells.append(
            [
                row["variant"],
                f"{row['rate']:,}",
                f"{row['to_plain']:.2f}",
                f"{row['to_coalescing']:.2f}",
                *(f"{row['cpu_us'][process]:.1f}" if process in row["cpu_us"] else "-" for process in PROCESSES),
                f"{row['batch']:.0f}" if row["batch"] else "-",
                str(row["lost"]),
                str(row["disordered"]),
                *(f"{half[name]:.2f}" if half else "-" for name in ("p50_ms", "p99_ms")),
                f"{half['rate']:,}" if half else "-",
            ]
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)

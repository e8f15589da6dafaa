"""The arithmetic of rounds: from the load generator's lines to medians, and to ratios within a round. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from scripts.load.work import Cell, Column, Table

PROCESSES = ("worker", "redis", "broker", "loadgen")


class Sample(NamedTuple):
    """One variant's part of one round.

    Attributes:
        rate: messages/s that arrived.
        cpu_us: process -> microseconds of CPU per message that arrived.
        lost: messages that never arrived.
        disordered: messages that arrived after a later one.
        p50_ms: half of the messages took no longer.
        p99_ms: nor 99 of 100 longer than this.
        batch: messages per commit; 0 where nothing commits.
    """

    rate: float
    cpu_us: Mapping[str, float]
    lost: int
    disordered: int
    p50_ms: float
    p99_ms: float
    batch: float = 0

    @property
    def per_core(self) -> float:
        """Messages that a second of the worker's CPU time is enough for."""
        return 1e6 / self.cpu_us["worker"]


Round = Mapping[str, Sample]
"""Variant -> its sample."""


def sample_of(line: Mapping[str, Any], commits: int = 0) -> Sample:
    """Read the load generator's JSON line."""
    return Sample(
        rate=line["rate"],
        cpu_us=line["cpu_us"],
        lost=line["lost"],
        disordered=line["disordered"],
        p50_ms=line["p50_ms"],
        p99_ms=line["p99_ms"],
        batch=line["received"] / commits if commits else 0,
    )


def command_stats(info: Mapping[str, Mapping[str, float]], messages: int) -> dict[str, dict[str, float]]:
    """Read Redis' ``INFO commandstats``: command -> calls, microseconds a call, and microseconds per message."""
    return {
        name.removeprefix("cmdstat_"): {
            "calls": stats["calls"],
            "us_per_call": stats["usec_per_call"],
            "us_per_message": round(stats["usec"] / messages, 3) if messages else 0.0,
        }
        for name, stats in sorted(info.items(), key=lambda entry: -entry[1]["usec"])
    }


def medians(rounds: Sequence[Round], variant: str, figure: str) -> float:
    """Median over the rounds of one figure of a variant."""
    return float(median(getattr(one[variant], figure) for one in rounds))


def ratio(rounds: Sequence[Round], variant: str, base: str, figure: str = "rate") -> float:
    """Median over the rounds of the ratio within a round, which drifts less than either figure."""
    return float(median(getattr(one[variant], figure) / getattr(one[base], figure) for one in rounds))


def lost(rounds: Sequence[Round]) -> int:
    """Messages that never arrived, of all variants."""
    return sum(sample.lost for one in rounds for sample in one.values())


def disordered(rounds: Sequence[Round]) -> int:
    """Messages that arrived after a later one, of all variants."""
    return sum(sample.disordered for one in rounds for sample in one.values())


def rates(title: str, rounds: Sequence[Round], bases: Mapping[str, str], what: str = "events/s") -> Table:
    """One row per variant: its rate, what that is of each base's, and the CPU time of a message in each process.

    Args:
        title: of the table.
        rounds: at least one.
        bases: column -> the variant to compare with.
        what: is counted.
    """
    columns = [Column("variant"), Column(what), *(Column(f"to {name}", 2) for name in bases)]
    columns += [Column(f"{process} us", 1) for process in (*PROCESSES, "all")]
    columns += [Column("batch"), Column("lost"), Column("disordered")]
    rows: list[list[Cell]] = []
    for variant in rounds[0]:
        samples = [one[variant] for one in rounds]
        batch = medians(rounds, variant, "batch")
        rows.append(
            [
                variant,
                medians(rounds, variant, "rate"),
                *(ratio(rounds, variant, base) for base in bases.values()),
                *(
                    median(sample.cpu_us[process] for sample in samples) if process in samples[0].cpu_us else None
                    for process in PROCESSES
                ),
                median(sum(sample.cpu_us.values()) for sample in samples),
                batch or None,
                sum(sample.lost for sample in samples),
                sum(sample.disordered for sample in samples),
            ]
        )
    return Table(title, columns, rows)


def latencies(title: str, rounds: Sequence[Round], bases: Mapping[str, str], what: str = "events/s") -> Table:
    """One row per variant: its latency in the open loop, and what that is of each base's."""
    columns = [Column("variant"), Column(f"at {what}"), Column("p50 ms", 2), Column("p99 ms", 2)]
    columns += [Column(f"{quantile} to {name}", 2) for name in bases for quantile in ("p50", "p99")]
    columns += [Column("lost"), Column("disordered")]
    rows: list[list[Cell]] = []
    for variant in rounds[0]:
        samples = [one[variant] for one in rounds]
        rows.append(
            [
                variant,
                *(medians(rounds, variant, figure) for figure in ("rate", "p50_ms", "p99_ms")),
                *(ratio(rounds, variant, base, q) for base in bases.values() for q in ("p50_ms", "p99_ms")),
                sum(sample.lost for sample in samples),
                sum(sample.disordered for sample in samples),
            ]
        )
    return Table(title, columns, rows)

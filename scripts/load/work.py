"""What every work of the bench is given, and what it gives back: tables of figures, verdicts on the targets. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from scripts.load.stand import Flavour, Say

Cell = str | float | None


class Plan(NamedTuple):
    """How much is to be measured.

    Attributes:
        is_full: the form for the record; otherwise the quick one.
        users: of the works whose size is not their point.
        rounds: of each comparison.
        seconds: measured time of each variant in each round.
        flavour: which Redis; None: the system's, else the embedded Valkey.
        say: takes a line of progress.
    """

    is_full: bool
    users: int
    rounds: int
    seconds: float
    flavour: Flavour | None
    say: Say


class Column(msgspec.Struct, frozen=True, array_like=True):
    """A table's column: its head, and how many digits its numbers have after the point."""

    name: str
    digits: int = 0


class Table(msgspec.Struct, frozen=True):
    """Figures; None stands for what does not apply."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


class Verdict(msgspec.Struct, frozen=True):
    """One line of the table of targets.

    Attributes:
        work: what was measured.
        figure: what came out.
        target: what should.
        is_least: the target is the least that will do; otherwise the most.
        unit: of both: ``x`` for ratios, ``ms``, ``s``, ``bytes``, ``MB``.
    """

    work: str
    figure: float
    target: float
    is_least: bool
    unit: str = "x"

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        return self.figure >= self.target if self.is_least else self.figure <= self.target


class Result(msgspec.Struct, frozen=True):
    """What one work measured.

    Attributes:
        work: its name.
        method: how it was measured, in a few sentences.
        tables: the figures.
        verdicts: those of them that have a target.
        lost: messages that never came, over all samples.
        disordered: messages that came after a later one, over all samples.
        versions: program -> version.
        details: what else may be worth knowing, for the JSON.
    """

    work: str
    method: str
    tables: Sequence[Table]
    verdicts: Sequence[Verdict] = ()
    lost: int = 0
    disordered: int = 0
    versions: Mapping[str, str] = {}
    details: Mapping[str, Any] = {}


def markdown(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table of Markdown whose source is readable, too; columns of numbers stand to the right."""
    numeric = [all(not isinstance(row[at], str) for row in rows) for at in range(len(columns))]
    cells = [[column.name for column in columns]]
    cells += [[_text(cell, column.digits) for cell, column in zip(row, columns, strict=True)] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, numeric, strict=True)
        )
        + " |"
        for line in cells
    ]
    rule = ("-" * (width + 1) + (":" if is_number else "-") for width, is_number in zip(widths, numeric, strict=True))
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])


def _text(cell: Cell, digits: int) -> str:
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else f"{cell:,.{digits}f}"


def targets(verdicts: Sequence[Verdict]) -> str:
    """Return the table of targets."""
    columns = [Column("work"), Column("measured"), Column("target"), Column("met")]
    rows = [
        (
            verdict.work,
            _with_unit(verdict.figure, verdict.unit),
            f"{'>=' if verdict.is_least else '<='} {_with_unit(verdict.target, verdict.unit)}",
            "yes" if verdict.is_met else "no",
        )
        for verdict in verdicts
    ]
    return markdown(columns, rows)


def _with_unit(figure: float, unit: str) -> str:
    digits = 2 if unit == "x" or (figure < 10 and figure != round(figure)) else 0
    return f"{figure:,.{digits}f}{'' if unit == 'x' else ' '}{unit}"

"""A whole run of the bench as text: all tables, then the table of targets; or as blocks of a document. Pure."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from scripts.load.work import Result, Verdict, markdown, targets


class Report(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        date: of its end, ISO.
        machine: processor, cores, system.
        load_average: of the minute before it began: how much others were doing.
        bridge: commit that was measured.
        is_full: the form for the record.
        rounds: of each comparison.
        seconds: of each sample.
        results: in order.
        failed: work -> why there is no result.
    """

    date: str
    machine: str
    load_average: float
    bridge: str
    is_full: bool
    rounds: int
    seconds: float
    results: Sequence[Result]
    failed: Mapping[str, str] = {}


def circumstances(report: Report) -> str:
    """Return when, where and of what the figures are."""
    versions = {"bridge": report.bridge}
    for result in report.results:
        versions.update(result.versions)
    programs = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{report.date}, {report.machine}, load average {report.load_average} before the run; {programs}; "
        f"medians of {report.rounds} rounds of {report.seconds:g} s{'' if report.is_full else ' (quick form)'}"
    )


def tables(result: Result) -> str:
    """Return a result's tables, each under its title."""
    parts = []
    for table in result.tables:
        if table.title:
            parts.append(table.title + ":")
        parts.append(markdown(table.columns, table.rows))
    return "\n\n".join(parts)


def text(report: Report) -> str:
    """Return everything."""
    parts = [circumstances(report)]
    for result in report.results:
        parts += [f"## {result.work}", result.method, tables(result)]
    parts += [f"## {work}\n\nfailed: {reason}" for work, reason in report.failed.items()]
    if verdicts(report):
        parts += ["## targets", targets(verdicts(report))]
    lost = sum(result.lost for result in report.results)
    disordered = sum(result.disordered for result in report.results)
    parts.append(f"Lost in all samples: {lost}. Out of order: {disordered}.")
    return "\n\n".join(parts)


_BLOCK = re.compile(r"(<!-- bench: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(document: str, report: Report) -> str:
    """Return a document of Markdown, and fill its blocks between ``<!-- bench: NAME -->`` and ``<!-- end -->``.

    A block is named after a work, or ``circumstances`` or ``targets``; one of a work that was not measured says so.
    """
    blocks = {"circumstances": circumstances(report) + ".", "targets": targets(verdicts(report))}
    blocks |= {result.work: f"{result.method}\n\n{tables(result)}" for result in report.results}
    blocks |= {work: f"Not measured: {reason.splitlines()[0]}" for work, reason in report.failed.items()}

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}\n{blocks.get(match[2], 'Not measured in this run.')}\n\n{match[3]}"

    return _BLOCK.sub(filled, document)


def verdicts(report: Report) -> list[Verdict]:
    """All lines of the table of targets."""
    return [verdict for result in report.results for verdict in result.verdicts]

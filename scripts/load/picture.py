"""The picture of the bench: throughput and latency against the peers, as an SVG of bars. Pure."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from scripts.load.report import Report
from scripts.load.work import Table

WIDTH, LABEL, RIGHT = 760, 170, 90
BAR, GAP, HEAD = 18, 8, 34
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#445}.head{font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#ccd}}"
)
OURS, OTHERS = "#1f77b4", "#9aa5b1"


class Bar(NamedTuple):
    """One bar: whose, how long, and what stands beside it."""

    name: str
    value: float
    text: str


def draw(report: Report) -> str | None:
    """Return the picture of a run's work ``peers``; None where it has none."""
    found = [result for result in report.results if result.work == "peers"]
    if not found:
        return None
    at_1, at_0, latency = found[0].tables
    charts = [
        ("Throughput at QoS 1, events/s", _bars(at_1, "events/s", "{:,.0f}")),
        ("Throughput at QoS 0, events/s", _bars(at_0, "events/s", "{:,.0f}")),
        ("Latency p99 at half of each one's maximum (QoS 1), ms", _bars(latency, "p99 ms", "{:,.1f}")),
    ]
    parts: list[str] = []
    top = 8
    for title, bars in charts:
        parts += _chart(title, bars, top)
        top += HEAD + len(bars) * (BAR + GAP) + 14
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">',
            "<title>The bridge against what somebody would write instead</title>",
            f"<style>{STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _bars(table: Table, column: str, form: str) -> list[Bar]:
    at = [each.name for each in table.columns].index(column)
    values = [(str(row[0]), float(row[at] or 0)) for row in table.rows]
    return [Bar(name, value, form.format(value)) for name, value in values]


def _chart(title: str, bars: Sequence[Bar], top: int) -> list[str]:
    longest = max(bar.value for bar in bars) or 1
    lines = [f'<text class="head" x="0" y="{top + 16}">{escape(title)}</text>']
    for number, bar in enumerate(bars):
        y = top + HEAD + number * (BAR + GAP)
        width = max(1.0, (WIDTH - LABEL - RIGHT) * bar.value / longest)
        colour = OURS if bar.name == "bridge" else OTHERS
        lines += [
            f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LABEL + width + 6:.1f}" y="{y + 14}">{bar.text}</text>',
        ]
    return lines

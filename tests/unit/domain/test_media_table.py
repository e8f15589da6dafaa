"""The table of media states: whole, by the diagram, and shown in the documentation as it is."""

from itertools import product
from pathlib import Path

import pytest

from bridge.domain.media_table import (
    ANOMALIES,
    STATES,
    STEPS,
    TABLE,
    anomaly_table,
    media_state,
    state_table,
    step_table,
)

PROTOCOL = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()


def test_every_combination_has_exactly_one_state() -> None:
    assert set(STATES) == set(product((0, 1, 2), (False, True), (False, True), (False, True)))
    for counters in STATES:
        rows = [
            row
            for row in TABLE
            if row.connections == counters[0]
            and all(said in (None, is_so) for said, is_so in zip(row[1:4], counters[1:], strict=True))
        ]
        assert [row.state for row in rows] == [STATES[counters]]
    assert set(STATES.values()) == set(STEPS)
    assert {step for steps in STEPS.values() for step in steps} <= set(STEPS)


@pytest.mark.parametrize(
    ("counters", "state"),
    [
        ((0, 0, 0), "init"),
        ((0, 3, 3), "init"),
        ((1, 0, 0), "waiting"),
        ((1, 2, 0), "waiting"),
        ((2, 0, 0), "starting"),
        ((2, 1, 0), "sending"),
        ((2, 0, 1), "receiving"),
        ((2, 2, 1), "sendrecv"),
        ((3, 0, 0), "starting"),
        ((7, 0, 6), "receiving"),
        ((1000, 1, 999), "sendrecv"),
    ],
)
def test_states_by_the_diagram(counters: tuple[int, int, int], state: str) -> None:
    assert media_state(*counters, False) == state
    assert media_state(*counters, True) == ("cleanup" if state == "starting" else state)


@pytest.mark.parametrize("table", [state_table, step_table, anomaly_table])
def test_the_documentation_shows_the_table(table: object) -> None:
    assert callable(table)
    assert table() in PROTOCOL, f"docs/protocol.md lacks this, generated from the table:\n{table()}"


def test_the_anomalies_are_those_of_the_contract() -> None:
    assert list(ANOMALIES) == [
        *("counter_below_zero", "streams_while_alone", "claim_differs", "peers_disagree", "impossible_step"),
    ]

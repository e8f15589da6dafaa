import json

import pytest

from bridge.domain.inputs import Input
from bridge.domain.room_codec import decode_room
from scripts.load import rooms
from scripts.load.figures import (
    BRIDGE,
    COALESCING,
    PLAIN,
    Round,
    Sample,
    command_stats,
    ratio,
    sample_of,
    summary,
    table,
)
from scripts.load.relay import DOCUMENT_BYTES, document


def sample(rate: float, p99_ms: float = 5, lost: int = 0, batch: float = 0, **cpu_us: float) -> Sample:
    return Sample(rate, cpu_us, lost, 0, 1, p99_ms, batch)


def one_round(plain: float, coalescing: float, bridge: float) -> Round:
    return {
        PLAIN: sample(plain, relay=5),
        COALESCING: sample(coalescing, relay=3),
        BRIDGE: sample(bridge, bridge=9, batch=250, lost=1),
    }


ROUNDS = [one_round(100, 200, 50), one_round(50, 50, 50), one_round(40, 80, 30)]


def test_load_generators_line_is_read():
    line = {"rate": 9, "cpu_us_per_msg": {"bridge": 8.5}, "lost": 2, "out_of_order": 1, "p50_ms": 3, "p99_ms": 4}
    assert sample_of(line, 7) == Sample(9, {"bridge": 8.5}, 2, 1, 3, 4, 7)


def test_ratio_is_taken_within_each_round():
    assert ratio(ROUNDS, BRIDGE, PLAIN) == 0.75  # of 0.5, 1, 0.75; the medians' ratio would be 1
    assert ratio(ROUNDS, BRIDGE, COALESCING) == 0.375


def test_summary_has_medians_and_all_losses():
    rows = summary(ROUNDS, [one_round(20, 25, 15)])
    bridge = rows[-1]
    assert [row["variant"] for row in rows] == [PLAIN, COALESCING, BRIDGE]
    assert (bridge["rate"], bridge["rates"], bridge["to_plain"]) == (50, [50, 50, 30], 0.75)
    assert (bridge["cpu_us"], bridge["batch"], bridge["lost"]) == ({"bridge": 9}, 250, 4)
    assert bridge["half_load"] == {"rate": 15, "p50_ms": 1, "p99_ms": 5}
    assert rows[0]["half_load"]["rate"] == 20


@pytest.mark.parametrize("latency", [[], ROUNDS])
def test_table_has_a_line_for_each_variant(latency: list[Round]):
    lines = table(summary(ROUNDS, latency)).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert "| 0.75 " in lines[-1]


def test_commands_are_listed_by_their_cost():
    info = {
        "cmdstat_mget": {"calls": 2, "usec": 10, "usec_per_call": 5.0},
        "cmdstat_evalsha": {"calls": 1, "usec": 30, "usec_per_call": 30.0},
    }
    assert list(command_stats(info, 10)) == ["evalsha", "mget"]
    assert command_stats(info, 10)["mget"] == {"calls": 2, "us_per_call": 5.0, "us_per_event": 1.0}
    assert command_stats(info, 0)["mget"]["us_per_event"] == 0


@pytest.mark.parametrize("number", [0, 7, 1234])
def test_document_has_its_size_and_every_sample_its_own(number: int):
    text = document(number)
    assert len(text) == DOCUMENT_BYTES
    assert json.loads(text)["sample"] == number
    assert text.count("#" * 10) == 1
    assert document(number + 1) != text


def test_rooms_are_joined_by_events_that_the_bridge_takes():
    [command] = decode_room(("of1-000000",), Input("", rooms.online("u1", "u1~1", mark="#" * 10).encode()))
    assert (command.party, command.user, command.fields["mark"]) == ("u1~1", "user:u1", "#" * 10)


def test_rooms_have_a_line_for_each_crowd():
    figures = {"rate": 10_000, "p50_ms": 1, "p99_ms": 2, "max_ms": 3, "lost": 4}
    cpu_us = {"bridge": 5, "redis": 6, "broker": 7}
    results = [{"name": crowd.name, "figures": {**figures, "cpu_us_per_msg": cpu_us}} for crowd in rooms.CROWDS]
    lines = rooms.table(results).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "100 joins/s into 50 rooms of 100 | 10,000 " in lines[2]
    assert "20 joins/s into 1 room of 500 " in lines[3]

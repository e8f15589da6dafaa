import json
from xml.etree import ElementTree

import msgspec
import pytest

from bridge.domain.commands import SERVICE, RegisterEndpoint
from bridge.domain.inputs import Input
from bridge.domain.methods import Call, decode_call
from bridge.domain.room_codec import decode_room
from bridge.domain.rules import Rules
from scripts.load import __main__ as command
from scripts.load import counts, house, http, peers, profile, rooms
from scripts.load.figures import Round, Sample, command_stats, disordered, latencies, lost, rates, ratio, sample_of
from scripts.load.picture import draw
from scripts.load.relay import route
from scripts.load.report import Report, text, write
from scripts.load.rounds import COALESCING, DOCUMENT_BYTES, PLAIN, document
from scripts.load.stand import SOURCES
from scripts.load.work import Column, Result, Table, Verdict, markdown, targets


def sample(rate: float, p99_ms: float = 5, lost: int = 0, batch: float = 0, **cpu_us: float) -> Sample:
    return Sample(rate, cpu_us, lost, 0, 1, p99_ms, batch)


def one_round(plain: float, coalescing: float, bridge: float) -> Round:
    return {
        PLAIN: sample(plain, worker=5),
        COALESCING: sample(coalescing, worker=3),
        "bridge": sample(bridge, p99_ms=10, worker=9, redis=2, batch=250, lost=1),
    }


ROUNDS = [one_round(100, 200, 50), one_round(50, 50, 50), one_round(40, 80, 30)]
BASES = {"plain": PLAIN, "coalescing": COALESCING}


def cells(table: Table, row: int) -> dict[str, object]:
    return {column.name: cell for column, cell in zip(table.columns, table.rows[row], strict=True)}


def test_load_generators_line_is_read():
    line = {"rate": 9, "cpu_us": {"worker": 8.5}, "lost": 2, "disordered": 1, "p50_ms": 3, "p99_ms": 4, "received": 14}
    assert sample_of(line, 2) == Sample(9, {"worker": 8.5}, 2, 1, 3, 4, 7)
    assert sample_of(line).batch == 0


def test_ratio_is_taken_within_each_round():
    assert ratio(ROUNDS, "bridge", PLAIN) == 0.75  # of 0.5, 1, 0.75; the medians' ratio would be 1
    assert ratio(ROUNDS, "bridge", COALESCING) == 0.375
    assert ratio(ROUNDS, "bridge", PLAIN, "p99_ms") == 2


def test_rates_have_medians_ratios_and_all_losses():
    table = rates("", ROUNDS, BASES)
    assert cells(table, 2) == {
        "variant": "bridge",
        "events/s": 50,
        "to plain": 0.75,
        "to coalescing": 0.375,
        "batch": 250,
        "worker us": 9,
        "redis us": 2,
        "broker us": None,
        "loadgen us": None,
        "all us": 11,
        "lost": 3,
        "disordered": 0,
    }
    assert (lost(ROUNDS), disordered(ROUNDS)) == (3, 0)


def test_latencies_have_ratios_of_both_quantiles():
    row = cells(latencies("", ROUNDS, {"plain": PLAIN}), 2)
    assert (row["at events/s"], row["p99 ms"], row["p50 to plain"], row["p99 to plain"]) == (50, 10, 1, 2)


def test_commands_are_listed_by_their_cost():
    info = {
        "cmdstat_mget": {"calls": 2, "usec": 10, "usec_per_call": 5.0},
        "cmdstat_evalsha": {"calls": 1, "usec": 30, "usec_per_call": 30.0},
    }
    assert list(command_stats(info, 10)) == ["evalsha", "mget"]
    assert command_stats(info, 10)["mget"] == {"calls": 2, "us_per_call": 5.0, "us_per_message": 1.0}
    assert command_stats(info, 0)["mget"]["us_per_message"] == 0


def test_markdown_is_readable_as_it_stands():
    assert markdown([Column("what"), Column("us", 1)], [("one", 1000), ("another", None)]).splitlines() == [
        "| what    |      us |",
        "|---------|--------:|",
        "| one     | 1,000.0 |",
        "| another |       - |",
    ]


@pytest.mark.parametrize(
    ("verdict", "met"),
    [
        (Verdict("", 1.1, 1.1, is_least=True), True),
        (Verdict("", 1.09, 1.1, is_least=True), False),
        (Verdict("", 3, 3, is_least=False, unit="ms"), True),
        (Verdict("", 3.1, 3, is_least=False, unit="ms"), False),
    ],
)
def test_verdict_is_least_or_most(verdict: Verdict, met: bool):
    assert verdict.is_met is met
    assert targets([verdict]).endswith("| yes |" if met else "| no  |")


def test_report_has_every_table_every_verdict_and_what_failed():
    table = Table("a title", [Column("variant"), Column("events/s")], [["bridge", 1234]])
    result = Result(
        "relay", "how it was done", [table], [Verdict("a ratio", 0.5, 1, is_least=True)], 3, 4, {"redis": "7"}
    )
    report = Report("2026-11-28", "a machine", 0.5, "abc", True, 5, 3, [result], {"peers": "no npm"})
    whole = text(report)
    for part in ("a machine", "redis 7", "how it was done", "a title", "1,234", "0.50x", ">= 1.00x", "no npm"):
        assert part in whole
    assert whole.endswith("Lost in all samples: 3. Out of order: 4.")
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def peers_report() -> Report:
    columns = [Column("variant"), Column("events/s"), Column("p99 ms", 2)]
    table = Table("", columns, [["bridge", 4000, 1.5], ["mqtt.js & ioredis", 1000, 6]])
    return Report(
        "2026-11-28", "a machine", 0.5, "abc", True, 5, 3, [Result("peers", "how", [table] * 3)], {"http": "x\ny"}
    )


def test_document_is_filled_between_its_marks_and_nowhere_else():
    document = "before\n" + "".join(
        f"<!-- bench: {name} -->\nold\n<!-- end -->\nbetween\n" for name in ("circumstances", "peers", "http", "rooms")
    )
    written = write(document, peers_report())
    assert "old" not in written
    assert written.count("between") == 4
    for part in ("a machine", "| bridge ", "Not measured: x\n", "Not measured in this run."):
        assert part in written
    assert write(written, peers_report()) == written


def test_picture_has_a_bar_for_each_and_the_longest_is_the_largest():
    drawn = draw(peers_report())
    assert drawn is not None
    root = ElementTree.fromstring(drawn)
    bars = [float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(bars) == 6
    assert bars[0] == 4 * bars[1]
    assert bars[5] == 4 * bars[4]
    assert draw(msgspec.structs.replace(peers_report(), results=[])) is None


def test_every_work_has_its_place_on_the_page():
    page = (SOURCES / "benchmarks.md").read_text()
    for name in (*command.WORKS, "circumstances", "targets"):
        assert page.count(f"<!-- bench: {name} -->\n<!-- end -->") == 1


@pytest.mark.parametrize("number", [0, 7, 1234])
def test_document_has_its_size_and_every_sample_its_own(number: int):
    text = document(number)
    assert len(text) == DOCUMENT_BYTES
    assert json.loads(text)["sample"] == number
    assert text.count("#" * 10) == 1
    assert document(number + 1) != text


def test_registrations_are_calls_of_each_user_and_endpoint():
    calls = [(topic, json.loads(payload)) for topic, payload in house.registrations("x/", 2, 2)]
    assert [topic for topic, _ in calls] == ["x/rpc/register_endpoint"] * 4
    assert [(call["userId"], call["userEndpointId"]) for _, call in calls] == [
        *(("u000000", "u000000~0"), ("u000000", "u000000~1"), ("u000001", "u000001~0"), ("u000001", "u000001~1"))
    ]


def test_route_is_toml():
    assert msgspec.toml.decode(route(qos=0, masks=["$.a.b"])) == {
        "routes": [{"event": "UserStatusChangedEvent", "qos": 0, "masks": ["$.a.b"]}]
    }


def test_rooms_are_joined_by_events_that_the_bridge_takes():
    [decoded] = decode_room(("of1-000000",), Input("", rooms.online("u1", "u1~1", mark="#" * 10).encode()))
    assert (decoded.party, decoded.user, decoded.fields["mark"]) == ("u1~1", "user:u1", "#" * 10)


@pytest.mark.parametrize("work", http.WORKS)
def test_calls_over_http_are_whole_requests_that_the_bridge_takes(work: http.Work):
    head, _, body = http.request(work, 7).partition("\r\n\r\n")
    assert f"content-length: {len(body)}" in head.split("\r\n")
    filled = body.replace("#", "1").replace("%", "2")
    methods = {"register": "register_endpoint", "keepalive": "keepalive_endpoint", "sendEvent": "send_event"}
    _, decoded = decode_call(methods[work.name], filled.encode(), Call(SERVICE, Rules(), lambda: "random"), "default")
    if isinstance(decoded, RegisterEndpoint):
        assert (decoded.subject, decoded.endpoint) == ("n007-1111111111", "n007-1111111111~0")


def test_calls_of_one_core_are_told_by_the_cpu_time():
    assert sample(9, worker=250).per_core == 4000


def test_peers_are_named_with_their_versions():
    versions = peers.peer_versions(has_node=True)
    assert versions.keys() == {"aiomqtt", "paho-mqtt", "mqtt", "ioredis", "node-red", "node-red-contrib-redis"}
    assert all(version[0].isdigit() for version in versions.values())
    assert peers.peer_versions(has_node=False).keys() == {"aiomqtt", "paho-mqtt"}


def test_no_lock_file_names_a_registry():
    for lock in peers.HERE.glob("*/package-lock.json"):
        assert '"resolved"' not in lock.read_text()


def test_instructions_are_counted_where_they_were_spent():
    lines = """\
events: Ir
ob=(1) /usr/bin/python3.11
fn=(1) eval
16 400
cob=(2) /x/site-packages/msgspec/_core.cpython-311-x86_64-linux-gnu.so
cfn=(2) decode
calls=3 80
16 1000
+1 5
ob=(2)
fn=(2)
80 900
ob=(3) /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
* 7
totals: 1312
""".splitlines(keepends=True)
    assert counts.instructions(lines) == {"Python": 405, "msgspec": 900, "other": 7}


def test_stacks_are_counted_for_the_innermost_function_of_the_bridge():
    stacks = profile.read_stacks(
        [
            "main (bridge/cli.py:1);run (uvloop/__init__.py:9) 5",
            "main (bridge/cli.py:1);run (bridge/pipeline.py:3);read (bridge/domain/codec.py:7);loads (json/x.py:1) 3",
            "main (bridge/cli.py:1);status (bridge/domain/subjects.py:7) 2",
        ]
    )
    assert profile.by(profile.own_function, stacks) == {
        profile.LOOP: 5,
        "domain/codec: read": 3,
        "domain/subjects: status": 2,
    }
    assert profile.by(profile.stage_of, stacks) == {
        profile.LOOP: 5,
        "decode: topic and document": 3,
        "decide: rules and unit of work": 2,
    }


def test_every_work_has_a_line_of_help():
    for summary, measure in command.WORKS.values():
        assert summary
        assert callable(measure)

"""The work ``broker``: what each of the Mosquitto settings that the project ships does, by leaving it out."""

import contextlib
from collections.abc import Mapping

from scripts.load.figures import Round, disordered, lost, medians, ratio
from scripts.load.house import feed, registrations
from scripts.load.rounds import Variant, run_rounds, status_events
from scripts.load.stand import PRIMARY, Stand
from scripts.load.work import Cell, Column, Plan, Result, Table

USERS = 2_000
CALM_RATE = 500
BURST = 5_000
SHIPPED = "as shipped"
CHANGED: dict[str, Mapping[str, str | None]] = {
    SHIPPED: {},
    "set_tcp_nodelay false (default)": {"set_tcp_nodelay": None},
    "max_inflight_messages 20 (default)": {"max_inflight_messages": None},
    "max_inflight_messages 100": {"max_inflight_messages": "100"},
    "max_inflight_messages 10000": {"max_inflight_messages": "10000"},
    "max_queued_messages 1000 (default)": {"max_queued_messages": None},
    "autosave_interval 1800 (default)": {"autosave_interval": None},
    "persistence false (default)": {"persistence": None, "persistence_location": None, "autosave_interval": None},
}
"""What is changed -> Mosquitto's settings in place of the shipped ones; None: its default."""

METHOD = """\
The work of `relay`, each line on a broker of its own that differs from the shipped `mosquitto.conf` in one setting; one
bridge with 2,000 endpoints on each. The rate is of the closed loop at QoS 1, 512 messages on their way. Latency is at
500 events/s, in and out at QoS 1 and at QoS 0. Lost in a burst: of messages at QoS 1 that one publisher sends as fast
as it can while 5,000 are on their way, those that never came: the broker acknowledged them, and then dropped them."""


def measure(plan: Plan) -> Result:
    """Run all rounds.

    Raises:
        StandError: a part of a stand failed.
    """
    users = min(plan.users, USERS)
    with contextlib.ExitStack() as living:
        variants: list[Variant] = []
        for name, settings in CHANGED.items():
            stand = living.enter_context(Stand(plan.flavour, settings))
            bridge = stand.configure(PRIMARY)
            feed(bridge.settings, registrations(bridge.prefix, users))
            living.enter_context(stand.bridge(bridge))
            variants.append(status_events(stand, bridge, 1, name))
        calm = dict.fromkeys(CHANGED, float(CALM_RATE))
        closed = run_rounds(plan, "broker, closed loop", variants, users=users)
        at_1 = run_rounds(plan, "broker, QoS 1 latency", variants, calm, users=users)
        at_0 = run_rounds(plan, "broker, QoS 0 latency", [_at_0(variant) for variant in variants], calm, users=users)
        burst = run_rounds(plan, "broker, burst", variants, users=users, window=BURST)
        versions = variants[0].stand.versions()
    shipped = [{SHIPPED: one[SHIPPED]} for one in (*closed, *at_1, *at_0, *burst)]
    return Result(
        work="broker",
        method=METHOD,
        tables=[_table(closed, at_1, at_0, burst)],
        lost=lost(shipped),
        disordered=disordered(shipped),
        versions=versions,
        details={"closed": closed, "qos1": at_1, "qos0": at_0, "burst": burst},
    )


def _at_0(variant: Variant) -> Variant:
    return variant._replace(options={**variant.options, "qos": 0})


def _table(closed: list[Round], at_1: list[Round], at_0: list[Round], burst: list[Round]) -> Table:
    columns = [Column("mosquitto.conf"), Column("events/s"), Column("to shipped", 2)]
    columns += [Column(f"QoS {qos} {quantile} ms", 2) for qos in (1, 0) for quantile in ("p50", "p99")]
    columns += [Column("lost in a burst")]
    rows: list[list[Cell]] = [
        [
            name,
            medians(closed, name, "rate"),
            ratio(closed, name, SHIPPED),
            *(medians(paced, name, figure) for paced in (at_1, at_0) for figure in ("p50_ms", "p99_ms")),
            sum(one[name].lost for one in burst),
        ]
        for name in CHANGED
    ]
    return Table("", columns, rows)

"""The work ``sweep``: very many endpoints expire in the same second, while other traffic goes on.

They are registered with a short interval while no bridge runs, so the registry clock stands still. The bridge's start
is the end of an outage: all of them begin their interval anew, and as nobody keeps them alive, all of them end
together.
"""

import time
from typing import Any

from scripts.load.house import feed, registrations
from scripts.load.relay import route
from scripts.load.rounds import DRAIN_SECONDS, PACED_WINDOW, document
from scripts.load.stand import PRIMARY, Bridge, Stand, StandError, run_loadgen
from scripts.load.work import Cell, Column, Plan, Result, Table, Verdict

FULL_EXPIRING, QUICK_EXPIRING = 100_000, 10_000
INTERVAL_SECONDS = 6  # long enough for the load to begin; with the jitter of a tenth all end within 0.6 s
WARM_UP_SECONDS = 1.5
LIVE_USERS, LIVE_RATE = 1_000, 500
LONGEST_SECONDS = 60

METHOD = """\
100,000 users (10,000 in the quick form) with two endpoints each, one of which is not kept alive: all of these expire
within 0.6 s. Their users' other endpoints are told, and they themselves, as by default. Time counts from when the first
of them is due until the last one has been told. Meanwhile 500 status events a second of other users go through at QoS 1
(the work of `relay`, open loop); their latency is measured for just as long."""


def measure(plan: Plan) -> Result:
    """Let them expire, as the product is shipped and told to nobody but one other endpoint.

    Raises:
        StandError: a part of the stand failed, or not all were told.
    """
    expiring = FULL_EXPIRING if plan.is_full else min(QUICK_EXPIRING, plan.users)
    lines = {}
    for name, settings, told_each in (
        ("the other endpoint and the expired one", "", 2),
        ("the other endpoint alone", route("UserEndpointExpiredEvent", audience=["others"]), 1),
    ):
        with Stand(plan.flavour) as stand:
            bridge = stand.configure(PRIMARY, settings)
            plan.say(f"sweep: registering {2 * expiring:,} endpoints")
            feed(bridge.settings, registrations(bridge.prefix, LIVE_USERS))
            feed(
                bridge.settings,
                registrations(bridge.prefix, expiring, 2, letter="x", last_keep_alive_seconds=INTERVAL_SECONDS),
            )
            with stand.bridge(bridge):
                lines[name] = _expire(stand, bridge, expiring, told_each)
            plan.say(f"sweep: told in {lines[name]['told_s']:.1f} s, live p99 {lines[name]['p99_ms']:.1f} ms")
            versions = stand.versions()
    shipped = next(iter(lines.values()))
    return Result(
        work="sweep",
        method=METHOD,
        tables=[_table(lines, expiring)],
        verdicts=[
            Verdict(f"{expiring:,} endpoints expire in the same second, all told", shipped["told_s"], 4, False, "s"),
            Verdict("p99 of live traffic meanwhile", shipped["p99_ms"], 50, False, "ms"),
        ],
        lost=sum(line["lost"] for line in lines.values()),
        disordered=sum(line["disordered"] for line in lines.values()),
        versions=versions,
        details={"lines": lines},
    )


def _expire(stand: Stand, bridge: Bridge, expiring: int, told_each: int) -> dict[str, Any]:
    due_ms = _due_ms(stand, bridge)
    template = stand.folder / "document.json"
    template.write_text(document(0))
    wait_seconds = due_ms / 1000 - WARM_UP_SECONDS - _now_ms(stand) / 1000
    if wait_seconds < 0:
        raise StandError("the bridge took too long to start: the endpoints expire already")
    time.sleep(wait_seconds)
    options = {
        "topic": f"{bridge.prefix}presence/users/u%%%%%%/status",
        "sub": f"{bridge.prefix}users/endpoints/#",
        "template": template,
        "users": LIVE_USERS,
        "qos": 1,
        "window": PACED_WINDOW,
        "rate": LIVE_RATE,
        "foreign": expiring * told_each,
        "warmup": WARM_UP_SECONDS,
        "duration": LONGEST_SECONDS,
        "drain": DRAIN_SECONDS,
    }
    line = run_loadgen(stand, options, bridge.name)
    if line["foreign"] != expiring * told_each:
        raise StandError(f"{line['foreign']:,} of {expiring * told_each:,} were told within {LONGEST_SECONDS} s")
    line["told_s"] = (line["foreign_last_ms"] - due_ms) / 1000
    return line


def _due_ms(stand: Stand, bridge: Bridge) -> float:
    """When the first of them is due, on Redis' wall clock (epoch ms)."""
    clock: Any = stand.redis.hgetall(f"{bridge.name}:clock")
    due_on_clock_ms = int(clock["resumed_ms"]) + INTERVAL_SECONDS * 1000
    return int(clock["tick_ms"]) + due_on_clock_ms - int(clock["clock_ms"])


def _now_ms(stand: Stand) -> float:
    seconds, microseconds = stand.redis.time()
    return float(seconds * 1000 + microseconds / 1000)


def _table(lines: dict[str, dict[str, Any]], expiring: int) -> Table:
    columns = [Column("told"), Column("expired"), Column("all told s", 2), Column("expired/s")]
    columns += [Column("live events/s"), Column("p50 ms", 1), Column("p99 ms", 1), Column("max ms", 1), Column("lost")]
    rows: list[list[Cell]] = [
        [
            name,
            expiring,
            line["told_s"],
            expiring / line["told_s"],
            *(line[figure] for figure in ("rate", "p50_ms", "p99_ms", "max_ms", "lost")),
        ]
        for name, line in lines.items()
    ]
    return Table("", columns, rows)

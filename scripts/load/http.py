"""The work ``http``: the calls that real clients make most, against the same calls in FastAPI that do nothing."""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple

from scripts.load.figures import Round, Sample, disordered, latencies, lost, medians, rates, ratio, sample_of
from scripts.load.house import feed, registrations
from scripts.load.rounds import DRAIN_SECONDS, LONGEST_WARM_UP_SECONDS, redis_commands
from scripts.load.stand import PRIMARY, Stand, StandError, answers, build_tools, free_port, run_loadgen
from scripts.load.work import Cell, Column, Plan, Result, Table, Verdict

BARE = "bare FastAPI"
BASES = {"bare": BARE}
PATH = "/rtc-api/users/endpoints"
CONNECTIONS = 64
AIM = 0.6

METHOD = """\
Calls over HTTP/1.1 on 64 connections that are kept, one at a time on each, from `scripts/load/httpgen.c` (one thread in
C, several times faster than either server). *register*: a new user's first endpoint. *keepalive*: of 10,000 endpoints,
in no order. *sendEvent*: an event of 400 bytes at QoS 1 to a user's one endpoint, whose subscriber acknowledges it
before the caller is answered. No tokens (`auth.mode = "none"`). *Bare FastAPI* is `scripts/load/bare.py`: the same
bodies as pydantic models, handlers that return at once, the same uvicorn on uvloop; no registry and no broker. Each
answer is checked, and each event must be delivered. First the closed loop, for the maximum, then the open loop at half
of it. CPU in us per call. Both servers have one thread, and *on one core* is how many calls a second of its CPU time
is enough for: load generator, Redis and broker share the machine's cores with them, and would blur the other rate."""


class Work(NamedTuple):
    """A call.

    Attributes:
        name: in words.
        path: beyond the API's.
        body: ten ``#`` stand for the call's number, ``%`` for a user's, `SAMPLE` for the sample's.
        status: of the answer.
        is_delivered: it is an event, which the endpoint is to get.
    """

    name: str
    path: str
    body: Mapping[str, object]
    status: int
    is_delivered: bool = False


EVENT = {
    "type": "OrderPlacedEvent",
    "timestamp": "2026-01-02T03:04:05.678Z",
    "order": {"number": "##########", "currency": "EUR", "lines": [{"article": "lamp", "count": 2, "price": 19.5}]},
    "address": {"name": "Ann Example", "street": "1 North Road", "city": "Athens"},
    "note": "x" * 150,
}
SAMPLE = "$$$"
NEW_USER = f"n{SAMPLE}-{'#' * 10}"
WORKS = (
    Work("register", "", {"userId": NEW_USER, "userEndpointId": f"{NEW_USER}~0", "keepAliveSeconds": 600}, 200),
    Work("keepalive", "/keepalive", {"userEndpointId": "u%%%%%%~0"}, 204),
    Work(
        "sendEvent",
        "/sendEvent",
        {"event": EVENT, "userId": "u%%%%%%", "organizationId": "default", "qos": 1},
        200,
        is_delivered=True,
    ),
)
_samples = count(1)


def request(work: Work, sample: int) -> str:
    """The whole request of a call; ``sample`` makes the users that register new in each."""
    body = json.dumps(work.body, separators=(",", ":")).replace(SAMPLE, f"{sample:03d}")
    head = [
        f"POST {PATH}{work.path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        "accept: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*head, "", body])


class Server(NamedTuple):
    """One of the two that are compared: its process on the stand, and its port."""

    name: str
    worker: str
    port: int


def measure(plan: Plan) -> Result:
    """Measure each call's maximum, and its latency at half of that, at both servers in turn.

    Raises:
        StandError: a part of the stand failed, or a call did.
    """
    with Stand(plan.flavour) as stand:
        bare, bridge = Server(BARE, "bare", free_port()), Server("bridge", PRIMARY, free_port())
        made = stand.configure(PRIMARY, http_port=bridge.port)
        feed(made.settings, registrations(made.prefix, plan.users))
        command = [sys.executable, "-m", "scripts.load.bare", str(bare.port)]
        with stand.process(bare.worker, command, ready=lambda: answers(bare.port)), stand.bridge(made):
            measured = {work.name: _measure(plan, stand, work, (bare, bridge)) for work in WORKS}
        versions = stand.versions()
    every = [one for both in measured.values() for rounds in both for one in rounds]
    tables = [_on_one_core(measured)]
    for name, (maxima, halves) in measured.items():
        tables += [
            rates(f"{name}, as many as can be", maxima, BASES, "calls/s"),
            latencies(f"{name}, at half of that", halves, BASES, "calls/s"),
        ]
    return Result(
        work="http",
        method=METHOD,
        tables=tables,
        verdicts=[
            Verdict(f"HTTP {name} on one core, to bare FastAPI", ratio(maxima, "bridge", BARE, "per_core"), AIM, True)
            for name, (maxima, _) in measured.items()
        ],
        lost=lost(every),
        disordered=disordered(every),
        versions=versions,
        details=measured,
    )


def _on_one_core(measured: Mapping[str, tuple[list[Round], list[Round]]]) -> Table:
    columns = [Column("call"), Column("bridge calls/s"), Column("bare calls/s"), Column("to bare", 2)]
    rows: list[list[Cell]] = [
        [
            name,
            *(medians(maxima, who, "per_core") for who in ("bridge", BARE)),
            ratio(maxima, "bridge", BARE, "per_core"),
        ]
        for name, (maxima, _) in measured.items()
    ]
    return Table("on one core", columns, rows)


def _measure(plan: Plan, stand: Stand, work: Work, servers: Sequence[Server]) -> tuple[list[Round], list[Round]]:
    maxima = [{server.name: _sample(plan, stand, work, server) for server in servers} for _ in range(plan.rounds)]
    half = {server.name: medians(maxima, server.name, "rate") / 2 for server in servers}
    halves = [
        {server.name: _sample(plan, stand, work, server, half[server.name]) for server in servers}
        for _ in range(plan.rounds)
    ]
    return maxima, halves


def _sample(plan: Plan, stand: Stand, work: Work, server: Server, rate: float = 0) -> Sample:
    template = stand.folder / "request.http"
    template.write_bytes(request(work, next(_samples)).encode())
    options: dict[str, object] = {
        "port": server.port,
        "mqtt-port": stand.mqtt_port,
        "template": template,
        "status": work.status,
        "users": plan.users,
        "rate": round(rate),
        "connections": CONNECTIONS,
        "warmup": min(plan.seconds / 2, LONGEST_WARM_UP_SECONDS),
        "duration": plan.seconds,
        "drain": DRAIN_SECONDS,
    }
    if work.is_delivered and server.worker == PRIMARY:
        options["sub"] = "users/endpoints/+"
    stand.redis.config_resetstat()
    line = run_loadgen(stand, options, server.worker, build_tools().httpgen)
    if not line["rate"]:
        raise StandError(f"{work.name}: {server.name} answered nothing in {plan.seconds:g} s")
    plan.say(
        f"{work.name}: {server.name}: {line['rate']:,.0f}/s, p99 {line['p99_ms']:.1f} ms, "
        f"{line['cpu_us']['worker']:.0f} us each, lost {line['lost']}"
    )
    return sample_of(line, round(redis_commands(stand, 1).get("mset", {}).get("calls", 0)))

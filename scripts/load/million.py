"""The work ``million``: what a million registered endpoints cost, in memory, at the start, and by the event."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scripts.load.figures import Round, disordered, lost, rates
from scripts.load.house import feed, registrations
from scripts.load.rounds import Variant, run_rounds, status_events
from scripts.load.stand import PRIMARY, Bridge, Stand
from scripts.load.work import Cell, Column, Plan, Result, Table, Verdict

ENDPOINTS = 2  # of each user
FULL_USERS, QUICK_USERS, FEW_USERS = 500_000, 25_000, 500
STARTS = 3
BOUND, FREE = "bound", "free"
MARKS = {BOUND: "~", FREE: "."}
MOST_BYTES = {BOUND: 330, FREE: 480}

METHOD = """\
500,000 users with two endpoints each (25,000 in the quick form), registered by the line itself. Memory: what Redis
uses more than before, all keys and their table counted, its buffers for clients and for the append-only file left
out; `bound` ids name their owner (`u1~0`), `free` ones do not (`u1.0`), see `endpoints.id_policy`. The start counts
from the process to `online`, with all endpoints registered. Cost of an event: the work of `relay` at QoS 1, one
document to the two endpoints of its user, by a bridge whose registry holds 1,000 endpoints and one whose registry
holds all, in turn; user by user, so that neither has two events on one record in a batch."""


class Memory(NamedTuple):
    """Bytes per endpoint, by what takes them."""

    total: float
    parts: dict[str, float]


def measure(plan: Plan) -> Result:
    """Fill registries under both policies, then start a bridge on the larger one and load it.

    Raises:
        StandError: a part of the stand failed.
    """
    users = FULL_USERS if plan.is_full else min(QUICK_USERS, plan.users * 5)
    with Stand(plan.flavour) as stand:
        bound = _fill(plan, stand, stand.configure(PRIMARY, _policy(BOUND)), users)
    with Stand(plan.flavour) as stand:
        many = stand.configure(PRIMARY, _policy(FREE))
        free = _fill(plan, stand, many, users)
        starts, resident_mb = _starts(stand, many)
        few = stand.configure("few", _policy(FREE))
        feed(few.settings, registrations(few.prefix, FEW_USERS, ENDPOINTS, mark=MARKS[FREE]))
        with stand.bridge(few), stand.bridge(many):
            variants = [_events(stand, few, FEW_USERS), _events(stand, many, users)]
            rounds = run_rounds(plan, "cost of an event", variants)
            loaded_mb = {bridge.name: _resident_mb(stand, bridge.name) for bridge in (few, many)}
        versions = stand.versions()
    base, large = (variant.name for variant in variants)
    return Result(
        work="million",
        method=METHOD,
        tables=[
            _memory_table({BOUND: bound, FREE: free}),
            Table(
                "the bridge",
                [Column("endpoints"), Column("start s", 2), Column("MB at the start"), Column("MB after the load")],
                [
                    [FEW_USERS * ENDPOINTS, None, None, loaded_mb[few.name]],
                    [users * ENDPOINTS, starts, resident_mb, loaded_mb[many.name]],
                ],
            ),
            rates("QoS 1, one document to two endpoints", rounds, {"the fewest": base}, "deliveries/s"),
        ],
        verdicts=[
            *(
                Verdict(f"Redis memory per endpoint, {policy} ids", memory.total, MOST_BYTES[policy], False, "bytes")
                for policy, memory in ((BOUND, bound), (FREE, free))
            ),
            Verdict("start to ready with all endpoints registered", starts, 1, False, "s"),
            Verdict("memory of the bridge after the load", loaded_mb[many.name], 120, False, "MB"),
            Verdict(
                "CPU of bridge and Redis per event, to that at 1,000 endpoints", _cost(rounds, large, base), 1.15, False
            ),
        ],
        lost=lost(rounds),
        disordered=disordered(rounds),
        versions=versions,
        details={"endpoints": users * ENDPOINTS, "rounds": rounds},
    )


def _policy(policy: str) -> str:
    return f'[endpoints]\nid_policy = "{policy}"\n'


def _fill(plan: Plan, stand: Stand, bridge: Bridge, users: int) -> Memory:
    before = _used_bytes(stand)
    plan.say(f"million: registering {users * ENDPOINTS:,} endpoints, {bridge.settings.endpoints.id_policy} ids")
    mark = MARKS[bridge.settings.endpoints.id_policy]
    feed(bridge.settings, registrations(bridge.prefix, users, ENDPOINTS, mark=mark))
    used = _used_bytes(stand) - before
    endpoints = users * ENDPOINTS
    total = used / endpoints
    parts: dict[str, float] = {}
    redis: Any = stand.redis
    parts["deadlines"] = redis.memory_usage(f"{bridge.name}:{{default}}:deadlines", samples=0) / endpoints
    sampled = range(0, users, max(users // 100, 1))
    records = [redis.memory_usage(f"{bridge.name}:{{default}}:user:u{number:06d}") for number in sampled]
    claims = [redis.memory_usage(f"{bridge.name}:endpoint-owner:u{number:06d}{mark}0") or 0 for number in sampled]
    parts["record of the user"] = median(records) / ENDPOINTS
    parts["claim of the id"] = median(claims)
    parts["table of all keys, and the rest"] = total - sum(parts.values())
    return Memory(total, parts)


def _used_bytes(stand: Stand) -> int:
    """What Redis uses for data: not for clients' buffers, nor for what is on its way to the append-only file."""
    info: Any = stand.redis.info("memory")
    return int(info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"])


def _memory_table(memories: dict[str, Memory]) -> Table:
    columns = [Column("bytes per endpoint"), *(Column(policy) for policy in memories)]
    rows: list[list[Cell]] = [
        [part, *(memory.parts[part] for memory in memories.values())] for part in next(iter(memories.values())).parts
    ]
    rows.append(["all", *(memory.total for memory in memories.values())])
    return Table("Redis", columns, rows)


def _starts(stand: Stand, bridge: Bridge) -> tuple[float, float]:
    """Median seconds from the process to `online`, and its memory (MB) then."""
    seconds, resident_mb = [], []
    for _ in range(STARTS):
        with stand.bridge(bridge) as took_seconds:
            seconds.append(took_seconds)
            resident_mb.append(_resident_mb(stand, bridge.name))
    return median(seconds), median(resident_mb)


def _resident_mb(stand: Stand, process: str) -> float:
    """The most memory that a process had so far (VmHWM)."""
    for line in Path(f"/proc/{stand.pid(process)}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) / 1024
    return 0.0


def _events(stand: Stand, bridge: Bridge, users: int) -> Variant:
    variant = status_events(stand, bridge, 1, f"{users * ENDPOINTS:,} endpoints")
    return variant._replace(options={**variant.options, "users": users, "fanout": ENDPOINTS, "order": "turn"})


def _cost(rounds: Sequence[Round], variant: str, base: str) -> float:
    """Median over the rounds of the ratio of what an event costs the bridge and Redis."""
    costs = [
        {name: one[name].cpu_us["worker"] + one[name].cpu_us["redis"] for name in (variant, base)} for one in rounds
    ]
    return median(cost[variant] / cost[base] for cost in costs)

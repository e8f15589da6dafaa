"""The work ``keepalive``: how many keepalives a second reach the registry.

Nothing comes of a keepalive, so a status event after every so many of them tells how far the bridge has got: what came
before it is in the registry by then. Afterwards every record is read, to see whether it is.
"""

from typing import Any

from redis import Redis

from bridge.domain.records import Subject
from bridge.domain.schema import decode_record
from scripts.load.figures import Round, disordered, lost, rates, ratio
from scripts.load.house import feed, registrations
from scripts.load.relay import route
from scripts.load.rounds import Variant, run_rounds, run_sample
from scripts.load.stand import PRIMARY, Bridge, Stand, StandError
from scripts.load.work import Plan, Result, Verdict

FILL = 50
WINDOW = 160  # so that 8,000 keepalives are on their way: of 10,000 endpoints hardly any has two among them
DIRECT = "broker to one C subscriber"

METHOD = """\
Empty messages at QoS 0 on `users/endpoints/<id>/keepalive`, endpoint by endpoint, 10,000 of them; after every 50 a
status document at QoS 0, whose event tells that the 50 before it were taken. 8,000 keepalives are on their way at once.
Against it the same messages from the broker straight to one subscriber in C (the load generator itself). CPU in us per
keepalive, the fiftieth part of a status event included. After one round more, each record in Redis must say that its
endpoint was renewed since that round began."""


def measure(plan: Plan) -> Result:
    """Run all rounds, and look into the registry.

    Raises:
        StandError: a part of the stand failed, or a keepalive did not reach the registry.
    """
    with Stand(plan.flavour) as stand:
        made = stand.configure(PRIMARY, route(qos=0))
        feed(made.settings, registrations(made.prefix, plan.users))
        with stand.bridge(made):
            variants = [keepalives(stand, DIRECT, None, "direct/"), keepalives(stand, "bridge", made.name, made.prefix)]
            rounds = run_rounds(plan, "keepalive", variants)
            _require_renewed(plan, stand, made, variants[1])
        versions = stand.versions()
    return Result(
        work="keepalive",
        method=METHOD,
        tables=[rates("QoS 0", [_per_keepalive(one) for one in rounds], {"direct": DIRECT}, "keepalives/s")],
        verdicts=[
            Verdict("keepalives over MQTT, to the broker's direct rate", ratio(rounds, "bridge", DIRECT), 0.5, True)
        ],
        lost=lost(rounds),
        disordered=disordered(rounds),
        versions=versions,
        details={"rounds": rounds},
    )


def keepalives(stand: Stand, name: str, worker: str | None, prefix: str) -> Variant:
    """Return the load: keepalives under a topic prefix, which a worker takes, or the broker's own rate (None)."""
    options: dict[str, object] = {
        "topic": f"{prefix}presence/users/u%%%%%%/status",
        "fill-topic": f"{prefix}users/endpoints/u%%%%%%~0/keepalive",
        "sub": f"{prefix}#" if worker is None else f"{prefix}users/endpoints/+",
        "qos": 0,
        "fill": FILL,
        "window": WINDOW,
        "order": "turn",
    }
    return Variant(name, stand, worker, options)


def _per_keepalive(one: Round) -> Round:
    return {
        name: sample._replace(
            rate=sample.rate * FILL,
            cpu_us={process: us / FILL for process, us in sample.cpu_us.items()},
            batch=sample.batch * FILL,
        )
        for name, sample in one.items()
    }


def _require_renewed(plan: Plan, stand: Stand, bridge: Bridge, variant: Variant) -> None:
    """Measure once more, and read what the registry says of every endpoint afterwards."""
    before_ms = int(stand.redis.hget(f"{bridge.name}:clock", "clock_ms") or 0)
    line, _ = run_sample(plan, variant)
    kept = min(plan.users, line["sent"] * FILL)
    keys = [f"{bridge.name}:{{default}}:user:u{number:06d}" for number in range(kept)]
    silent = 0
    stored: Any
    for stored in Redis(port=stand.redis_port).mget(keys):
        record, _ = decode_record("user", stored)
        assert isinstance(record, Subject)
        silent += any(endpoint.renewed_ms < before_ms for endpoint in record.endpoints.values())
    if silent:
        raise StandError(f"{silent} of {kept} endpoints kept themselves alive, and the registry does not know it")

"""The work ``relay``: a changed status document in, through registry and journal, one event to one endpoint out."""

import contextlib
from collections.abc import Sequence

from scripts.load.figures import Round, disordered, lost, rates, ratio
from scripts.load.house import feed, registrations
from scripts.load.rounds import COALESCING, PLAIN, redis_commands, relay, run_rounds, status_events
from scripts.load.stand import PRIMARY, Bridge, Stand
from scripts.load.work import Plan, Result, Verdict

EVENT = "UserStatusChangedEvent"
AUDITED, MASKED = "bridge, audit stream on", "bridge, audit stream on, one mask"
AUDIT = "[audit]\nenabled = true\n"
BASES = {"plain": PLAIN, "coalescing": COALESCING}

METHOD = """\
A changed 400-byte status document is published on `presence/users/<id>/status`; the bridge loads the user's record,
decides, commits record and journal entry in one transaction, and publishes a `UserStatusChangedEvent` (650 bytes) to
the user's one endpoint. Every message is a change. 10,000 users with one endpoint each. At QoS 0 publisher,
subscriber and the event's route are at QoS 0; the journal is written all the same. The relays are
`scripts/load/c_relay.c`: one thread that copies `in/<x>` to `out/<x>` and acknowledges its input on the output's
PUBACK, without parsing or registry. *Plain* writes what each read brought, *coalescing* waits 100 us first, so that
the broker gets fewer and larger writes. They republish the 400 bytes as they are. 512 messages are on their way at
once. CPU in us per message that arrived."""


def route(event: str = EVENT, **fields: object) -> str:
    """An event's route, as TOML."""
    lines = [f"{name} = {value!r}" for name, value in {"event": event, **fields}.items()]
    return "\n".join(["[[routes]]", *lines, ""])


def measure(plan: Plan) -> Result:
    """Run all rounds at both QoS.

    Raises:
        StandError: a part of the stand failed.
    """
    with Stand(plan.flavour) as stand, contextlib.ExitStack() as living:

        def bridge(name: str, settings: str = "") -> Bridge:
            made = stand.configure(name, settings)
            feed(made.settings, registrations(made.prefix, plan.users))
            living.enter_context(stand.bridge(made))
            return made

        relays = (PLAIN, COALESCING)
        plan.say(f"relay: 4 bridges with {plan.users:,} endpoints each")
        at_1 = [relay(stand, 1, name) for name in relays]
        at_1 += [
            status_events(stand, bridge(PRIMARY), 1),
            status_events(stand, bridge("audited", AUDIT), 1, AUDITED),
            status_events(stand, bridge("masked", AUDIT + route(masks=["$.status.note"])), 1, MASKED),
        ]
        at_0 = [relay(stand, 0, name) for name in relays]
        at_0.append(status_events(stand, bridge("qos0", route(qos=0)), 0))
        rounds_1 = run_rounds(plan, "relay QoS 1", at_1)
        rounds_0 = run_rounds(plan, "relay QoS 0", at_0)
        commands = redis_commands(stand, 1)
        versions = stand.versions()
    return Result(
        work="relay",
        method=METHOD,
        tables=[
            rates("QoS 1 in and out", rounds_1, {**BASES, "bridge": "bridge"}),
            rates("QoS 0 in and out", rounds_0, BASES),
        ],
        verdicts=_verdicts(rounds_1, rounds_0),
        lost=lost(rounds_1) + lost(rounds_0),
        disordered=disordered(rounds_1) + disordered(rounds_0),
        versions=versions,
        details={"qos1": rounds_1, "qos0": rounds_0, "redis_commands": commands},
    )


def _verdicts(rounds_1: Sequence[Round], rounds_0: Sequence[Round]) -> list[Verdict]:
    return [
        Verdict("QoS 1 in and out, to the plain C relay", ratio(rounds_1, "bridge", PLAIN), 1.1, True),
        Verdict("QoS 1 in and out, to the coalescing C relay", ratio(rounds_1, "bridge", COALESCING), 1.0, True),
        Verdict("QoS 0 in and out, to the plain C relay", ratio(rounds_0, "bridge", PLAIN), 0.9, True),
        Verdict("QoS 0 in and out, to the coalescing C relay", ratio(rounds_0, "bridge", COALESCING), 0.8, True),
        Verdict("with the audit stream on, to without", ratio(rounds_1, AUDITED, "bridge"), 0.85, True),
        Verdict("with one mask per event as well, to without", ratio(rounds_1, MASKED, "bridge"), 0.7, True),
    ]

"""The work ``fanout``: one status event to ten endpoints of its user."""

from scripts.load.figures import disordered, lost, rates, ratio
from scripts.load.house import feed, registrations
from scripts.load.rounds import COALESCING, PLAIN, relay, run_rounds, status_events
from scripts.load.stand import PRIMARY, Stand
from scripts.load.work import Plan, Result, Verdict

FAN_OUT = 10
WINDOW = 96  # messages on their way: ten times as many outputs are below the broker's receive maximum of 1,000

METHOD = """\
The work of `relay` at QoS 1, but each user has ten endpoints: one document in, ten events out, each on a topic of its
own. The null relays publish ten copies, too. Rates and CPU are of deliveries; 96 inputs are on their way at once, so
that their outputs stay within what the broker takes unacknowledged."""


def measure(plan: Plan) -> Result:
    """Run all rounds.

    Raises:
        StandError: a part of the stand failed.
    """
    users = max(plan.users // FAN_OUT, 1)
    with Stand(plan.flavour) as stand:
        made = stand.configure(PRIMARY)
        feed(made.settings, registrations(made.prefix, users, FAN_OUT))
        with stand.bridge(made):
            variants = [
                relay(stand, 1, PLAIN, FAN_OUT),
                relay(stand, 1, COALESCING, FAN_OUT),
                status_events(stand, made, 1),
            ]
            rounds = run_rounds(plan, "fan-out", variants, users=users, fanout=FAN_OUT, window=WINDOW)
        versions = stand.versions()
    return Result(
        work="fanout",
        method=METHOD,
        tables=[
            rates(
                f"1 -> {FAN_OUT}, QoS 1 in and out", rounds, {"plain": PLAIN, "coalescing": COALESCING}, "deliveries/s"
            )
        ],
        verdicts=[
            Verdict("fan-out 1 -> 10, deliveries to the plain C relay's", ratio(rounds, "bridge", PLAIN), 0.9, True)
        ],
        lost=lost(rounds),
        disordered=disordered(rounds),
        versions=versions,
        details={"rounds": rounds},
    )

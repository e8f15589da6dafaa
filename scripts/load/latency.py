"""The work ``latency``: how long a status event takes at half of each one's maximum, and at a fixed rate."""

from scripts.load.figures import Round, disordered, latencies, lost, medians, ratio
from scripts.load.house import feed, registrations
from scripts.load.rounds import COALESCING, PLAIN, relay, run_rounds, status_events
from scripts.load.stand import PRIMARY, Stand
from scripts.load.work import Plan, Result, Verdict

FIXED_RATE = 5_000

METHOD = """\
The work of `relay` at QoS 1 in the open loop: messages are sent at a fixed rate, whatever comes back, and latency
counts from when a message should have been sent until it was received. First at half of each one's own maximum, which
a closed loop has measured just before, then all at 5,000/s."""


def measure(plan: Plan) -> Result:
    """Find each maximum, then measure at half of it, then at the fixed rate.

    Raises:
        StandError: a part of the stand failed.
    """
    with Stand(plan.flavour) as stand:
        made = stand.configure(PRIMARY)
        feed(made.settings, registrations(made.prefix, plan.users))
        with stand.bridge(made):
            variants = [relay(stand, 1), relay(stand, 1, COALESCING), status_events(stand, made, 1)]
            maxima = run_rounds(plan, "maximum", variants)
            half = {variant.name: medians(maxima, variant.name, "rate") / 2 for variant in variants}
            halves = run_rounds(plan, "half of the maximum", variants, half)
            fixed = run_rounds(plan, f"{FIXED_RATE:,}/s", variants, dict.fromkeys(half, FIXED_RATE))
        versions = stand.versions()
    every: list[Round] = [*maxima, *halves, *fixed]
    return Result(
        work="latency",
        method=METHOD,
        tables=[
            latencies("at half of the maximum", halves, {"plain": PLAIN}),
            latencies(f"at {FIXED_RATE:,} events/s", fixed, {"plain": PLAIN}),
        ],
        verdicts=[
            Verdict(
                "p50 at half of the maximum, to the plain C relay", ratio(halves, "bridge", PLAIN, "p50_ms"), 2, False
            ),
            Verdict(
                "p99 at half of the maximum, to the plain C relay", ratio(halves, "bridge", PLAIN, "p99_ms"), 2, False
            ),
            Verdict("p99 at 5,000/s", medians(fixed, "bridge", "p99_ms"), 3, False, "ms"),
        ],
        lost=lost(every),
        disordered=disordered(every),
        versions=versions,
        details={"maximum": maxima, "half": halves, "fixed": fixed},
    )

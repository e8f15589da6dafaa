"""Rounds: every variant once, one after the other, so that all of them meet the same machine; then all of them again.

Closed loop for the rate, open loop for the latency. Two rounds on a shared machine differ by a third, the variants of
one round far less: so ratios are taken within a round.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from scripts.load.figures import Round, Sample, command_stats, sample_of
from scripts.load.stand import Bridge, Stand, StandError, run_loadgen
from scripts.load.work import Plan

WINDOW = 512  # messages on their way at once, end to end
PACED_WINDOW = 900  # in the open loop: below the broker's receive maximum
LONGEST_WARM_UP_SECONDS, DRAIN_SECONDS = 1.0, 5.0
DOCUMENT_BYTES = 400

PLAIN, COALESCING = "C relay, plain", "C relay, coalescing 100 us"
COALESCE_US = {PLAIN: 0, COALESCING: 100}

Live = Callable[[], contextlib.AbstractContextManager[object]]
_documents = itertools.count(1)


class Variant(NamedTuple):
    """Something between what goes in and what comes out.

    Attributes:
        name: in words.
        stand: where it lives.
        worker: its process, while it lives.
        live: lets it live for one sample; by default it lives longer than that.
        options: the load generator's, that differ from those of the other variants.
    """

    name: str
    stand: Stand
    worker: str | None
    options: Mapping[str, object]
    live: Live = contextlib.nullcontext


def relay(stand: Stand, qos: int, name: str = PLAIN, fan_out: int = 1) -> Variant:
    """The null relay, plain or coalescing."""
    return Variant(
        name,
        stand,
        "relay",
        {"topic": "in/u%%%%%%", "sub": "out/#", "qos": qos},
        live=lambda: stand.relay(qos, COALESCE_US[name], fan_out),
    )


def status_events(stand: Stand, bridge: Bridge, qos: int, name: str = "bridge") -> Variant:
    """A bridge that is told of changed status documents, and tells each user's endpoints."""
    options = {
        "topic": f"{bridge.prefix}presence/users/u%%%%%%/status",
        "sub": f"{bridge.prefix}users/endpoints/#",
        "qos": qos,
    }
    return Variant(name, stand, bridge.name, options)


def document(sample: int) -> str:
    """The template of a status document of 400 bytes; the load generator fills in number and user.

    The sample's number is in it, since the load generator counts from 0 each time: a document that stands already is
    no change, and no event comes of it.
    """
    fields = {
        "seq": "#" * 10,
        "sample": sample,
        "availability": "available",
        "device": {"id": "u%%%%%%-desk", "battery": 87, "charging": True, "signal": -61},
        "location": {"building": "north", "floor": 3, "room": "3.14"},
        "capabilities": ["audio", "video", "screen"],
    }
    text = json.dumps({**fields, "note": ""}, separators=(",", ":"))
    return json.dumps({**fields, "note": "x" * (DOCUMENT_BYTES - len(text))}, separators=(",", ":"))


def run_rounds(
    plan: Plan,
    title: str,
    variants: Sequence[Variant],
    rates: Mapping[str, float] | None = None,
    **options: object,
) -> list[Round]:
    """Run all rounds.

    Args:
        plan: how many and how long.
        title: for the progress.
        variants: in order.
        rates: of the open loop, variant -> messages/s; None: closed loop.
        **options: the load generator's, for all variants.

    Raises:
        StandError: a part of a stand failed, or nothing came back in a sample: its machine is too busy.
    """
    rounds: list[Round] = []
    for number in range(1, plan.rounds + 1):
        samples: dict[str, Sample] = {}
        for variant in variants:
            paced: Mapping[str, object] = (
                {"rate": f"{rates[variant.name]:.0f}", "window": PACED_WINDOW} if rates else {}
            )
            line, commits = run_sample(plan, variant, **{**options, **paced})
            if not line["rate"]:
                raise StandError(f"{title}: nothing came back from {variant.name} in {plan.seconds:g} s")
            samples[variant.name] = sample_of(line, commits)
            plan.say(
                f"{title}, round {number} of {plan.rounds}: {variant.name}: {line['rate']:,.0f}/s, "
                f"p99 {line['p99_ms']:.1f} ms, lost {line['lost']}"
            )
        rounds.append(samples)
    return rounds


def run_sample(plan: Plan, variant: Variant, **options: object) -> tuple[dict[str, Any], int]:
    """Measure one variant once; returns the load generator's line, and how many commits wrote records."""
    stand = variant.stand
    template = stand.folder / "document.json"
    template.write_text(document(next(_documents)))
    everything: dict[str, object] = {
        "template": template,
        "users": plan.users,
        "window": WINDOW,
        "warmup": min(plan.seconds / 2, LONGEST_WARM_UP_SECONDS),
        "duration": plan.seconds,
        "drain": DRAIN_SECONDS,
        **options,
        **variant.options,
    }
    with variant.live():
        stand.redis.config_resetstat()
        line = run_loadgen(stand, everything, variant.worker)
    return line, round(redis_commands(stand, 1).get("mset", {}).get("calls", 0))


def redis_commands(stand: Stand, messages: int) -> dict[str, dict[str, float]]:
    """What Redis was asked since the last sample began: command -> calls and times."""
    info: Any = stand.redis.info("commandstats")
    return command_stats(info, messages)

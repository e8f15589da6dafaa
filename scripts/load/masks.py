"""Times the masks: what an event usually costs, what hostile masks and events cost at the worst."""

import gc
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.domain.mask_syntax import read_mask
from bridge.domain.mask_walk import Name, Segment
from bridge.domain.masks import Masks, compile_masks
from bridge.errors import Refusal
from scripts.load.work import Column, Plan, Result, Table, Verdict

ROUNDS = 7
EVENT_BYTES = 262_144
ONE_MASK_AIM_US, WORST_AIM_US = 5, 50_000

EVENT: dict[str, Any] = {
    "type": "OrderPlacedEvent",
    "timestamp": "2026-01-02T03:04:05Z",
    "customer": {
        "name": "Ann Other",
        "phone": "+30 210 1234567",
        "address": {"street": "Long Street 5", "zip": "11111"},
    },
    "card": {"number": "4111111111111111", "brand": "visa"},
    "items": [{"sku": f"sku-{number}", "title": "A thing of some kind", "price": 12.5} for number in range(9)],
    "comment": "x" * 230,
}
"""About 1 KB."""


METHOD = "CPU time of the fastest of some rounds, in one thread."


class Timing(NamedTuple):
    """What one piece of work took at best, and what it should take at most (microseconds)."""

    name: str
    us: float
    aim_us: float | None


def measure(plan: Plan) -> Result:  # noqa: ARG001  (there is nothing to repeat, and no stand)
    """Time everything; ten seconds or so."""
    timings = _timings()
    columns = [Column("work"), Column("us", 1), Column("aim us")]
    return Result(
        work="masks",
        method=METHOD,
        tables=[Table("", columns, timings)],
        verdicts=[
            Verdict("one mask on an event of 1 KB", timings[0].us, ONE_MASK_AIM_US, False, "us"),
            Verdict(
                "the worst mask on the worst event", max(timing.us for timing in timings), WORST_AIM_US, False, "us"
            ),
        ],
    )


def _timings() -> list[Timing]:
    deep: Any = "leaf"
    for _ in range(60):
        deep = {"x": deep, "y": "other"}
    five_descents = Masks([tuple(Segment(True, (Name("x"),)) for _ in range(5))])
    plain = ["$.card.number", "$.customer.phone", "$.items[*].title"]
    mixed = ["$.card.number", "$..phone", "$.items[?(@.price > 10)].title"]
    size = len(json.dumps(EVENT, separators=(",", ":")))
    gc.collect()
    gc.freeze()  # as the bridge does
    gc.set_threshold(50_000, 20, 100)
    return [
        Timing(f"one mask, event of {size} bytes", _best(lambda: masked(EVENT, plain[:1])), ONE_MASK_AIM_US),
        Timing("three masks", _best(lambda: masked(EVENT, plain)), 40),
        Timing("three masks, one with .., one with a filter", _best(lambda: masked(EVENT, mixed)), 40),
        Timing("five chained .. at depth 60", _best(lambda: five_descents.apply(deep)), 5_000),
        Timing("reading a mask for the first time", _best(lambda: read_mask(mixed[2])), None),
        *_hostile(),
    ]


def masked(document: object, masks: list[str]) -> object:
    """Return the masked document, None where the masks are refused."""
    try:
        return compile_masks(masks).apply(document)
    except Refusal:
        return None


def _best(work: Callable[[], object], most_seconds: float = 0.3) -> float:
    """Return the microseconds of CPU time of the fastest of some rounds."""
    start = time.thread_time()
    work()
    count = max(1, int(most_seconds / ROUNDS / max(time.thread_time() - start, 1e-6)))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(count):
            work()
        best = min(best, (time.thread_time() - start) / count)
    return best * 1e6


def _hostile() -> list[Timing]:
    """Time each of some masks on each of some events as large as is allowed; return the slowest, slowest first."""
    elements: list[Any] = [1, "", [1], ["a"], {"a": 1}, {"a": "b", "x": "y"}, {"a": [{"a": "b"}] * 8}]
    events: list[Any] = [
        {"l": json.loads("[" + ",".join([text] * (EVENT_BYTES // (len(text) + 1))) + "]"), "t": "ab" * 400}
        for text in (json.dumps(element, separators=(",", ":")) for element in elements)
    ]
    texts = {"t": "ab" * 40_000 + "a", "u": ["ab" * 40_000 + "b"]}
    events += [{"l": [{"a": "b"}] * 3_000, **texts}]
    masks = [
        *(["$..*"], ["$..a"], ["$..*..*"], ["$..a..a..a..a"], ["$..['a','b','c','d','e']"], ["$..[0,1,2,-1]"]),
        *(["$..[?(@)]"], ["$..[?(@.a)]"], ["$..[?(@.a == 'b')].a"], ["$..[?(@..a)]"], ["$..[?(@.a[?(@.a)])]"]),
        *(["$..[?(@.a == 'b' || @.a == 'c' || !(@.a == 1) && @.x =~ /y+/i)]"], ["$..[?(@ =~ /b/)]"]),
        *(["$.l[?($.t =~ /.*a(a|b){50}x/)]"], ["$.l[?($.t in $.u)]"], ["$.l[?($.l == $.l)]"], ["$.l[?(@ in $.l)]"]),
        *(["$..a"] * 32, ["$.l[*].a"] * 32, ["$..[?(@.a == 'b')].a"] * 32),
    ]
    slowest = sorted(
        (
            (min(_once(event, each) for _ in range(3)), f"{each[0]} x {len(each)} on {json.dumps(event)[:24]}...")
            for event in events
            for each in masks
        ),
        reverse=True,
    )
    long = ["$[?(" + f"@.a{number}==1||" * 16 + "@.b in [" + "1," * 130 + "1])]" for number in range(32)]
    return [
        *(Timing(f"slowest of {len(slowest)} hostile: {name}", us, WORST_AIM_US) for us, name in slowest[:3]),
        Timing("reading 32 masks as long as can be", min(_once_read(long) for _ in range(3)), WORST_AIM_US),
    ]


def _once(event: object, masks: list[str]) -> float:
    start = time.thread_time()
    masked(event, masks)
    return (time.thread_time() - start) * 1e6


def _once_read(masks: list[str]) -> float:
    start = time.thread_time()
    for mask in masks:
        read_mask(mask)
    return (time.thread_time() - start) * 1e6

"""The table from counters to media state, the steps between states, and the codes of what does not add up.

By the diagram of the source, whose ``state`` is the one *after* the event. Where the diagram is silent (three and more
connections, media while alone) it is extended from the counters. ``docs/protocol.md`` shows these tables, which a test
compares.
Source: reference "rooms and media" A.
"""

from typing import NamedTuple


class Counters(NamedTuple):
    """What a participant counts: connections, streams sent, streams received; ``claimed`` is the state that it gave."""

    counts: tuple[int, int, int]
    claimed: str | None = None


INIT, WAITING, STARTING, CLEANUP = "init", "waiting", "starting", "cleanup"
SENDING, RECEIVING, SENDRECV = "sending", "receiving", "sendrecv"


class Row(NamedTuple):
    """One row; None stands for both.

    Attributes:
        connections: 0, 1, or 2 for two and more; the participant's own is counted.
        sends: it sends at least one stream; ``receives`` the same of what it receives.
        had_media: a stream was seen since it was last alone.
    """

    connections: int
    sends: bool | None
    receives: bool | None
    had_media: bool | None
    state: str


TABLE = (
    Row(0, None, None, None, INIT),
    Row(1, None, None, None, WAITING),
    Row(2, False, False, False, STARTING),
    Row(2, False, False, True, CLEANUP),
    Row(2, True, False, None, SENDING),
    Row(2, False, True, None, RECEIVING),
    Row(2, True, True, None, SENDRECV),
)

_BOTH = (False, True)
STATES: dict[tuple[int, bool, bool, bool], str] = {
    (row.connections, sends, receives, had_media): row.state
    for row in TABLE
    for sends in (_BOTH if row.sends is None else (row.sends,))
    for receives in (_BOTH if row.receives is None else (row.receives,))
    for had_media in (_BOTH if row.had_media is None else (row.had_media,))
}

# The edges of the diagram. A step that changes one counter by one is possible too, whatever states it leads between.
STEPS: dict[str, tuple[str, ...]] = {
    INIT: (WAITING,),
    WAITING: (STARTING, INIT),
    STARTING: (SENDING, RECEIVING, WAITING),
    SENDING: (SENDRECV, CLEANUP, WAITING),
    RECEIVING: (SENDRECV, CLEANUP, WAITING),
    SENDRECV: (SENDING, RECEIVING, WAITING),
    CLEANUP: (WAITING,),
}

COUNTER_BELOW_ZERO = "counter_below_zero"
STREAMS_WHILE_ALONE = "streams_while_alone"
CLAIM_DIFFERS = "claim_differs"
PEERS_DISAGREE = "peers_disagree"
IMPOSSIBLE_STEP = "impossible_step"

# Every code, in the order in which they are told.
ANOMALIES = {
    COUNTER_BELOW_ZERO: "a counter was negative; it counts as 0",
    STREAMS_WHILE_ALONE: "streams, but no connection besides its own",
    CLAIM_DIFFERS: "the state that it gave is not the one of the table",
    PEERS_DISAGREE: "for 5 s connected participants have seen different numbers of connections: told of those who do "
    "not see the most frequent number, of all where none is",
    IMPOSSIBLE_STEP: "it skipped a step: another state, along no edge below, and more than one unit of one counter",
}


def media_state(connections: int, sends: int, receives: int, had_media: bool) -> str:
    """Return the state that the counters stand for."""
    return STATES[min(connections, 2), sends > 0, receives > 0, had_media]


def state_table() -> str:
    """Return the table of states as Markdown."""
    words = {None: "any", True: "> 0", False: "0"}
    had = {None: "", True: ", media seen since it was last alone", False: ", no media yet"}
    lines = ["| connections | sendStreams | recvStreams | state |", "|---|---|---|---|"]
    for row in TABLE:
        connections = ">= 2" if row.connections == 2 else row.connections
        when = words[row.sends], words[row.receives] + had[row.had_media]
        lines.append(f"| {connections} | {when[0]} | {when[1]} | `{row.state}` |")
    return "\n".join(lines)


def step_table() -> str:
    """Return the steps of the diagram as Markdown."""
    lines = ["| from | to |", "|---|---|"]
    lines += [f"| `{state}` | {' '.join(f'`{after}`' for after in steps)} |" for state, steps in STEPS.items()]
    return "\n".join(lines)


def anomaly_table() -> str:
    """Return the codes of anomalies as Markdown."""
    lines = ["| anomaly | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{code}` | {meaning} |" for code, meaning in ANOMALIES.items())])

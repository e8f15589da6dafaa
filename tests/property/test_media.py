"""Hypothesis writes a story of a call's media. Nobody hears what changes nothing; what is heard is what is answered."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.unit.world import World, told

USERS = ("ann", "bob", "cid")
NOTHING: dict[str, Any] = {
    "state": "init",
    "connections": 0,
    "sendStreams": 0,
    "recvStreams": 0,
    "claimed": None,
    "anomalies": [],
}

users = st.sampled_from(USERS)
counts = st.tuples(st.integers(-1, 3), st.integers(-1, 2), st.integers(0, 2))
claims = st.none() | st.sampled_from(("waiting", "starting", "sending", "sendrecv", "lost"))


class Story(RuleBasedStateMachine):
    """``reported`` is the last report of each; ``views`` is what all of them heard of each."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.here = set(USERS)
        self.reported: dict[str, tuple[tuple[int, int, int], str | None]] = {}
        self.has_media: dict[str, bool] = {}
        self.views = {user: dict(NOTHING) for user in USERS}
        self.quiet_seconds = 0
        for user in USERS:
            self.world.register(user, user, 86_400)
        self.world.join("s1", *USERS)

    # What happens.

    @rule(user=users, given=counts, claim=claims, twice=st.booleans())
    def reports(self, user: str, given: tuple[int, int, int], claim: str | None, twice: bool) -> None:
        body = dict(zip(("connections", "sendStreams", "recvStreams"), given, strict=True))
        before = len(self.world.broker.outputs)
        for _ in range(1 + twice):
            self.world.say(f"sessions/s1/participants/{user}/status", {**body, "state": claim})
        self.hear(before)
        if user not in self.here:
            assert self.world.codes[-1:] == ["not_allowed"] or self.world.counts["rejected:not_allowed"]
            return
        clamped = tuple(max(count, 0) for count in given)
        if clamped[0] != self.clamped(user)[0] or user not in self.reported:
            self.quiet_seconds = 0
        self.reported[user] = (given, claim)
        streams = clamped[1] > 0 or clamped[2] > 0
        self.has_media[user] = clamped[0] > 1 and (streams or self.has_media.get(user, False))

    @rule(user=users)
    def leaves_or_comes_back(self, user: str) -> None:
        before = len(self.world.broker.outputs)
        if user in self.here:
            self.world.leave("s1", user)
            self.here.discard(user)
            self.forget(user)
        else:
            self.world.join("s1", user)
            self.here.add(user)
        self.hear(before)
        self.views[user] = dict(NOTHING)
        self.quiet_seconds = 0

    @rule()
    def ends_and_begins_anew(self) -> None:
        before = len(self.world.broker.outputs)
        self.world.stop("s1")
        self.hear(before)
        self.world.join("s1", *USERS)
        self.here = set(USERS)
        for user in USERS:
            self.forget(user)
            self.views[user] = dict(NOTHING)

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        before = len(self.world.broker.outputs)
        self.world.pass_seconds(seconds)
        self.hear(before)
        self.quiet_seconds += seconds

    # The model.

    def forget(self, user: str) -> None:
        self.reported.pop(user, None)
        self.has_media.pop(user, None)

    def clamped(self, user: str) -> tuple[int, int, int]:
        connections, sends, receives = self.reported.get(user, ((0, 0, 0), None))[0]
        return max(connections, 0), max(sends, 0), max(receives, 0)

    def state(self, user: str) -> str:
        """By the diagram of the source, written out."""
        connections, sends, receives = self.clamped(user)
        if connections < 2:
            return ("init", "waiting")[connections]
        if sends and receives:
            return "sendrecv"
        if sends or receives:
            return "sending" if sends else "receiving"
        return "cleanup" if self.has_media[user] else "starting"

    def hear(self, before: int) -> None:
        heard = told(self.world.broker.outputs[before:])
        events = {
            endpoint: [event for event in events if event["type"] == "MediaStateChangedEvent"]
            for endpoint, events in heard.items()
        }
        listeners = [events.get(user, []) for user in sorted(self.here)]
        assert all(each == listeners[0] for each in listeners), "all members hear the same"
        for event in max(events.values(), key=len, default=[]):
            view = {name: event[name] for name in NOTHING}
            assert view != self.views[event["participantId"]], "no event that changes nothing"
            assert event["previous"] == self.views[event["participantId"]]["state"]
            self.views[event["participantId"]] = view

    # What must be so.

    @invariant()
    def what_is_answered_and_heard_is_what_the_table_says(self) -> None:
        if not hasattr(self, "world"):
            return
        answers = self.world.call("media_state", ["s1"])
        assert set(answers) == self.here
        for user, answer in answers.items():
            assert {name: answer[name] for name in NOTHING} == self.views[user]
            given, claim = self.reported.get(user, ((0, 0, 0), None))
            connections, sends, receives = self.clamped(user)
            assert (answer["connections"], answer["sendStreams"], answer["recvStreams"]) == (
                connections,
                sends,
                receives,
            )
            assert (answer["state"], answer["claimed"]) == (self.state(user), claim)
            found = answer["anomalies"]
            assert ("counter_below_zero" in found) == (min(given) < 0)
            assert ("streams_while_alone" in found) == (connections < 2 and sends + receives > 0)
            assert ("claim_differs" in found) == (claim not in (None, answer["state"]))
            if self.quiet_seconds > 6:
                assert ("peers_disagree" in found) == (user in self.at_odds())
        assert self.world.all_acknowledged

    def at_odds(self) -> set[str]:
        seen = {user: self.clamped(user)[0] for user in self.here if user in self.reported}
        seen = {user: count for user, count in seen.items() if count}
        often = {count: list(seen.values()).count(count) for count in seen.values()}
        if len(often) < 2:
            return set()
        usual = [count for count, many in often.items() if many == max(often.values())]
        return {user for user, count in seen.items() if len(usual) > 1 or count != usual[0]}


def test_any_story_of_media_obeys_the_table() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Story,
        settings=settings(
            max_examples=80,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

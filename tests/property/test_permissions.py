"""Hypothesis writes a story of a call. Each endpoint hears its own view and, of others, only what admins may hear."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.unit.world import World, told

USERS = ("ann", "bob", "cid")
MEDIA = ("AUDIO", "VIDEO")
ROOMS = ("", "r1")
DEVICES = {"AUDIO": "isAudioEnabled", "VIDEO": "isVideoEnabled"}

users = st.sampled_from(USERS)
rooms = st.sampled_from(ROOMS)
media = st.lists(st.sampled_from(MEDIA), unique=True)
states = st.dictionaries(st.sampled_from(MEDIA), st.sampled_from(("UNMUTE", "MUTE", "MUTE_PERMANENT")), min_size=1)
flags = st.booleans()


class Story(RuleBasedStateMachine):
    """``call``, ``own``, ``once``, ``roles`` and ``rooms`` are a model of a few lines; ``views`` is what was heard."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.call: dict[tuple[str, str], str] = {}
        self.own: dict[tuple[str, str], str] = {}
        self.once: set[tuple[str, str]] = set()
        self.roles: set[str] = set()
        self.rooms = dict.fromkeys(USERS, "")
        self.here = set(USERS)
        self.views: dict[str, dict[str, Any]] = {}
        for user in USERS:
            self.world.register(user, user, 86_400)
        self.world.join("s1", *USERS)

    # What happens.

    @rule(given=states, room=rooms, author=st.none() | users)
    def all_are_muted(self, given: dict[str, str], room: str, author: str | None) -> None:
        heard = self.say("permissions", muteAll=True, muteStates=given, roomId=room or None, adminId=author)
        if author not in (None, *self.here) or not self.here:
            return
        assert set(heard) <= {user for user in self.here if self.rooms[user] == room}
        self.call.update({(room, medium): to for medium, to in given.items()})

    @rule(given=states, user=users, grants=media, unmute=flags)
    def one_is_muted(self, given: dict[str, str], user: str, grants: list[str], unmute: bool) -> None:
        heard = self.say("permissions", userId=user, muteStates=given, unmuteOptions=grants, unmute=unmute)
        if user not in self.here:
            return
        assert set(heard) <= {user, *self.roles}
        self.own.update({(user, medium): to for medium, to in given.items()})
        if grants:
            self.once = {grant for grant in self.once if grant[0] != user} | {(user, medium) for medium in grants}

    @rule(asked=st.lists(st.sampled_from(MEDIA), unique=True, min_size=1), user=users, everybody=flags, room=rooms)
    def attention(self, asked: list[str], user: str, everybody: bool, room: str) -> None:
        self.say(f"permissions/{user}", muteAll=everybody, requestedMedia=asked, roomId=room or None)
        if user in self.here:
            concerned = [each for each in self.here if self.rooms[each] == room] if everybody else [user]
            self.once.update((each, medium) for each in concerned for medium in asked)

    @rule(user=users, on=st.dictionaries(st.sampled_from(MEDIA), flags, min_size=1))
    def devices(self, user: str, on: dict[str, bool]) -> None:
        heard = self.say(f"participants/{user}/status", mediaSettings={DEVICES[medium]: on[medium] for medium in on})
        if user in self.here:
            assert set(heard) <= {user, *self.roles}
            self.once -= {(user, medium) for medium, is_on in on.items() if is_on}

    @rule(user=users, role=st.none() | st.sampled_from(("CREATOR", "ADMIN")))
    def role(self, user: str, role: str | None) -> None:
        heard = self.say(f"participants/{user}/status", roles=[role] if role else [])
        if user in self.here:
            self.roles = self.roles | {user} if role else self.roles - {user}
            assert set(heard) <= {user, *self.roles}

    @rule(user=users, room=rooms)
    def room(self, user: str, room: str) -> None:
        self.say(f"participants/{user}/status", roomId=room or None)
        if user in self.here:
            self.rooms[user] = room

    @rule(user=users)
    def leaves_or_comes_back(self, user: str) -> None:
        before = len(self.world.broker.outputs)
        if user in self.here:
            self.world.leave("s1", user)
            self.here.discard(user)
            self.views.pop(user, None)
            self.rooms[user] = ""
        else:
            self.world.join("s1", user)
            self.here.add(user)
        self.hear(told(self.world.broker.outputs[before:]))

    # What is heard.

    def say(self, topic: str, **fields: Any) -> dict[str, list[Any]]:
        return self.hear(self.world.say(f"sessions/s1/{topic}", fields))

    def hear(self, heard: dict[str, list[Any]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for endpoint, events in heard.items():
            for event in events:
                if event["type"] not in ("CallPermissionsChangedEvent", "MediaAttentionRequestedEvent"):
                    continue
                found.setdefault(endpoint, []).append(event)
                if event.get("kind") == "participant":
                    assert event["participantId"] != endpoint
                    continue
                assert event["participantId"] == endpoint, "nobody hears another's view"
                if "media" in event:
                    self.hear_own(endpoint, event)
        return found

    def hear_own(self, user: str, event: dict[str, Any]) -> None:
        before = self.views.get(user)
        assert set(event["previous"]) == set(event["changed"]) >= set(event["devicesOff"])
        assert event["changed"] or event["kind"] == "global" or event["cause"] == "joined", "it changes something"
        if before is not None:
            differing = {medium for medium in before if before[medium] != event["media"][medium]}
            assert differing <= set(event["changed"])
            assert set(event["changed"]) <= differing | set(event["devicesOff"])
        self.views[user] = event["media"]

    # What must be so.

    @invariant()
    def what_is_answered_and_heard_is_what_the_predicate_says(self) -> None:
        if not hasattr(self, "world"):
            return
        answers = self.world.call("call_permissions", ["s1"])
        assert set(answers) == self.here
        for user in self.here:
            shown = answers[user]["media"]
            for medium in MEDIA:
                locks = self.call.get((self.rooms[user], medium)), self.own.get((user, medium))
                once = (user, medium) in self.once
                is_unlocked = user in self.roles or "MUTE_PERMANENT" not in locks or once
                assert (shown[medium]["unlocked"], shown[medium]["once"]) == (is_unlocked, once)
                strictest = next((to for to in ("MUTE_PERMANENT", "MUTE") if to in locks), "UNMUTE")
                assert shown[medium]["state"] == ("MUTE" if user in self.roles and strictest != "UNMUTE" else strictest)
            # Who has heard nothing yet may do everything.
            assert self.views.get(user, dict.fromkeys(shown, _OPEN)) == shown
        assert self.world.all_acknowledged


_OPEN = {"state": "UNMUTE", "once": False, "unlocked": True}


def test_any_story_of_permissions_obeys_the_predicate() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Story,
        settings=settings(
            max_examples=80,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

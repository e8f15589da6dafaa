"""Hypothesis writes a story of presence, sessions, endpoints and time; oracles of a few lines judge it."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from bridge.domain import sessions as sessions_of_the_house
from bridge.domain.changes import due_ms
from bridge.domain.endpoints import timing
from bridge.domain.ids import parse_key
from bridge.domain.records import Record, Session, Subject, Watchers
from bridge.domain.rules import Rules
from bridge.domain.subjects import is_online
from bridge.domain.values import Output
from tests.unit.world import Message, RpcError, World, message

SUBJECTS = tuple((kind, name) for kind in ("user", "device") for name in ("ann", "bob", "lamp"))
ENDPOINTS = ("e1", "e2", "e3", "e4")
SESSIONS = ("s1", "s2", "s3")
WATCHED = ("*", "user:*", "device:*", "user:ann", "device:lamp", "participant:x")
TYPES: dict[str, type[Record]] = {
    **dict.fromkeys(("user", "participant", "device"), Subject),
    "session": Session,
    "watchers": Watchers,
}

subjects = st.sampled_from(SUBJECTS)
sessions = st.sampled_from(SESSIONS)
endpoints = st.sampled_from(ENDPOINTS)
members = st.lists(subjects, max_size=4, unique=True)
connections = st.sampled_from(("", "", "c1", "c2"))
watches = st.none() | st.lists(st.sampled_from(WATCHED), max_size=3)
ago_seconds = st.none() | st.integers(0, 20)


def lists_of(role: str, given: list[tuple[str, str]]) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for kind, name in given:
        lists.setdefault(f"{role}{kind.capitalize()}s", []).append(name)
    return lists


class Story(RuleBasedStateMachine):
    """One bridge over the model; what each step published is checked against the records before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.online: dict[tuple[str, str], set[str]] = {subject: set() for subject in SUBJECTS}
        self.kept_ms: dict[str, int] = {}  # endpoint -> the registry clock of its last sign of life
        self.versions: dict[str, int] = {}
        self.ids: set[str] = set()
        self.runs = 1
        self.chunks = pytest.MonkeyPatch()

    def teardown(self) -> None:
        self.chunks.undo()

    @initialize(
        from_endpoints=st.booleans(),
        grace_ms=st.sampled_from((0, 3000)),
        lease_ms=st.sampled_from((0, 0, 15_000)),
        session_ms=st.sampled_from((30_000, 12 * 3_600_000)),
        chunk=st.sampled_from((1, 200)),
    )
    def begin(self, from_endpoints: bool, grace_ms: int, lease_ms: int, session_ms: int, chunk: int) -> None:
        self.chunks.setattr(sessions_of_the_house, "STOP_CHUNK", chunk)
        self.chunks.setattr(sessions_of_the_house, "TOLD_CHUNK", chunk)
        rules = Rules(
            from_endpoints=from_endpoints,
            grace_ms=grace_ms,
            lease_ms=lease_ms,
            session_ms=session_ms,
            tombstone_ms=40_000,
            maximum_connections=2,
            maximum_per_subject=3,
            maximum_members=4,
        )
        self.world = World(rules, registry_topics=True)

    # What happens.

    @property
    def clock_ms(self) -> int:
        registry = self.world.registry
        assert registry.tick_ms is not None
        return registry.clock_ms + min(registry.now_ms - registry.tick_ms, 2000)

    def time_of(self, ago: int | None) -> dict[str, Any]:
        return {} if ago is None else {"timestamp": self.world.registry.now_ms - ago * 1000}

    def step(self, *messages: Message) -> list[Output]:
        before = self.records()
        outputs = told(self.world.feed(*messages))
        self.judge(before, outputs)
        return outputs

    @rule(subject=subjects, connection=connections, online=st.booleans(), ago=ago_seconds, twice=st.booleans())
    def presence(self, subject: tuple[str, str], connection: str, online: bool, ago: int | None, twice: bool) -> None:
        kind, name = subject
        kept = self.records().get(f"{kind}:{name}", Subject())
        assert isinstance(kept, Subject)
        payload = {"type": f"{kind.upper()}_{'' if online else 'DIS'}CONNECTED", **self.time_of(ago)}
        if connection:
            payload["connectionId"] = connection
        one = message(f"presence/{kind}s/{name}", payload)
        self.step(*[one] * (1 + twice))
        held = self.online[subject]
        present = kept.connections.get(connection)
        if online and (connection in held or len(held) < 2):
            held.add(connection)
        late = not connection and present is not None and ago is not None
        if not online and not (late and self.world.registry.now_ms - (ago or 0) * 1000 < present.since_ms):  # type: ignore[union-attr]
            held.discard(connection)

    @rule(subject=subjects, value=st.integers(0, 2), ago=ago_seconds)
    def status(self, subject: tuple[str, str], value: int, ago: int | None) -> None:
        kind, name = subject
        document: object = value if ago is None else {"status": value, **self.time_of(ago)}
        self.step(message(f"presence/{kind}s/{name}/status", document))

    @rule(session=sessions, given=members, ago=ago_seconds)
    def join(self, session: str, given: list[tuple[str, str]], ago: int | None) -> None:
        fields = {"type": "JoinSessionEvent", **lists_of("session", given), **self.time_of(ago)}
        self.step(message(f"sessions/{session}", fields))

    @rule(session=sessions, given=members)
    def leave(self, session: str, given: list[tuple[str, str]]) -> None:
        self.step(message(f"sessions/{session}", {"type": "LeaveSessionEvent", **lists_of("leaving", given)}))

    @rule(session=sessions, subject=subjects, answer=st.integers(0, 4))
    def reply(self, session: str, subject: tuple[str, str], answer: int) -> None:
        fields = {"type": "JoinSessionReplyEvent", f"{subject[0]}Uuid": subject[1], "joinReply": answer}
        self.step(message(f"sessions/{session}", fields))

    @rule(session=sessions, ago=ago_seconds)
    def stop(self, session: str, ago: int | None) -> None:
        self.step(message(f"sessions/{session}", {"type": "StopSessionEvent", **self.time_of(ago)}))

    @rule(subject=subjects, endpoint=endpoints, seconds=st.integers(1, 30), reminder=st.booleans(), watch=watches)
    def register(
        self, subject: tuple[str, str], endpoint: str, seconds: int, reminder: bool, watch: list[str] | None
    ) -> None:
        params = [subject[1], seconds, reminder, endpoint, subject[0], watch]
        before = self.records()
        start = len(self.world.broker.outputs)
        try:
            self.world.call("register_endpoint", params)
        except RpcError as error:
            assert error.code in ("conflict", "quota_exceeded")  # noqa: PT017  (a refusal is one of two right ends)
        else:
            self.kept_ms[endpoint] = self.clock_ms
        self.judge(before, self.world.broker.outputs[start:])

    @rule(endpoint=endpoints)
    def keepalive(self, endpoint: str) -> None:
        self.step(message(f"users/endpoints/{endpoint}/keepalive", qos=0))
        if endpoint in self.endpoints():
            self.kept_ms[endpoint] = self.clock_ms

    @rule(endpoint=endpoints)
    def unregister(self, endpoint: str) -> None:
        self.kept_ms.pop(endpoint, None)
        self.step(message("rpc/unregister_endpoint", [endpoint]))

    @rule(endpoint=endpoints, watch=st.lists(st.sampled_from(WATCHED), max_size=3))
    def watch(self, endpoint: str, watch: list[str]) -> None:
        self.step(message("rpc/watch_endpoint", [endpoint, watch]))

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.registry.now_ms += 1000
            self.look_at_the_clock()

    @rule(seconds=st.sampled_from((3, 60, 86_400)))
    def outage(self, seconds: int) -> None:
        self.world.registry.now_ms += seconds * 1000
        self.look_at_the_clock()

    @rule()
    def the_bridge_starts_anew(self) -> None:
        self.runs += 1
        self.world = self.world.restarted(instance=f"i{self.runs}", registry_topics=True)

    def look_at_the_clock(self) -> None:
        before = self.records()
        start = len(self.world.broker.outputs)
        self.world.tick()
        outputs = told(self.world.broker.outputs[start:])
        self.judge(before, outputs)
        resumed_ms = self.world.registry.resumed_ms
        for output in outputs:
            event = json.loads(output.payload)
            if event["type"] != "UserEndpointExpiredEvent":
                continue
            name = event["userEndpointId"]
            [held] = [
                one.endpoints[name] for one in before.values() if isinstance(one, Subject) and name in one.endpoints
            ]
            assert held.renewed_ms == self.kept_ms[name]
            alive_ms = max(held.renewed_ms, resumed_ms) + held.keep_alive_seconds * 1000
            assert self.world.registry.clock_ms >= alive_ms
        for subject in SUBJECTS:  # leases end connections
            record = self.records().get(":".join(subject), Subject())
            assert isinstance(record, Subject)
            assert set(record.connections) <= self.online[subject]
            if not self.world.rules.lease_ms:
                assert set(record.connections) == self.online[subject]
            self.online[subject] = set(record.connections)

    # The oracles.

    def records(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for key in self.world.stored():
            stored = self.world.registry.organizations["default"][key]
            assert isinstance(stored, bytes)
            found[key] = msgspec.json.decode(stored.split(b":", 2)[2], type=TYPES[key.partition(":")[0]])
        return found

    def endpoints(self) -> dict[str, tuple[str, Subject]]:
        return {
            name: (key, record)
            for key, record in self.records().items()
            if isinstance(record, Subject)
            for name in record.endpoints
        }

    def judge(self, before: dict[str, Record], outputs: list[Output]) -> None:
        after = self.records()
        told: set[tuple[str, str]] = set()
        presence: dict[str, list[dict[str, Any]]] = {}
        seen: dict[str, dict[str, Any]] = {}
        for output in outputs:
            if not output.event_id:
                continue
            event = json.loads(output.payload)
            assert event["id"] == output.event_id
            endpoint = output.topic.rpartition("/")[2]
            assert (endpoint, event["id"]) not in told, "nobody is told twice"
            told.add((endpoint, event["id"]))
            self.is_meant(endpoint, event, before, after)
            if event["id"] in seen:
                assert event == seen[event["id"]], "one event, one content"
                continue
            assert event["id"] not in self.ids, "an id is used once"
            seen[event["id"]] = event
            about = event["about"].replace("/", ":")
            if about in before or about in after:  # else it is a relay about a session that nobody knows
                last = self.versions.get(event["about"], 0)
                # One change may be two facts: that an endpoint ended, and that its subject is offline by it.
                beside = event["type"].endswith("PresenceChangedEvent") and self.world.rules.from_endpoints
                assert event["version"] > last - beside, "versions rise"
                self.versions[event["about"]] = event["version"]
            if event["type"].endswith("PresenceChangedEvent"):
                presence.setdefault(event["about"].replace("/", ":"), []).append(event)
        self.ids |= set(seen)
        for key, events in presence.items():
            was, now = self.looks(before.get(key)), self.looks(after.get(key))
            steps = [was, *((event["online"], event["busy"]) for event in events)]
            assert all(one != next_one for one, next_one in pairwise(steps)), "no news, no event"
            assert steps[-1] == now
        for key in (before.keys() | after.keys()) - presence.keys():
            if self.looks(before.get(key)) != self.looks(after.get(key)):
                assert not self.would_hear(key, after), f"{key} changed, and its own endpoints were not told"

    def looks(self, record: Record | None) -> tuple[bool, bool]:
        if not isinstance(record, Subject):
            return False, False
        return is_online(record, self.world.rules), bool(record.sessions)

    def would_hear(self, key: str, after: dict[str, Record]) -> bool:
        record = after.get(key)
        wide = after.get("watchers", Watchers())
        assert isinstance(wide, Watchers)
        kind = key.partition(":")[0]
        return isinstance(record, Subject) and bool(
            record.endpoints or record.watchers or wide.names.get("*") or wide.names.get(f"{kind}:*")
        )

    def is_meant(
        self, endpoint: str, event: dict[str, Any], before: dict[str, Record], after: dict[str, Record]
    ) -> None:
        """Whoever is told is of some audience: by itself, by what it watches, or by a common session."""
        if event.get("userEndpointId") == endpoint:
            return
        holders = [
            (key, record.endpoints[endpoint], record)
            for state in (before, after)
            for key, record in state.items()
            if isinstance(record, Subject) and endpoint in record.endpoints
        ]
        assert holders, "an endpoint that nobody holds is told only of itself"
        about = event["about"].replace("/", ":")
        kind = about.partition(":")[0]
        if event["type"].endswith("SessionEvent") or event["type"] == "JoinSessionReplyEvent":
            named = {
                f"{field.removeprefix(role).lower()[:-1]}:{name}"
                for role in ("session", "leaving")
                for field, names in event.items()
                if field.startswith(role) and isinstance(names, list)
                for name in names
            }
            for state in (before, after):
                session = state.get(about, Session())
                assert isinstance(session, Session)
                named |= set(session.members)
            assert any(key in named for key, _, _ in holders)
            return
        by_watch = any({about, f"{kind}:*", "*"} & set(held.watch) for _, held, _ in holders)
        own = any(key == about for key, _, _ in holders)
        if event["type"].startswith("UserEndpoint"):
            assert own
            return
        # A common session: it was in it before or is now, and so is who is told.
        common = any(
            about in both and any(key in both for key, _, _ in holders)
            for both in (_members(before, session) | _members(after, session) for session in SESSIONS)
        )
        assert own or by_watch or common

    @invariant()
    def indexes_and_deadlines_say_what_the_records_say(self) -> None:
        if not hasattr(self, "world"):
            return
        rules, registry = self.world.rules, self.world.registry
        values = registry.organizations.get("default", {})
        records = self.records()
        online, busy = set(), set()
        deadlines = self.world.deadlines()
        for key, record in records.items():
            due = due_ms(key, record, rules, registry.resumed_ms)
            if due is None:
                assert key not in deadlines
            else:  # one filed before a pause comes up early, and is filed anew then; never late
                assert deadlines[key] <= due
                assert deadlines[key] == due or registry.resumed_ms
            if isinstance(record, Subject):
                if is_online(record, rules):
                    online.add(key)
                if record.sessions:
                    busy.add(key)
        assert set(deadlines) <= set(records)
        for index, expected in (("online", online), ("busy", busy)):
            found = {
                f"{name.partition(':')[2]}:{member}"
                for name, members in values.items()
                if name.startswith(f"{index}:")
                for member in (members if isinstance(members, dict) else ())
            }
            assert found == expected

    @invariant()
    def registry_topics_show_the_records(self) -> None:
        if not hasattr(self, "world"):
            return
        expected: dict[str, tuple[bool, bool, Any]] = {}
        for key, record in self.records().items():
            if isinstance(record, Subject) and msgspec.structs.replace(record, watchers={}) != Subject():
                kind, name = parse_key(key)
                status = json.loads(bytes(record.status) or b"null")
                expected[f"registry/{kind}s/{name}"] = (
                    is_online(record, self.world.rules),
                    bool(record.sessions),
                    status,
                )
        shown = {topic: json.loads(payload) for topic, payload in self.world.retained.items()}
        assert {topic: (one["online"], one["busy"], one["status"]) for topic, one in shown.items()} == expected

    @invariant()
    def presence_is_the_set_of_connections_and_busy_the_set_of_sessions(self) -> None:
        if not hasattr(self, "world"):
            return
        records = self.records()
        for subject in SUBJECTS:
            record = records.get(":".join(subject), Subject())
            assert isinstance(record, Subject)
            assert set(record.connections) == self.online[subject]
            assert set(record.sessions) == {
                parse_key(key)[1]
                for key, session in records.items()
                if isinstance(session, Session) and ":".join(subject) in session.members
            }

    @invariant()
    def owners_and_watchers_match_the_endpoints(self) -> None:
        if not hasattr(self, "world"):
            return
        records, held = self.records(), self.endpoints()
        assert {name: f"{owner.kind}:{owner.subject}" for name, owner in self.world.registry.owners.items()} == {
            name: key for name, (key, _) in held.items()
        }
        wanted = {
            (watched, name, key) for name, (key, record) in held.items() for watched in record.endpoints[name].watch
        }
        wide = records.get("watchers", Watchers())
        assert isinstance(wide, Watchers)
        found = {(watched, name, owner) for watched, ones in wide.names.items() for name, owner in ones.items()}
        for key, record in records.items():
            if isinstance(record, Subject):
                found |= {(key, name, owner) for name, owner in record.watchers.items()}
        assert found == wanted

    @invariant()
    def nothing_that_is_due_was_passed_over_and_everything_is_acknowledged(self) -> None:
        if not hasattr(self, "world"):
            return
        clock_ms, resumed_ms = self.world.registry.clock_ms, self.world.registry.resumed_ms
        for name, (_, record) in self.endpoints().items():
            assert timing(name, record.endpoints[name], self.world.rules, resumed_ms).next_ms > clock_ms
        assert self.world.all_acknowledged


def told(outputs: list[Output]) -> list[Output]:
    """What goes to endpoints and callers; registry topics have an oracle of their own."""
    return [output for output in outputs if not output.retain]


def _members(records: dict[str, Record], session: str) -> set[str]:
    record = records.get(f"session:{session}", Session())
    assert isinstance(record, Session)
    return set(record.members)


def test_any_story_obeys_the_rules() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Story,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

"""Hypothesis writes a story of commits, claims and reads; the model and Valkey must tell it alike."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from bridge.adapters.memory import MemoryRegistry
from bridge.domain.values import Claim, Commit, Committed, Owner, Page, Want, Write
from tests.contract.conftest import OnRedis
from tests.servers import RedisServer

Result = TypeVar("Result")

ORGANIZATIONS = ("default", "acme")
KEYS = ("user:ann", "user:bob", "session:s", "room:%7Br%7D")
MEMBERS = ("ann", "bob", "ä", "中", "\U0001f600")
INDEXES = ("online:user", "busy:user")
OWNERS = (None, Owner("default", "user", "ann", 1), Owner("acme", "device", "lamp", 2))

organizations = st.sampled_from(ORGANIZATIONS)
versions = st.integers(0, 6)
texts = st.one_of(st.none(), st.integers(1, 12).map(lambda version: b"%d:1:{}" % version))
writes = st.lists(
    st.builds(Write, st.sampled_from(KEYS), versions, texts), max_size=3, unique_by=lambda write: write.key
)
members = st.dictionaries(
    st.sampled_from(INDEXES), st.dictionaries(st.sampled_from(MEMBERS), st.booleans(), max_size=4), max_size=2
)
deadlines = st.dictionaries(st.sampled_from(KEYS), st.one_of(st.none(), st.integers(0, 4000)), max_size=3)
checks = st.dictionaries(st.sampled_from(KEYS), versions, max_size=1)
claims = st.builds(Claim, st.sampled_from(("e1", "e2")), st.sampled_from(OWNERS), st.sampled_from(OWNERS))


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("valkey"), "valkey", fsync="no") as running:
        yield running


def test_the_model_and_valkey_agree(valkey: RedisServer) -> None:
    class Story(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.real = OnRedis(valkey)
            self.real.client.flushall()
            self.model = MemoryRegistry(bridge="test/1")
            self.last: Commit | None = None
            self.entries: dict[str, dict[str, str]] = {name: {} for name in ORGANIZATIONS}  # the model's -> the real
            self.run(self.real.registry.open())

        def run(self, waited: Coroutine[Any, Any, Result]) -> Result:
            return self.loop.run_until_complete(waited)

        def teardown(self) -> None:
            self.run(self.real.registry.close())
            self.real.client.close()
            self.loop.close()

        def known(self, organization: str, key: str, guess: int) -> int:
            """Mostly the true version, so that many commits take."""
            stored = self.model.organizations.get(organization, {}).get(key)
            truth = int(stored.partition(b":")[0]) if isinstance(stored, bytes) and b":" in stored else 0
            return truth if guess < 5 else guess

        def commit_both(self, commit: Commit) -> None:
            mine, theirs = self.run(self.model.commit(commit)), self.run(self.real.registry.commit(commit))
            if isinstance(mine, Committed) and isinstance(theirs, Committed):
                assert (mine.entry is None) == (theirs.entry is None)
                if mine.entry and theirs.entry:
                    self.entries[commit.organization][mine.entry] = theirs.entry
            else:
                assert mine == theirs
            self.last = commit

        @rule(
            organization=organizations,
            writes=writes,
            checks=checks,
            floor=st.integers(0, 8),
            members=members,
            deadlines=deadlines,
            unclaimed=st.lists(st.sampled_from(("e1", "e2")), max_size=1),
            journal=st.one_of(st.none(), st.binary(min_size=1, max_size=20)),
            token=st.integers(0, 10_000),
        )
        def commit(
            self, organization: str, writes: list[Write], checks: dict[str, int], token: int, **rest: Any
        ) -> None:
            true_writes = [
                replace(write, expected=self.known(organization, write.key, write.expected)) for write in writes
            ]
            true_checks = {key: self.known(organization, key, guess) for key, guess in checks.items()}
            self.commit_both(Commit(organization, f"token {token}", true_writes, true_checks, **rest))

        @rule()
        def ask_again(self) -> None:
            if self.last is not None:
                self.commit_both(self.last)

        @rule(wanted=st.lists(claims, max_size=4))
        def claim(self, wanted: list[Claim]) -> None:
            assert self.run(self.model.claim(wanted)) == self.run(self.real.registry.claim(wanted))

        @rule(organization=organizations, count=st.integers(1, 3))
        def settle(self, organization: str, count: int) -> None:
            done = list(self.entries[organization])[:count]
            self.run(self.model.settle({organization: done}))
            self.run(
                self.real.registry.settle({organization: [self.entries[organization].pop(entry) for entry in done]})
            )

        @rule(organization=organizations, key=st.sampled_from(("user:bob", "session:s")))
        def garble(self, organization: str, key: str) -> None:
            self.real.put(organization, key, b"garbage")
            self.model.organizations.setdefault(organization, {})[key] = b"garbage"

        @rule()
        def cut(self) -> None:
            self.real.client.client_kill_filter(_type="normal", skipme=True)

        @rule()
        def forget_scripts(self) -> None:
            self.real.client.script_flush()

        @invariant()
        def the_same_is_read(self) -> None:
            pages = [Page(index, after, limit) for index in INDEXES for after, limit in (("", 10), ("ann", 2), ("", 1))]
            wants = {name: Want(list(KEYS), pages) for name in ORGANIZATIONS}
            mine = self.run(self.model.load(wants, ["e1", "e2"]))
            theirs = self.run(self.real.registry.load(wants, ["e1", "e2"]))
            assert mine.organizations == theirs.organizations
            assert mine.owners == theirs.owners

        @invariant()
        def the_same_is_kept(self) -> None:
            mine = [(name, self.entries[name][entry], *rest) for name, entry, *rest in self.run(self.model.journal())]
            assert mine == self.run(self.real.registry.journal())

        @rule()
        def everything_due(self) -> None:
            self.model.clock_ms = 2000
            self.real.client.hset("eb:clock", "clock_ms", 2000)
            assert self.run(self.model.due(5)) == self.run(self.real.registry.due(5))

    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=30,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

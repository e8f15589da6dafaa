"""What every registry does, the model and the real ones alike."""

import asyncio

import pytest

from bridge.adapters.memory import MemoryRegistry
from bridge.adapters.registry import RedisRegistry
from bridge.domain.values import Claim, Commit, Committed, Conflict, Corrupt, Kept, Owner, Page, Want, Write
from bridge.errors import LeaseLost
from tests.contract.conftest import Subject

Registry = MemoryRegistry | RedisRegistry
ORG = "default"


def text(version: int, body: str = "{}") -> bytes:
    return f"{version}:1:{body}".encode()


def commit(token: str, *writes: Write, organization: str = ORG, **rest: object) -> Commit:
    return Commit(organization, token, list(writes), **rest)  # type: ignore[arg-type]


def created(key: str, version: int = 5) -> Write:
    return Write(key, 0, text(version))


async def records(registry: Registry, *keys: str, organization: str = ORG) -> dict[str, bytes | None]:
    return (await registry.load({organization: Want(list(keys))})).organizations[organization].records


async def page(registry: Registry, members: str, after: str | None = "", limit: int = 100) -> list[str]:
    asked = Page(members, after, limit)
    return (await registry.load({ORG: Want(pages=[asked])})).organizations[ORG].pages[asked]


async def floor(registry: Registry) -> int:
    return (await registry.load({ORG: Want()})).organizations[ORG].floor


class TestLoad:
    async def test_nothing_is_there_at_first(self, registry: Registry) -> None:
        asked = Page("online:user", "", 10)
        loading = await registry.load({ORG: Want(["user:ann"], [asked]), "other": Want()}, ["ann1"])
        assert loading.organizations[ORG].records == {"user:ann": None}
        assert loading.organizations[ORG].pages == {asked: []}
        assert loading.organizations[ORG].floor == loading.organizations["other"].floor == 0
        assert loading.owners == {"ann1": None}
        assert loading.moment.now_ms > 1_600_000_000_000
        assert (loading.moment.clock_ms, loading.moment.resumed_ms) == (0, 0)

    async def test_organizations_are_apart(self, registry: Registry) -> None:
        await registry.commit(commit("1", created("user:ann", 5)))
        await registry.commit(commit("1", created("user:ann", 7), organization="acme"))
        both = await registry.load({ORG: Want(["user:ann"]), "acme": Want(["user:ann"]), "none": Want(["user:ann"])})
        assert [both.organizations[name].records["user:ann"] for name in (ORG, "acme", "none")] == [
            text(5),
            text(7),
            None,
        ]

    async def test_a_key_of_the_wrong_type_reads_as_absent(self, subject: Subject) -> None:
        for key in ("user:ann", "online:user", "bridges"):
            subject.spoil(ORG, key)
        loaded = (await subject.registry.load({ORG: Want(["user:ann"], [Page("online:user", "", 9)])})).organizations[
            ORG
        ]
        assert (loaded.records, loaded.floor) == ({"user:ann": None}, 0)
        assert list(loaded.pages.values()) == [[]]


class TestCommit:
    async def test_creates_changes_and_deletes(self, registry: Registry) -> None:
        assert await registry.commit(commit("1", created("user:ann"), created("user:bob"))) == Committed(None)
        assert await registry.commit(
            commit("2", Write("user:ann", 5, text(6)), Write("user:bob", 5, None))
        ) == Committed(None)
        assert await records(registry, "user:ann", "user:bob") == {"user:ann": text(6), "user:bob": None}

    @pytest.mark.parametrize(
        "write",
        [
            Write("user:ann", 4, text(9)),
            Write("user:ann", 0, text(9)),
            Write("user:bob", 5, text(9)),
            Write("user:bob", 5, None),
        ],
        ids=["changed", "created", "gone", "gone-too"],
    )
    async def test_another_version_conflicts_and_nothing_is_written(self, registry: Registry, write: Write) -> None:
        await registry.commit(commit("1", created("user:ann"), members={"online:user": {"ann": True}}))
        changes = {"online:user": {"ann": False, "cay": True}}
        answer = await registry.commit(
            commit("2", created("user:cay"), write, floor=99, members=changes, deadlines={"user:cay": 1}, journal=b"x")
        )
        assert answer == Conflict(write.key)
        assert await records(registry, "user:ann", "user:bob", "user:cay") == {
            "user:ann": text(5),
            "user:bob": None,
            "user:cay": None,
        }
        assert await page(registry, "online:user") == ["ann"]
        assert await floor(registry) == 0
        assert await registry.journal() == []

    async def test_a_version_is_compared_whole(self, registry: Registry) -> None:
        await registry.commit(commit("1", created("user:ann", 55)))
        assert await registry.commit(commit("2", Write("user:ann", 5, text(56)))) == Conflict("user:ann")

    async def test_checks_hold_what_is_only_read(self, registry: Registry) -> None:
        await registry.commit(commit("1", created("user:ann")))
        assert await registry.commit(commit("2", checks={"user:ann": 4})) == Conflict("user:ann")
        assert await registry.commit(commit("3", checks={"user:bob": 5})) == Conflict("user:bob")
        assert await registry.commit(commit("4", checks={"user:ann": 0})) == Conflict("user:ann")
        assert await registry.commit(commit("5", checks={"user:ann": 5, "user:bob": 0})) == Committed(None)

    async def test_a_created_record_starts_above_the_floor(self, registry: Registry) -> None:
        await registry.commit(commit("1", created("user:ann")))
        assert await registry.commit(commit("2", Write("user:ann", 5, None), floor=10)) == Committed(None)
        assert await floor(registry) == 10
        assert await registry.commit(commit("3", created("user:ann", 10))) == Conflict("user:ann")
        assert await registry.commit(commit("4", created("user:ann", 11))) == Committed(None)
        assert await registry.commit(commit("5", Write("user:ann", 11, text(7)))) == Committed(None)

    async def test_the_floor_never_sinks(self, registry: Registry) -> None:
        for token, value in enumerate([10, 9, 0, 11, 2]):
            await registry.commit(commit(str(token), floor=value))
        assert await floor(registry) == 11

    async def test_a_token_asked_again_is_answered_and_not_done_again(self, subject: Subject) -> None:
        registry = subject.registry
        once = commit("1", created("user:ann"), floor=3, journal=b"outputs")
        first = await registry.commit(once)
        assert isinstance(first, Committed)
        assert first.entry
        assert await registry.commit(once) == first
        assert [entry for _, entry, _, _ in await registry.journal()] == [first.entry]
        assert await registry.commit(commit("2", Write("user:ann", 5, text(6)))) == Committed(None)
        assert await registry.commit(commit("2", Write("user:ann", 5, text(6)))) == Committed(None)
        assert await registry.commit(once) == Conflict("user:ann")  # only the last token is remembered
        assert len(subject.tokens(ORG)) == 1

    async def test_a_refused_commit_leaves_its_token_free(self, registry: Registry) -> None:
        await registry.commit(commit("1", created("user:ann")))
        assert await registry.commit(commit("2", Write("user:ann", 4, text(9)))) == Conflict("user:ann")
        assert await registry.commit(commit("2", Write("user:ann", 5, text(9)))) == Committed(None)

    async def test_a_created_text_may_hold_anything(self, registry: Registry) -> None:
        wild = text(5, '{"a":"\N{SNOWMAN}\\u0000\r\n$-1%s"}') + b"\x00\xff"
        await registry.commit(commit("1", Write("user:%7Bann%7D", 0, wild)))
        assert await records(registry, "user:%7Bann%7D") == {"user:%7Bann%7D": wild}

    async def test_many_at_once(self, registry: Registry) -> None:
        keys = [f"user:{number}" for number in range(3000)]
        members = {"online:user": {str(number): True for number in range(3000)}}
        deadlines: dict[str, int | None] = dict.fromkeys(keys, 1)
        answer = await registry.commit(
            commit("1", *map(created, keys), members=members, deadlines=deadlines, journal=b"j")
        )
        assert isinstance(answer, Committed)
        assert set((await records(registry, *keys)).values()) == {text(5)}
        assert len(await page(registry, "online:user", limit=5000)) == 3000
        gone = {"online:user": {str(number): False for number in range(2999)}}
        answer = await registry.commit(
            commit("2", *(Write(key, 5, None) for key in keys), members=gone, deadlines=dict.fromkeys(keys))
        )
        assert answer == Committed(None)
        assert set((await records(registry, *keys)).values()) == {None}
        assert await page(registry, "online:user") == ["2999"]
        await registry.tick()
        assert await registry.due(5000) == []

    async def test_late_conflict_among_many(self, registry: Registry) -> None:
        keys = [f"user:{number}" for number in range(2500)]
        await registry.commit(commit("1", created(keys[2400])))
        assert await registry.commit(commit("2", *map(created, keys))) == Conflict(keys[2400])
        assert (await records(registry, keys[0]))[keys[0]] is None


class TestCorrupt:
    @pytest.mark.parametrize("write", [Write("user:ann", 0, text(9)), Write("user:ann", 5, text(9))])
    async def test_a_record_of_the_wrong_type(self, subject: Subject, write: Write) -> None:
        subject.spoil(ORG, "user:ann")
        assert await subject.registry.commit(commit("1", created("user:bob"), write)) == Corrupt("user:ann")
        assert await subject.registry.commit(commit("1", checks={"user:ann": 0})) == Corrupt("user:ann")
        assert await subject.registry.commit(commit("1", created("user:bob"))) == Committed(None)

    @pytest.mark.parametrize("stored", [b"", b"garbage", b"5", b"5:{}", b"-5:1:{}", b"{}"])
    async def test_a_record_without_version_and_schema(self, subject: Subject, stored: bytes) -> None:
        subject.put(ORG, "user:ann", stored)
        assert await subject.registry.commit(commit("1", Write("user:ann", 6, text(9)))) == Corrupt("user:ann")
        assert await subject.registry.commit(commit("1", created("user:ann"))) == Corrupt("user:ann")

    @pytest.mark.parametrize("key", ["bridges", "deadlines", "online:user", "journal"])
    async def test_a_key_of_the_organization(self, subject: Subject, key: str) -> None:
        subject.spoil(ORG, key)
        whole = commit(
            "1", created("user:ann"), members={"online:user": {"ann": True}}, deadlines={"user:ann": 5}, journal=b"x"
        )
        assert await subject.registry.commit(whole) == Corrupt(key)
        assert await records(subject.registry, "user:ann") == {"user:ann": None}

    async def test_other_organizations_go_on(self, subject: Subject) -> None:
        registry = subject.registry
        for name in (ORG, "acme"):
            await registry.commit(
                commit("1", created("user:ann"), organization=name, deadlines={"user:ann": 1}, journal=b"j")
            )
        await registry.tick()
        subject.spoil(ORG, "deadlines")
        subject.spoil(ORG, "journal")
        assert await registry.due(10) == [("acme", "user:ann")]
        assert [entry[0] for entry in await registry.journal()] == ["acme"]
        await registry.settle({ORG: ["1-1"], "acme": [(await registry.journal())[0][1]]})
        assert await registry.journal() == []


class TestIndexes:
    NAMES = ("ann", "Bob", "bob", "z", "ä", "ж", "中", "\U0001f600", "￿", "%7B", "a b")

    async def test_pages_in_code_point_order(self, registry: Registry) -> None:
        await registry.commit(commit("1", members={"online:user": dict.fromkeys(self.NAMES, True)}))
        everyone = sorted(self.NAMES)
        assert await page(registry, "online:user") == everyone
        paged: list[str] = []
        while found := await page(registry, "online:user", paged[-1] if paged else "", 3):
            paged += found
        assert paged == everyone

    async def test_a_cursor_need_not_be_a_member(self, registry: Registry) -> None:
        await registry.commit(commit("1", members={"online:user": {"a": True, "c": True}}))
        assert await page(registry, "online:user", "b") == ["c"]
        assert await page(registry, "online:user", "c") == []

    async def test_members_come_and_go(self, registry: Registry) -> None:
        await registry.commit(commit("1", members={"online:user": {"a": True, "b": True}, "busy:user": {"a": True}}))
        await registry.commit(commit("2", members={"online:user": {"a": False, "c": True, "x": False}}))
        assert await page(registry, "online:user") == ["b", "c"]
        assert await page(registry, "busy:user", None) == ["a"]
        assert await page(registry, "busy:user") == ["a"]


class TestClock:
    async def test_the_first_tick_starts_it(self, registry: Registry) -> None:
        await registry.tick()
        moment = (await registry.load({})).moment
        assert 1000 <= moment.clock_ms < 1500
        assert moment.resumed_ms == 0

    async def test_it_runs_with_redis_time(self, subject: Subject) -> None:
        await subject.registry.tick()
        await subject.advance(700)
        ahead = (await subject.registry.load({})).moment
        assert 1700 <= ahead.clock_ms < 2200
        await subject.registry.tick()
        await subject.advance(800)
        await subject.registry.tick()
        moment = (await subject.registry.load({})).moment
        assert 2500 <= moment.clock_ms < 3000
        assert moment.resumed_ms == 0

    async def test_a_reader_runs_ahead_two_seconds_at_most(self, subject: Subject) -> None:
        await subject.registry.tick()
        await subject.advance(60_000)
        assert (await subject.registry.load({})).moment.clock_ms == 3000
        await subject.advance(-120_000)
        assert (await subject.registry.load({})).moment.clock_ms == 1000

    @pytest.mark.parametrize("gap_ms", [2500, 86_400_000, -60_000])
    async def test_a_pause(self, subject: Subject, gap_ms: int) -> None:
        await subject.registry.tick()
        await subject.advance(gap_ms)
        before = (await subject.registry.load({})).moment
        await subject.registry.tick()
        after = (await subject.registry.load({})).moment
        assert after.resumed_ms == 3000
        assert before.clock_ms <= after.resumed_ms <= after.clock_ms < 3500

    async def test_a_pause_that_is_said_is_one_however_short(self, subject: Subject) -> None:
        await subject.registry.tick(pause=True)
        assert (await subject.registry.load({})).moment.resumed_ms == 0  # nothing was there to be lost
        await subject.advance(700)
        clock_ms = await subject.registry.tick(pause=True)
        assert 1700 <= clock_ms < 2200
        await subject.registry.tick()
        assert (await subject.registry.load({})).moment.resumed_ms == clock_ms


class TestDeadlines:
    async def test_due_is_what_lies_not_after_the_last_tick(self, subject: Subject) -> None:
        registry = subject.registry
        assert await registry.due(10) == []
        await registry.commit(commit("1", deadlines={"user:late": 1001, "user:ann": 1000, "user:bob": 5}))
        await registry.commit(commit("1", deadlines={"session:s": 7}, organization="acme"))
        assert await registry.due(10) == []
        await registry.tick()
        await subject.advance(900)
        assert await registry.due(10) == [(ORG, "user:bob"), ("acme", "session:s"), (ORG, "user:ann")]
        assert await registry.due(2) == [(ORG, "user:bob"), ("acme", "session:s")]
        await registry.tick()
        assert len(await registry.due(10)) == 4

    async def test_set_again_and_taken_off(self, registry: Registry) -> None:
        await registry.tick()
        await registry.commit(commit("1", deadlines={"user:ann": 1, "user:bob": 1, "user:cay": 1}))
        await registry.commit(commit("2", deadlines={"user:ann": 9_000_000, "user:bob": None, "user:nobody": None}))
        assert await page(registry, "deadlines", None) == ["user:cay", "user:ann"]
        assert await page(registry, "deadlines", None, limit=1) == ["user:cay"]
        assert await registry.due(10) == [(ORG, "user:cay")]


class TestWalk:
    async def walked(self, registry: Registry) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        cursor = ""
        for _ in range(1000):
            cursor, some = await registry.walk(cursor)
            found += some
            if not cursor:
                return found
        raise AssertionError("the walk has no end")

    async def test_nobody_is_there_at_first(self, registry: Registry) -> None:
        assert await registry.walk("") == ("", [])

    async def test_it_comes_by_every_subject_of_every_organization_and_by_nothing_else(
        self, subject: Subject, registry: Registry
    ) -> None:
        ids = [f"user:{number}" for number in range(500)]
        await registry.commit(commit("1", *map(created, (*ids, "session:s", "watchers", "device:a%3Ab")), journal=b"x"))
        members = {"online:user": {"ann": True}, "endpoints": {"e user:ann": True}}
        await registry.commit(
            commit("1", created("participant:p"), organization="acme", members=members, deadlines={"participant:p": 5})
        )
        await registry.claim([Claim("user:x", None, Owner(ORG, "user", "ann", 1))])
        subject.spoil(ORG, "user:spoilt")
        found = set(await self.walked(registry)) - {(ORG, "user:spoilt")}
        assert found == {*((ORG, key) for key in (*ids, "device:a%3Ab")), ("acme", "participant:p")}


class TestJournal:
    async def test_entries_in_order_until_settled(self, registry: Registry) -> None:
        ids = []
        for number in range(250):
            answer = await registry.commit(commit(str(number), journal=b"\x00%d" % number))
            assert isinstance(answer, Committed)
            assert answer.entry
            ids.append(answer.entry)
        other = await registry.commit(commit("x", organization="acme", journal=b"acme"))
        assert isinstance(other, Committed)
        assert other.entry
        kept = await registry.journal()
        assert kept[0] == ("acme", other.entry, "test/1", b"acme")
        assert kept[1:] == [(ORG, entry, "test/1", b"\x00%d" % number) for number, entry in enumerate(ids)]
        await registry.settle({ORG: ids[:249], "acme": [other.entry], "none": ["1-1"], "empty": []})
        assert [entry for _, entry, _, _ in await registry.journal()] == ids[249:]
        await registry.settle({})


async def test_a_record_that_is_written_and_checked_must_be_as_both_say(registry: Registry) -> None:
    mine = commit("1", Write("user:ann", 5, None), checks={"user:ann": 0})
    assert await registry.commit(mine) == Conflict("user:ann")


class TestWindows:
    """A commit that names the window of its loads is taken, or not, as one that does not."""

    async def window(self, registry: Registry, *keys: str) -> int:
        return (await registry.load({ORG: Want(list(keys))})).window

    async def test_one_that_nobody_came_between(self, registry: Registry) -> None:
        for version in range(5):
            window = await self.window(registry, "user:ann", "watchers")
            expected = version + 4 if version else 0
            change = Write("user:ann", expected, text(version + 5))
            assert isinstance(
                await registry.commit(commit(str(version), change, checks={"watchers": 0}, window=window)), Committed
            )
        assert await records(registry, "user:ann") == {"user:ann": text(9)}

    async def test_another_bridge_came_between(self, subject: Subject, registry: Registry) -> None:
        await registry.commit(commit("1", created("user:ann"), created("user:bob")))
        window = await self.window(registry, "user:ann", "user:bob")
        other = subject.other("other/1")
        assert isinstance(await other.commit(commit("x", Write("user:ann", 5, text(6)))), Committed)
        mine = commit("2", Write("user:ann", 5, text(7)), checks={"user:bob": 5}, window=window)
        assert await registry.commit(mine) == Conflict("user:ann")
        mine = commit("3", Write("user:bob", 5, text(7)), window=window)
        assert isinstance(await registry.commit(mine), Committed)
        assert await records(registry, "user:ann", "user:bob") == {"user:ann": text(6), "user:bob": text(7)}

    async def test_it_ends_with_a_commit(self, registry: Registry) -> None:
        window = await self.window(registry, "user:ann")
        assert isinstance(await registry.commit(commit("1", created("user:ann"), window=window)), Committed)
        late = commit("2", Write("user:ann", 4, text(6)), window=window)
        assert await registry.commit(late) == Conflict("user:ann")
        other = commit("3", created("user:ann"), organization="acme", window=window)
        assert isinstance(await registry.commit(other), Committed)

    async def test_what_reads_as_absent_is_looked_at(self, subject: Subject, registry: Registry) -> None:
        subject.spoil(ORG, "user:ann")
        subject.spoil(ORG, "watchers")
        window = await self.window(registry, "user:ann", "watchers")
        assert await registry.commit(commit("1", created("user:ann"), window=window)) == Corrupt("user:ann")
        window = await self.window(registry, "user:bob", "watchers")
        mine = commit("1", created("user:bob"), checks={"watchers": 0}, window=window)
        assert await registry.commit(mine) == Corrupt("watchers")

    async def test_asked_again(self, registry: Registry) -> None:
        window = await self.window(registry, "user:ann")
        mine = commit("1", created("user:ann"), window=window, journal=b"x")
        answer = await registry.commit(mine)
        assert await registry.commit(mine) == answer


class TestOwners:
    ANN = Owner(ORG, "user", "ann", 1)
    BOB = Owner(ORG, "user", "bob", 2)

    async def owner(self, registry: Registry, endpoint: str) -> Owner | None:
        return (await registry.load({}, [endpoint])).owners[endpoint]

    async def test_claimed_once(self, registry: Registry) -> None:
        assert await registry.claim(
            [Claim("e", None, self.ANN), Claim("e", None, self.BOB), Claim("f", None, self.BOB)]
        ) == [
            True,
            False,
            True,
        ]
        assert await self.owner(registry, "e") == self.ANN
        assert await registry.claim([]) == []

    async def test_overtaken_and_released_by_who_knows_the_owner(self, registry: Registry) -> None:
        await registry.claim([Claim("e", None, self.ANN)])
        assert await registry.claim([Claim("e", self.BOB, None)]) == [False]
        assert await registry.claim([Claim("e", Owner(ORG, "user", "ann", 9), self.BOB)]) == [False]
        assert await registry.claim([Claim("e", self.ANN, self.BOB)]) == [True]
        assert await registry.claim([Claim("e", self.BOB, None)]) == [True]
        assert await self.owner(registry, "e") is None

    async def test_asked_again(self, registry: Registry) -> None:
        for _ in range(2):
            assert await registry.claim([Claim("e", None, self.ANN)]) == [True]
        for _ in range(2):
            assert await registry.claim([Claim("e", self.ANN, None)]) == [True]

    async def test_many_and_odd_names(self, registry: Registry) -> None:
        names = [f"user~{number}@x.y-z" for number in range(1500)] + ["%", "{a}", "a:b", "ä"]
        claims = [Claim(name, None, Owner(ORG, "device", name, 3)) for name in names]
        assert all(await registry.claim(claims))
        owners = (await registry.load({}, names)).owners
        assert {name: owner.subject for name, owner in owners.items() if owner} == {name: name for name in names}

    async def test_a_commit_conflicts_where_an_id_is_claimed_that_must_not_be(self, registry: Registry) -> None:
        await registry.claim([Claim("e", None, self.ANN)])
        wanted = commit("1", created("user:bob"), unclaimed=["d", "e"], journal=b"x")
        assert await registry.commit(wanted) == Conflict("endpoint-owner")
        assert await records(registry, "user:bob") == {"user:bob": None}
        assert await registry.journal() == []
        await registry.claim([Claim("e", self.ANN, None)])
        assert isinstance(await registry.commit(wanted), Committed)
        await registry.claim([Claim("e", None, self.ANN)])
        assert isinstance(await registry.commit(wanted), Committed)  # asked again: it is done already


class TestFacts:
    async def test_kept(self, registry: Registry) -> None:
        assert await registry.recall("client_id") is None
        await registry.remember("client_id", "bridge-ä")
        await registry.remember("session_epoch", "1")
        await registry.remember("session_epoch", "2")
        assert await registry.recall("client_id") == "bridge-ä"
        assert await registry.recall("session_epoch") == "2"


class TestKept:
    async def test_what_is_kept_of_a_send_is_loaded_like_a_record(self, registry: Registry) -> None:
        await registry.keep({ORG: Kept({"sent:a": b"{1}", "sent:b": b"{2}"}), "acme": Kept({"sent:a": b"{3}"})}, 5)
        assert await records(registry, "sent:a", "sent:b", "sent:c") == {
            "sent:a": b"{1}",
            "sent:b": b"{2}",
            "sent:c": None,
        }
        assert await records(registry, "sent:a", organization="acme") == {"sent:a": b"{3}"}
        await registry.keep({ORG: Kept(sent={"sent:a": b"{4}"})}, 5)
        assert await records(registry, "sent:a") == {"sent:a": b"{4}"}

    async def test_nothing_to_keep_is_no_trip(self, registry: Registry) -> None:
        await registry.keep({}, 5)
        await registry.keep({ORG: Kept()}, 5)

    async def test_a_key_of_the_wrong_type_is_taken_over(self, subject: Subject) -> None:
        subject.spoil(ORG, "sent:a")
        assert await records(subject.registry, "sent:a") == {"sent:a": None}
        await subject.registry.keep({ORG: Kept(sent={"sent:a": b"{1}"})}, 5)
        assert await records(subject.registry, "sent:a") == {"sent:a": b"{1}"}


class TestAudit:
    async def test_entries_are_read_in_pages_oldest_first(self, registry: Registry) -> None:
        assert await registry.audit(ORG, "-", 5) == []
        assert await registry.keep({ORG: Kept(audit=[b"1", b"2"]), "acme": Kept(audit=[b"x"])}, 100) == []
        assert await registry.keep({ORG: Kept(audit=[b"3"])}, 100) == []
        entries = await registry.audit(ORG, "-", 2)
        assert [text for _, text in entries] == [b"1", b"2"]
        [(last, text)] = await registry.audit(ORG, f"({entries[1][0]}", 5)
        assert text == b"3"
        assert await registry.audit(ORG, f"({last}", 5) == []
        assert [text for _, text in await registry.audit("acme", "-", 5)] == [b"x"]
        now_ms = int(last.partition("-")[0])
        assert [text for _, text in await registry.audit(ORG, str(now_ms - 60_000), 5)] == [b"1", b"2", b"3"]
        assert await registry.audit(ORG, str(now_ms + 60_000), 5) == []

    async def test_only_the_newest_stay(self, registry: Registry) -> None:
        await registry.keep({ORG: Kept(audit=[b"%d" % number for number in range(250)])}, 3)
        assert [text for _, text in await registry.audit(ORG, "-", 500)] == [b"247", b"248", b"249"]
        await registry.keep({ORG: Kept(audit=[b"250"])}, 3)
        assert [text for _, text in await registry.audit(ORG, "-", 500)] == [b"248", b"249", b"250"]

    async def test_old_ones_go(self, subject: Subject) -> None:
        registry = subject.registry
        for organization in (ORG, "acme"):
            await registry.commit(commit("1", created("user:ann"), organization=organization))
            await registry.keep({organization: Kept(audit=[b"1"])}, 100)
        await registry.trim_audit(60_000)
        assert len(await registry.audit(ORG, "-", 5)) == 1
        await registry.trim_audit(-60_000)
        assert await registry.audit(ORG, "-", 5) == await registry.audit("acme", "-", 5) == []

    async def test_a_spoilt_key_is_told_and_harms_nothing_else(self, subject: Subject) -> None:
        registry = subject.registry
        subject.spoil(ORG, "audit")
        kept = {ORG: Kept({"sent:a": b"{1}"}, [b"1"]), "acme": Kept(audit=[b"x"])}
        assert await registry.keep(kept, 100) == [ORG]
        assert await registry.audit(ORG, "-", 5) == []
        assert len(await registry.audit("acme", "-", 5)) == 1
        assert await records(registry, "sent:a") == {"sent:a": b"{1}"}
        await registry.trim_audit(60_000)


class TestLease:
    async def test_it_is_taken_renewed_and_given_back(self, registry: Registry) -> None:
        assert await registry.hold(2000) == ("test/1", 1, 2000)
        assert await registry.hold(3000) == ("test/1", 1, 3000)
        assert await registry.hold(0) == ("", 1, 0)
        assert await registry.hold(2000) == ("test/1", 2, 2000)

    async def test_another_holder_is_respected_until_its_time_is_over(self, subject: Subject) -> None:
        registry, other = subject.registry, subject.other("test/2")
        assert await other.hold(60_000) == ("test/2", 1, 60_000)
        bridge, epoch, left_ms = await registry.hold(2000)
        assert (bridge, epoch) == ("test/2", 1)
        assert 0 < left_ms <= 60_000
        assert await registry.hold(0) == ("", 1, 0)
        assert (await registry.hold(2000)).bridge == "test/2", "nobody gives back what another holds"
        assert await registry.hold(2000, instead_of="test/2") == ("test/1", 2, 2000)
        assert (await other.hold(1)).bridge == "test/1"

    async def test_what_has_run_out_is_free(self, subject: Subject) -> None:
        registry, other = subject.registry, subject.other("test/2")
        await other.hold(1)
        await subject.advance(5)
        await asyncio.sleep(0.01)
        assert await registry.hold(2000) == ("test/1", 2, 2000)

    async def test_the_epoch_can_be_raised(self, registry: Registry) -> None:
        assert await registry.hold(2000, least_epoch=9) == ("test/1", 9, 2000)
        assert await registry.hold(2000) == ("test/1", 9, 2000)

    async def test_lower_epochs_are_shut_out_of_every_organization(self, subject: Subject) -> None:
        registry, other = subject.registry, subject.other("test/2")
        for organization in (ORG, "acme"):
            await registry.commit(commit("1", created("user:ann"), organization=organization))
        assert await other.fence(3) == 3
        for organization in (ORG, "acme"):
            with pytest.raises(LeaseLost):
                await registry.commit(commit("2", created("user:bob"), organization=organization))
            with pytest.raises(LeaseLost):
                await registry.commit(commit("1", created("user:ann"), organization=organization))
        assert await records(registry, "user:bob") == {"user:bob": None}
        assert isinstance(await other.commit(commit("1", created("user:bob"))), Committed)
        assert await registry.fence(2) == 3, "who is behind is told so"
        assert await registry.fence(4) == 4
        assert isinstance(await registry.commit(commit("3", created("user:cay", 9))), Committed)

    async def test_the_tokens_of_those_shut_out_are_forgotten(self, subject: Subject) -> None:
        other = subject.other("test/2")
        await subject.registry.commit(commit("1", created("user:ann")))
        await other.commit(commit("1", created("user:bob")))
        await other.fence(1)
        assert [name.removeprefix("token:") for name in subject.tokens(ORG)] == ["test/2"]

    async def test_without_organizations_there_is_nothing_to_fence(self, registry: Registry) -> None:
        assert await registry.fence(1) == 0

    async def test_a_spoilt_organization_does_not_stop_the_others(self, subject: Subject) -> None:
        await subject.registry.commit(commit("1", created("user:ann")))
        await subject.registry.commit(commit("1", created("user:ann"), organization="acme"))
        subject.spoil("acme", "bridges")
        assert await subject.registry.fence(5) == 5

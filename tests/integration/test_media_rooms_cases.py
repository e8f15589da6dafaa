"""Every behaviour case of rooms behind a token through real HTTP, and the media of one who came in by it."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from bridge.domain.media_table import media_state
from tests.integration.stack import PATIENCE_SECONDS, Client, Message, Stack, stack
from tests.servers import free_port

Fresh = Callable[[str], str]
CASES = {
    case["name"]: case
    for line in (Path(__file__).parents[1] / "cases" / "media_rooms.jsonl").read_text().splitlines()
    if line.strip()
    for case in [json.loads(line)]
}
SEATS = ["seat_kept_for_absent_owner", "joiner_that_cannot_handle_the_crowd"]
BY_DIAGRAM = [name for name in CASES if name.startswith("machine_by_diagram")]
AS_SHIPPED = [name for name in CASES if name.startswith("machine_client_as_shipped")]
STATUS = {
    "event": "Session.connectionCreated",
    "state": "waiting",
    "connections": 1,
    "sendStreams": 0,
    "recvStreams": 0,
}
TTL_SECONDS = 2


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("rooms"), HTTP__PORT=str(free_port()), ROOMS__API_KEY="key-1") as found:
        yield found


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Participants live two seconds."""
    with stack(
        tmp_path_factory.mktemp("hasty"), HTTP__PORT=str(free_port()), ROOMS__PARTICIPANT_TTL_SECONDS=str(TTL_SECONDS)
    ) as found:
        yield found


class Play:
    """People of a case: each a user with a bearer token, or a guest; and a room, once somebody makes one."""

    def __init__(self, found: Stack, fresh: Fresh) -> None:
        self.stack, self.web, self.world, self.fresh = found, found.web(), found.world, fresh
        self.room, self.by = "", "somebody"
        self.tokens: dict[str, str] = {}
        self.endpoint = self.hears("owner")
        self.mark = self.world.mark()

    def hears(self, name: str) -> str:
        endpoint = self.fresh(f"{name}-e")
        self.world.rpc("register_endpoint", [self.fresh(name), 600, False, endpoint])
        return endpoint

    def bearer(self, name: str) -> dict[str, str]:
        claims = {"sub": self.fresh(name), "organization_id": "default"}
        return {"Authorization": f"Bearer {jwt.encode(claims, 'k' * 32, 'HS256')}"}

    def do(self, step: dict[str, Any]) -> httpx.Response:
        """One input of a case."""
        what, by = step["do"], step.get("by", self.by)
        self.by = by
        if what == "create_room":
            return self.create(step["maxSize"], by=step.get("by", "owner"))
        if not self.room:
            self.create(9)
        headers = {} if step.get("auth", "hawk") is None else self.bearer(by)
        room = step.get("room", self.room)
        if what == "list":
            return self.web.get(f"/rooms/{room}", headers=self.bearer("owner"))
        body = {"action": what} if what != "post" else {}
        if what == "join":
            body |= {"displayName": by, "clientMaxSize": step.get("clientMaxSize", 9)}
        answer = self.web.post(f"/rooms/{room}", json=body | step.get("body", {}), headers=headers)
        if answer.status_code == 200 and what == "join":
            self.tokens[by] = answer.json()["sessionToken"]
        return answer

    def create(self, seats: int, by: str = "owner") -> httpx.Response:
        answer = self.web.post("/rooms", json={"roomName": "Tea", "maxSize": seats}, headers=self.bearer(by))
        self.room = answer.json()["roomToken"]
        return answer

    def perform(self, name: str) -> list[httpx.Response]:
        return [self.do(step) for step in CASES[name]["inputs"]]

    def view(self) -> Any:
        return self.web.get(f"/rooms/{self.room}", headers=self.bearer("owner")).json()

    def listed(self) -> list[str]:
        return [participant["displayName"] for participant in self.view()["participants"]]

    def expires_at(self) -> datetime:
        return datetime.fromisoformat(self.view()["expiresAt"])

    def heard(self, endpoint: str | None = None, event_type: str = "RoomPresenceChangedEvent") -> list[Message]:
        """What an endpoint, the owner's where none is named, heard of the room by now."""
        self.world.rpc("online_users")
        topic = f"users/endpoints/{endpoint or self.endpoint}"
        return [m for m in self.world.since(self.mark, topic) if m.type == event_type]

    def is_expiry(self, message: Message) -> bool:
        return message.endpoint == self.endpoint and message.json.get("cause") == "expired"

    def causes(self) -> list[str]:
        return [message.json["cause"] for message in self.heard()]


@pytest.fixture
def play(calm: Stack, fresh: Fresh) -> Play:
    return Play(calm, fresh)


def fits(answer: httpx.Response, expect: dict[str, Any]) -> None:
    assert answer.status_code == expect["status"], answer.text
    said = answer.json() if answer.content else None
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert said["errno"] == expect["errno"]
    for name in expect.get("keys", ()):
        assert said[name]
    for name in ("expires", "mediaRole"):
        if name in expect:
            assert said[name] == expect[name]
    if "body" in expect:
        assert said == expect["body"]


def test_every_case_is_tested() -> None:
    by_name = {name for name in CASES if f"test_{name.replace('clientMaxSize', 'client_max_size')}" in globals()}
    assert by_name | {*SEATS, *BY_DIAGRAM, *AS_SHIPPED} == set(CASES)
    assert len(BY_DIAGRAM) == len(AS_SHIPPED) == 2


def test_join_ok_owner_and_guest(play: Play) -> None:
    expect = CASES["join_ok_owner_and_guest"]["expect"]
    for answer, wanted in zip(play.perform("join_ok_owner_and_guest"), expect["responses"], strict=True):
        fits(answer, wanted)
    assert len(play.listed()) == expect["participants"]
    assert play.causes() == ["joined"] * expect["ownerPushes"].count("join")
    [ann, guest] = [message.json for message in play.heard()]
    assert ann["topicId"] == guest["topicId"] == play.room
    assert ann["sender"]["_id"] == play.fresh("owner")
    assert guest["sender"] == {"_id": guest["content"]["sessionId"], "type": "anonymous", "displayname": "G"}


def test_join_client_max_size_not_a_number(play: Play) -> None:
    [answer] = play.perform("join_clientMaxSize_not_a_number")
    fits(answer, CASES["join_clientMaxSize_not_a_number"]["expect"])


def test_token_checked_before_auth(play: Play) -> None:
    [answer] = play.perform("token_checked_before_auth")
    fits(answer, {"status": 401, "errno": 110})  # contract details 24: whether the room exists or not
    step = CASES["token_checked_before_auth"]["inputs"][0]
    fits(play.do({**step, "do": "join"} | {"body": {}}), CASES["token_checked_before_auth"]["expect"])
    fits(play.do({**step, "auth": "hawk"}), CASES["token_checked_before_auth"]["expect"])


@pytest.mark.parametrize("name", SEATS)
def test_seats(name: str, play: Play) -> None:
    for answer, wanted in zip(play.perform(name), CASES[name]["expect"]["responses"], strict=True):
        fits(answer, wanted)


def test_refresh_keeps_alive_and_expiry_removes(hasty: Stack, fresh: Fresh) -> None:
    case = CASES["refresh_keeps_alive_and_expiry_removes"]
    join, refresh, *_ = case["inputs"]
    play = Play(hasty, fresh)
    for _ in range(5):
        fits(play.do(join), {"status": 200})
        time.sleep(refresh["at"] / 300 * TTL_SECONDS)
        refreshed = time.monotonic()
        answer = play.do(refresh)
        if answer.status_code == 200:
            break  # else the machine was too busy to come in time
    fits(answer, {"status": 200, "expires": TTL_SECONDS})
    mark = play.world.mark()
    assert play.listed() == [join["by"]] == ["julie"] * case["expect"]["julie_listed_at_560"]
    gone = play.world.expect(play.is_expiry, mark=mark, what="the expiry, told to the owner")
    assert gone.at - refreshed > TTL_SECONDS * 0.95  # it began anew with the refresh
    assert (play.listed() == ["julie"]) == case["expect"]["julie_listed_at_571"]
    fits(play.do(refresh), case["expect"]["last"])
    assert play.causes()[-2:] == ["joined", "expired"]  # the push that the source calls a leave


def test_refresh_does_not_extend_room_but_join_leave_expiry_do(calm: Stack, hasty: Stack, fresh: Fresh) -> None:
    join, refresh, leave = CASES["refresh_does_not_extend_room_but_join_leave_expiry_do"]["inputs"]

    def later(play: Play, step: dict[str, Any]) -> float:
        """By how many seconds the room lives on longer for that."""
        before = play.expires_at()
        time.sleep(0.3)
        assert play.do(step).status_code in (200, 204)
        return (play.expires_at() - before).total_seconds()

    play = Play(calm, fresh)
    play.create(9)
    assert later(play, join) >= 0.25
    for step in (refresh, {**refresh, "do": "status", "body": STATUS}):
        # A pause of the registry clock gives all rooms time: on a busy machine, not five times in a row.
        assert any(abs(later(play, step)) < 0.05 for _ in range(5))
    assert later(play, leave) >= 0.5
    play = Play(hasty, fresh)
    play.do(join)
    before = play.expires_at()
    play.world.expect(play.is_expiry, what="the expiry")
    assert (play.expires_at() - before).total_seconds() > 1


def test_status_ok_204_and_any_state_or_event_text_accepted(play: Play) -> None:
    case = CASES["status_ok_204_and_any_state_or_event_text_accepted"]
    _, answer = play.perform("status_ok_204_and_any_state_or_event_text_accepted")
    fits(answer, case["expect"]["last"])
    said = play.world.rpc("media_state", [play.room, play.fresh("u")])
    assert (said["state"], said["claimed"], said["anomalies"]) == ("starting", "hello world", ["claim_differs"])


def test_status_number_rules(play: Play) -> None:
    expect = CASES["status_number_rules"]["expect"]
    _, *answers = play.perform("status_number_rules")
    for answer, status in zip(answers, expect["status_codes"], strict=True):
        fits(answer, {"status": status, "errno": expect["errno_on_400"]})
    # validation runs before the membership test
    body = CASES["status_number_rules"]["inputs"][1]["body"]
    fits(play.do({"do": "status", "by": "nobody", "body": body}), {"status": 400, "errno": 107})
    fits(play.do({"do": "status", "by": "nobody", "body": STATUS}), {"status": 400, "errno": 203})


@pytest.mark.parametrize("name", BY_DIAGRAM)
def test_the_diagram(name: str, play: Play) -> None:
    play.do({"do": "join", "by": "u"})
    for step in CASES[name]["expect"]["derived"]:
        fits(play.do({"do": "status", "by": "u", "body": step}), {"status": 204})
        said = play.world.rpc("media_state", [play.room, play.fresh("u")])
        assert {key: said[key] for key in step if key != "event"} == {k: v for k, v in step.items() if k != "event"}
        assert said["claimed"] == step["state"]


@pytest.mark.parametrize("name", AS_SHIPPED)
def test_what_the_shipped_client_claims_is_kept_beside_the_state(name: str, play: Play) -> None:
    """Informative cases: the client's own claims are taken, and where they differ from the diagram that is told."""
    play.do({"do": "join", "by": "u"})
    had_media = False
    for step in CASES[name]["expect"]["posted"]:
        fits(play.do({"do": "status", "by": "u", "body": step}), {"status": 204})
        said = play.world.rpc("media_state", [play.room, play.fresh("u")])
        counts = [step[counter] for counter in ("connections", "sendStreams", "recvStreams")]
        had_media = counts[0] > 1 and (had_media or any(counts[1:]))
        state = media_state(*counts, had_media)
        assert (said["state"], said["claimed"]) == (state, step["state"])
        assert ("claim_differs" in said["anomalies"]) == (state != step["state"])


def test_bridge_atomic_capacity(play: Play) -> None:
    case = CASES["bridge_atomic_capacity"]
    [given] = case["inputs"]
    play.create(given["free_seats"] + 1)  # one seat is the owner's
    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(play.do, given["parallel"]), key=lambda answer: answer.status_code)
    fits(answers[0], {"status": case["expect"]["exactly_one"]})
    fits(answers[1], case["expect"]["other"])


def test_bridge_expiry_event_has_reason_and_fires_once(hasty: Stack, fresh: Fresh) -> None:
    """With a second bridge that stands by."""
    case = CASES["bridge_expiry_event_has_reason_and_fires_once"]
    play = Play(hasty, fresh)
    other = hasty.another_bridge("b2", HTTP__PORT=str(free_port()))
    with other.standing_by():
        name = case["inputs"][0]["participant"]
        play.do({"do": "join", "by": name})
        play.do({"do": "status", "by": name, "body": {**STATUS, "connections": 2, "sendStreams": 1}})
        [wanted] = case["expect"]["events"]
        play.world.expect(
            lambda m: m.endpoint == play.endpoint and m.json.get("cause") == wanted["reason"], what="the expiry"
        )
        assert play.world.rpc("media_state", [play.room, fresh(name)])["state"] == case["expect"]["final_state"]
        departures = [m.json for m in play.heard() if m.json["cause"] != "joined"]
        assert [(each["cause"], each["sender"]["_id"]) for each in departures] == [(wanted["reason"], fresh(name))]
        assert len(departures) == case["expect"]["count"]


# Beyond the cases.


def test_of_a_hundred_at_once_two_win_two_seats(play: Play, calm: Stack) -> None:
    answer = play.web.post("/rooms", json={"roomName": "Two", "maxSize": 2})  # a service's: no seat is kept
    room = answer.json()["roomToken"]
    webs = [calm.web() for _ in range(10)]

    def join(number: int) -> int:
        body = {"action": "join", "displayName": f"g{number}", "clientMaxSize": 9}
        return webs[number % 10].post(f"/rooms/{room}", json=body).status_code

    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(join, range(100)))
    assert sorted(statuses) == [200] * 2 + [400] * 98
    assert len(play.web.get(f"/rooms/{room}").json()["participants"]) == 2


def test_who_joins_is_busy_until_it_is_out_and_all_is_told(play: Play) -> None:
    other, ann = play.hears("bob"), play.fresh("ann")
    play.do({"do": "join", "by": "bob"})
    play.do({"do": "join", "by": "ann"})
    assert ann in play.world.rpc("busy_users")
    assert [m.json["cause"] for m in play.heard(other)] == ["joined"]
    busy = [m.json for m in play.heard(other, "UserPresenceChangedEvent") if m.json["uuid"] == ann]
    assert [(event["busy"], event["cause"]) for event in busy] == [(True, "session_joined")]
    play.do({"do": "leave", "by": "ann"})
    assert ann not in play.world.rpc("busy_users")
    [event] = [m.json for m in play.heard(other) if m.json["cause"] == "left"]
    assert event["content"]["sessionId"] not in json.dumps(play.world.rpc("room_parties", [play.room]))


def test_a_guest_by_its_token_and_a_deleted_room(play: Play) -> None:
    play.create(3)
    listener = play.hears("bob")
    play.do({"do": "join", "by": "bob"})
    play.do({"do": "join", "by": "guest", "auth": None})
    auth = httpx.BasicAuth(play.tokens["guest"], "")
    assert play.web.post(f"/rooms/{play.room}", json={"action": "refresh"}, auth=auth).json() == {"expires": 300}
    body = {"action": "status", **STATUS, "connections": 2}
    assert play.web.post(f"/rooms/{play.room}", json=body, auth=auth).status_code == 204
    guest = play.tokens["guest"].partition(".")[0]
    assert play.world.rpc("media_state", [play.room, guest])["connections"] == 2
    assert guest in play.world.rpc("busy_participants")
    assert play.web.delete(f"/rooms/{play.room}", headers=play.bearer("bob")).status_code == 403
    assert play.web.delete(f"/rooms/{play.room}", headers=play.bearer("owner")).status_code == 204
    assert [m.json["cause"] for m in play.heard(listener)][-1] == "room_deleted"
    assert play.causes()[-1] == "room_deleted"
    assert guest not in play.world.rpc("busy_participants")
    fits(play.do({"do": "list"}), {"status": 404, "errno": 105})
    fits(play.do({"do": "refresh", "by": "bob"}), {"status": 404, "errno": 105})


def test_a_guest_takes_its_seat_again_by_its_endpoint(play: Play) -> None:
    play.create(2)
    seat = {"do": "join", "by": "g", "auth": None, "body": {"userEndpointId": play.hears("g")}}
    first, again = play.do(seat), play.do(seat)
    assert first.json()["roomConnectionId"] == again.json()["roomConnectionId"]
    fits(play.do({"do": "join", "by": "g", "auth": None}), {"status": 400, "errno": 202})


def test_the_last_will_of_a_participant_frees_its_seat(play: Play, calm: Stack) -> None:
    play.create(2)
    endpoint = play.hears("ann")
    play.do({"do": "join", "by": "ann", "body": {"userEndpointId": endpoint}})
    event = {"type": "USER_DISCONNECTED", "connectionId": endpoint}
    client = Client(calm.broker.port, will=(f"presence/users/{play.fresh('ann')}", json.dumps(event)))
    client.vanish()
    play.world.expect(
        lambda m: m.endpoint == play.endpoint and m.json.get("cause") == "connection_lost", what="the departure"
    )
    fits(play.do({"do": "join", "by": "bob"}), {"status": 200})


def test_a_participant_is_reminded_before_it_is_out(hasty: Stack, fresh: Fresh) -> None:
    play = Play(hasty, fresh)
    endpoint = play.hears("ann")
    play.create(9)
    play.do({"do": "join", "by": "ann"})
    reminder = play.world.expect(
        lambda m: m.endpoint == endpoint and m.type == "RoomPartyKeepAliveReminderEvent", what="a reminder"
    )
    assert reminder.json["keepAliveSeconds"] == TTL_SECONDS
    gone = play.world.expect(play.is_expiry)
    assert gone.at > reminder.at


def test_a_room_outlives_the_bridge(play: Play, calm: Stack) -> None:
    play.do({"do": "join", "by": "ann"})
    before = play.view()
    calm.bridge.kill()
    calm.bridge.start()
    end = time.monotonic() + PATIENCE_SECONDS
    while play.web.get("/readyz").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.05)
    after = play.view()
    assert after["participants"] == before["participants"]
    assert after["expiresAt"] >= before["expiresAt"]  # a pause gives time, it takes none
    fits(play.do({"do": "refresh", "by": "ann"}), {"status": 200, "expires": 300})

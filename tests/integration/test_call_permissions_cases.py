"""Every behaviour case of call permissions, over real MQTT: each endpoint hears its own view, no case is left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import Pace
from tests.integration.stack import Client, Stack

Fresh = Callable[[str], str]
CASES = {
    case["name"]: case
    for line in (Path(__file__).parents[1] / "cases" / "call_permissions.jsonl").read_text().splitlines()
    if line.strip()
    for case in [json.loads(line)]
}
NOTIFICATIONS = [name for name in CASES if name.startswith("cls_")]
PREDICATES = [name for name in CASES if name.startswith("unlocked_")]
TESTED = {
    *NOTIFICATIONS,
    *PREDICATES,
    "one_time_of_another_participant_used",
    "reconnect_does_not_cut_a_live_device",
    "admin_gets_personal_permanent_as_one_shot",
    "non_admin_never_sees_others",
    "bridge_one_time_survives_rejoin_and_is_named",
}


class Call:
    """A session of its own: ``ME``, the admin ``A`` and others, each a user with one endpoint."""

    def __init__(self, world: Client, fresh: Fresh) -> None:
        self.world, self.session = world, fresh("s")
        self.ids = {name: fresh(name.lower()) for name in ("ME", "A", "X")}
        for user in self.ids.values():
            world.rpc("register_endpoint", [user, 600, False, f"{user}.e"])
        self.join(*self.ids)

    def join(self, *names: str) -> dict[str, list[Any]]:
        return self.say("", {"type": "JoinSessionEvent", "sessionUsers": [self.ids[name] for name in names]})

    def leave(self, name: str) -> dict[str, list[Any]]:
        return self.say("", {"type": "LeaveSessionEvent", "leavingUsers": [self.ids[name]]})

    def report(self, name: str, **fields: Any) -> dict[str, list[Any]]:
        return self.say(f"/participants/{self.ids[name]}/status", fields)

    def notify(self, notification: dict[str, Any], me: str | None = None) -> dict[str, list[Any]]:
        """A notification of a case, its names those of this call; returns who heard which events of permissions."""
        given = {key: self.ids.get(value, value) for key, value in notification.items() if isinstance(value, str)}
        return self.say("/permissions" + (f"/{self.ids[me]}" if me else ""), {**notification, **given})

    def say(self, topic: str, body: dict[str, Any]) -> dict[str, list[Any]]:
        mark = self.world.mark()
        self.world.publish(f"sessions/{self.session}{topic}", body)
        self.world.rpc("session_members", [self.session])  # answered after what came before it
        names = {f"{user}.e": name for name, user in self.ids.items()}
        heard: dict[str, list[Any]] = {}
        for message in self.world.since(mark):
            assert not message.topic.endswith("/rejected"), message
            if message.type in ("CallPermissionsChangedEvent", "MediaAttentionRequestedEvent"):
                heard.setdefault(names[message.endpoint], []).append(message.json)
        return heard

    def of(self, name: str) -> Any:
        return self.world.rpc("call_permissions", {"session": self.session, "participant": self.ids[name]})

    def once(self, name: str) -> list[str]:
        return [medium for medium, view in self.of(name)["media"].items() if view["once"]]

    def lock(self, name: str | None, *media: str) -> dict[str, list[Any]]:
        states = dict.fromkeys(media, "MUTE_PERMANENT")
        return self.notify({"muteStates": states, "mediaOptions": list(media), "userId": name, "muteAll": name is None})


@pytest.fixture
def call(shared: Stack, fresh: Fresh) -> Call:
    return Call(shared.world, fresh)


def test_every_case_is_tested() -> None:
    assert set(CASES) == TESTED


def anomalies(shared: Stack) -> float:
    """How many notifications named one participant and all at once, as ``/metrics`` has it."""
    families = text_string_to_metric_families(shared.web().get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "endpoint_bridge_anomalies_total" and sample.labels["anomaly"] == "mute_all_with_user"
    )


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_what_a_notification_means(name: str, call: Call, shared: Stack) -> None:
    counted = anomalies(shared)
    notification, expect = CASES[name]["inputs"][0]["notification"], CASES[name]["expect"]
    before = {who: call.of(who) for who in call.ids}
    call.report("ME", handRaised=True, mediaSettings={"isAudioEnabled": True, "isVideoEnabled": True})
    heard = call.notify(notification, "ME")
    after = {who: call.of(who) for who in call.ids}
    meaning = set()
    if after["ME"]["call"] != before["ME"]["call"]:
        meaning.add("global")
    if after["ME"]["own"]:
        meaning.add("own_personal")
    if after["X"]["own"]:
        meaning.add("others_personal")
    if any(event["type"] == "MediaAttentionRequestedEvent" for event in heard.get("ME", ())):
        meaning.add("attention_me")
    assert meaning == set(expect["normalised"])
    assert anomalies(shared) - counted == ("anomaly" in expect)
    if "call_scope" in expect:
        assert after["ME"]["call"] == expect["call_scope"]
        assert heard.keys() == call.ids.keys()
        for who, [event] in heard.items():
            assert (event["kind"], event["participantId"]) == ("global", call.ids[who])
            assert event["media"] == after[who]["media"]
    if "devices_off" in expect:
        assert heard["ME"][0]["devicesOff"] == expect["devices_off"]
    if "my_devices" in expect:
        assert (heard["ME"][0]["devicesOff"], heard["X"][0]["devicesOff"]) == ([], ["AUDIO"])
    if "locked" in expect:
        assert [medium for medium, view in after["ME"]["media"].items() if not view["unlocked"]] == expect["locked"]
    if "one_time_added" in expect:
        assert call.once("ME") == expect["one_time_added"]
        assert (after["ME"]["call"], after["ME"]["own"]) == (before["ME"]["call"], before["ME"]["own"])
        assert heard["ME"][-1]["handLowered"]
        assert after["ME"]["handRaised"] is False
    if expect["normalised"] in (["own_personal"], ["attention_me"]):
        assert set(heard) == {"ME"}
    if expect["normalised"] == ["others_personal"]:
        assert set(heard) == {"X"}


def test_a_global_lock_turns_no_device_of_an_admin_off(call: Call) -> None:
    [given] = CASES["cls_global_permanent"]["inputs"]
    call.report("ME", roles=["ADMIN"])
    [event] = call.notify(given["notification"], "ME")["ME"]
    assert event["devicesOff"] == []
    everybody = call.world.rpc("call_permissions", [call.session])  # what the source has an admin fetch
    assert {everybody[call.ids[name]]["media"]["AUDIO"]["unlocked"] for name in ("X", "A")} == {False}


@pytest.mark.parametrize("name", PREDICATES)
def test_the_predicate(name: str, call: Call) -> None:
    [given] = CASES[name]["inputs"]
    if given["role"] != "none":
        call.report("ME", roles=[given["role"]])
    for scope, who in (("call", None), ("own", "ME")):
        if given[scope]:
            states, media = given[scope], list(given[scope])
            call.notify({"muteStates": states, "mediaOptions": media, "userId": who, "muteAll": who is None})
    assert call.of("ME")["media"][given["ask"]]["unlocked"] == CASES[name]["expect"]["unlocked"]


def test_a_grant_of_another_participant_is_used(call: Call) -> None:
    roster, used = CASES["one_time_of_another_participant_used"]["inputs"]
    call.report("A", roles=["ADMIN"])
    [(who, given)] = roster["roster"].items()
    call.notify({"muteStates": given["own"], "mediaOptions": list(given["own"]), "userId": who})
    call.notify({"unmuteOptions": given["one_time"], "userId": who})
    assert call.once(who) == given["one_time"]
    heard = call.report(used["onRemoteMediaSettings"], mediaSettings={"isVideoEnabled": used["isVideoEnabled"]})
    assert call.once(who) == CASES["one_time_of_another_participant_used"]["expect"]["roster.X.one_time"]
    assert {name: [(event["kind"], event["cause"]) for event in events] for name, events in heard.items()} == {
        "X": [("once", "grant_used")],
        "A": [("participant", "grant_used")],
    }


def test_a_reconnect_cuts_no_live_device(call: Call) -> None:
    case = CASES["reconnect_does_not_cut_a_live_device"]
    given = case["inputs"][0]["reconnect"]
    call.lock(None, *given["call"])
    call.report("ME", mediaSettings=given["server_mediaSettings"])
    [event] = call.join("ME")["ME"]
    assert (event["cause"], event["devicesOff"]) == ("joined", [])
    for medium, state in case["expect"]["applied"].items():
        assert (event["media"][medium]["state"], event["media"][medium]["unlocked"]) == (state, False)


def test_an_admin_gets_a_personal_permanent_mute_as_a_plain_one(call: Call) -> None:
    case = CASES["admin_gets_personal_permanent_as_one_shot"]
    [given] = case["inputs"]
    call.report("ME", roles=[given["role"]])
    [event] = call.notify({**given["notification"], "adminId": "A"}, "ME")["ME"]
    assert {medium: event["media"][medium]["state"] for medium in event["changed"]} == case["expect"]["reported"]
    assert event["devicesOff"] == case["expect"]["devices_off"]
    assert event["media"]["AUDIO"]["unlocked"] == case["expect"]["unlocked_AUDIO"]


def test_who_is_no_admin_sees_nothing_of_others(call: Call) -> None:
    [given] = CASES["non_admin_never_sees_others"]["inputs"]
    call.report("A", roles=["ADMIN"])
    heard = call.notify(given["notification"], "ME")
    assert ("ME" in heard) == CASES["non_admin_never_sees_others"]["expect"]["delivered"]
    assert {name: [event["kind"] for event in events] for name, events in heard.items()} == {
        "X": ["personal"],
        "A": ["participant"],
    }


def test_a_grant_outlives_leaving_and_is_used_once(call: Call) -> None:
    case = CASES["bridge_one_time_survives_rejoin_and_is_named"]
    who, medium = case["inputs"][0]["grant_once"]
    call.lock(who, medium)
    call.notify({"unmuteOptions": [medium], "userId": who})
    call.leave(who)
    [event] = call.join(who)[who]
    assert [each for each, view in event["media"].items() if view["once"]] == case["expect"]["snapshot_to_X"]["oneTime"]
    assert event["cause"] == "joined"
    for expected in ([("once", "grant_used")], []):
        heard = call.report(who, mediaSettings={"isAudioEnabled": True})
        assert [(event["kind"], event["cause"]) for event in heard.get(who, ())] == expected
        call.report(who, mediaSettings={"isAudioEnabled": False})
    assert call.of(who)["media"][medium] == {"state": "MUTE_PERMANENT", "once": False, "unlocked": False}


def test_mixed_values_are_refused_in_a_command_alone(call: Call, pace: Pace) -> None:
    states = {"AUDIO": "MUTE", "VIDEO": "MUTE_PERMANENT"}
    params = {"session": call.session, "participant": call.ids["X"], "muteStates": states}
    assert call.world.refused("mute_participant", params).code == "mixed_mute_states"
    pace.wait()
    mark = call.world.mark()
    body = {"type": "mute-participant", "participantId": call.ids["X"], "muteStates": states}
    call.world.publish(f"sessions/{call.session}/permissions", body)
    rejected = call.world.expect(lambda m: m.topic.endswith("/rejected"), mark=mark, what="a rejection")
    assert rejected.json["reason"].startswith("mixed_mute_states: ")
    assert call.of("X")["own"] == {}
    assert set(call.notify({"muteStates": states, "mediaOptions": list(states), "userId": "X"})) == {"X"}

from bridge.demo.story import CHAPTERS
from bridge.demo.words import in_words
from tests.unit.demo.test_story import EVENT


def test_events_are_told_in_words() -> None:
    event = {"type": "UserPresenceChangedEvent", "uuid": "ann", "online": True, "busy": True, "cause": "connected"}
    assert in_words(event) == "ann is online, in a call (connected)"
    assert in_words({"type": "LampDimmedEvent"}) == ""


def test_every_expected_event_has_words() -> None:
    for chapter in CHAPTERS:
        for expected in chapter.expected:
            assert in_words({**EVENT, "type": expected.type, **expected.fields})


def test_permissions_name_what_is_locked_to_whom() -> None:
    media = {"AUDIO": {"unlocked": True, "once": True}, "VIDEO": {"unlocked": False, "once": False}}
    event = {"type": "CallPermissionsChangedEvent", "participantId": "bob", "media": media, "cause": "notified"}
    assert in_words({**event, "changed": ["AUDIO", "VIDEO"]}) == (
        "AUDIO is open to bob, once; VIDEO is locked to bob (notified)"
    )

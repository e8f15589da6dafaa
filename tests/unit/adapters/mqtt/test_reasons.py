import re

from bridge.adapters.mqtt import reasons
from bridge.cli import app
from bridge.config import _leaves


def test_a_known_code_is_said_in_words_with_a_remedy() -> None:
    assert reasons.explain(reasons.SUBACK, 0x97) == "quota exceeded (0x97). Raise the broker's subscription limit."


def test_remedies_name_only_commands_and_settings_that_exist() -> None:
    commands = {
        command.name or str(command.callback and command.callback.__name__) for command in app.registered_commands
    }
    known = dict(_leaves())
    for table in (reasons.CONNACK, reasons.SUBACK, reasons.DISCONNECT):
        for _, remedy in table.values():
            assert set(re.findall(r"`endpoint-bridge ([a-z-]+)", remedy)) <= commands
            assert {f"mqtt.{name}" for name in re.findall(r"mqtt\.(\w+)", remedy)} <= known.keys()


def test_session_taken_over_names_the_client_id() -> None:
    assert "client id" in reasons.explain(reasons.DISCONNECT, 0x8E)


def test_an_unknown_code_is_shown_as_a_number() -> None:
    assert reasons.explain(reasons.CONNACK, 0xFE) == "reason code (0xFE). Look into the broker's log for the reason."

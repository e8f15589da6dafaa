import re
from pathlib import Path
from typing import Any

import mqtt5
import pytest

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
    for table in (reasons.CONNACK, reasons.SUBACK, reasons.PUBACK, reasons.DISCONNECT):
        for _, remedy in table.values():
            assert set(re.findall(r"`endpoint-bridge ([a-z-]+)", remedy)) <= commands
            assert {f"mqtt.{name}" for name in re.findall(r"mqtt\.(\w+)", remedy)} <= known.keys()


def test_session_taken_over_names_the_client_id() -> None:
    assert "client id" in reasons.explain(reasons.DISCONNECT, 0x8E)


def test_an_unknown_code_is_shown_as_a_number() -> None:
    assert reasons.explain(reasons.CONNACK, 0xFE) == "reason code (0xFE). Look into the broker's log for the reason."


@pytest.mark.parametrize(
    ("codes", "table"),
    [
        (mqtt5.ConnAckReasonCode, reasons.CONNACK),
        (mqtt5.SubAckReasonCode, reasons.SUBACK),
        (mqtt5.PubAckReasonCode, reasons.PUBACK),
        (mqtt5.DisconnectReasonCode, reasons.DISCONNECT),
    ],
)
def test_every_refusal_that_the_codec_knows_has_its_words(codes: Any, table: reasons.Table) -> None:
    known = {int(code) for code in vars(codes).values() if isinstance(code, codes)}
    assert known
    assert {code for code in known if code >= 0x80} <= table.keys()


def test_the_operators_manual_has_every_code() -> None:
    manual = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
    rows = [line for line in manual.splitlines() if line.startswith("| 0x")]
    told = {int(code, 16) for row in rows for code in re.findall(r"0x[0-9A-F]{2}", row.split("|")[1])}
    assert told == {*reasons.CONNACK, *reasons.SUBACK, *reasons.PUBACK, *reasons.DISCONNECT}


def test_a_long_reason_string_is_cut() -> None:
    text = reasons.explain(reasons.DISCONNECT, 0x8B, "x" * 60_000)
    assert text.endswith(f"Start the broker again. The broker says '{'x' * 200}'.")

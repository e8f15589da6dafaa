import json

from bridge.shell.tail import _line

EVENT = {"type": "TeaReadyEvent", "timestamp": "2026-01-02T03:04:05Z", "id": "1", "cups": 2, "from": "\x1b[2J"}


def test_an_event_is_one_line() -> None:
    assert _line("ann1", json.dumps(EVENT).encode(), as_json=False) == (
        '2026-01-02T03:04:05Z  ann1  TeaReadyEvent  cups=2  from="\\u001b[2J"'
    )
    assert json.loads(_line("ann1", json.dumps(EVENT).encode(), as_json=True)) == {"endpoint": "ann1", "event": EVENT}


def test_what_is_no_event_is_shown_all_the_same() -> None:
    assert _line("ann1", b"\xff\x1b", as_json=False) == "ann1  b'\\xff\\x1b'"
    assert json.loads(_line("ann1", b"[]", as_json=True))["text"] == "b'[]'"

import pytest

from bridge.shell.tables import show, table, tree


def test_a_table_has_a_head_and_even_columns() -> None:
    rows = [{"id": "a1", "on": True, "n": None}, {"id": "endpoint-2", "on": False, "n": 5, "more": 1}]
    assert table(rows, ("id", "on", "n")) == [
        "id          on   n",
        "a1          yes  -",
        "endpoint-2  no   5",
    ]


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert table([{"id": "\x1b[2J", "names": ["a", "b"], "mixed": [1, "\x1b"]}], ("id", "names", "mixed"))[1] == (
        '"\\u001b[2J"  a, b   [1, "\\u001b"]'
    )


def test_a_tree_shows_what_holds_what() -> None:
    value = {
        "kind": "user",
        "online": {"value": True, "why": ["a", "b"]},
        "endpoints": [{"id": "a1"}],
        "none": [],
        "no": {},
    }
    assert list(tree(value)) == [
        "kind: user",
        "online:",
        "  value: yes",
        "  why: a, b",
        "endpoints:",
        "  0:",
        "    id: a1",
        "none: []",
        "no: {}",
    ]


def test_nothing_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    show([], ("id",), as_json=False, nothing="nobody")
    show([], ("id",), as_json=True, nothing="nobody")
    show({"id": "a1"}, ("id",), as_json=False, nothing="nobody")
    assert capsys.readouterr().out == "nobody\n[]\nid\na1\n"

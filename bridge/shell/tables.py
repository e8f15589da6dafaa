"""Answers for eyes: tables, and trees of names and values."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer


def show(answer: Any, columns: Sequence[str], *, as_json: bool, nothing: str) -> None:
    """Print a list of objects as a table, or as JSON.

    Args:
        answer: the list.
        columns: names of the fields to show, in this order.
        as_json: print it as it is, in one line.
        nothing: what to say of an empty one.
    """
    if as_json:
        typer.echo(json.dumps(answer))
        return
    rows = answer if isinstance(answer, list) else [answer]
    typer.echo("\n".join(table(rows, columns)) if rows else nothing)


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Return the lines of a table with a head."""
    cells = [list(columns), *([word(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def word(value: object) -> str:
    """Return a value as it stands in a table."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case str():
            return value if value.isprintable() else json.dumps(value)
        case list() if value and all(isinstance(each, str) for each in value):
            return ", ".join(value)
        case _:
            return json.dumps(value)


def tree(value: object, indent: str = "") -> Iterator[str]:
    """Yield the lines of nested objects and lists: names, with what they hold below them."""
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    ):
        is_nested = isinstance(inner, dict | list) and any(isinstance(each, dict | list) for each in _values(inner))
        if (is_nested or isinstance(inner, dict)) and inner:
            yield f"{indent}{name}:"
            yield from tree(inner, f"{indent}  ")
        else:
            yield f"{indent}{name}: {word(inner)}"


def _values(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value

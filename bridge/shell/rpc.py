"""``endpoint-bridge rpc``: any method by its name."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.errors import ConfigError
from bridge.shell.options import ConfigOption, JsonOption, OrganizationOption, SecretsOption

if TYPE_CHECKING:
    from bridge.shell.caller import Caller

EXAMPLES = """
\b
Examples:
  endpoint-bridge rpc online_users
  endpoint-bridge rpc sessions_of kind=user uuid=ann
  endpoint-bridge rpc events since=2026-01-02T03:04:05Z filter='{"userId": "ann"}' limit=10
  endpoint-bridge rpc call_permissions '{"session": "s1"}'
      docs/protocol.md has all methods, their parameters and results
"""


def rpc(
    method: Annotated[str, typer.Argument(help="Name of the method.")],
    params: Annotated[
        list[str] | None,
        typer.Argument(help="Parameters as name=value, each value JSON or plain text; or all as one JSON object."),
    ] = None,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call a method of the bridge and print its result as JSON."""
    from bridge.shell.caller import with_caller

    given = read_params(params or [])

    async def work(caller: "Caller") -> Any:
        named = caller.place.named(method)
        return await caller.ask_with(method, json.dumps(given | named if isinstance(given, dict) else given).encode())

    typer.echo(json.dumps(with_caller(config, secrets, organization, work), indent=None if as_json else 2))


def read_params(words: list[str]) -> Any:
    """Return parameters written as words.

    Raises:
        ConfigError: they cannot be read.
    """
    if len(words) == 1 and words[0][:1] in "{[":
        try:
            return json.loads(words[0])
        except ValueError as error:
            raise ConfigError(f"PARAMS: is not JSON ({error}); write an object, or name=value") from None
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"PARAMS: {word[:40]!r} is not name=value; write each parameter so, or all as one JSON object"
            )
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found

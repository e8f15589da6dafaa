"""``endpoint-bridge tail``: what endpoints are told, as they are told it."""

import asyncio
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.shell.options import ConfigOption, OrganizationOption, SecretsOption
from bridge.shell.tables import word

if TYPE_CHECKING:
    from bridge.shell.caller import Place

EXAMPLES = """
\b
Examples:
  endpoint-bridge tail
      every event to every endpoint, until Ctrl-C
  endpoint-bridge tail ann-phone --count 1 --json
      the next event to one of them; exit code 1 where --for ends first
"""
COMMON = frozenset({"id", "type", "timestamp", "organizationId", "version"})


def tail(
    endpoint: Annotated[
        str | None, typer.Argument(help="Id of an endpoint. [default: all]", metavar="ENDPOINT")
    ] = None,
    count: Annotated[int | None, typer.Option(help="End after so many events.", min=1)] = None,
    for_seconds: Annotated[float | None, typer.Option("--for", help="End after so many seconds.", min=0.1)] = None,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.")] = False,
) -> None:
    """Print events as they arrive. They are shown as delivered: no mask hides anything here."""
    from bridge.config import load_settings
    from bridge.shell.caller import Place

    place = Place(load_settings(config, secrets, os.environ), organization)
    try:
        heard = asyncio.run(_follow(place, endpoint, count, for_seconds, as_json=as_json))
    except KeyboardInterrupt:
        raise typer.Exit from None
    if count is not None and heard < count:
        raise typer.Exit(1)


async def _follow(
    place: "Place", endpoint: str | None, count: int | None, seconds: float | None, *, as_json: bool
) -> int:
    from bridge.adapters.mqtt.guest import visit
    from bridge.errors import Unreachable

    heard = 0
    named = {} if endpoint is None else {"endpoint": endpoint}
    async with visit(place.guest([place.topic("endpoint", **named)])) as guest:
        try:
            async with asyncio.timeout(seconds):
                while count is None or heard < count:
                    message = await guest.messages.get()
                    if message is None:
                        raise Unreachable("The broker closed the connection: look into its log")
                    if message.payload:  # an empty one takes a retained event back
                        heard += 1
                        name = place.rooms.endpoint_topics.endpoint_of(message.topic)
                        typer.echo(_line(name, message.payload, as_json=as_json))
        except TimeoutError:
            pass
    return heard


def _line(endpoint: str, payload: bytes, *, as_json: bool) -> str:
    """Return one event as a line: its time, its endpoint, its type, and what it says."""
    try:
        event: Any = json.loads(payload)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        return json.dumps({"endpoint": endpoint, "text": repr(payload)}) if as_json else f"{endpoint}  {payload!r}"
    if as_json:
        return json.dumps({"endpoint": endpoint, "event": event})
    said = "  ".join(f"{name}={word(value)}" for name, value in event.items() if name not in COMMON)
    return f"{word(event.get('timestamp'))}  {word(endpoint)}  {word(event.get('type'))}  {said}".rstrip()

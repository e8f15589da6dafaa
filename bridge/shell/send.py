"""``endpoint-bridge send``: an event to a user's endpoints."""

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from bridge.errors import ConfigError
from bridge.shell.options import ConfigOption, JsonOption, OrganizationOption, SecretsOption
from bridge.shell.tables import show

EXAMPLES = """
\b
Examples:
  endpoint-bridge send ann '{"type": "TeaReadyEvent"}'
      to all of ann's endpoints; the time is filled in
  endpoint-bridge send ann - --endpoint ann-phone --mask '$.card' < event.json
      to one of them, and what the audit stream shall not show
"""


def send(
    user: Annotated[str, typer.Argument(help="Id of the user.", metavar="USER")],
    event: Annotated[str, typer.Argument(help="The event as JSON; -: from standard input.", metavar="EVENT")],
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint.", metavar="ID")] = None,
    qos: Annotated[int, typer.Option(help="1: at least once. 0: at most once.", min=0, max=1)] = 1,
    mask: Annotated[
        list[str] | None, typer.Option(help="JSONPath of what the audit stream hides. May be repeated.", metavar="PATH")
    ] = None,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an event, and show what became of each copy; exit code 1 where the broker refused one."""
    from bridge.shell.caller import asked

    outcomes = asked(
        config,
        secrets,
        organization,
        "send_event",
        event=read_event(sys.stdin.read() if event == "-" else event),
        userId=user,
        userEndpointId=endpoint,
        qos=qos,
        masks=mask or None,
        outcomes=True,
    )
    show(outcomes, ("userEndpointId", "outcome"), as_json=as_json, nothing=f"{user} has no endpoint: nothing was sent")
    if any(each["outcome"] == "refused" for each in outcomes):
        raise typer.Exit(1)


def read_event(text: str) -> Any:
    """Return an event; one without a time is of now, by this machine's clock.

    Raises:
        ConfigError: it is not JSON.
    """
    try:
        event = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"EVENT: is not JSON ({error}); write an object with a type") from None
    if isinstance(event, dict) and "timestamp" not in event:
        now = datetime.now(UTC)  # noqa: TID251 - the sender's own clock is what an event's time is by
        event["timestamp"] = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event

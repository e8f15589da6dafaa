"""``endpoint-bridge presence``: who is online and who is busy."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bridge.shell.options import ConfigOption, JsonOption, OrganizationOption, SecretsOption
from bridge.shell.tables import show

if TYPE_CHECKING:
    from bridge.shell.caller import Caller

PAGE = 1_000
EXAMPLES = """
\b
Examples:
  endpoint-bridge presence
      all users that are online or busy
  endpoint-bridge presence devices --online
      the devices that are online, with their status
  endpoint-bridge presence --busy --json | jq -r "keys[]"
"""


def presence(
    kind: Annotated[
        Literal["users", "participants", "devices"], typer.Argument(help="users, participants or devices.")
    ] = "users",
    online: Annotated[bool, typer.Option("--online", help="Only who is online.")] = False,
    busy: Annotated[bool, typer.Option("--busy", help="Only who is in a session.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = PAGE,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who is online, and who is busy."""
    from bridge.shell.caller import with_caller

    wanted = [name for name, is_wanted in (("online", online), ("busy", busy)) if is_wanted]

    async def work(caller: "Caller") -> dict[str, Any]:
        found: dict[str, Any] = {}
        cursor = ""
        while len(found) < limit:
            page = await caller.ask(f"status_{kind}", limit=PAGE, cursor=cursor)
            fits = {uuid: each for uuid, each in page.items() if all(each[name] for name in wanted)}
            found |= dict(list(fits.items())[: limit - len(found)])
            if len(page) < PAGE:
                break
            cursor = max(page)
        return found

    found = with_caller(config, secrets, organization, work)
    if as_json:
        typer.echo(json.dumps(found))
        return
    columns = ("uuid", "online", "busy", *(("status", "statusTimestamp") if kind == "devices" else ()))
    show([{"uuid": uuid, **each} for uuid, each in found.items()], columns, as_json=False, nothing="nobody")

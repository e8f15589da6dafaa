"""``endpoint-bridge explain``: why the bridge says of somebody what it says."""

import json
from typing import Annotated, Literal

import typer

from bridge.shell.options import ConfigOption, JsonOption, OrganizationOption, SecretsOption
from bridge.shell.tables import tree

EXAMPLES = """
\b
Examples:
  endpoint-bridge explain user ann
      is she online, busy, where can she be reached, and why
  endpoint-bridge explain device lamp --json
"""


def explain(
    kind: Annotated[Literal["user", "participant", "device"], typer.Argument(help="user, participant or device.")],
    uuid: Annotated[str, typer.Argument(help="Its id.", metavar="ID")],
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of somebody, which rule decides, and what would change it."""
    from bridge.shell.caller import asked

    found = asked(config, secrets, organization, "explain", kind=kind, uuid=uuid)
    typer.echo(json.dumps(found) if as_json else "\n".join(tree(found)))

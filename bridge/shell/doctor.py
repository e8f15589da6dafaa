"""``endpoint-bridge doctor``: is all well, and if not, what to do."""

import asyncio
import json
import os
from typing import TYPE_CHECKING

import typer

from bridge.shell.options import ConfigOption, JsonOption, OrganizationOption, SecretsOption

if TYPE_CHECKING:
    from bridge.shell.caller import Place
    from bridge.shell.checks import Finding

EXAMPLES = """
\b
Examples:
  endpoint-bridge doctor --config /etc/endpoint-bridge/bridge.toml --secrets /run/secrets
      with the bridge's own settings, on a machine from which it would run
"""


def doctor(
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the settings, Redis, the broker and the bridge; exit code 1 where something is at fault."""
    from bridge.config import load_settings
    from bridge.shell.caller import Place

    findings = asyncio.run(_examined(Place(load_settings(config, secrets, os.environ), organization), as_json=as_json))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    if any(finding.verdict == "fault" for finding in findings):
        raise typer.Exit(1)


async def _examined(place: "Place", *, as_json: bool) -> "list[Finding]":
    from bridge.shell.checks import examine

    findings = []
    async for finding in examine(place):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{finding.verdict:<5}  {finding.check:<13}  {finding.text}")
            if finding.remedy:
                typer.echo(f"{'':<22}-> {finding.remedy}")
    return findings

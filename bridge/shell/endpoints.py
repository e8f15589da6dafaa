"""``endpoint-bridge endpoints``: who can be reached where, and to change that by hand."""

import json
from typing import Annotated

import typer

from bridge.shell.options import ConfigOption, JsonOption, OrganizationOption, SecretsOption
from bridge.shell.tables import show

COLUMNS = ("id", "state", "keepAliveSeconds", "userId", "organizationId")
EXAMPLES = """
\b
Examples:
  endpoint-bridge endpoints list ann
      where ann can be reached
  endpoint-bridge endpoints register ann --id ann-test --keep-alive 600 --watch "device:*"
      an endpoint to try something out
  endpoint-bridge endpoints unregister ann-test --reason "moved"
"""

app = typer.Typer(help="Look at endpoints, register and end them.", epilog=EXAMPLES, no_args_is_help=True)

UserArgument = Annotated[str, typer.Argument(help="Id of the user.", metavar="USER")]
EndpointArgument = Annotated[str, typer.Argument(help="Id of the endpoint.", metavar="ENDPOINT")]


@app.command("list")
def list_endpoints(
    user: UserArgument,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a user's endpoints."""
    from bridge.shell.caller import asked

    found = asked(config, secrets, organization, "list_endpoints", userId=user)
    show(found, COLUMNS, as_json=as_json, nothing=f"{user} has no endpoint")


@app.command("show")
def view(
    endpoint: EndpointArgument,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one endpoint."""
    from bridge.shell.caller import asked

    found = asked(config, secrets, organization, "view_endpoint", userEndpointId=endpoint)
    show(found, COLUMNS, as_json=as_json, nothing="")


@app.command()
def register(
    user: UserArgument,
    endpoint: Annotated[
        str | None, typer.Option("--id", help="Id of the endpoint. [default: one that the bridge makes]")
    ] = None,
    keep_alive: Annotated[int, typer.Option(help="Seconds for which it lives without a keepalive.", min=1)] = 600,
    watch: Annotated[
        list[str] | None, typer.Option(help="Subject to watch: device:lamp, device:* or *. May be repeated.")
    ] = None,
    remind: Annotated[bool, typer.Option("--remind", help="Ask for a reminder before it ends.")] = False,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register an endpoint, or renew it; prints its id."""
    from bridge.shell.caller import asked

    found = asked(
        config,
        secrets,
        organization,
        "register_endpoint",
        userId=user,
        userEndpointId=endpoint,
        keepAliveSeconds=keep_alive,
        serverKeepAliveReminderOn=remind,
        watch=watch or None,
    )
    typer.echo(json.dumps(found) if as_json else found["id"])


@app.command()
def keepalive(
    endpoint: EndpointArgument,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
) -> None:
    """Keep an endpoint alive once."""
    from bridge.shell.caller import asked

    asked(config, secrets, organization, "keepalive_endpoint", userEndpointId=endpoint)


@app.command()
def unregister(
    endpoint: EndpointArgument,
    reason: Annotated[str | None, typer.Option(help="What the user's other endpoints are told.")] = None,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
) -> None:
    """End an endpoint."""
    from bridge.shell.caller import asked

    asked(config, secrets, organization, "unregister_endpoint", userEndpointId=endpoint, reason=reason)


@app.command()
def watch(
    endpoint: EndpointArgument,
    names: Annotated[
        list[str] | None, typer.Argument(help="Subjects: device:lamp, device:* or *. None: nobody.", metavar="NAME...")
    ] = None,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
) -> None:
    """Change whom an endpoint watches."""
    from bridge.shell.caller import asked

    asked(config, secrets, organization, "watch_endpoint", userEndpointId=endpoint, watch=names or [])

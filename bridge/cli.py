"""The command ``endpoint-bridge``: the shell around the house."""

import gc
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from bridge.acl import access_rules
from bridge.config import documented_defaults, effective, load_settings, load_with_sources, rooms
from bridge.errors import BridgeError, ConfigError, Unreachable
from bridge.logs import configure_logging
from bridge.shell import doctor, endpoints, explain, presence, rpc, send, simulate, tail
from bridge.shell.options import ConfigOption, SecretsOption

EXAMPLES = """
\b
Examples:
  endpoint-bridge demo
      a broker, a registry, a bridge and a live story
  endpoint-bridge demo --no-demo --data data
      the three alone, kept in a folder for the next start
  endpoint-bridge check-config --config bridge.toml
      is it right, and if not, what is wrong
  ENDPOINT_BRIDGE_MQTT__HOST=broker endpoint-bridge run --secrets /run/secrets
      beside a broker of your own
  endpoint-bridge doctor --config bridge.toml
      is all well, and if not, what to do

Exit codes: 0 done, 1 refused or at fault, 2 a setting or an argument is wrong, 3 no broker or no bridge answers.
"""

app = typer.Typer(
    name="endpoint-bridge",
    help="Tells every endpoint (a browser tab, a phone, a device) over MQTT what concerns it.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command()
def run(config: ConfigOption = None, secrets: SecretsOption = None) -> None:
    """Run the bridge beside a broker and Redis until SIGTERM or Ctrl-C."""
    settings = load_settings(config, secrets, os.environ)
    configure_logging(settings.log)
    gc.disable()  # until all is loaded, see `bridge.__main__`
    import uvloop  # the other commands answer at once because only this one loads the line

    from bridge.app import run as run_bridge

    raise typer.Exit(uvloop.run(run_bridge(settings)))


@app.command()
def demo(
    for_seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            min=1,
            help="End after so many seconds, but not within the first story; exit code 0 only if every event came.",
        ),
    ] = None,
    story: Annotated[bool, typer.Option("--demo/--no-demo", help="Play the story, or run the stack alone.")] = True,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps everything for the next start. [default: one removed at the end]"),
    ] = None,
    addresses: Annotated[
        Path | None, typer.Option(help="Write addresses and process ids to this file as JSON once all is ready.")
    ] = None,
) -> None:
    """Start Mosquitto, Valkey and a bridge on free loopback ports and play a story on them."""
    try:
        from bridge.demo import play
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the demo needs {error.name}: pip install 'endpoint-bridge[demo]', or use scripts/run"
        ) from None
    raise typer.Exit(play(for_seconds=for_seconds, story=story, data=data, addresses=addresses))


@app.command("check-config")
def check_config(config: ConfigOption = None, secrets: SecretsOption = None) -> None:
    """Check the configuration; name everything that is wrong with it and end with exit code 2."""
    settings, sources = load_with_sources(config, secrets, os.environ)
    rooms(settings)  # what passes here also runs
    if settings.auth.mode == "jwt":
        from bridge.adapters.http.keys import keys_of  # cryptography, which no other command needs

        keys_of(settings.auth)
    given = sum(source.kind != "default" for source in sources.values())
    topics = f"under {settings.prefix}" if settings.prefix else "without a prefix"
    typer.echo(
        f"ok: bridge {settings.name!r}, broker {settings.mqtt.host}:{settings.mqtt.port}"
        f"{' over TLS' if settings.mqtt.tls else ''}, "
        f"topics {topics}, {given} of {len(sources)} settings given"
    )


@app.command("show-config")
def show_config(
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print config/bridge.toml: all defaults, explained.")
    ] = False,
) -> None:
    """Print the settings in force as TOML, secrets hidden, each with where it comes from."""
    typer.echo(
        documented_defaults() if defaults else effective(*load_with_sources(config, secrets, os.environ)), nl=False
    )


@app.command()
def acl(
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: Annotated[
        str | None, typer.Option(help="Tenant whose listener the rules are for, where the prefix holds {organization}.")
    ] = None,
) -> None:
    """Print Mosquitto's access rules (acl_file) for the configuration in force."""
    typer.echo(access_rules(load_settings(config, secrets, os.environ), organization), nl=False)


app.add_typer(endpoints.app, name="endpoints")
for _room in (presence, send, rpc, tail, simulate, explain, doctor):
    _name = _room.__name__.rpartition(".")[2]
    app.command(_name, epilog=_room.EXAMPLES)(getattr(_room, _name))


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"endpoint-bridge {version('endpoint-bridge')}")
        except PackageNotFoundError:  # a checkout on the path, never installed
            typer.echo("endpoint-bridge (checkout)")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tells every endpoint (a browser tab, a phone, a device) over MQTT what concerns it."""


def main() -> None:
    """Entry point: an error that the operator can mend is told in plain words, without a traceback."""
    try:
        app()
    except ConfigError as error:
        print(f"endpoint-bridge: {error}", file=sys.stderr)
        sys.exit(2)
    except BridgeError as error:
        print(f"endpoint-bridge: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, Unreachable) else 1)

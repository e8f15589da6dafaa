"""The options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="Configuration file. [default: $ENDPOINT_BRIDGE_CONFIG, else config/bridge.toml where it exists]"
    ),
]
SecretsOption = Annotated[
    Path | None,
    typer.Option(help="Folder with one file per secret, such as mqtt.password. [default: $ENDPOINT_BRIDGE_SECRETS]"),
]
OrganizationOption = Annotated[
    str | None, typer.Option(help="Whose registry is meant. [default: default_organization]", metavar="NAME")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as one line of JSON.")]

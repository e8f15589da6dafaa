"""``endpoint-bridge simulate``: a small load, to see something happen."""

import asyncio
import json
import os
import random
import secrets as unguessable
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.shell.options import ConfigOption, OrganizationOption, SecretsOption

if TYPE_CHECKING:
    from bridge.shell.caller import Caller, Place

KEEP_ALIVE_SECONDS = 60
EXAMPLES = """
\b
Examples:
  endpoint-bridge simulate
      ten users and ten devices for ten seconds; `endpoint-bridge tail` in another terminal shows what is told
  endpoint-bridge simulate --users 100 --devices 500 --rate 200 --for 60
"""


def simulate(
    users: Annotated[int, typer.Option(help="Users, with one endpoint each that watches all devices.", min=1)] = 10,
    devices: Annotated[int, typer.Option(help="Devices that come, go and publish a status.", min=1)] = 10,
    rate: Annotated[float, typer.Option(help="Messages a second.", min=0.1, max=2_000)] = 10,
    for_seconds: Annotated[float, typer.Option("--for", help="Seconds.", min=0.1)] = 10,
    config: ConfigOption = None,
    secrets: SecretsOption = None,
    organization: OrganizationOption = None,
) -> None:
    """Publish presence and status of made-up users and devices; all of them are gone at the end."""
    from bridge.config import load_settings
    from bridge.shell.caller import Place

    place = Place(load_settings(config, secrets, os.environ), organization)
    tally = asyncio.run(_play(place, users, devices, rate, for_seconds))
    typer.echo("  ".join(f"{name}: {count}" for name, count in tally.items()))


async def _play(place: "Place", users: int, devices: int, rate: float, seconds: float) -> "Counter[str]":
    from bridge.shell.caller import calling

    run = unguessable.token_hex(3)
    names = [f"sim-{run}-{number}" for number in range(max(users, devices))]
    tally: Counter[str] = Counter(published=0, heard=0)
    heard = [place.topic("endpoint", endpoint=name) for name in names[:users]]
    async with calling(place, *heard) as caller:
        for name in names[:users]:
            await caller.ask(
                "register_endpoint",
                userId=name,
                userEndpointId=name,
                keepAliveSeconds=KEEP_ALIVE_SECONDS,
                watch=[f"device:{device}" for device in names[:devices]],
            )
        typer.echo(f"{users} users and {devices} devices, named sim-{run}-0 and so on")
        try:
            await _publish(caller, names[:users], names[:devices], rate, seconds, tally)
        finally:
            await _leave(caller, names[:users], names[:devices])
        while not caller.others.empty():
            tally["heard"] += caller.others.get_nowait() is not None
    return tally


async def _publish(
    caller: "Caller", users: list[str], devices: list[str], rate: float, seconds: float, tally: "Counter[str]"
) -> None:
    loop, place = asyncio.get_running_loop(), caller.place
    start = loop.time()
    renewed = start
    while (passed := loop.time() - start) < seconds:
        number = tally["published"]
        await asyncio.sleep(max(0.0, number / rate - passed))
        if loop.time() - renewed > KEEP_ALIVE_SECONDS / 3:
            renewed = loop.time()
            for name in users:
                await caller.guest.publish(place.topic("keepalive", endpoint=name), b"")
        device, user = random.choice(devices), random.choice(users)
        topic, payload = random.choice(
            (
                (place.topic("device", id=device), b"online"),
                (place.topic("device", id=device), b"offline"),
                (place.topic("device_status", id=device), json.dumps({"brightness": random.randint(0, 100)}).encode()),
                (place.topic("user", id=user), b"online"),
                (place.topic("user", id=user), b"offline"),
            )
        )
        await caller.guest.publish(topic, payload)
        tally["published"] += 1


async def _leave(caller: "Caller", users: list[str], devices: list[str]) -> None:
    for kind, names in (("device", devices), ("user", users)):
        for name in names:
            await caller.guest.publish(caller.place.topic(kind, id=name), b"offline")
    for name in users:
        await caller.ask("unregister_endpoint", userEndpointId=name, reason="the simulation is over")

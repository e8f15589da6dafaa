"""``scripts/pressure``: what the bridge bears, with figures. Ends with exit code 1 where something good was lost."""

import argparse
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.proxy import Proxy
from tests.integration.stack import Stack, stack
from tests.pressure import scenarios
from tests.pressure.scenarios import Figures
from tests.servers import free_port

Scenario = Callable[[Stack, Proxy, float], Figures]

LONG: dict[str, tuple[str, Scenario]] = {
    "rejects-qos0": (
        "bad messages at QoS 0, 50,000 a second, good ones between them",
        lambda stand, _, minutes: scenarios.rejects(stand, qos=0, junk=round(minutes * 3e6), per_second=50_000),
    ),
    "rejects-qos1": (
        "the same at QoS 1",
        lambda stand, _, minutes: scenarios.rejects(stand, qos=1, junk=round(minutes * 3e6), per_second=50_000),
    ),
    "never-acknowledging": (
        "100,000 events for two endpoints, one of which never acknowledges",
        lambda stand, _, __: scenarios.never_acknowledging(stand, events=100_000),
    ),
    "broker-away": (
        "no way to the broker while 150 statuses a second of 1 KB come there, and 200 requests a second by HTTP",
        lambda stand, way, minutes: scenarios.way_cut(
            stand, way, inputs=round(minutes * 9_000), per_second=150, large_bytes=1_000, calls_per_second=200
        ),
    ),
    "storm": (
        "3,000 devices connect at once, and break at once, five times",
        lambda stand, _, __: scenarios.storm(stand, clients=3_000, rounds=5),
    ),
    "retained": (
        "a new subscription where 100,000 retained messages are kept",
        lambda stand, _, __: scenarios.retained(stand, messages=100_000),
    ),
    "largest": (
        "messages as large as is taken, and larger",
        lambda stand, _, __: scenarios.largest(stand),
    ),
}


@contextmanager
def pressed(directory: Path) -> Iterator[tuple[Stack, Proxy]]:
    """A stack whose bridge reaches the broker, with the limits that the project ships, through a proxy."""
    ways: list[Proxy] = []

    def way(port: int) -> str:
        ways.append(Proxy(port))
        return str(ways[0].port)

    try:
        with stack(
            directory,
            durable=True,
            broker_lines="max_queued_bytes 268435456",
            way_to_broker=way,
            HTTP__PORT=str(free_port()),
        ) as found:
            yield found, ways[0]
    finally:
        for one in ways:
            one.close()


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/pressure",
        description="Presses a bridge on a stack of its own, checks that nothing good is lost, and prints figures.",
        epilog="\n".join(["scenarios:", *(f"  {name:20} {text}" for name, (text, _) in LONG.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=1, help="how long the floods and the outage last (1)")
    parser.add_argument("--only", action="append", choices=list(LONG), default=[], help="run these only")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell lets what it runs in the background ignore the second
        signal.signal(number, lambda *_: sys.exit(2))
    print(f"{platform.machine()}, Python {platform.python_version()}, {platform.system()} {platform.release()}")
    code = 0
    for name in given.only or LONG:
        text, scenario = LONG[name]
        with tempfile.TemporaryDirectory(prefix="endpoint-bridge-pressure-") as folder:
            try:
                with pressed(Path(folder)) as (found, way):
                    figures = scenario(found, way, given.minutes)
            except Exception:
                traceback.print_exc()
                code = 1
                continue
        print(f"{name}: {text}\n  " + ", ".join(f"{what} {value}" for what, value in figures.items()), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

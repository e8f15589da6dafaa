"""The command line of ``scripts/bench``: progress on standard error, the result on standard output."""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.load import masks, rooms
from scripts.load.figures import summary, table
from scripts.load.relay import Load, Relay
from scripts.load.stand import ROOT, Stand, StandError, build_tools, end_on_signals, find_program


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures the bridge, or a part of it.")
    parser.add_argument(
        "work",
        nargs="?",
        choices=["relay", "rooms", "masks"],
        default="relay",
        help="relay: the bridge against a null relay in C, to which all options belong; rooms: joins told to all of a "
        "room (--seconds, --redis, --json); masks: masks alone (--json)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind (3; 5 or more for the record)")
    parser.add_argument("--seconds", type=float, default=3, help="measured seconds of each variant in a round (3)")
    parser.add_argument("--users", type=int, default=10_000, help="users with one endpoint each (10,000)")
    parser.add_argument("--qos", choices=["0", "1", "both"], default="both", help="in and out (both)")
    parser.add_argument("--latency", action="store_true", help="also open loop at half of each one's maximum")
    parser.add_argument("--redis", choices=["redis", "valkey"], help="default: the system's Redis, else Valkey")
    parser.add_argument("--json", action="store_true", help="only JSON on standard output")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="one more sample of the bridge under py-spy")
    given = parser.parse_args()
    if given.rounds < 1 or given.seconds < 1 or not 1 <= given.users <= 1_000_000:
        parser.error("at least one round and one second, and 1 to 1,000,000 users")
    return given


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _git_hash() -> str:
    git = find_program("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - our own words
    return done.stdout.strip() or "unknown"


def _bench(given: argparse.Namespace) -> dict[str, Any]:
    loadgen, c_relay = build_tools()
    load = Load(loadgen, c_relay, given.users, given.seconds, given.rounds)
    results: dict[str, Any] = {}
    machine = _machine()
    with Stand(given.redis, _say) as stand:
        for qos in [1, 0] if given.qos == "both" else [int(given.qos)]:
            with stand.bridge(qos):
                if not results:
                    stand.register(given.users)
                relay = Relay(stand, load, qos, _say)
                measured = relay.measure(with_latency=given.latency)
                results[str(qos)] = {
                    "variants": summary(measured.rounds, measured.latency),
                    "redis_commands": measured.commands,
                }
                if given.profile:
                    file = (
                        given.profile
                        if given.qos != "both"
                        else given.profile.with_stem(f"{given.profile.stem}-qos{qos}")
                    )
                    relay.profile(file)
        versions = {"bridge": _git_hash(), **stand.versions()}
    return {
        "work": given.work,
        "users": given.users,
        "rounds": given.rounds,
        "seconds": given.seconds,
        "machine": machine,
        "versions": versions,
        "redis_persistence": "append-only file, fsync every second",
        "qos": results,
    }


def _bench_rooms(given: argparse.Namespace) -> dict[str, Any]:
    loadgen, _ = build_tools()
    machine = _machine()
    with Stand(given.redis, _say) as stand, stand.bridge(1):
        measured = rooms.measure(stand, loadgen, given.seconds, _say)
        versions = {"bridge": _git_hash(), **stand.versions()}
    return {"work": "rooms", "seconds": given.seconds, "machine": machine, "versions": versions, "rooms": measured}


def _rooms_text(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"{result['machine']['processor']}; {versions}",
        "CPU in us per delivery",
        "",
        rooms.table(result["rooms"]),
    ]
    return "\n".join(lines)


def _bench_masks(_: argparse.Namespace) -> dict[str, Any]:
    machine = _machine()
    timings = [timing._asdict() for timing in masks.measure()]
    return {"work": "masks", "machine": machine, "versions": {"bridge": _git_hash()}, "cpu_us": timings}


def _masks_text(result: dict[str, Any]) -> str:
    rows = ((each["us"], each["aim_us"], each["name"]) for each in result["cpu_us"])
    lines = [f"{us:10,.1f} us{f'  (aim {aim:,} us)' if aim else '':<20} {name}" for us, aim, name in rows]
    return "\n".join([f"{result['machine']['processor']}, bridge {result['versions']['bridge']}; CPU time", *lines])


def _text(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
        f"load average before the run: {machine['load_average_before']}",
        f"{versions}; Redis with {result['redis_persistence']}",
        f"{result['users']:,} users with one endpoint each; medians of {result['rounds']} x {result['seconds']:g} s",
        "CPU in us per event; batch: events per commit",
    ]
    for qos, figures in result["qos"].items():
        route = ' (route: event = "UserStatusChangedEvent", qos = 0)' if qos == "0" else ""
        lines += ["", f"{result['work']}, QoS {qos} in and out{route}", "", table(figures["variants"])]
    return "\n".join(lines)


def main() -> int:
    """Measure and print.

    Returns:
        The exit code: 0, or 1 where something of the stand failed.
    """
    given = _arguments()
    end_on_signals()
    bench, text = {
        "relay": (_bench, _text),
        "rooms": (_bench_rooms, _rooms_text),
        "masks": (_bench_masks, _masks_text),
    }[given.work]
    try:
        result = bench(given)
    except (StandError, subprocess.SubprocessError) as error:
        _say(str(error))
        return 1
    print(json.dumps(result, indent=2) if given.json else text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

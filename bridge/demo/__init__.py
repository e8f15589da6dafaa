"""``scripts/run``: the whole thing on one machine, with a story played on it over real MQTT."""

import signal
import threading
import time
from pathlib import Path

from bridge.demo.stack import Stack
from bridge.demo.story import Story

LOOK_SECONDS = 0.1
OVERTIME_SECONDS = 15.0  # for the first round of the story, where the given time is too short for it

BY_HAND = """
Try it by hand, each in a terminal of its own:
  mosquitto_rr -V 5 {at} -t rpc/register_endpoint -e replies/me -m '{{"userId":"ann","userEndpointId":"ann1","keepAliveSeconds":600,"watch":["device:lamp"]}}'
  mosquitto_sub {at} -t users/endpoints/ann1
  mosquitto_pub {at} -q 1 -t presence/devices/lamp -m online
Or over HTTP; what the second sends is printed where a subscriber of one of her endpoints runs:
  curl -H 'Content-Type: application/json' {http}/rtc-api/users/endpoints -d '{{"userId":"ann","userEndpointId":"ann2","keepAliveSeconds":600}}'
  curl -H 'Content-Type: application/json' {http}/rtc-api/users/endpoints/sendEvent -d '{{"userId":"ann","organizationId":"default","qos":1,"event":{{"type":"TeaReadyEvent","timestamp":"2026-01-01T16:00:00Z"}}}}'
"""  # noqa: E501 - commands are copied line by line


def play(*, for_seconds: float | None, story: bool, data: Path | None, addresses: Path | None) -> int:
    """Run the stack, and the story on it, until SIGTERM or Ctrl-C or for so many seconds.

    Returns:
        The exit code: 1 where the story was played and events of it are missing at the end, else 0.

    Raises:
        StackError: a part of the stack could not be started, or died.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with Stack(data, addresses, _say) as stack:
        _say(BY_HAND.format(at=f"-h 127.0.0.1 -p {stack.mqtt_port}", http=stack.http_url))
        _say(f"Data and logs are in {stack.data}{', until the end' if stack.temporary else ''}. Ctrl-C ends it.")
        end = time.monotonic() + for_seconds if for_seconds is not None else float("inf")
        told = Story(stack.mqtt_port, _say, ended, end) if story else None
        if told:
            told.start()
        while not ended.wait(LOOK_SECONDS):
            if time.monotonic() >= end + (OVERTIME_SECONDS if told and not told.rounds else 0):
                break
            stack.check()
        ended.set()
        missing = told.finish() if told else []
        if told and not told.rounds and for_seconds is not None:
            missing.append("the story was not played to its end once")
        _say("")
        if told and missing:
            _say("These events of the story did not come:")
            for line in missing:
                _say(f"  {line}")
        elif told and told.rounds:
            _say(f"Every event of the story came ({told.expected} expected, {told.rounds} times round).")
        _say("Stopping the bridge, the broker and the registry.")
    return 1 if missing and for_seconds is not None else 0


def _say(line: str) -> None:
    print(line, flush=True)

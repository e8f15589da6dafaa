"""A caller over HTTP: one request after the other, to whichever bridge answers. What was answered must stand."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.faults.ledger import Ledger

DEVICES = ("w0", "w1", "w2")
EVERY_SECONDS, TIMEOUT_SECONDS = 0.1, 2.0
LONG_AGO_SECONDS = 1_700_000_000  # times of statuses must rise, and not be ahead of the clock


class Caller:
    """Changes the statuses of `DEVICES`, which nobody else does, in a thread of its own.

    Args:
        ports: where bridges listen now.
        next_number: of an input.
        ledger: is told what must come, and of what kind.
    """

    def __init__(self, ports: Callable[[], Sequence[int]], next_number: Callable[[], int], ledger: Ledger) -> None:
        self._ports = ports
        self._next_number = next_number
        self._ledger = ledger
        self._answered: dict[str, int] = {}
        self._dice = random.Random(0)
        self._go, self._stop, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="caller")
        self._thread.start()

    def resume(self) -> None:
        self._idle.clear()
        self._go.set()

    def pause(self) -> None:
        """Begin no more requests."""
        self._go.clear()

    @property
    def is_idle(self) -> bool:
        """The last request was answered or given up."""
        return self._idle.is_set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(2 * TIMEOUT_SECONDS)

    def forget(self) -> None:
        """What was answered may be gone, and no fault of the bridge."""
        self._answered.clear()

    def told(self, event: dict[str, Any]) -> None:
        """The endpoint of a device heard of it."""
        if event["type"] == "DeviceStatusChangedEvent":
            self._ledger.came(f"{event['uuid']} by HTTP", event["status"]["http"])

    def differences(self, statuses: dict[str, Any]) -> Iterator[str]:
        """Statuses that are older than what was answered; one whose request was given up may be newer."""
        for device, number in self._answered.items():
            found = json.loads(statuses[device]["status"] or "{}").get("http", 0) if device in statuses else 0
            if found < number:
                yield f"the status of {device} is {found}, answered was {number}"

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._go.is_set():
                self._idle.set()
                time.sleep(0.01)
                continue
            device, number = self._dice.choice(DEVICES), self._next_number()
            for port in self._ports():
                if self._is_done(port, device, number):
                    self._ledger.counts["HTTP requests answered"] += 1
                    self._answered[device] = number
                    self._ledger.expect(f"{device} by HTTP", number)
                    break
            time.sleep(EVERY_SECONDS)

    def _is_done(self, port: int, device: str, number: int) -> bool:
        status = json.dumps({"http": number})
        body = json.dumps({"uuid": device, "status": status, "timestamp": LONG_AGO_SECONDS + number})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", "/rpc/update_device_status", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status == 200 and json.loads(answer.read())["result"] is not None
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

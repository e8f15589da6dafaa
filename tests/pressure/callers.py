"""Callers over HTTP who go on whatever is away: they send, keep alive, register and ask, and note each answer."""

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from typing import Any

_TIMEOUT_SECONDS = 30.0
_THREADS = 32


class Callers:
    """Many at once, together at a pace, in threads of their own until `close`.

    Args:
        port: of the bridge's HTTP.
        user: who is sent events ``CallMadeEvent`` with a ``number`` each.
        per_second: requests of all together.
        fill: in each event, to make it larger.

    Attributes:
        answers: what was answered, and how often: ``send_event 200``, ``send_event 503 the MQTT broker is away``.
        sent: numbers of the events whose sending was answered with success.
        refused: numbers of those of which the bridge said that nothing was done.
    """

    def __init__(self, port: int, user: str, per_second: float, fill: str) -> None:
        self.answers: Counter[str] = Counter()
        self.sent: set[int] = set()
        self.refused: set[int] = set()
        self._port, self._user, self._fill = port, user, fill
        self._every_seconds = _THREADS / per_second
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="caller") for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Begin no more requests, and wait for the answers to the last ones."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_SECONDS)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS)
        while not self._stop.is_set():
            began = time.monotonic()
            with self._lock:
                number = next(self._numbers)
            method, params = self._request(number)
            try:
                connection.request("POST", f"/rpc/{method}", json.dumps(params), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                self._note(method, type(error).__name__, number, "")
                connection.close()
            else:
                self._note(method, str(answer.status), number, text)
            self._stop.wait(self._every_seconds - (time.monotonic() - began))
        connection.close()

    def _request(self, number: int) -> tuple[str, dict[str, Any]]:
        user = self._user
        event = {"type": "CallMadeEvent", "timestamp": "2026-01-31T12:00:00Z", "number": number, "fill": self._fill}
        requests: list[tuple[str, dict[str, Any]]] = [
            ("send_event", {"userId": user, "event": event, "qos": 1}),
            ("keepalive_endpoint", {"userEndpointId": user}),
            ("register_endpoint", {"userId": "caller", "userEndpointId": f"c{number % 100}", "keepAliveSeconds": 600}),
            ("list_endpoints", {"userId": user}),
        ]
        return requests[number % len(requests)]

    def _note(self, method: str, outcome: str, number: int, text: str) -> None:
        with self._lock:
            reason = "" if outcome == "200" or not text else f" {json.loads(text)['detail'].partition(':')[0]}"
            self.answers[f"{method} {outcome}{reason}"] += 1
            if method == "send_event" and outcome == "200":
                self.sent.add(number)
            elif method == "send_event" and "nothing was done" in text:
                self.refused.add(number)

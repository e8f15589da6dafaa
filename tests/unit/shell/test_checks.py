from collections.abc import Iterable
from typing import Any

from bridge.settings import Settings
from bridge.shell import checks
from bridge.shell.caller import Place
from bridge.shell.checks import Finding


def verdicts(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in findings}


def place(**settings: Any) -> Place:
    return Place(Settings.model_validate(settings), None)


def test_what_isolates_nobody_is_told_with_what_to_choose() -> None:
    assert verdicts(checks.settings(place()))["isolation"] == "warn"
    assert verdicts(checks.settings(place(endpoints={"id_policy": "bound"}, mqtt={"username": "bridge"}))) == {
        "settings": "ok",
        "isolation": "ok",
    }
    tenants = place(prefix="{organization}/", endpoints={"id_policy": "bound"}, mqtt={"username": "bridge"})
    assert verdicts(checks.settings(tenants))["isolation"] == "ok"


def test_keys_that_cannot_be_read_are_a_fault() -> None:
    [_, keys, _] = checks.settings(place(auth={"mode": "jwt", "key_file": "/nowhere.pem"}))
    assert (keys.check, keys.verdict) == ("keys", "fault")
    assert "cannot be read" in keys.text
    [_, keys, _] = checks.settings(place(auth={"mode": "jwt", "jwks_url": "http://127.0.0.1:9/keys"}))
    assert keys.verdict == "fault"


def test_redis_may_lose_what_it_does_not_write() -> None:
    assert verdicts(checks._persistence({"aof_enabled": "1", "aof_last_write_status": "ok"})) == {"persistence": "ok"}
    assert verdicts(checks._persistence({"aof_enabled": "0"})) == {"persistence": "warn"}
    assert verdicts(checks._persistence({"aof_enabled": "1", "aof_last_write_status": "err"})) == {
        "persistence": "fault"
    }
    assert verdicts(checks._memory({"used_memory": "90", "maxmemory": "100"})) == {"memory": "warn"}
    assert not verdicts(checks._memory({"used_memory": "90", "maxmemory": "0"}))


def test_http_that_does_not_answer_is_a_fault_and_none_is_none() -> None:
    assert verdicts(checks.http(place(http={"port": 9}))) == {"http": "fault"}
    assert not verdicts(checks.http(place(http={"port": 0})))

"""The running server against its own document, judged by schemathesis: what fits is taken, all else refused in form."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.stack import stack
from tests.servers import free_port
from tests.unit.adapters.http.identity import SECRET, token

AS_ANN = ("--header", f"Authorization: Bearer {token(SECRET, 'HS256', None)}")
# What no schema can say: a room may be full, and then 400 is right (contract details 24) for a body that fits.
EXPECTED = """\
[[operations]]
include-name = "POST /rooms/{token}"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "410", "429", "5xx"]
"""
JWT = {"AUTH__MODE": "jwt", "AUTH__ALGORITHMS": '["HS256"]'}


@pytest.mark.parametrize(
    ("settings", "options", "examples"),
    [
        pytest.param({"AUTH__TOKEN_ENDPOINT": "true"}, ("--phases=examples,fuzzing",), 3, id="open"),
        pytest.param(
            {"AUTH__TOKEN_ENDPOINT": "true"},
            (),
            200,
            id="open-long",
            marks=[pytest.mark.slow, pytest.mark.timeout(1800)],
        ),
        pytest.param(JWT, AS_ANN, 100, id="ann-long", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_the_document_and_the_server_agree(
    tmp_path: Path, settings: dict[str, str], options: tuple[str, ...], examples: int
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    if settings is JWT:
        (secrets / "auth.secret").write_text(SECRET)
    (tmp_path / "schemathesis.toml").write_text(EXPECTED)
    port = str(free_port())
    with stack(tmp_path, HTTP__PORT=port, AUDIT__ENABLED="true", SECRETS=str(secrets), **settings) as found:
        asked = [str(Path(sys.executable).with_name("st")), "run", f"{found.bridge.http_url}/openapi.json", *options]
        asked += ["--checks=all", f"--max-examples={examples}", "--seed=1", "--continue-on-failure", "--no-color"]
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr
        assert found.web().get("/readyz").status_code == 200
        assert found.world.rpc("online_users") is not None
        log = found.bridge.log
        assert "level=error" not in log
        assert " [error" not in log

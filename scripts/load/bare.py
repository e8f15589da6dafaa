"""What the bridge's HTTP is measured against: the same calls in plain FastAPI, which do nothing.

As a program it serves them on a port of the loopback, on uvloop, with the settings of uvicorn that the bridge has.
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Registration(BaseModel):
    """What registers an endpoint."""

    keepAliveSeconds: int  # noqa: N815 - the names are those of the API
    serverKeepAliveReminderOn: bool = False  # noqa: N815
    userEndpointId: str | None = None  # noqa: N815
    userId: str | None = None  # noqa: N815


class Named(BaseModel):
    """What names an endpoint."""

    userEndpointId: str  # noqa: N815


class Sending(BaseModel):
    """An event, and to whom it goes."""

    event: dict[str, Any]
    userId: str  # noqa: N815
    organizationId: str | None = None  # noqa: N815
    userEndpointId: str | None = None  # noqa: N815
    qos: int = 0
    masks: list[str] = []


@app.post("/rtc-api/users/endpoints")
async def register(registration: Registration) -> str:
    """Answer with the id."""
    return registration.userEndpointId or ""


@app.post("/rtc-api/users/endpoints/keepalive", status_code=204)
async def keep_alive(_: Named) -> None:
    """Answer with nothing."""


@app.post("/rtc-api/users/endpoints/sendEvent")
async def send_event(_: Sending) -> int:
    """Answer as if one copy was sent."""
    return 1


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )

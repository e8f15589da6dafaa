"""Whether the process lives, whether it works, and its meters; for supervisors, balancers and Prometheus.

They need no token: who reaches the port may look. Nothing here names a user or an endpoint.
"""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bridge.adapters.http import documents as d
from bridge.adapters.http.problems import headers_of
from bridge.adapters.http.router import Routes
from bridge.adapters.http.schemas import Schema
from bridge.health import Health

HEALTH_PATHS = ("/healthz", "/readyz", "/metrics")

STATUS: Schema = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}, "faults": {"type": "array", "items": {"type": "string"}}},
}


def health_routes(health: Health) -> Routes:
    """Return the routes of ``/healthz``, ``/readyz`` and ``/metrics``."""
    routes = Routes("health")

    @routes.on("GET", "/healthz", d.document("Whether the process lives", answer=STATUS))
    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    ready = d.document("Whether it works, and else why not", answer=STATUS)
    ready["responses"][503]["content"] = {"application/json": {"schema": STATUS}}

    @routes.on("GET", "/readyz", ready)
    async def readyz(_: Request) -> Response:
        faults = health.faults()
        if not faults:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "faults": faults}, 503, headers=headers_of(503))

    metrics = d.document("Meters in the text format of Prometheus")
    metrics["responses"][200]["content"] = {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}

    @routes.on("GET", "/metrics", metrics)
    async def metered(_: Request) -> Response:
        return Response(health.exposition(), media_type=CONTENT_TYPE_LATEST)

    return routes

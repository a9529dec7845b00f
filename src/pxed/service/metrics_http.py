"""Metrics over TCP, for a Prometheus on another host: one path, read-only, on an address that the operator chose."""

from pxed.net.connection import Limits
from pxed.net.http import BootHttp
from pxed.net.message import BytesBody, Request, Response
from pxed.service.metrics import CONTENT_TYPE, Metrics

__all__ = ["MetricsHttp"]

# Scrapers are a few, and ask every 15 s or so.
LIMITS = Limits(connections=32, body=0)


class MetricsHttp:
    """GET /metrics on `place`, an address and a port."""

    def __init__(self, place: tuple[str, int], metrics: Metrics) -> None:
        address, port = place
        self._metrics = metrics
        self._server = BootHttp((address,), port, self._handle, LIMITS, setting="[metrics] listen")

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._server.ports[0]

    def open(self) -> None:
        """Bind. Raises OperatorError, which says who holds the port."""
        self._server.open()

    def start(self) -> None:
        """Begin to serve; call it on the event loop."""
        self._server.start()

    async def stop(self) -> None:
        """Close everything."""
        await self._server.stop()

    def _handle(self, request: Request) -> Response:
        if request.path != "/metrics":
            return Response.text(404, "only /metrics is here")
        if request.method == "POST":
            return Response.text(405, "metrics are only read", (("Allow", "GET, HEAD"),))
        return Response(200, BytesBody(self._metrics.text()), CONTENT_TYPE, (("Cache-Control", "no-store"),))

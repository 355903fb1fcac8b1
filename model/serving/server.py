"""The serving container's program: SageMaker's `/ping` and `/invocations` in front of worker processes.

This process speaks HTTP and never decodes an image; the worker processes run the model. It ends with a message and a
non-zero status if the model cannot be loaded, so that the endpoint is reported as failed instead of waiting for a
health check that will never pass. `docs/serving-interface.md` has the interface and the limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from types import FrameType
from typing import NoReturn

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..core.artifact import ArtifactError, verify_files
from ..core.artifact_digest import DigestError, check_digest
from ..core.logs import configure_logging
from .invocation import Answer, error_answer, respond
from .metrics import ServingMetrics
from .protocol import LimitedProtocol
from .settings import ServingSettings, SettingsError
from .worker_pool import ModelNotLoadedError, WorkerPool

# Most clients look for an answer only when they have sent everything, so a body over the limit is read to its end,
# unless it is this many times the limit: who sends that much is cut off.
_DRAINED_BODIES = 4

# The rest of a body that is far too large is not waited for.
_HEADERS = {413: {"connection": "close"}, 503: {"retry-after": "1"}}

logger = logging.getLogger(__name__)


class InvocationServer:
    """The HTTP side of the container."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._metrics = ServingMetrics(namespace=settings.metrics_namespace, server=settings.metrics_server)
        self._pool = WorkerPool(settings, self._metrics)
        self._held = 0
        app = Starlette(
            routes=[
                Route("/ping", self._ping, methods=["GET"]),
                Route("/invocations", self._invocations, methods=["POST"]),
            ],
            lifespan=self._lifespan,
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=LimitedProtocol,
            ws="none",
            timeout_keep_alive=75,  # longer than the callers' connection pools keep theirs, or they meet closed ones
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        self._server = uvicorn.Server(config)
        self.failure: str | None = None

    def run(self, listener: socket.socket) -> None:
        """Serve until the process is asked to stop or the model fails; then `failure` says why."""
        self._server.run(sockets=[listener])

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._run_model()), asyncio.create_task(self._report_metrics())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()
        if self._settings.metrics_seconds:
            self._metrics.report()

    async def _run_model(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                # Hashing the graph takes as long as loading it, so the two go side by side.
                tasks.create_task(self._verify_files())
                tasks.create_task(self._pool.run())
        except* (ArtifactError, ModelNotLoadedError) as errors:
            self.failure = str(errors.exceptions[0])
        except* Exception:
            logger.exception("The server's own program failed")
            self.failure = "its own program failed; the error is logged above."
        # Only reached when the model has failed: otherwise this task ends by being cancelled.
        self._server.should_exit = True

    async def _ping(self, _: Request) -> Response:
        return Response(status_code=200 if self._pool.is_ready else 503)

    async def _verify_files(self) -> None:
        card = await asyncio.to_thread(verify_files, self._settings.model_dir)
        self._metrics.server = self._metrics.server or card.name

    async def _report_metrics(self) -> None:
        while self._settings.metrics_seconds:
            await asyncio.sleep(self._settings.metrics_seconds)
            self._metrics.report()

    async def _invocations(self, request: Request) -> Response:
        started = time.perf_counter()
        try:
            answer = self._refusal()  # if it is one, uvicorn reads the body and throws it away
            if answer is None:
                self._held += 1
                try:
                    body, content_type = await self._read_body(request), request.headers.get("content-type", "")
                    answer = await respond(content_type, body, self._settings.max_body_bytes, self._pool.submit)
                finally:
                    self._held -= 1
        except ClientDisconnect:
            return Response(status_code=400)  # goes nowhere
        self._metrics.request(answer.status, time.perf_counter() - started)
        return Response(answer.body, answer.status, _HEADERS.get(answer.status), media_type="application/json")

    def _refusal(self) -> Answer | None:
        if not self._pool.has_loaded:
            return error_answer(503, "not_ready", "The model is still being loaded; try again in a moment.")
        if self._held >= self._settings.max_requests:
            message = f"All {self._settings.max_requests} requests that the server may hold are taken; try again later."
            return error_answer(503, "overloaded", message)
        return None

    async def _read_body(self, request: Request) -> bytes | None:
        """Return the request's body, or None if it is over the limit; what is over it is never kept."""
        limit = self._settings.max_body_bytes
        chunks: list[bytes] = []
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit * _DRAINED_BODIES:
                break
            if received <= limit:
                chunks.append(chunk)
            else:
                chunks.clear()
        return b"".join(chunks) if received <= limit else None


def main() -> int:
    """Run the serving container's program; return its exit status, 0 after an orderly stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    configure_logging(logging.INFO)
    try:
        settings = ServingSettings.from_environment(os.environ)
        configure_logging(settings.log_level)
        if settings.artifact_digest is not None:
            check_digest(settings.model_dir, settings.artifact_digest)
        listener = _listen(settings.host, settings.port)
    except (SettingsError, DigestError, OSError) as error:
        logger.error("The server cannot start: %s", error)
        return 1
    server = InvocationServer(settings)
    place = {"host": settings.host, "port": settings.port}
    logger.info("Listening", extra=place | {"workers": settings.workers, "threads": settings.threads})
    server.run(listener)
    if server.failure is not None:
        logger.error("The server stops: %s", server.failure)
        return 1
    return 0


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=1024)
    # asyncio sets this only on sockets that say they are TCP, which those accepted here do not (their protocol
    # number is 0, "the default"). Without it every answer waits 40 ms for the caller's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _stop(_: int, __: FrameType | None) -> NoReturn:
    # uvicorn installs its own handler while it serves and, once it has stopped in order, raises the signal
    # again for the handler from before, which would end the process as if it had been killed.
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())

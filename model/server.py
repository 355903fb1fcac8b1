"""The serving container's program: SageMaker's `/ping` and `/invocations` in front of worker processes.

This process speaks HTTP and never touches a picture; each worker process runs the model with one thread. It
ends with a message and a non-zero status if the model cannot be loaded, so that the endpoint is reported as failed
instead of waiting for a health check that will never pass. `docs/serving.md` describes the interface and the limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from types import FrameType
from typing import NoReturn

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from .artifact import ArtifactError, verify_files
from .invocation import CUSTOM_ATTRIBUTES_HEADER, Answer, error_answer, oversized_answer, with_inline_errors
from .logs import configure_logging
from .serving_settings import ServingSettings, SettingsError
from .worker_pool import ModelNotLoadedError, WorkerPool

# Most clients look for an answer only when they have sent everything, so a body over the limit is read to its end,
# unless it is this many times the limit: who sends that much is cut off.
_DRAINED_BODIES = 4

# The rest of a body that is far too large is not waited for.
_HEADERS = {413: {"connection": "close"}, 503: {"retry-after": "1"}}

logger = logging.getLogger(__name__)


class InvocationServer:
    """The HTTP side of the container.

    Parameters
    ----------
    settings
        Limits, and where to listen.
    pool
        Answers the requests.
    """

    def __init__(self, settings: ServingSettings, pool: WorkerPool) -> None:
        self._settings = settings
        self._pool = pool
        self._held = 0
        self.app = Starlette(
            routes=[
                Route("/ping", self._ping, methods=["GET"]),
                Route("/invocations", self._invocations, methods=["POST"]),
            ],
            lifespan=self._lifespan,
        )
        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
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
        model = asyncio.create_task(self._run_model())
        yield
        model.cancel()
        await asyncio.gather(model, return_exceptions=True)
        await self._pool.close()

    async def _run_model(self) -> None:
        """Keep the model running; if it cannot be, stop the server."""
        try:
            async with asyncio.TaskGroup() as tasks:
                # Hashing the graph takes as long as loading it, so the two go side by side.
                tasks.create_task(asyncio.to_thread(verify_files, self._settings.model_dir))
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

    async def _invocations(self, request: Request) -> Response:
        try:
            refusal = self._refusal()
            if refusal is not None:
                return _response(refusal)  # uvicorn reads the body and throws it away
            self._held += 1
            try:
                return _response(await self._answer(request))
            finally:
                self._held -= 1
        except ClientDisconnect:
            return Response(status_code=400)  # goes nowhere

    def _refusal(self) -> Answer | None:
        """Return why no request can be taken now, None if one can."""
        if not self._pool.has_loaded:
            return error_answer(503, "not_ready", "The model is still being loaded; try again in a moment.")
        if self._held >= self._settings.max_requests:
            message = f"All {self._settings.max_requests} requests that the server may hold are taken; try again later."
            return error_answer(503, "overloaded", message)
        return None

    async def _answer(self, request: Request) -> Answer:
        content_type = request.headers.get("content-type", "")
        custom_attributes = request.headers.get(CUSTOM_ATTRIBUTES_HEADER, "")
        body = await self._read_body(request)
        if body is None:
            result = oversized_answer(self._settings.max_body_bytes)
        else:
            result = await self._pool.submit(body, content_type.encode("latin-1"), custom_attributes.encode("latin-1"))
        return with_inline_errors(result, content_type)

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
    try:
        settings = ServingSettings.from_environment(os.environ)
    except SettingsError as error:
        configure_logging(logging.INFO)
        logger.error("The server cannot start: %s.", error)
        return 1
    configure_logging(settings.log_level)
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        logger.error("The server cannot listen on %s:%d: %s.", settings.host, settings.port, error.strerror)
        return 1
    server = InvocationServer(settings, WorkerPool(settings.workers, settings.timeout_seconds))
    logger.info("Listening", extra={"host": settings.host, "port": settings.port, "workers": settings.workers})
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


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, _HEADERS.get(answer.status), media_type="application/json")


def _stop(_: int, __: FrameType | None) -> NoReturn:
    # uvicorn installs its own handler while it serves and, once it has stopped in order, raises the signal
    # again for the handler from before, which would end the process as if it had been killed.
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())

"""One copy of the model inside Ray Serve: the same answers as the serving container's, without its HTTP server.

The artifact's `deployment.py` wraps it in a Ray Serve deployment. Ray itself is not imported here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from .artifact import verify_files
from .invocation import Answer, RequestLimits, classify, respond
from .invocation_request import Options
from .predictor import Predictor
from .serving_settings import ServingSettings


class Replica:
    """A loaded model that answers Ray's HTTP requests, one at a time."""

    def __init__(self, predictor: Predictor, limits: RequestLimits) -> None:
        self._predictor = predictor
        self._limits = limits

    @classmethod
    def from_environment(cls) -> Replica:
        """Load the model where the environment says it is.

        Raises
        ------
        ArtifactError, SettingsError
            Ray reports them in the container's log, and the deployment as unhealthy.
        """
        settings = ServingSettings.from_environment(os.environ)
        verify_files(settings.model_dir)
        predictor = Predictor.load(
            settings.model_dir, settings.engine, settings.threads, max_pixels=settings.max_pixels
        )
        return cls(predictor, RequestLimits(settings.max_body_bytes, settings.max_pictures))

    async def __call__(self, request: Request) -> Response:
        """Answer one `POST /invocations`, which Ray's adapter has turned into `POST /`."""
        body = await request.body()
        allowed = body if len(body) <= self._limits.max_body_bytes else None
        answer = await respond(request.headers, allowed, self._limits, self._classify_all)
        return Response(answer.body, answer.status, media_type=answer.media_type)

    async def _classify_all(self, pictures: Sequence[bytes], options: Options) -> Sequence[Answer]:
        # In a thread, so that Ray's health checks are answered while the model computes.
        return await asyncio.to_thread(lambda: [classify(self._predictor, picture, options) for picture in pictures])

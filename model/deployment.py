"""One copy of the model inside Ray Serve: the same answers as the serving container's, without its HTTP server.

The artifact's `deployment.py` wraps it in a Ray Serve deployment. Ray itself is not imported here.
"""

from __future__ import annotations

import asyncio
import os

from starlette.requests import Request
from starlette.responses import Response

from .artifact import verify_files
from .invocation import CUSTOM_ATTRIBUTES_HEADER, answer, oversized_answer, with_inline_errors
from .predictor import Predictor
from .serving_settings import ServingSettings


class Replica:
    """A loaded model that answers Ray's HTTP requests, one at a time."""

    def __init__(self, predictor: Predictor, *, max_body_bytes: int) -> None:
        self._predictor = predictor
        self._max_body_bytes = max_body_bytes

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
        predictor = Predictor.load(settings.model_dir, settings.engine, max_pixels=settings.max_pixels)
        return cls(predictor, max_body_bytes=settings.max_body_bytes)

    async def __call__(self, request: Request) -> Response:
        """Answer one `POST /invocations`, which Ray's adapter has turned into `POST /`."""
        body = await request.body()
        content_type = request.headers.get("content-type", "")
        if len(body) > self._max_body_bytes:
            result = oversized_answer(self._max_body_bytes)
        else:
            custom_attributes = request.headers.get(CUSTOM_ATTRIBUTES_HEADER, "")
            # In a thread, so that Ray's health checks are answered while the model computes.
            result = await asyncio.to_thread(answer, self._predictor, body, content_type, custom_attributes)
        result = with_inline_errors(result, content_type)
        return Response(result.body, result.status, media_type="application/json")

"""Lambda's entry point: everything that can be made once is made when Lambda loads this module."""

from __future__ import annotations

import os
import uuid
from typing import Any

from . import logs
from .aws.endpoint import EndpointClient
from .config import Settings
from .fetching import ImageFetcher
from .service import Service

logs.configure()
_settings = Settings.from_environment(os.environ)
_limit = None
if _settings.caller_table:  # most functions have none, and start without this module
    from .aws.caller_limit import CallerLimit

    _limit = CallerLimit(_settings)
_service = Service(
    _settings,
    EndpointClient(_settings),
    ImageFetcher(_settings.max_image_bytes, _settings.fetch_timeout_seconds, _settings.contact),
    _limit,
)


def handler(event: object, context: Any) -> dict[str, Any]:
    """Answer one event; see docs/function.md for the contract."""
    return _service.answer(
        event,
        request_id=getattr(context, "aws_request_id", None) or str(uuid.uuid4()),
        remaining_seconds=context.get_remaining_time_in_millis() / 1000,
    )

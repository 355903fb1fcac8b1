"""JSON log lines with the fields given as ``extra=``, in Lambda's shape also where Lambda installs no handler."""

from __future__ import annotations

import json
import logging
import os
import time

_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            **{key: value for key, value in record.__dict__.items() if key not in _STANDARD_FIELDS},
        }
        if record.exc_info:
            line["stackTrace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure() -> None:
    """Make this package's log lines appear; call once, at start."""
    # Lambda's own setting of the level wins; without it Python's default would hide the line per request.
    if "AWS_LAMBDA_LOG_LEVEL" not in os.environ:
        logging.getLogger(__package__).setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.getLogger().addHandler(handler)

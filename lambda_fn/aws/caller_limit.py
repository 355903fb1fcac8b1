"""An upper limit of requests per caller and minute, over all execution environments: a counter in DynamoDB."""

from __future__ import annotations

import http.client
import json
import logging
import os
import time
from collections.abc import Mapping

from ..config import Settings
from ..connection import Deadline
from ..errors import ServiceError, ThrottledError
from .signed import SignedClient, json_object

_HEADERS = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.UpdateItem"}
_SECONDS = 1.0
_MAX_ANSWER_BYTES = 64 * 1024
# Why DynamoDB throttles a counter that is written too often (API reference, ThrottlingReason); other reasons are of the
# table or of the account, so of all callers.
_HOT = "KeyRangeThroughputExceeded"

logger = logging.getLogger(__name__)


class CallerLimit:
    """Counts the requests of callers in the table that the settings name."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        self._client = SignedClient(settings.dynamodb_url, "dynamodb", settings.region, environ)
        self._table = settings.caller_table
        self._limit = settings.caller_requests_per_minute
        self._over: dict[str, int] = {}

    def count(self, caller: str, deadline: Deadline) -> None:
        """Count a request of a caller (an ARN); raise ThrottledError if it is one too many.

        Sessions of a role and federated users of an account are one caller, because their names can be chosen freely.
        Where DynamoDB is out of reach the request goes on, and the log says so: a limit that fails must not take the
        classifier with it. But a counter that is throttled by itself means that its caller sends hundreds of requests a
        second, who is refused.
        """
        minute, second = divmod(int(time.time()), 60)
        if ":sts:" in caller:
            caller = caller.rpartition("/")[0]
        # Who is over the limit in a minute stays so, and costs no more writes.
        if self._over.get(caller) == minute or self._is_over(caller, minute, deadline.within(_SECONDS)):
            self._over[caller] = minute
            throttled = ThrottledError(f"You may send {self._limit} requests a minute. Try again in the next one.")
            throttled.headers = {"retry-after": str(60 - second)}
            raise throttled

    def _is_over(self, caller: str, minute: int, deadline: Deadline) -> bool:
        request = {
            "TableName": self._table,
            "Key": {"caller_and_minute": {"S": f"{caller} {minute}"}},
            "UpdateExpression": "ADD requests :one SET expires = :expires",
            "ExpressionAttributeValues": {":one": {"N": "1"}, ":expires": {"N": str((minute + 2) * 60)}},
            "ReturnValues": "UPDATED_NEW",
        }
        try:
            body = json.dumps(request).encode()
            response, payload = self._client.post("/", _HEADERS, body, deadline, _MAX_ANSWER_BYTES)
            document = json_object(payload)
            if response.status == 200:
                return int(document["Attributes"]["requests"]["N"]) > self._limit
            if _HOT in str(document):
                return True
            raise ValueError(f"{response.status}: {document}")
        except (OSError, http.client.HTTPException, KeyError, TypeError, ValueError, ServiceError) as error:
            logger.error("the limit of callers does not hold", extra={"detail": repr(error)})
            return False

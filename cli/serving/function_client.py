"""Calling the deployed function through its URL, signed as any AWS client would sign."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from cli.aws import Stage
from cli.errors import AwsError, aws_errors
from cli.serving.answers import parse_answer

_TIMEOUT = urllib3.Timeout(connect=5, read=70)  # the function itself gives up earlier
# A second try where a connection breaks, so that it loses no evaluation, and three where there is too much or nobody to
# answer: after `Retry-After`, or where Lambda itself says nothing of when, after 0, 2 and 4 seconds.
_RETRY = urllib3.Retry(
    None, connect=1, read=1, other=1, status=3, redirect=False, allowed_methods=None,
    status_forcelist=(429, 503), backoff_factor=1, retry_after_max=30, raise_on_status=False,
)  # fmt: skip

#: A synchronous call of a function holds 6 MB, an image in base64; what is larger AWS may cut off without an answer.
MAX_IMAGE_BYTES = 6 * 2**20 * 3 // 4


@dataclass(frozen=True)
class Answer:
    """The HTTP status, and the known fields of the JSON body or a ``message``."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str | None:
        """The error as one line for a person, or None when the image was classified."""
        if self.status == 200 and "predictions" in self.body:
            return None
        error = self.body.get("error") or {"message": self.body.get("message") or "refused"}
        details = [error["code"]] if "code" in error else []
        details.append(f"HTTP {self.status}")
        if self.status == 413 and ("code" not in error or "bytes" in error["message"]):  # not too many pixels
            details.append("about 4.5 MB are allowed, and kennel data shrink DIR makes smaller copies")
        return f"{error['message']} ({', '.join(details)})"

    @classmethod
    def parse(cls, status: int, content: bytes) -> Answer:
        """Read what came back, whatever it is."""
        try:
            return cls(status, parse_answer(content))
        except ValueError:  # not an answer of ours: AWS's own, or a gateway's page
            return cls(status, {"message": content[:200].decode(errors="replace")})


def signed_headers(
    stage: Stage, url: str, body: bytes, content_type: str, *, service: str = "lambda"
) -> dict[str, str]:
    """Return the headers of a POST that AWS accepts, for five minutes."""
    with aws_errors():
        credentials = stage.session.get_credentials().get_frozen_credentials()
    request = AWSRequest(method="POST", url=url, data=body, headers={"Content-Type": content_type})
    SigV4Auth(credentials, service, stage.region).add_auth(request)
    return dict(request.headers)


class FunctionClient:
    """A signed HTTP client of the function URL; safe to share between so many threads as it has connections."""

    def __init__(self, stage: Stage, *, connections: int = 1) -> None:
        self.url = stage.output("inference", "FunctionUrl")
        self._stage = stage
        self._http = urllib3.PoolManager(maxsize=connections, timeout=_TIMEOUT, retries=_RETRY)

    def classify_bytes(self, image: bytes, *, top_k: int = 5, scores: bool = False) -> Answer:
        """Send an image as it is; `scores` asks for all probabilities in the order of the labels."""
        if not image:
            return Answer(415, {"message": "The file is empty"})
        if len(image) > MAX_IMAGE_BYTES:
            return Answer(413, {"message": f"The image has {len(image):,} bytes"})
        query = f"?top_k={top_k}" + ("&scores=true" if scores else "")
        return self._post(self.url + query, image, "application/octet-stream")

    def classify_url(self, url: str, *, top_k: int = 5) -> Answer:
        """Let the function fetch the image at a public https address."""
        return self._post(self.url, json.dumps({"url": url, "top_k": top_k}).encode(), "application/json")

    def _post(self, url: str, body: bytes, content_type: str) -> Answer:
        headers = signed_headers(self._stage, url, body, content_type)
        try:
            response = self._http.request("POST", url, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise AwsError(f"The function URL {self.url} cannot be reached: {error}") from error
        return Answer.parse(response.status, response.data)

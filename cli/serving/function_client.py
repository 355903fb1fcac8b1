"""Calling the deployed function through its URL, signed as any AWS client would sign."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field, replace
from typing import Any

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from cli.aws import Stage
from cli.errors import AwsError, aws_errors
from cli.serving.answers import parse_answer

# A second try where a connection breaks, so that it loses no evaluation.
_RETRY = urllib3.Retry(None, connect=1, read=1, other=1, redirect=False, allowed_methods=None, retry_after_max=30)
_TIMEOUT = urllib3.Timeout(connect=5, read=70)  # the function itself gives up earlier
#: What a person is told of the answers that are worth another try.
BUSY = {429: "Too many requests at once", 503: "The classifier is starting, or waking from zero instances"}
# A metric of the header Server-Timing (W3C), as the function writes it.
_DURATION = re.compile(r"\b(limit|fetch|endpoint|total);dur=(\d{1,9}(?:\.\d{1,6})?)(?![\w.])")

#: A synchronous call of a function holds 6 MB, an image in base64; what is larger AWS may cut off without an answer.
MAX_IMAGE_BYTES = 6 * 2**20 * 3 // 4


@dataclass(frozen=True)
class Answer:
    """The HTTP status, and the known fields of the JSON body or a ``message``.

    `retry_after` is in seconds, at most 30. `milliseconds` has the ``round_trip`` and what the function says of itself:
    ``total``, and ``limit``, ``fetch`` and ``endpoint`` if there were such.
    """

    status: int
    body: dict[str, Any]
    retry_after: float | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

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
    """A signed HTTP client of the function URL; safe to share between so many threads as it has connections.

    What is refused for now (`BUSY`) is sent again after each of `pauses`, in seconds, or when the refusal says. `say`
    gets a line for a person before each wait.
    """

    def __init__(
        self, stage: Stage, *, connections: int = 1, pauses: tuple[float, ...] = (0, 2, 4), say: Any = lambda _: None
    ) -> None:
        self.url = stage.output("inference", "FunctionUrl")
        self._stage, self._pauses, self._say = stage, pauses, say
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
        for pause in self._pauses:
            answer = self._post_once(url, body, content_type)
            if answer.status not in BUSY:
                return answer
            if seconds := answer.retry_after or pause:
                self._say(f"{BUSY[answer.status]}. Next try in {seconds:.0f} s.")
                time.sleep(seconds)
        return self._post_once(url, body, content_type)

    def _post_once(self, url: str, body: bytes, content_type: str) -> Answer:
        headers = signed_headers(self._stage, url, body, content_type)
        started = time.perf_counter()
        try:
            response = self._http.request("POST", url, body=body, headers=headers)
            retry_after = _RETRY.get_retry_after(response)
        except urllib3.exceptions.HTTPError as error:
            raise AwsError(f"The function URL {self.url} cannot be reached: {error}") from error
        durations = {name: float(text) for name, text in _DURATION.findall(response.headers.get("Server-Timing", ""))}
        durations["round_trip"] = (time.perf_counter() - started) * 1000
        return replace(Answer.parse(response.status, response.data), retry_after=retry_after, milliseconds=durations)

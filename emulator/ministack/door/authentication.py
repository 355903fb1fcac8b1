"""The door: what comes in, and as whom.

MiniStack asks who it is in most places but not in all, takes nobody for the account's root user, and reads credentials
leniently. So every request is read and verified here before MiniStack sees it, and `enforcement` compares what
MiniStack then asks IAM with what was verified. A request without a signature gets what AWS gives to everybody.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, quote

from ministack import app
from ministack.core import iam_evaluator, responses
from ministack.core.sigv4 import decode_header_value
from ministack.services import apigateway_v1, lambda_svc, s3
from starlette.responses import Response

from emulator.ministack.cloudformation import custom_resources
from emulator.ministack.door import available, operations
from emulator.ministack.door.enforcement import NOBODY, PREFLIGHT, admitted, answer, failed
from emulator.ministack.door.signatures import Signature, SignatureError, read
from emulator.platform import settings

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

#: A page of another name that points here would count as the same site (DNS rebinding). Buckets and function URLs are
#: addressed by paths, so that no host has a meaning of its own.
_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.ASCII)
#: Of MiniStack's own pages, which begin with an underscore as no bucket does, those whose address only one party knows.
_SECRET_ADDRESSES = ("/_ministack/cfn-response/", "/_ministack/cfn-signal/")
#: Where stages of REST APIs are called.
_STAGES = "/_aws/execute-api/"
#: What a custom resource may answer on AWS (CloudFormation's guide, "Custom resource response objects"), in bytes.
_LONGEST_RESPONSE = 4096
#: How S3 lets a body go unsigned, or signed in chunks. All else states the hash of its body.
_S3_PAYLOAD = re.compile(
    "UNSIGNED-PAYLOAD|STREAMING-UNSIGNED-PAYLOAD-TRAILER|STREAMING-AWS4-HMAC-SHA256-PAYLOAD(-TRAILER)?"
)
#: Said of every request: the loopback interface stands for TLS, which the policy of CDK's bootstrap bucket demands.
_HTTPS = (b"x-forwarded-proto", b"https")
#: Who a caller of S3 takes the owner of a bucket to be.
_OWNERS = ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner")
#: Statuses of responses that have no body (RFC 9110, sections 15.3.5 and 15.4.5).
_WITHOUT_BODY = (204, 304)
_ONCE = re.compile(rb"host|origin|authorization|content-type|x-amz-(?!meta-).*")


class RefusedError(Exception):
    """A request that gets no further, and its answer."""

    def __init__(self, answer: tuple[int, dict[str, str], bytes]) -> None:
        super().__init__(answer)
        status, headers, content = answer
        self.response = Response(content, status, headers)


def gate(inner: ASGIApp) -> ASGIApp:
    """Hand on only requests that are verified, or that may be anybody's."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":  # none of what is served here needs one
            await send({"type": "websocket.close", "code": 1008})
            return
        handle: ASGIApp = inner
        if scope["type"] == "http":
            try:
                request = _Request(scope)
                signature = request.caller()
                if signature.access_key_id:
                    request.find_key(signature)
                body = await _read(receive, request.path, _LONGEST_RESPONSE if request.secret else None)
                receive = _again(body, receive)
                if signature.access_key_id:
                    request.verify(signature, body)
                request.check_operation(signature, body)
                admitted.set(signature)
                scope = {**scope, "headers": [*(each for each in scope["headers"] if each[0] != _HTTPS[0]), _HTTPS]}
            except RefusedError as refused:
                handle = refused.response
        await handle(scope, receive, _framed(send))

    return app


def _framed(send: Any) -> Any:
    """Leave out the body of a response that has none by its status: a client would take it for the next response."""
    bodiless = False

    async def framed(message: Any) -> None:
        nonlocal bodiless
        if message["type"] == "http.response.start":
            bodiless = message["status"] in _WITHOUT_BODY
        elif bodiless and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return framed


async def _read(receive: Any, path: str, limit: int | None) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _refused(400, "RequestTimeout", "The request ended before its body did.")
        chunks.append(message.get("body", b""))
        if limit is not None and sum(map(len, chunks)) > limit:
            custom_resources.fail(path, "Response object is too long.")
            raise _refused(413, "EntityTooLarge", f"The response of a custom resource has at most {limit} bytes.")
        if not message.get("more_body", False):
            return b"".join(chunks)


def _again(body: bytes, receive: Any) -> Any:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again


class _Request:
    """A request as MiniStack will read it; RefusedError is raised for one that can be read in two ways."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[str, str] = {}
        for raw, value in scope["headers"]:
            name, text = raw.decode("latin-1"), decode_header_value(value)
            if name in self.headers and _ONCE.fullmatch(raw):
                raise _refused(400, "InvalidRequest", f"The header {name} may be given once only.")
            self.headers[name] = f"{self.headers[name]}, {text}" if name in self.headers else text
        try:
            self.query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
        except UnicodeDecodeError:
            raise _refused(400, "InvalidRequest", "The query has to be encoded by percent signs.") from None
        self.host = self.headers.get("host", "")
        if not _HOST.fullmatch(self.host):
            raise _refused(403, "InvalidHost", f"This is no host of the local AWS: {self.host}. Use 127.0.0.1.")

    def caller(self) -> Signature:
        """Read who says to have sent it, and refuse what is not for them, without the body."""
        if self.secret:
            return NOBODY
        page = self.path.lstrip("/").startswith("_") and not self._public
        if page or app._is_ecr_registry_path(self.path):
            raise _refused(404, "NotFound", "There is nothing at this address.")
        self._check_origin()
        headers = self._scope["headers"]
        if self._public and not self.headers.get("authorization", "").lstrip().upper().startswith("AWS"):
            # A public function may have callers, and tokens, of its own.
            headers = [header for header in headers if header[0] != b"authorization"]
        try:
            signature = read(headers, self.query)
        except SignatureError as error:
            raise _refused(403, "IncompleteSignature", str(error)) from None
        return signature or self._nobody()

    def find_key(self, signature: Signature) -> None:
        """Look for the key that has signed, before a body is taken."""
        key = signature.access_key_id
        found = iam_evaluator.resolve_credential(key, responses._account_from_sts_session(key) or _account(key))
        if not isinstance(found, iam_evaluator.ResolvedCredential):
            raise self._false(found)

    def verify(self, signature: Signature, body: bytes) -> None:
        """Compare the signature with the request."""
        declared = self.headers.get("x-amz-content-sha256")
        known = declared is None or (signature.service == "s3" and _S3_PAYLOAD.fullmatch(declared))
        if not known and declared != hashlib.sha256(body).hexdigest():
            raise _refused(400, "XAmzContentSHA256Mismatch", "The body is not the one whose hash was signed.")
        raw_path = (self._scope.get("raw_path") or quote(self.path).encode()).decode("latin-1")
        iam_evaluator.pin_signed_request(self.method, raw_path, self.query, self._scope["headers"])
        iam_evaluator.pin_signed_body(body)
        if signature.presigned:
            if failure := s3._verify_presigned_sigv4(self.method, self.path, self.headers, self.query):
                raise RefusedError(failure)
            return
        checked = iam_evaluator.authenticate(signature.access_key_id, _account(signature.access_key_id))
        if not isinstance(checked, iam_evaluator.ResolvedCredential):
            raise self._false(checked or failed("SignatureDoesNotMatch", "The signature was not verified."))

    def _false(self, error: Any) -> RefusedError:
        return RefusedError(answer(self._service, error.code, error.message, headers=self.headers))

    def check_operation(self, signature: Signature, body: bytes) -> None:
        """Refuse a request of which IAM could be asked one thing and another be done."""
        if signature.access_key_id and not self._public:
            content = app._decompress_request_body(body, self.headers)
            parameters = app._routing_params(self.method, self.path, self.headers, content, self.query)
            service = app.detect_service(self.method, self.path, self.headers, parameters)
            request = (service, self.method, self.path, self.headers, content, self.query)
            if problem := available.missing(*request):
                raise _refused(501, "NotImplemented", problem, service)
            if problem := operations.ambiguity(*request):
                raise _refused(400, "InvalidRequest", problem, service)
            owners = {self.headers.get(name, settings.ACCOUNT) for name in _OWNERS}
            if service == "s3" and owners != {settings.ACCOUNT}:
                raise _refused(403, "AccessDenied", "Access Denied", service)

    @property
    def secret(self) -> bool:
        """Whether it is for an address that one party only knows."""
        return self.method == "PUT" and self.path.startswith(_SECRET_ADDRESSES)

    @functools.cached_property
    def _public(self) -> bool:
        """Whether it is for a function URL or a REST API, which may be open to everybody; MiniStack finds out."""
        return self._api is not None or app._parse_lambda_url(self.host, self.path) is not None

    @functools.cached_property
    def _api(self) -> tuple[str, str, str] | None:
        """The REST API, the stage and the path that it calls, where MiniStack finds one, too."""
        return app._parse_execute_api_url(self.host, self.path) if self.path.startswith(_STAGES) else None

    @functools.cached_property
    def _service(self) -> str:
        return str(app.detect_service(self.method, self.path, self.headers, self.query))

    def _nobody(self) -> Signature:
        if self.method == "OPTIONS" and self._cors_allows():
            return PREFLIGHT
        _, key = (app._s3_cors_target(self.host, self.path) if self._service == "s3" else None) or ("", "")
        if self._public or (key and self.method in ("GET", "HEAD")):
            return NOBODY
        raise _refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")

    def _check_origin(self) -> None:
        """Refuse what pages of other sites send, unless the function URL or the REST API that is called allows it."""
        origin = self.headers.get("origin")
        preflight = self.method == "OPTIONS" and not self._public
        if (origin in (None, f"http://{self.host}") and not preflight) or self._cors_allows():
            return
        message = "Pages of other sites may call function URLs with CORS, and APIs that answer OPTIONS, only."
        raise _refused(403, "ForbiddenOrigin", message)

    def _cors_allows(self) -> bool:
        if self._api:
            name, stage, path = self._api
            return bool(apigateway_v1.method_authorization_type(name, stage, "OPTIONS", path) == "NONE")
        url = app._parse_lambda_url(self.host, self.path)
        resolved = lambda_svc.resolve_function_url(url[0]) if url else None
        return bool(resolved and lambda_svc._function_url_cors_headers(resolved[-1], self.headers))


def _account(access_key_id: str) -> str:
    """The account of a user's key, which is no session's."""
    return iam_evaluator.find_iam_access_key_account(access_key_id) or settings.ACCOUNT


def _refused(status: int, code: str, message: str, service: str = "") -> RefusedError:
    return RefusedError(answer(service, code, message, status))

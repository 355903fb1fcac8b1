"""InvokeEndpoint: AWS's statuses and error shapes, and which instance gets which request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, raw_server, read_request
from served_fleets import fleet, variant

from emulator.ministack import routing
from emulator.platform.awsapi import Response
from emulator.sagemaker.endpoints import runtime as runtime_module
from emulator.sagemaker.endpoints.fleet import Fleet, Variant
from emulator.sagemaker.endpoints.runtime import Runtime
from emulator.sagemaker.serving.instance import MAX_BODY_BYTES

AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-west-1/sagemaker/aws4_request, SignedHeaders=host"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head, body = await read_request(reader)
        except asyncio.IncompleteReadError:
            return
        attributes = b"".join(line + b"\r\n" for line in head.split(b"\r\n") if b"custom-attributes" in line)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nX-Secret: 1\r\n" + attributes)
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(head) + len(body), head + body))


def answering(answer: bytes) -> Any:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        writer.close()

    return respond


def one(port: int) -> list[Variant]:
    return [variant("A", port)]


def run(
    make: Callable[[int], list[Variant]],
    *requests: dict[str, Any],
    respond: Any = echo,
    shared: Callable[[int], list[Variant]] = lambda port: [],
) -> list[Response]:
    """Invoke an endpoint ``dogs`` in eu-west-1, with these variants in front of a server, and give its answers.

    `shared` makes the variants of another fleet, with which the endpoint's traffic is shared.
    """

    async def main() -> list[Response]:
        async with raw_server(respond) as port:
            served, other = fleet(*make(port)), fleet(*shared(port))

            def find(region: str, name: str, avoid: Fleet | None = None) -> Fleet | None:
                if avoid is served and other.variants:
                    return other
                return served if (region, name, avoid) == ("eu-west-1", "dogs", None) else None

            runtime = Runtime(ACCOUNT, find, lambda *_: (202, {}, b""))

            async def invoke(body: bytes = b"x", path: str = "/endpoints/dogs/invocations", **headers: str) -> Response:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await runtime.handle("POST", path, {"authorization": AUTHORIZATION, **named}, body, {})

            return [await invoke(**request) for request in requests]

    return asyncio.run(asyncio.wait_for(main(), 20))


def test_only_the_headers_that_aws_passes_reach_the_model_and_come_back() -> None:
    request = {"body": b"image", "content_type": "image/jpeg", "accept": "application/json", "cookie": "secret"}
    ((status, headers, body),) = run(one, {**request, "x_amzn_sagemaker_custom_attributes": "top_k=3"})
    assert (status, headers["Content-Type"], headers["x-Amzn-Invoked-Production-Variant"]) == (200, "text/x", "A")
    assert headers["x-amzn-sagemaker-custom-attributes"] == "top_k=3"
    assert "x-secret" not in {name.lower() for name in headers}
    assert b"content-type: image/jpeg" in body
    assert b"accept: application/json" in body
    assert b"secret" not in body
    assert b"authorization" not in body.lower()
    assert body.endswith(b"\r\n\r\nimage")


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (b"HTTP/1.1 413 X\r\nContent-Length: 6\r\n\r\nno dog", 413, 'client error (413) from primary with message "no'),
        (b"HTTP/1.1 500 X\r\nContent-Length: 6\r\n\r\nno dog", 500, "server error (500)"),
        (b"HTTP/1.1 302 X\r\nContent-Length: 6\r\n\r\nno dog", 302, "server error (302)"),
        (b"gibberish\r\n\r\n", 0, "server error (0)"),
    ],
)
def test_an_error_of_the_model_is_a_model_error(answer: bytes, status: int, message: str) -> None:
    ((got, headers, body),) = run(one, {}, respond=answering(answer))
    assert (got, headers["x-amzn-errortype"]) == (424, "ModelError")
    error = json.loads(body)
    assert error["OriginalStatusCode"] == status
    assert error["message"].startswith(f"Received {message}")
    assert error["LogStreamArn"] == f"arn:aws:logs:eu-west-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/dogs"


def test_a_model_that_takes_too_long_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "INVOCATION_SECONDS", 0.1)
    ((status, _, body),) = run(one, {}, respond=lambda reader, writer: reader.read())
    assert (status, "Your invocation timed out" in json.loads(body)["message"]) == (424, True)


@pytest.mark.parametrize(
    ("request_", "status", "code", "named"),
    [
        ({"path": "/endpoints/Dogs/invocations"}, 400, "ValidationError", "Dogs"),
        ({"path": "/endpoints/dogs/sessions"}, 501, "NotImplementedException", "sessions"),
        ({"path": "/endpoints/dogs/async-invocations"}, 400, "ValidationError", "is real-time: use InvokeEndpoint."),
        ({"path": "/endpoints/dogs/invocations/x"}, 404, "UnknownOperationException", "/x"),
        ({"x_amzn_sagemaker_target_model": "a.tar.gz"}, 400, "ValidationError", "TargetModel"),
        ({"x_amzn_sagemaker_custom_attributes": "a" * 1025}, 400, "ValidationError", "customAttributes"),
        ({"x_amzn_sagemaker_session_id": "NEW_SESSION"}, 400, "ValidationError", "SessionId"),
    ],
)
def test_what_is_not_there_is_refused(request_: dict[str, str], status: int, code: str, named: str) -> None:
    ((got, headers, body),) = run(one, request_)
    assert (got, headers["x-amzn-errortype"]) == (status, code)
    assert named in json.loads(body)["message"]


def test_the_largest_body_passes_and_one_byte_more_does_not() -> None:
    sizes = ({"body": bytes(MAX_BODY_BYTES)}, {"body": bytes(MAX_BODY_BYTES + 1)})
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (MAX_BODY_BYTES, bytes(MAX_BODY_BYTES))
    (status, _, body), (refused, headers, _) = run(one, *sizes, respond=answering(answer))
    assert (status, len(body), refused) == (200, MAX_BODY_BYTES, 413)
    assert "x-amzn-errortype" not in headers


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"


@pytest.mark.parametrize(
    ("seconds", "end", "event"),
    [
        (20, b"1\r\n!\r\n0\r\n\r\n", "PayloadPart"),
        (20, b"", "StreamBroken"),
        (0.2, None, "ModelInvocationTimeExceeded"),
    ],
)
def test_a_stream_gives_the_parts_as_they_come_and_says_how_it_broke(
    monkeypatch: pytest.MonkeyPatch, seconds: float, end: bytes | None, event: str
) -> None:
    seen = asyncio.Event()  # the first part: only then the model goes on
    monkeypatch.setattr(runtime_module, "STREAM_SECONDS", seconds)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        await seen.wait()
        if end is None:
            await reader.read()
        writer.write(end or b"")
        writer.close()

    async def main() -> tuple[dict[str, str], list[tuple[dict[str, str], bytes]]]:
        async with raw_server(respond) as port:
            served = fleet(variant("A", port))
            runtime = Runtime(ACCOUNT, lambda *_, **__: served, lambda *_: None)
            path = "/endpoints/dogs/invocations-response-stream"
            _, headers, messages = await runtime.handle("POST", path, {"authorization": AUTHORIZATION}, b"x", {})
            found = []
            async for message in messages:
                found.append(message)
                seen.set()
            return headers, found

    headers, (first, last) = asyncio.run(asyncio.wait_for(main(), 20))
    assert headers["X-Amzn-SageMaker-Content-Type"] == "text/x"
    assert (first[0][":event-type"], first[1]) == ("PayloadPart", b"first")
    assert event == (last[0].get(":event-type") or json.loads(last[1])["ErrorCode"])


def test_a_slow_reader_holds_the_model_back_and_one_that_leaves_ends_the_invocation() -> None:
    held, gone, never = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        try:
            for _ in range(2000):
                writer.write(b"10000\r\n%b\r\n" % bytes(2**16))
                await asyncio.wait_for(writer.drain(), 1)
        except TimeoutError:
            held.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            gone.set()

    async def main() -> None:
        async with raw_server(respond) as port:
            served = fleet(variant("A", port))
            runtime = Runtime(ACCOUNT, lambda *_, **__: served, lambda *_: None)
            path = "/endpoints/dogs/invocations-response-stream"
            answer = await routing._answer(runtime, "POST", path, {"authorization": AUTHORIZATION}, b"x", {})
            await answer[2].runner(lambda _: never.wait(), held.wait)
            await gone.wait()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_an_instance_that_cannot_be_reached_is_passed_over_and_without_any_the_service_is_unavailable() -> None:
    # Nobody listens on port 1.
    answers = run(lambda port: [variant("A", 1, port, None)], *[{}] * 20)
    assert [status for status, _, _ in answers] == [200] * 20
    for ports in ((1,), (None, None)):
        ((status, headers, _),) = run(lambda port, ports=ports: [variant("A", *ports)], {})
        assert (status, headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
        assert run(lambda port, ports=ports: [variant("A", *ports)], {}, shared=one)[0][0] == 200


def test_variants_share_the_traffic_by_their_weights_unless_the_caller_chooses() -> None:
    def make(port: int) -> list[Variant]:
        return [variant(name, port, weight=weight) for name, weight in (("A", 3), ("B", 1), ("C", 0))]

    found = Counter(headers["x-Amzn-Invoked-Production-Variant"] for _, headers, _ in run(make, *[{}] * 400))
    assert set(found) == {"A", "B"}
    assert 240 < found["A"] < 360
    chosen, missing = run(make, *({"x_amzn_sagemaker_target_variant": name} for name in "CZ"))
    assert chosen[1]["x-Amzn-Invoked-Production-Variant"] == "C"
    assert (missing[0], missing[1]["x-amzn-errortype"]) == (400, "ValidationError")
    assert "A, B" in json.loads(missing[2])["message"]

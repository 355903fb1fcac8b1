"""InvokeEndpoint: AWS's statuses and error shapes, and who gets which request."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, raw_server, read_request

from emulator.platform.awsapi import Response
from emulator.sagemaker.endpoints import runtime as runtime_module
from emulator.sagemaker.endpoints.fleet import Fleet, Variant
from emulator.sagemaker.endpoints.http_client import ConnectionPool
from emulator.sagemaker.endpoints.instance import MAX_BODY_BYTES
from emulator.sagemaker.endpoints.runtime import Runtime

AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-west-1/sagemaker/aws4_request, SignedHeaders=host"


class Server:
    """An instance without a process."""

    def __init__(self, port: int | None) -> None:
        self.pool = None if port is None else ConnectionPool(port, MAX_BODY_BYTES)
        self.outstanding = 0
        self.answered = 0


def variant(name: str, *ports: int | None, weight: float = 1.0, least_outstanding: bool = True) -> Variant:
    made = object.__new__(Variant)
    made.name, made.weight = name, weight
    made.instances = [Server(port) for port in ports]  # type: ignore[misc]
    made._random_routing = not least_outstanding
    return made


def fleet(*variants: Variant) -> Fleet:
    made = object.__new__(Fleet)
    made.variants = {v.name: v for v in variants}
    return made


Use = Callable[[Callable[..., Awaitable[Response]]], Awaitable[Any]]


def run(make_fleet: Callable[[int], Fleet | None], use: Use, respond: Any = None) -> Any:
    """Invoke an endpoint ``dogs`` in eu-west-1 in front of a server."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head, body = await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            attributes = b"".join(line + b"\r\n" for line in head.split(b"\r\n") if b"custom-attributes" in line)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nX-Secret: 1\r\n" + attributes)
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(head) + len(body), head + body))

    async def main() -> Any:
        async with raw_server(respond or echo) as port:
            served = make_fleet(port)
            runtime = Runtime(ACCOUNT, lambda region, name: served if (region, name) == ("eu-west-1", "dogs") else None)

            async def invoke(body: bytes = b"", path: str = "/endpoints/dogs/invocations", **headers: str) -> Response:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await runtime.handle("POST", path, {"authorization": AUTHORIZATION, **named}, body, {})

            return await use(invoke)

    return asyncio.run(asyncio.wait_for(main(), 20))


def test_an_invocation_reaches_the_model_and_its_answer_the_caller() -> None:
    async def use(invoke: Any) -> Response:
        return await invoke(
            b"picture",
            content_type="image/jpeg",
            accept="application/json",
            cookie="secret",
            x_amzn_sagemaker_custom_attributes="top_k=3",
        )

    status, headers, body = run(lambda port: fleet(variant("A", port)), use)
    assert status == 200
    assert headers["Content-Type"] == "text/x"
    assert headers["x-Amzn-Invoked-Production-Variant"] == "A"
    assert headers["x-amzn-sagemaker-custom-attributes"] == "top_k=3"
    assert "x-secret" not in {name.lower() for name in headers}
    assert b"content-type: image/jpeg" in body
    assert b"accept: application/json" in body
    assert b"secret" not in body
    assert b"authorization" not in body.lower()
    assert body.endswith(b"\r\n\r\npicture")


def answering(answer: bytes) -> Any:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        writer.close()

    return respond


@pytest.mark.parametrize(("status", "side"), [(400, "client"), (413, "client"), (500, "server"), (302, "server")])
def test_an_error_of_the_model_is_a_model_error(status: int, side: str) -> None:
    async def use(invoke: Any) -> Response:
        return await invoke(b"x")

    answer = b"HTTP/1.1 %d X\r\nContent-Length: 6\r\n\r\nno dog" % status
    got, headers, body = run(lambda port: fleet(variant("A", port)), use, answering(answer))
    assert (got, headers["x-amzn-errortype"]) == (424, "ModelError")
    error = json.loads(body)
    assert (error["OriginalStatusCode"], error["OriginalMessage"]) == (status, "no dog")
    assert error["message"].startswith(f'Received {side} error ({status}) from primary with message "no dog"')
    assert error["LogStreamArn"] == f"arn:aws:logs:eu-west-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/dogs"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"gibberish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
    ],
)
def test_a_broken_answer_is_a_model_error_too(answer: bytes) -> None:
    async def use(invoke: Any) -> Response:
        return await invoke(b"x")

    status, _, body = run(lambda port: fleet(variant("A", port)), use, answering(answer))
    assert (status, json.loads(body)["OriginalStatusCode"]) == (424, 0)


def test_a_model_that_takes_too_long_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "INVOCATION_SECONDS", 0.1)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def use(invoke: Any) -> tuple[Response, int]:
        return await invoke(b"x"), served.instances[0].outstanding

    served = variant("A")

    def make(port: int) -> Fleet:
        served.instances = [Server(port)]  # type: ignore[list-item]
        return fleet(served)

    (status, _, body), outstanding = run(make, use, respond)
    assert (status, outstanding) == (424, 0)
    assert "Your invocation timed out" in json.loads(body)["message"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/endpoints/cats/invocations", 400, "ValidationError"),
        ("/endpoints/Dogs/invocations", 400, "ValidationError"),
        ("/endpoints/dogs%2F/invocations", 400, "ValidationError"),
        ("/endpoints/dogs/invocations-response-stream", 501, "NotImplementedException"),
        ("/endpoints/dogs", 404, "UnknownOperationException"),
        ("/endpoints/dogs/invocations/x", 404, "UnknownOperationException"),
    ],
)
def test_what_is_not_there_is_refused(path: str, status: int, code: str) -> None:
    async def use(invoke: Any) -> Response:
        return await invoke(b"x", path=path)

    got, headers, body = run(lambda port: fleet(variant("A", port)), use)
    assert (got, headers["x-amzn-errortype"]) == (status, code)
    if code == "ValidationError":
        assert json.loads(body)["message"].endswith(f"of account {ACCOUNT} not found.")


def test_the_largest_body_passes_and_one_byte_more_does_not() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async def use(invoke: Any) -> tuple[Response, Response]:
        return await invoke(bytes(MAX_BODY_BYTES)), await invoke(bytes(MAX_BODY_BYTES + 1))

    (status, _, body), (refused, headers, _) = run(lambda port: fleet(variant("A", port)), use, respond)
    assert (status, len(body)) == (200, MAX_BODY_BYTES)
    assert refused == 413
    assert "x-amzn-errortype" not in headers


def test_without_a_healthy_instance_the_service_is_unavailable() -> None:
    async def use(invoke: Any) -> Response:
        return await invoke(b"x")

    status, headers, _ = run(lambda port: fleet(variant("A", None, None)), use)
    assert (status, headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")


def test_an_instance_that_cannot_be_reached_is_passed_over() -> None:
    async def use(invoke: Any) -> list[int]:
        return [(await invoke(b"x"))[0] for _ in range(20)]

    # Nobody listens on port 1.
    assert run(lambda port: fleet(variant("A", 1, port, None)), use) == [200] * 20
    assert run(lambda port: fleet(variant("A", 1)), use) == [503] * 20


def test_variants_share_the_traffic_by_their_weights() -> None:
    async def use(invoke: Any) -> Counter[str]:
        return Counter([(await invoke(b"x"))[1]["x-Amzn-Invoked-Production-Variant"] for _ in range(400)])

    shares = run(
        lambda port: fleet(variant("A", port, weight=3), variant("B", port), variant("C", port, weight=0)), use
    )
    assert set(shares) == {"A", "B"}
    assert 240 < shares["A"] < 360
    shares = run(lambda port: fleet(variant("A", port, weight=0), variant("B", port, weight=0)), use)
    assert set(shares) == {"A", "B"}, "all weights zero: any will do"


def test_a_caller_may_choose_the_variant() -> None:
    async def use(invoke: Any) -> tuple[Response, Response]:
        return (
            await invoke(b"x", x_amzn_sagemaker_target_variant="B"),
            await invoke(b"x", x_amzn_sagemaker_target_variant="Z"),
        )

    chosen, missing = run(lambda port: fleet(variant("A", port), variant("B", port, weight=0)), use)
    assert chosen[1]["x-Amzn-Invoked-Production-Variant"] == "B"
    assert (missing[0], missing[1]["x-amzn-errortype"]) == (400, "ValidationError")
    assert "A, B" in json.loads(missing[2])["message"]


def test_the_least_busy_instance_is_asked() -> None:
    served = variant("A", None, None, None)
    busy, idle, _ = served.instances
    busy.pool = idle.pool = ConnectionPool(1, 1)
    busy.outstanding = 2
    assert {served.pick(()) for _ in range(50)} == {idle}
    idle.outstanding = 2
    assert {served.pick(()) for _ in range(50)} == {busy, idle}
    assert served.pick((busy, idle)) is None

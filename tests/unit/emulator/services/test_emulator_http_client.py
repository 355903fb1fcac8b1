"""The connections to model servers: whatever a server does, one request gets one response or one clear error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from emulator_fixtures import raw_server, read_request

from emulator.sagemaker.serving.http_client import ConnectionPool, HttpAnswer, ServerFailed

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def client(respond: Callable[..., Any], use: Callable[[ConnectionPool], Awaitable[Any]]) -> Any:
    """Use a pool, which takes answers of 1000 bytes, in front of a server."""

    async def run() -> Any:
        async with raw_server(respond) as port:
            return await use(ConnectionPool(port, 1000))

    return asyncio.run(asyncio.wait_for(run(), 10))


def twice(answer: bytes, pieces: int = 1, close: bool = False) -> list[HttpAnswer]:
    """Send two requests to a server that answers so each time, in so many pieces, or once and closes."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = -(-len(answer) // pieces) or 1
        for _ in range(1 if close else 2):
            await read_request(reader)
            for start in range(0, len(answer), size):
                writer.write(answer[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)
        if close:
            writer.close()
        await reader.read()

    async def use(pool: ConnectionPool) -> list[HttpAnswer]:
        return [await pool.post("/invocations", {}, b"body") for _ in range(1 if close else 2)]

    return client(respond, use)


@pytest.mark.parametrize("pieces", [1, 7, 1000])
@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", 500, b"no"),
        (CHUNKED + b"2;x=y\r\nhe\r\nA\r\nllo worldd\r\n0\r\nT: 1\r\n\r\n", 200, b"hello worldd"),
    ],
)
def test_an_answer_is_read_however_it_is_sent(answer: bytes, status: int, body: bytes, pieces: int) -> None:
    assert [(got.status, got.body) for got in twice(answer, pieces)] == [(status, body)] * 2


@pytest.mark.parametrize(
    "answer",
    [
        # What ends too early.
        b"",
        OK + b"Content-Length: 5\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED + b"5\r\nhello\r\n",
        # What is no HTTP.
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        # Framing that could be read in two ways.
        *(OK + b"Content-Length: " + length + b"\r\n\r\nhello" for length in (b"-1", b"+5", b"0_5", b"9" * 99)),
        *(CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n" for size in (b"-5", b"+5", b"0x5", b" 5", b"", b"2")),
        OK + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        # Too much.
        OK + b"X: " + b"y" * 70_000,
        OK + b"Content-Length: 1001\r\n\r\n",
        CHUNKED + b"3e9\r\n" + b"x" * 1001,
        OK + b"\r\n" + b"x" * 1001,
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 2_000_000,
        CHUNKED + b"5;" + b"x" * 9_000_000 + b"\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 400_000,
    ],
    ids=lambda answer: f"{len(answer)} {answer[-30:]!r}",
)
def test_half_an_answer_nonsense_or_too_much_is_a_failure(answer: bytes) -> None:
    with pytest.raises(ServerFailed):
        twice(answer, close=True)


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (OK + b"Connection: close\r\nContent-Length: 4\r\n\r\nreal", "close"),
        # As the race that a keep-alive limit makes: closed without a word as soon as the next request arrives.
        (OK + b"Content-Length: 4\r\n\r\nreal", "abort"),
        # Bytes that nobody asked for never become an answer.
        (OK + b"Content-Length: 4\r\n\r\nreal" + OK + b"Content-Length: 6\r\n\r\nforged", "stay"),
    ],
)
def test_every_request_gets_the_answer_that_is_its_own(answer: bytes, then: str) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        if then == "close":
            writer.close()
        await reader.read(-1 if then == "stay" else 1)
        writer.transport.abort()

    async def use(pool: ConnectionPool) -> list[bytes]:
        return [(await pool.post("/", {}, b"x")).body for _ in range(4)]

    assert client(respond, use) == [b"real"] * 4


@pytest.mark.parametrize("poison", [b"kill", b"slow"])
def test_a_request_that_fails_is_sent_twice_at_most_and_leaves_no_answer_to_the_next(poison: bytes) -> None:
    received: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            received.append((await read_request(reader))[1])
            if received[-1] == b"kill":
                writer.transport.abort()
                return
            await asyncio.sleep(0.1 if received[-1] == b"slow" else 0)
            writer.write(OK + b"Content-Length: 4\r\n\r\n" + received[-1])

    async def use(pool: ConnectionPool) -> bytes:
        await asyncio.gather(*[pool.post("/", {}, b"warm") for _ in range(6)])
        with pytest.raises((ServerFailed, TimeoutError)):
            async with asyncio.timeout(0.05):
                await pool.post("/", {}, poison)
        return (await pool.post("/", {}, b"next")).body

    assert client(respond, use) == b"next"
    assert received.count(poison) == (2 if poison == b"kill" else 1)

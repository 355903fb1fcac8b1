"""One load generator for `kennel load-test` and the benchmarks: an open loop and a closed one, on aiohttp.

In the open loop requests leave at their scheduled times, whatever the server does, and latency counts from the
scheduled time. So a server that stalls delays no request of the load, and the wait of those behind it is measured
(no coordinated omission). In the closed loop each caller sends its next request when it has the last response: this
finds the most that a server gives.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import aiohttp

#: What counts as an answer: returns None, or the fault in a few words.
Check = Callable[["Call", int, bytes], str | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, put together and signed."""

    url: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request; times are seconds since the load began."""

    scheduled: float  # when it should have left
    sent: float
    ended: float  # when its response was there
    status: int  # 0: there was no response
    fault: str | None  # None: a right answer
    retry_after: str | None = None  # that header of the response

    @property
    def latency_ms(self) -> float:
        """From the scheduled time to the response."""
        return (self.ended - self.scheduled) * 1000


def poisson_times(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of `rate` x `seconds` requests that know nothing of each other (a Poisson process)."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    return sorted(chance.uniform(0, seconds) for _ in range(round(rate * seconds)))


def open_loop(
    calls: Iterable[Call],
    times: Iterable[float],
    check: Check,
    timeout: float,
    note: Callable[[Result], object] = lambda _: None,
) -> list[Result]:
    """Send a request at each of the times, ascending seconds from the begin; return all results in that order.

    The calls are sent in turn, and again from the first. `timeout`: seconds for a response; `note` is told of each
    result at once.
    """

    async def load() -> list[Result]:
        async with _Client(check, timeout) as client:

            async def send(call: Call, at: float) -> Result:
                result = await client.send(call, at)
                note(result)
                return result

            sent: list[Awaitable[Result]] = []
            for call, at in zip(itertools.cycle(calls), times, strict=False):
                await asyncio.sleep(at - client.now())
                sent.append(asyncio.create_task(send(call, at)))
            return list(await asyncio.gather(*sent))

    return asyncio.run(load())


async def closed_loop(
    calls: Sequence[Call], clients: int, measure: Callable[[], Awaitable[None]], check: Check, timeout: float
) -> list[Result]:
    """Keep so many callers busy until `measure` returns, or a fault; return all results.

    `measure` waits while the load runs, and looks at what it wants to know. The responses that are still to come then
    are waited for.
    """
    async with _Client(check, timeout) as client:
        turns, results, stop = itertools.cycle(calls), list[Result](), asyncio.Event()

        async def call_repeatedly() -> None:
            while not stop.is_set():
                result = await client.send(next(turns), client.now())
                results.append(result)
                if result.fault:
                    stop.set()

        callers = [asyncio.create_task(call_repeatedly()) for _ in range(clients)]
        ends = (asyncio.ensure_future(measure()), asyncio.create_task(stop.wait()))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        ends[0].cancel()
        await asyncio.gather(*callers)
        return results


class _Client:
    """Connections that are kept, as many as there are requests on the way, and the load's own clock."""

    def __init__(self, check: Check, timeout: float) -> None:
        self._check = check
        self._http = aiohttp.ClientSession(
            # Servers (uvicorn) close after 5 s without a request: a request on its way then would be lost.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            timeout=aiohttp.ClientTimeout(total=timeout),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
        self._begin = asyncio.get_running_loop().time()

    async def __aenter__(self) -> _Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def now(self) -> float:
        """Seconds since the load began."""
        return asyncio.get_running_loop().time() - self._begin

    async def send(self, call: Call, scheduled: float) -> Result:
        """Send a request and read the response; whatever goes wrong is a fault of the result."""
        sent, status, retry_after = self.now(), 0, None
        try:
            async with self._http.post(
                call.url, data=call.body, headers=call.headers, allow_redirects=False
            ) as response:
                status, retry_after = response.status, response.headers.get("Retry-After")
                body = await response.read()
        except TimeoutError:
            return Result(scheduled, sent, self.now(), status, "timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Result(scheduled, sent, self.now(), status, f"no response: {type(error).__name__}")
        ended = self.now()
        return Result(scheduled, sent, ended, status, self._check(call, status, body), retry_after)

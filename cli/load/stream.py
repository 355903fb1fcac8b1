"""A load that goes on beside whatever else happens, until it is stopped; what has come of it can be read meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from cli.load.generator import Check, Result, open_loop
from cli.load.target import Target
from cli.serving.classify import load_predictor

_TIMEOUT_SECONDS = 60.0
_TRY_AGAIN = (429, 503)
RIGHT, TRY_AGAIN = "right", "429 or 503 with Retry-After"


class Stream:
    """An open loop on a thread of its own, for as long as the block; `results` grows, and `rate` may be changed."""

    def __init__(self, target: Target, rate: float, check: Check) -> None:
        self.rate = rate
        self.results: list[Result] = []
        self._begin = time.monotonic()
        self._stopped = False
        given = (target.endless_calls(), self._times(), check, _TIMEOUT_SECONDS, self.results.append)
        self._thread = threading.Thread(target=open_loop, args=given, daemon=True)

    def __enter__(self) -> Stream:
        self._begin = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send nothing more, and wait for the responses."""
        self._stopped = True
        self._thread.join()

    def recent(self, seconds: float) -> list[Result]:
        """Return the results of the last seconds."""
        since = time.monotonic() - self._begin - seconds
        return [result for result in list(self.results) if result.ended > since]

    def _times(self) -> Iterator[float]:
        chance, at = random.Random(0), 0.0  # noqa: S311 - not for secrets
        while not self._stopped:
            yield at
            at += chance.expovariate(self.rate)


def tally(results: Iterable[Result]) -> Counter[str]:
    """Count what became of requests: RIGHT, TRY_AGAIN, or the fault."""

    def verdict(result: Result) -> str:
        if result.fault is None:
            return RIGHT
        return TRY_AGAIN if result.status in _TRY_AGAIN and result.retry_after else result.fault

    return Counter(map(verdict, results))


def labels_of(artifact: Path, images: Iterable[bytes]) -> dict[tuple[str, bytes], str]:
    """Work out here what a model answers to images: its labels, by its version and the image."""
    predictor = load_predictor(artifact)
    return {(predictor.card.version, image): predictor.predict(image, 1).ranked[0][0] for image in images}

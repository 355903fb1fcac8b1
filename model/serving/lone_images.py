"""With how many threads an image is computed that comes while no other one is: found out by trying."""

from __future__ import annotations

import statistics

# How many images are computed in either way before one is chosen.
TRIALS = 5
# How much faster several threads have to be. Less may be chance, and they keep all vCPUs busy.
LEAST_GAIN = 1.1


class LoneImages:
    """Chooses between one thread and several.

    Several are up to as many times faster, but each layer ends with waiting for the slowest of them, so that a small
    network gets slower. The first images are computed in turns by one and by several; then the way with the lower
    median is kept.
    """

    def __init__(self) -> None:
        self._seconds: dict[bool, list[float]] = {False: [], True: []}
        self._chosen: bool | None = None

    def wants_several_threads(self) -> bool:
        """Return whether the next one is computed by several threads."""
        if self._chosen is not None:
            return self._chosen
        return len(self._seconds[True]) < len(self._seconds[False])

    def note(self, several_threads: bool, seconds: float) -> None:
        """Take note of how long the network took for such an image."""
        if self._chosen is None:
            self._seconds[several_threads].append(seconds)
            if min(map(len, self._seconds.values())) >= TRIALS:
                one, several = (statistics.median(self._seconds[way]) for way in (False, True))
                self._chosen = one > LEAST_GAIN * several

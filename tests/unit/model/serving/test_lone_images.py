"""Which images have more than one thread: those that come alone, where it makes them faster."""

import pytest

from model.serving.worker_pool import TRIALS, LoneImages

ONE, SEVERAL = False, True


def ways(lone: LoneImages, count: int, one: float, several: float) -> list[bool]:
    """Compute so many images, one after the other, that take so many seconds; return how each is computed."""
    chosen = []
    for _ in range(count):
        chosen.append(lone.wants_several_threads())
        lone.note(chosen[-1], several if chosen[-1] else one)
    return chosen


@pytest.mark.parametrize(
    ("several", "best"), [(0.010, SEVERAL), (0.019, ONE), (0.030, ONE)], ids=["faster", "hardly faster", "slower"]
)
def test_both_ways_are_tried_in_turns_and_the_faster_one_is_kept(several: float, best: bool) -> None:
    lone = LoneImages()
    assert ways(lone, 2, 0.020, 5.0) == [ONE, SEVERAL]  # a single slow one decides nothing
    assert ways(lone, 2 * TRIALS - 2, 0.020, several) == [ONE, SEVERAL] * (TRIALS - 1)
    assert ways(lone, 5, 9.0, 9.0) == [best] * 5, "what comes later changes nothing"

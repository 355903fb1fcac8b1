"""The workers: what one does when its own model breaks, and which images have more than one thread."""

import socket

import numpy as np
import pytest
from serving_fixtures import image_bytes, make_artifact

from model.core.predictor import FloatArray, Predictor
from model.serving import worker
from model.serving.settings import ServingSettings
from model.serving.worker import ANSWER_HEADER, READY, REQUEST_HEADER
from model.serving.worker_pool import TRIALS, LoneImages

WHITE, BLACK = image_bytes("white"), image_bytes("black")


@pytest.mark.parametrize(
    ("works_on", "exit_status", "expected"),
    [("black images", 0, [READY, 500, 200]), ("nothing", 1, [READY])],
    ids=["the image: it is answered and the worker goes on", "the model: the worker leaves without an answer"],
)
def test_a_worker_finds_out_what_is_at_fault(works_on, exit_status, expected, monkeypatch, tmp_path):
    def run(images: FloatArray) -> FloatArray:
        if works_on == "nothing" or images.max() > 0:
            raise RuntimeError("out of memory")
        return np.zeros((len(images), 3), np.float32)

    card = Predictor.load(make_artifact(tmp_path)).card
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: Predictor(card, run))
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as requests:
        for each in (WHITE, BLACK):
            ours.sendall(REQUEST_HEADER.pack(len(each), 1, False, False) + each)
        ours.shutdown(socket.SHUT_WR)
        assert worker._serve(theirs, requests, ServingSettings.from_environment({})) == exit_status
        theirs.shutdown(socket.SHUT_WR)
        statuses = []
        with ours.makefile("rb") as answers:
            while header := answers.read(ANSWER_HEADER.size):
                status, _, _, length = ANSWER_HEADER.unpack(header)
                statuses.append(status)
                answers.read(length)
    assert statuses == expected


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

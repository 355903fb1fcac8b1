"""The workers: what one does when its own model breaks, and which way of computing lone images stays."""

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
    def run(images: FloatArray) -> list[FloatArray]:
        if works_on == "nothing" or images.max() > 0:
            raise RuntimeError("out of memory")
        return [np.zeros((len(images), 3), np.float32)]

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


@pytest.mark.parametrize(("several_seconds", "best"), [(0.010, True), (0.019, False), (0.030, False)])
def test_lone_images_keep_the_way_that_is_clearly_faster(several_seconds: float, best: bool) -> None:
    lone = LoneImages()
    for _ in range(2 * TRIALS):
        several = lone.wants_several_threads()
        lone.note(several, several_seconds if several else 0.020)
    assert lone.wants_several_threads() == best

"""One worker process, at its socket: what it does when its own model breaks."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import numpy as np
import pytest
from serving_fixtures import make_artifact, picture

from model.core.predictor import FloatArray, Predictor
from model.serving import worker
from model.serving.settings import ServingSettings
from model.serving.worker import ANSWER_HEADER, READY, REQUEST_HEADER


class Engine:
    """A network that fails on the pictures that it is told to."""

    def __init__(self) -> None:
        self.fails_on_all = False

    def __call__(self, images: FloatArray) -> FloatArray:
        if self.fails_on_all or images.max() > 0:
            raise RuntimeError("out of memory")
        return np.zeros((len(images), 3), np.float32)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    engine, card = Engine(), Predictor.load(make_artifact(tmp_path)).card
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: Predictor(card, engine))
    return engine


def serve(*pictures: bytes, lone_threads: int = 1, **environment: str) -> tuple[int, list[int]]:
    """Return the worker's exit status and the statuses of its answers; black pictures are to have several threads."""
    ours, theirs = socket.socketpair()
    settings = ServingSettings.from_environment(environment)
    with ours, theirs, theirs.makefile("rb") as requests:
        for each in pictures:
            ours.sendall(REQUEST_HEADER.pack(len(each), 5.0, 1, False, False, each == picture("black")) + each)
        ours.shutdown(socket.SHUT_WR)
        exit_status = worker._serve(theirs, requests, settings, lone_threads=lone_threads)
        theirs.shutdown(socket.SHUT_WR)
        received, statuses = b"".join(iter(lambda: ours.recv(65536), b"")), []
    while received:
        status, _, _, _, length = ANSWER_HEADER.unpack_from(received)
        statuses.append(status)
        received = received[ANSWER_HEADER.size + length :]
    return exit_status, statuses


def test_a_picture_that_the_model_fails_on_is_answered_and_the_worker_goes_on(engine: Engine) -> None:
    assert serve(picture("white"), picture("black")) == (0, [READY, 500, 200])


def test_a_worker_whose_model_fails_on_everything_leaves_without_an_answer(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.fails_on_all = True
    with caplog.at_level(logging.ERROR):
        assert serve(picture("black"), picture("black")) == (1, [READY])
    assert "The model does not run any more" in caplog.text


@pytest.mark.parametrize(
    ("lone_threads", "engine_name", "expected"),
    [(4, "onnx", [1, 4, 1]), (1, "onnx", [1, 1, 1]), (4, "torch", [1, 1, 1])],
    ids=["several", "one", "PyTorch, whose threads are the whole process's"],
)
def test_a_picture_is_computed_with_the_threads_that_the_server_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lone_threads: int, engine_name: str, expected: list[int]
) -> None:
    card = Predictor.load(make_artifact(tmp_path)).card
    used: list[int] = []

    def load(folder: Path, engine: str | None, threads: int, **_: object) -> Predictor:
        def run(images: FloatArray) -> FloatArray:
            used.append(threads)
            return np.zeros((len(images), 3), np.float32)

        return Predictor(card, run)

    monkeypatch.setattr(Predictor, "load", load)
    pictures = picture("white"), picture("black"), picture("white")
    status = serve(*pictures, lone_threads=lone_threads, MODEL_SERVER_ENGINE=engine_name)
    assert status == (0, [READY, 200, 200, 200])
    assert used == expected

"""Workers killed at random moments under load: nobody gets a wrong answer, nobody waits for ever."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from PIL import Image
from serving_fixtures import encode, make_artifact, picture
from serving_process import LOADED, ModelServer, model_server, wait_until

from model.core.predictor import Predictor
from model.serving.invocation import classify
from model.serving.request import Options

KILLS = 10
CALLERS = 8
# A request may meet two dying workers and their replacements; more than this is a request that hangs.
HUNG_SECONDS = 20.0


class Question(NamedTuple):
    """A request with the only right answer."""

    body: bytes
    headers: dict[str, str]
    status: int
    answer: bytes


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("faults") / "artifact")


@pytest.fixture(scope="module")
def questions(artifact: Path) -> list[Question]:
    """Images that all have different answers, alone and in lists, good and bad, and the answers without a server."""
    predictor = Predictor.load(artifact)
    pixels = np.random.default_rng(5).integers(0, 256, (60, 30, 40, 3), np.uint8)
    images = [encode(Image.fromarray(each), "JPEG" if index % 2 else "PNG") for index, each in enumerate(pixels)]
    images[::10] = [b"no picture", picture()[:50], b"", b"\xff\xd8\xff", images[-1][:200], b"{}"]
    answers = [classify(predictor, each, Options(top_k=3, scores=True)) for each in images]
    assert len({each.body for each in answers}) > 50
    headers = {"Content-Type": "image/png; top_k=3; scores=true"}
    made = [Question(each, headers, answer.status, answer.body) for each, answer in zip(images, answers, strict=True)]
    headers = {"Content-Type": "application/json", "Accept": "application/jsonlines"}
    for first in range(0, 60, 6):
        texts = [base64.b64encode(each).decode() for each in images[first : first + 6]]
        lines = b"".join(answer.body + b"\n" for answer in answers[first : first + 6])
        body = json.dumps({"images": texts, "top_k": 3, "scores": True}).encode()
        made.append(Question(body, headers, 200, lines))
    return made


def ask_until(stop: threading.Event, port: int, questions: list[Question], seed: int, met: list[str]) -> None:
    """Ask one question after the other on one connection; note for each whether the answer was right."""
    chance = random.Random(seed)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=HUNG_SECONDS)) as connection:
        while not stop.is_set():
            question = chance.choice(questions)
            connection.request("POST", "/invocations", question.body, question.headers)
            response = connection.getresponse()  # raises TimeoutError when it hangs
            status, body = response.status, response.read()
            right = (status, body) == (question.status, question.answer)
            met.append("right" if right else "error" if is_allowed(question, status, body) else repr(body[:300]))


def is_allowed(question: Question, status: int, body: bytes) -> bool:
    """Return whether this may stand where an answer should: 503, or a worker lost twice with the same image.

    In a list the other images must have their answers all the same.
    """

    def is_crash(document: bytes) -> bool:
        error = json.loads(document).get("error", {})
        return error.get("code") == "model_failed" and "crashed" in error.get("message", "")

    if status in (500, 503):
        return status == 503 or is_crash(body)
    got, expected = body.splitlines(), question.answer.splitlines()
    same_form = status == 200 and len(got) == len(expected)
    return same_form and all(is_crash(line) for line, right in zip(got, expected, strict=True) if line != right)


def kill_at_random(server: ModelServer) -> None:
    """Kill workers, also those that are still loading."""
    chance = random.Random(0)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 1.0))
        if workers := server.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(workers).send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_workers_killed_at_random_cost_no_wrong_answer_and_nothing_hangs(
    artifact: Path, questions: list[Question], tmp_path: Path
) -> None:
    stop, met = threading.Event(), list[str]()
    with model_server(artifact, tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        server.wait_until_ready().wait_for_log(LOADED, times=2)
        with ThreadPoolExecutor(CALLERS) as callers:
            asking = [callers.submit(ask_until, stop, server.port, questions, each, met) for each in range(CALLERS)]
            try:
                wait_until(lambda: len(met) > 10 * CALLERS)
                kill_at_random(server)
                answered = len(met)
                wait_until(lambda: len(met) > answered + 100)  # it has recovered
            finally:
                stop.set()
            for each in asking:
                each.result()
        assert set(met) <= {"right", "error"}
        assert met.count("error") < 0.02 * len(met)
        assert set(met[-50:]) == {"right"}
        server.process.terminate()
        assert server.wait_until_gone() == 0

"""The contract of /invocations, without HTTP: what is accepted, what is answered, and how faults are told apart."""

import asyncio
import base64
import json
import logging
from typing import Any

import numpy as np
import pytest
from serving_fixtures import image_bytes, make_artifact, png_that_claims

from model.core.predictor import Predictor
from model.serving.invocation import Answer, classify, error_answer, respond
from model.serving.request import Options

IMAGE = image_bytes()
JSON = "application/json"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(make_artifact(tmp_path_factory.mktemp("artifact")))


def ask(predictor: Predictor, body: bytes | None, content_type: str = "image/png") -> tuple[int, Any]:
    async def classify_image(image: bytes, options: Options) -> Answer:
        return classify(predictor, image, options)

    result = asyncio.run(respond(content_type, body, 1000, classify_image))
    return result.status, json.loads(result.body)


def as_json(**document: Any) -> bytes:
    return json.dumps({"image": base64.b64encode(IMAGE).decode()} | document).encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        *((IMAGE, kind) for kind in ("IMAGE/JPEG; charset=utf-8", "file-path/raw-bytes", "")),
        (as_json(), "application/x+json"), (as_json(image=base64.encodebytes(IMAGE).decode()), JSON),
    ],
)  # fmt: skip
def test_an_image_is_classified_however_it_comes(predictor: Predictor, body: bytes, content_type: str) -> None:
    status, document = ask(predictor, body, content_type)
    assert status == 200
    assert document["predictions"][0]["label"] == "Red Setter"
    assert document["predictions"][0]["probability"] > 0.99
    assert document["model"] == {"name": "colours", "version": predictor.card.version}
    assert document.keys() == {"predictions", "model"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (IMAGE, "image/png; top_k=2; scores=true"), (IMAGE, "image/png ; top_k = 2 ; scores = TRUE ;"),
        (as_json(top_k=2, scores=True), f"{JSON}; top_k=1; scores=false"),
    ],
)  # fmt: skip
def test_options_are_understood_wherever_they_are_given(predictor: Predictor, body: bytes, content_type: str) -> None:
    status, document = ask(predictor, body, content_type)
    assert (status, len(document["predictions"]), len(document["scores"])) == (200, 2, 3)
    assert document["scores"][0] == document["predictions"][0]["probability"]


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        *((IMAGE, f"image/png; top_k={value}", "top_k must be") for value in ("0", "-1", "1e3", "9" * 5000, "²")),
        (IMAGE, "image/png; scores=maybe", "scores must be true or false"),
        *((body, JSON, "not valid JSON") for body in (b"{", b"[" * 100_000, b"\xff\xfe")),
        *((body, JSON, 'an image in base64 under "image"') for body in (b"[]", b"{}")),
        (b'{"image": [""]}', JSON, "must be one image as text in base64"),
        (b'{"image": "not base64!"}', JSON, "not valid base64"), (b'{"image": "\xc3\xa4"}', JSON, "not valid base64"),
        (as_json(topk=3), JSON, "'topk' is not known; allowed are image, scores, top_k"),
        *((as_json(top_k=value), JSON, "top_k must be") for value in (True, 2.5, None)),
        (as_json(scores="true"), JSON, "scores must be true or false"),
    ],
)  # fmt: skip
def test_a_malformed_request_is_told_what_is_allowed(predictor, body, content_type, message):
    status, document = ask(predictor, body, content_type)
    assert (status, document["error"]["code"]) == (400, "bad_request")
    assert message in document["error"]["message"]
    assert len(document["error"]["message"]) < 400


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "image/png", 415, "unsupported_image"), (b"<svg/>", "image/svg+xml", 415, "unsupported_image"),
        (IMAGE, "text/html", 415, "unsupported_image"), (None, "image/png", 413, "image_too_large"),
        (png_that_claims(20_000, 20_000), "image/png", 413, "image_too_large"),
        # An error is an ordinary answer to who asks for that.
        (png_that_claims(20_000, 20_000), "image/png;top_k=2;errors=inline", 200, "image_too_large"),
        (b"{", f"{JSON}; Errors = Inline", 200, "bad_request"), (b"{", f"{JSON}; errors=no", 400, "bad_request"),
    ],
)  # fmt: skip
def test_an_image_that_is_refused_says_why(predictor, body, content_type, status, code):
    got, document = ask(predictor, body, content_type)
    assert (got, document["error"]["code"]) == (status, code)
    assert document["error"]["message"].endswith(".")


@pytest.mark.parametrize(
    ("content_type", "problem"), [("", "is missing"), ("application/octet-stream", "'application")]
)
def test_json_without_its_type_is_told_so(predictor: Predictor, content_type: str, problem: str) -> None:
    status, document = ask(predictor, as_json(), content_type)
    assert (status, document["error"]["code"]) == (415, "unsupported_image")
    assert problem in document["error"]["message"] and "application/json" in document["error"]["message"]


def test_a_failing_model_is_a_500_that_tells_nothing_and_logs_everything(predictor, caplog):
    def broken(images: np.ndarray) -> list[np.ndarray]:
        raise RuntimeError("secret path")

    with caplog.at_level(logging.ERROR):
        status, document = ask(Predictor(predictor.card, broken), IMAGE)
    assert (status, document["error"]["code"]) == (500, "model_failed")
    assert "secret" not in json.dumps(document)
    assert "secret path" in caplog.text


@pytest.mark.parametrize(("score", "known"), [(0.5, True), (1.0, True), (1.5, False), (None, None)])
def test_an_answer_says_whether_the_image_is_known_where_the_model_can_tell(predictor, score, known):
    outputs = [np.zeros((1, 3), np.float32)] + ([] if score is None else [np.array([score], np.float32)])
    status, document = ask(Predictor(predictor.card, lambda _: outputs), IMAGE)
    assert (status, document.get("known"), document.get("ood_score")) == (200, known, score)


def test_a_server_that_cannot_answer_now_says_so_also_where_errors_are_ordinary_answers() -> None:
    async def overloaded(_: bytes, __: Options) -> Answer:
        return error_answer(503, "overloaded", "Later.")

    assert asyncio.run(respond("image/png; errors=inline", IMAGE, 1000, overloaded)).status == 503

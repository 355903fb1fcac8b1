"""The contract of /invocations, without HTTP: what is accepted, what is answered, and how faults are told apart."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_fixtures import DISPLAY_LABELS, make_artifact, picture, png_that_claims

from model.invocation import Answer, answer, with_inline_errors
from model.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(make_artifact(tmp_path_factory.mktemp("artifact")))


def ask(
    predictor: Predictor, body: bytes, content_type: str = "image/png", custom_attributes: str = ""
) -> tuple[int, Any]:
    result = answer(predictor, body, content_type, custom_attributes)
    return result.status, json.loads(result.body)


def as_json(**document: Any) -> bytes:
    return json.dumps({"image": base64.b64encode(picture()).decode()} | document).encode()


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "IMAGE/JPEG", "image/*", "application/x-image", "application/octet-stream", "", "image/png; q=1"],
)
def test_a_pictures_bytes_are_classified(predictor: Predictor, content_type: str) -> None:
    status, document = ask(predictor, picture("lime"), content_type)
    assert status == 200
    assert document["predictions"][0]["label"] == "Grüner Hund"
    assert document["predictions"][0]["probability"] > 0.99
    assert document["model"] == {"name": "colours", "version": predictor.card.version}
    assert document.keys() == {"predictions", "model"}


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "application/x+json"])
def test_json_with_base64_gives_the_same_answer(predictor: Predictor, content_type: str) -> None:
    assert ask(predictor, as_json(), content_type) == ask(predictor, picture())


def test_base64_may_have_line_breaks(predictor: Predictor) -> None:
    body = json.dumps({"image": base64.encodebytes(picture()).decode()}).encode()
    assert ask(predictor, body, "application/json") == ask(predictor, picture())


@pytest.mark.parametrize(
    ("body", "content_type", "custom_attributes"),
    [
        (picture(), "image/png", "top_k=2,scores=true"),
        (picture(), "image/png", " top_k = 2 , scores = TRUE ,"),
        (picture(), "image/png; top_k=2; scores=true", ""),
        (picture(), "image/png; top_k=1; scores=false", "top_k=2,scores=true"),
        (as_json(top_k=2, scores=True), "application/json", ""),
        (as_json(top_k=2, scores=True), "application/json", "top_k=1,scores=false"),
    ],
)
def test_options_are_understood_wherever_they_are_given(
    predictor: Predictor, body: bytes, content_type: str, custom_attributes: str
) -> None:
    status, document = ask(predictor, body, content_type, custom_attributes)
    assert status == 200
    assert len(document["predictions"]) == 2
    assert len(document["scores"]) == len(DISPLAY_LABELS)
    assert abs(sum(document["scores"]) - 1) < 1e-9
    assert document["scores"][0] == document["predictions"][0]["probability"]


def test_probabilities_keep_their_full_precision(predictor: Predictor) -> None:
    _, document = ask(predictor, picture("blue"), custom_attributes="scores=true")
    assert document["scores"] == predictor.predict(picture("blue")).scores


@pytest.mark.parametrize(
    ("body", "content_type", "custom_attributes", "message"),
    [
        (picture(), "image/png", "top_k=0", "top_k must be"),
        (picture(), "image/png", "top_k=-1", "top_k must be"),
        (picture(), "image/png", "top_k=five", "top_k must be"),
        (picture(), "image/png", "top_k=1e3", "top_k must be"),
        (picture(), "image/png", "top_k=" + "9" * 5000, "top_k must be"),
        (picture(), "image/png", "top_k=²", "top_k must be"),
        (picture(), "image/png", "scores=maybe", "scores=true and scores=false"),
        (picture(), "image/png", "topk=3", "allowed are top_k"),
        (picture(), "image/png; top_k=x", "", "top_k must be"),
        (b"", "application/json", "", "not valid JSON"),
        (b"{", "application/json", "", "not valid JSON"),
        (b"[" * 100_000, "application/json", "", "not valid JSON"),
        (b"\xff\xfe", "application/json", "", "not valid JSON"),
        (b"[]", "application/json", "", "must be an object"),
        (b"{}", "application/json", "", 'under "image"'),
        (b'{"image": 5}', "application/json", "", 'under "image"'),
        (b'{"image": "not base64!"}', "application/json", "", "not valid base64"),
        (b'{"image": "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"}', "application/json", "", "not valid base64"),
        (as_json(topk=3), "application/json", "", "'topk' is not known; allowed are image, scores, top_k"),
        (as_json(top_k=True), "application/json", "", "top_k must be"),
        (as_json(top_k=2.5), "application/json", "", "top_k must be"),
        (as_json(top_k=None), "application/json", "", "top_k must be"),
        (as_json(scores="true"), "application/json", "", "scores must be true or false"),
    ],
)
def test_a_malformed_request_is_told_what_is_allowed(
    predictor: Predictor, body: bytes, content_type: str, custom_attributes: str, message: str
) -> None:
    status, document = ask(predictor, body, content_type, custom_attributes)
    assert status == 400
    assert document["error"]["code"] == "bad_request"
    assert message in document["error"]["message"]
    assert len(document["error"]["message"]) < 400


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "image/png", 415, "unsupported_image"),
        (b"text", "image/png", 415, "unsupported_image"),
        (b"<svg/>", "image/svg+xml", 415, "unsupported_image"),
        (picture()[:40], "image/png", 415, "unsupported_image"),
        (b'{"image": ""}', "application/json", 415, "unsupported_image"),
        (picture(), "text/html", 415, "unsupported_image"),
        (picture(), "multipart/form-data; boundary=x", 415, "unsupported_image"),
        (png_that_claims(20_000, 20_000), "image/png", 413, "image_too_large"),
    ],
)
def test_a_picture_that_is_refused_says_why(
    predictor: Predictor, body: bytes, content_type: str, status: int, code: str
) -> None:
    got, document = ask(predictor, body, content_type)
    assert (got, document["error"]["code"]) == (status, code)
    assert document["error"]["message"].endswith(".")


def test_a_failing_model_is_a_500_that_tells_nothing_and_logs_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = Predictor.load(make_artifact(tmp_path)).card

    def broken(images: np.ndarray) -> np.ndarray:
        raise RuntimeError(f"secret path {tmp_path}")

    with caplog.at_level(logging.ERROR):
        status, document = ask(Predictor(card, broken), picture())
    assert (status, document["error"]["code"]) == (500, "model_failed")
    assert "secret" not in json.dumps(document)
    assert "secret path" in caplog.text


@pytest.mark.parametrize(
    "content_type", ["image/jpeg; errors=inline", "image/jpeg;top_k=2;errors=inline", "IMAGE/JPEG; Errors = Inline"]
)
@pytest.mark.parametrize("status", [400, 413, 415, 500])
def test_errors_can_be_asked_for_as_ordinary_answers(status: int, content_type: str) -> None:
    assert with_inline_errors(Answer(status, b"why"), content_type) == Answer(200, b"why")


@pytest.mark.parametrize(
    "content_type", ["", "image/jpeg", "errors=inline", "image/jpeg; errors=no", "a; b=errors=inline"]
)
def test_errors_keep_their_status_otherwise(content_type: str) -> None:
    assert with_inline_errors(Answer(415, b"why"), content_type).status == 415


def test_a_server_that_is_not_ready_says_so_in_any_case() -> None:
    assert with_inline_errors(Answer(503, b"later"), "image/jpeg; errors=inline").status == 503


def test_asking_for_inline_errors_changes_nothing_else(predictor: Predictor) -> None:
    assert ask(predictor, picture(), "image/png; errors=inline; top_k=2") == ask(
        predictor, picture(), "image/png; top_k=2"
    )

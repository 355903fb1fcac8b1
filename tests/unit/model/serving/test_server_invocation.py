"""The contract of /invocations, without HTTP: what is accepted, what is answered, and how faults are told apart."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from serving_fixtures import image_bytes, make_artifact, png_that_claims
from starlette.datastructures import Headers

from model.core.predictor import Predictor
from model.serving.invocation import Answer, classify, error_answer, respond, with_inline_errors
from model.serving.request import Options
from model.serving.settings import ServingSettings

LIMITS = ServingSettings.from_environment({"MODEL_SERVER_MAX_IMAGES": "4"})
IMAGE = image_bytes()
JSON, LINES, NPY = "application/json", "application/jsonlines", "application/x-npy"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(make_artifact(tmp_path_factory.mktemp("artifact")))


def answer(predictor: Predictor, body: bytes | None, content_type: str = "image/png", accept: str = "") -> Answer:
    async def classify_all(images: Sequence[bytes], options: Options) -> list[Answer]:
        return [classify(predictor, image, options) for image in images]

    headers = Headers({"content-type": content_type, "accept": accept})
    return asyncio.run(respond(headers, body, LIMITS, classify_all))


def ask(predictor: Predictor, body: bytes | None, content_type: str = "image/png") -> tuple[int, Any]:
    result = answer(predictor, body, content_type)
    assert result.media_type == JSON
    return result.status, json.loads(result.body)


def as_json(**document: Any) -> bytes:
    return json.dumps({"image": base64.b64encode(IMAGE).decode()} | document).encode()


def as_list(*images: bytes, **options: Any) -> bytes:
    return json.dumps({"images": [base64.b64encode(image).decode() for image in images]} | options).encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        *((IMAGE, kind) for kind in ("IMAGE/JPEG", "image/*", "application/x-image", "")),
        (as_json(), "application/json; charset=utf-8"), (as_json(), "application/x+json"),
        (as_json(image=base64.encodebytes(IMAGE).decode()), JSON),
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
        (as_json(top_k=2, scores=True), JSON), (as_json(top_k=2, scores=True), f"{JSON}; top_k=1; scores=false"),
    ],
)  # fmt: skip
def test_options_are_understood_wherever_they_are_given(predictor: Predictor, body: bytes, content_type: str) -> None:
    status, document = ask(predictor, body, content_type)
    assert (status, len(document["predictions"]), len(document["scores"])) == (200, 2, 3)
    assert abs(sum(document["scores"]) - 1) < 1e-9
    assert document["scores"][0] == document["predictions"][0]["probability"]


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        *((IMAGE, f"image/png; top_k={value}", "top_k must be") for value in ("0", "-1", "1e3", "9" * 5000, "²")),
        (IMAGE, "image/png; scores=maybe", "scores=true and scores=false"), (b"{", JSON, "not valid JSON"),
        (b"[" * 100_000, JSON, "not valid JSON"), (b"\xff\xfe", JSON, "not valid JSON"),
        (b"[]", JSON, "must be an object"), (b"{}", JSON, 'either "image" or "images"'),
        (as_json(images=[]), JSON, 'either "image" or "images"'), (b'{"image": 5}', JSON, 'Under "image"'),
        (b'{"image": [""]}', JSON, 'a list goes under "images"'), (b'{"images": []}', JSON, "at least one in it"),
        (b'{"images": ["", null]}', JSON, "a list of texts"), (b'{"images": "YQ=="}', JSON, "a list of texts"),
        (b'{"images": ["", "", "", "", ""]}', JSON, "has 5 images; at most 4 are allowed"),
        (b'{"image": "not base64!"}', JSON, "not valid base64"), (b'{"image": "\xc3\xa4"}', JSON, "not valid base64"),
        (as_json(topk=3), JSON, "'topk' is not known; allowed are image, images, scores, top_k"),
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
        (b'{"image": ""}', JSON, 415, "unsupported_image"), (IMAGE, "text/html", 415, "unsupported_image"),
        (png_that_claims(20_000, 20_000), "image/png", 413, "image_too_large"),
        (None, "image/png", 413, "image_too_large"),
    ],
)  # fmt: skip
def test_an_image_that_is_refused_says_why(predictor, body, content_type, status, code):
    got, document = ask(predictor, body, content_type)
    assert (got, document["error"]["code"]) == (status, code)
    assert document["error"]["message"].endswith(".")


def test_a_failing_model_is_a_500_that_tells_nothing_and_logs_everything(predictor, caplog):
    def broken(images: np.ndarray) -> np.ndarray:
        raise RuntimeError("secret path")

    with caplog.at_level(logging.ERROR):
        status, document = ask(Predictor(predictor.card, broken), IMAGE)
    assert (status, document["error"]["code"]) == (500, "model_failed")
    assert "secret" not in json.dumps(document)
    assert "secret path" in caplog.text


@pytest.mark.parametrize(
    ("status", "content_type", "expected"),
    [
        (400, "image/jpeg; errors=inline", 200), (413, "image/jpeg;top_k=2;errors=inline", 200),
        (500, "IMAGE/JPEG; Errors = Inline", 200), (415, "image/jpeg", 415), (415, "errors=inline", 415),
        (415, "image/jpeg; errors=no", 415), (503, "image/jpeg; errors=inline", 503),  # about the server
    ],
)  # fmt: skip
def test_errors_can_be_asked_for_as_ordinary_answers(status: int, content_type: str, expected: int) -> None:
    assert with_inline_errors(Answer(status, b"why"), content_type) == Answer(expected, b"why")


def test_a_list_is_answered_in_its_order_each_image_as_if_it_were_alone(predictor: Predictor) -> None:
    images = [image_bytes(colour) for colour in ("blue", "red", "lime")] + [b"hello"]
    status, document = ask(predictor, as_list(*images, top_k=2), JSON)
    assert status == 200
    assert document == {"results": [ask(predictor, image, "image/png; top_k=2")[1] for image in images]}
    assert ask(predictor, as_list(IMAGE), JSON) == (200, {"results": [ask(predictor, IMAGE)[1]]})
    _, document = ask(predictor, b'{"images": ["YQ==", "?"]}', JSON)
    assert document["results"][1]["error"] == {
        "code": "bad_request",
        "message": 'Text 2 under "images" is not valid base64.',
    }


def test_a_server_that_cannot_answer_now_says_so_for_the_whole_request() -> None:
    async def overloaded(images: Sequence[bytes], _: Options) -> list[Answer]:
        return [Answer(200, b"{}"), error_answer(503, "overloaded", "Later.")][: len(images)]

    headers = Headers({"content-type": f"{JSON}; errors=inline"})
    result = asyncio.run(respond(headers, as_list(b"a", b"b"), LIMITS, overloaded))
    assert (result.status, json.loads(result.body)["error"]["code"]) == (503, "overloaded")


def test_json_lines_are_one_document_per_image(predictor: Predictor) -> None:
    result = answer(predictor, as_list(IMAGE, b"hello"), JSON, accept=LINES)
    assert (result.status, result.media_type) == (200, LINES)
    first, second, rest = result.body.decode().split("\n")
    assert json.loads(first) == ask(predictor, IMAGE)[1]
    assert json.loads(second)["error"]["code"] == "unsupported_image"
    assert rest == ""
    assert answer(predictor, IMAGE, accept=LINES).body.decode() == first + "\n"


def test_npy_holds_the_scores_and_no_pickle(predictor: Predictor) -> None:
    result = answer(predictor, as_list(IMAGE, b"hello"), JSON, accept=NPY)
    assert (result.status, result.media_type) == (200, NPY)
    scores = np.load(io.BytesIO(result.body), allow_pickle=False)
    assert (scores.shape, scores.dtype) == ((2, 3), np.float32)
    assert scores[0].tolist() == np.float32(predictor.predict(IMAGE).scores).tolist()
    assert np.isnan(scores[1]).all()
    assert np.load(io.BytesIO(answer(predictor, IMAGE, accept=NPY).body)).tolist() == scores[:1].tolist()


@pytest.mark.parametrize(("body", "status"), [(as_list(b"hello"), 415), (b"{", 400)])
def test_an_error_is_json_whatever_was_asked_for(predictor: Predictor, body: bytes, status: int) -> None:
    result = answer(predictor, body, JSON, accept=NPY)
    assert (result.status, result.media_type) == (status, JSON)
    assert "error" in json.loads(result.body)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON), ("*/*", JSON), ("application/*", JSON), ("APPLICATION/JSON", JSON), (NPY, NPY),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", JSON), (f"{NPY};q=0.5, {LINES};q=0.9", LINES),
        (f"{LINES}, {JSON}", JSON), (f"{JSON};q=0, */*", LINES), (f"{JSON}; charset=utf-8", JSON),
        (f"{JSON};q=0.1, application/*;q=0.5, */*;q=0.9", LINES), (f"*/*;q=0.1, {NPY} ; Q=0.2", NPY),
        (f"{JSON};q=0", None), ("text/csv", None), (f"{JSON};q=nan", None), (f"{JSON};q=2", None), (",,;", None),
    ],
)  # fmt: skip
def test_what_the_caller_prefers_is_given(predictor: Predictor, accept: str, expected: str | None) -> None:
    result = answer(predictor, IMAGE, accept=accept)
    if expected is not None:
        assert (result.status, result.media_type) == (200, expected)
    else:
        assert (result.status, json.loads(result.body)["error"]["code"]) == (406, "not_acceptable")
        assert f"{JSON}, {LINES}, {NPY}" in result.body.decode()

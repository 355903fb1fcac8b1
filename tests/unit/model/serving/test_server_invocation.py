"""The contract of /invocations, without HTTP: what is accepted, what is answered, and how faults are told apart."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_fixtures import DISPLAY_LABELS, make_artifact, picture, png_that_claims
from starlette.datastructures import Headers

from model.core.predictor import Predictor
from model.serving.invocation import Answer, RequestLimits, classify, error_answer, respond, with_inline_errors
from model.serving.request import Options


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(make_artifact(tmp_path_factory.mktemp("artifact")))


LIMITS = RequestLimits(max_body_bytes=1_000_000, max_images=4)


def answer(predictor: Predictor, body: bytes | None, content_type: str = "image/png", accept: str = "") -> Answer:
    async def classify_all(pictures: Sequence[bytes], options: Options) -> list[Answer]:
        return [classify(predictor, picture, options) for picture in pictures]

    headers = {"content-type": content_type, "accept": accept}
    return asyncio.run(respond(Headers(headers), body, LIMITS, classify_all))


def ask(predictor: Predictor, body: bytes | None, content_type: str = "image/png") -> tuple[int, Any]:
    result = answer(predictor, body, content_type)
    assert result.media_type == "application/json"
    return result.status, json.loads(result.body)


def as_base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


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
    wrapped = base64.encodebytes(picture()).decode()  # with line breaks
    assert ask(predictor, as_json(image=wrapped), content_type) == ask(predictor, picture())


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (picture(), "image/png; top_k=2; scores=true"),
        (picture(), "image/png ; top_k = 2 ; scores = TRUE ;"),
        (as_json(top_k=2, scores=True), "application/json"),
        (as_json(top_k=2, scores=True), "application/json; top_k=1; scores=false"),
    ],
)
def test_options_are_understood_wherever_they_are_given(predictor: Predictor, body: bytes, content_type: str) -> None:
    status, document = ask(predictor, body, content_type)
    assert status == 200
    assert len(document["predictions"]) == 2
    assert len(document["scores"]) == len(DISPLAY_LABELS)
    assert abs(sum(document["scores"]) - 1) < 1e-9
    assert document["scores"][0] == document["predictions"][0]["probability"]


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (picture(), "image/png; top_k=0", "top_k must be"),
        (picture(), "image/png; top_k=-1", "top_k must be"),
        (picture(), "image/png; top_k=five", "top_k must be"),
        (picture(), "image/png; top_k=1e3", "top_k must be"),
        (picture(), "image/png; top_k=" + "9" * 5000, "top_k must be"),
        (picture(), "image/png; top_k=²", "top_k must be"),
        (picture(), "image/png; scores=maybe", "scores=true and scores=false"),
        (b"", "application/json", "not valid JSON"),
        (b"{", "application/json", "not valid JSON"),
        (b"[" * 100_000, "application/json", "not valid JSON"),
        (b"\xff\xfe", "application/json", "not valid JSON"),
        (b"[]", "application/json", "must be an object"),
        (b"{}", "application/json", 'either "image" or "images"'),
        (b'{"image": 5}', "application/json", 'Under "image" there must be one image'),
        (b'{"image": []}', "application/json", "at least one in it"),
        (b'{"image": ["", null]}', "application/json", "a list of such"),
        (b'{"images": "YQ=="}', "application/json", 'Under "images" there must be a list'),
        (b'{"images": {}}', "application/json", 'Under "images" there must be a list'),
        (as_json(images=[]), "application/json", 'either "image" or "images"'),
        (b'{"images": ["", "", "", "", ""]}', "application/json", "has 5 images; at most 4 are allowed"),
        (b'{"image": "not base64!"}', "application/json", "not valid base64"),
        (b'{"image": "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"}', "application/json", "not valid base64"),
        (as_json(topk=3), "application/json", "'topk' is not known; allowed are image, images, scores, top_k"),
        (as_json(top_k=True), "application/json", "top_k must be"),
        (as_json(top_k=2.5), "application/json", "top_k must be"),
        (as_json(top_k=None), "application/json", "top_k must be"),
        (as_json(scores="true"), "application/json", "scores must be true or false"),
    ],
)
def test_a_malformed_request_is_told_what_is_allowed(
    predictor: Predictor, body: bytes, content_type: str, message: str
) -> None:
    status, document = ask(predictor, body, content_type)
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
        (None, "image/png", 413, "image_too_large"),
    ],
)
def test_a_picture_that_is_refused_says_why(
    predictor: Predictor, body: bytes | None, content_type: str, status: int, code: str
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
    ("status", "content_type"),
    [
        *((415, given) for given in ("", "image/jpeg", "errors=inline", "image/jpeg; errors=no", "a; b=errors=inline")),
        (503, "image/jpeg; errors=inline"),  # about the server, not about the image
    ],
)
def test_errors_keep_their_status_otherwise(status: int, content_type: str) -> None:
    assert with_inline_errors(Answer(status, b"why"), content_type).status == status


class TestBatches:
    def test_a_list_is_answered_in_its_order_each_picture_as_if_it_were_alone(self, predictor: Predictor) -> None:
        colours = ["blue", "red", "lime", "blue"]
        for key in ("image", "images"):
            body = json.dumps({key: [as_base64(picture(colour)) for colour in colours], "top_k": 2}).encode()
            status, document = ask(predictor, body, "application/json")
            assert status == 200
            assert document == {"results": [ask(predictor, picture(c), "image/png; top_k=2")[1] for c in colours]}
        one = json.dumps({"images": [as_base64(picture())]}).encode()
        assert ask(predictor, one, "application/json") == (200, {"results": [ask(predictor, picture())[1]]})

    def test_bad_pictures_do_not_fail_the_others(self, predictor: Predictor) -> None:
        texts = [as_base64(b"hello"), as_base64(picture("blue")), "?", as_base64(png_that_claims(20_000, 20_000))]
        status, document = ask(predictor, json.dumps({"images": texts}).encode(), "application/json")
        assert status == 200
        refused, good, unreadable, large = document["results"]
        assert good == ask(predictor, picture("blue"))[1]
        assert refused["error"]["code"] == "unsupported_image"
        assert unreadable["error"] == {"code": "bad_request", "message": 'Text 3 under "images" is not valid base64.'}
        assert large["error"]["code"] == "image_too_large"

    def test_a_server_that_cannot_answer_now_says_so_for_the_whole_request(self) -> None:
        async def overloaded(pictures: Sequence[bytes], _: Options) -> list[Answer]:
            return [Answer(200, b"{}"), error_answer(503, "overloaded", "Later.")][: len(pictures)]

        body = json.dumps({"images": [as_base64(b"a"), as_base64(b"b")]}).encode()
        headers = Headers({"content-type": "application/json; errors=inline"})
        result = asyncio.run(respond(headers, body, LIMITS, overloaded))
        assert (result.status, json.loads(result.body)["error"]["code"]) == (503, "overloaded")


class TestAccept:
    def test_json_lines_are_one_document_per_picture(self, predictor: Predictor) -> None:
        body = json.dumps({"images": [as_base64(picture("blue")), as_base64(b"hello")]}).encode()
        result = answer(predictor, body, "application/json", accept="application/jsonlines")
        assert (result.status, result.media_type) == (200, "application/jsonlines")
        first, second, rest = result.body.decode().split("\n")
        assert json.loads(first) == ask(predictor, picture("blue"))[1]
        assert json.loads(second)["error"]["code"] == "unsupported_image"
        assert rest == ""
        one = answer(predictor, picture("blue"), accept="application/jsonlines")
        assert one.body.decode() == first + "\n"

    def test_npy_holds_the_scores_and_no_pickle(self, predictor: Predictor) -> None:
        texts = [as_base64(picture("blue")), as_base64(b"hello"), as_base64(picture("red"))]
        body = json.dumps({"images": texts}).encode()
        result = answer(predictor, body, "application/json", accept="application/x-npy")
        assert (result.status, result.media_type) == (200, "application/x-npy")
        scores = np.load(io.BytesIO(result.body), allow_pickle=False)
        assert (scores.shape, scores.dtype) == ((3, 3), np.float32)
        assert np.isnan(scores[1]).all()
        for row, colour in ((0, "blue"), (2, "red")):
            assert scores[row].tolist() == np.float32(predictor.predict(picture(colour)).scores).tolist()
        one = answer(predictor, picture("blue"), accept="application/x-npy")
        assert np.load(io.BytesIO(one.body)).tolist() == scores[:1].tolist()

    def test_an_error_is_json_whatever_was_asked_for(self, predictor: Predictor) -> None:
        for body in (json.dumps({"images": [as_base64(b"hello")]}).encode(), b"{"):
            result = answer(predictor, body, "application/json", accept="application/x-npy")
            assert (result.status, result.media_type) == (415 if len(body) > 1 else 400, "application/json")
            assert "error" in json.loads(result.body)

    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("", "application/json"),
            ("*/*", "application/json"),
            ("application/*", "application/json"),
            ("APPLICATION/JSON", "application/json"),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json"),
            ("text/html, */*;q=0.2", "application/json"),
            ("application/x-npy", "application/x-npy"),
            ("application/x-npy;q=0.5, application/jsonlines;q=0.9", "application/jsonlines"),
            ("application/jsonlines, application/json", "application/json"),
            ("application/json;q=0, */*", "application/jsonlines"),
            ("application/json;q=0.1, application/*;q=0.5, */*;q=0.9", "application/jsonlines"),
            ("*/*;q=0.1, application/x-npy ; Q=0.2", "application/x-npy"),
            ("application/json; charset=utf-8", "application/json"),
            ("application/json;q=0", None),
            ("*/*;q=0.000", None),
            ("text/csv", None),
            ("application/json;q=nan", None),
            ("application/json;q=2", None),
            (",,;", None),
            ("text/csv" * 5000, None),
        ],
    )
    def test_what_the_caller_prefers_is_given(self, predictor: Predictor, accept: str, expected: str | None) -> None:
        result = answer(predictor, picture(), accept=accept)
        if expected is not None:
            assert (result.status, result.media_type) == (200, expected)
        else:
            assert (result.status, json.loads(result.body)["error"]["code"]) == (406, "not_acceptable")
            assert "application/json, application/jsonlines, application/x-npy" in result.body.decode()
            assert len(result.body) < 400

"""What the parser makes of bodies, queries and documents, friendly and hostile."""

import base64
import json

import pytest
from lambda_fakes import http_event

from lambda_fn.errors import BadRequestError, ImageTooLargeError, UnsupportedMediaTypeError
from lambda_fn.image_url import ImageUrl
from lambda_fn.request import ClassificationRequest, HttpRequest, from_document, from_http

LIMIT = 1000
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
INLINE = base64.b64encode(PNG).decode()
URL = {"url": "https://example.com/dog.jpg"}
IMAGE_URL = ImageUrl("example.com", "/dog.jpg")


def parse(body, content_type="image/png", query=None):
    return from_http(HttpRequest.from_event(http_event(body, content_type, queryStringParameters=query)), LIMIT)


@pytest.mark.parametrize("content_type", ["", "IMAGE/PNG; q=1", "file-path/raw-bytes", "image/svg+xml", "image/jpg"])
def test_an_image_body_is_taken_as_it_is(content_type):
    assert parse(PNG, content_type=content_type) == ClassificationRequest(PNG, "body")


@pytest.mark.parametrize(("content_type", "problem"), [("", "missing"), ("application/octet-stream", "octet-stream")])
@pytest.mark.parametrize("body", [json.dumps(URL), b"\xef\xbb\xbf\n {}", "[1]"])
def test_json_without_its_type_is_told_so(body, content_type, problem):
    with pytest.raises(UnsupportedMediaTypeError, match=f'{problem}.*"Content-Type: application/json"'):
        parse(body, content_type=content_type)


@pytest.mark.parametrize("content_type", ["Application/JSON; charset=utf-8", "application/ld+json"])
@pytest.mark.parametrize("encode", [str, lambda text: b"\xef\xbb\xbf" + text.encode()])
def test_json_is_read_as_text_and_as_bytes(content_type, encode):
    body = encode(json.dumps({**URL, "top_k": 3, "scores": True}))
    assert parse(body, content_type=content_type) == ClassificationRequest(IMAGE_URL, "url", 3, True)


def test_base64_may_be_wrapped():
    wrapped = base64.encodebytes(PNG * 40).decode().replace("\n", "\r\n")
    assert from_document({"image": wrapped}, LIMIT) == ClassificationRequest(PNG * 40, "base64")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"scores": "False", "top_k": "1000"}, (1000, False)),
        ({"X-Amz-Signature": "abc", "x-amz-date": "now", "scores": "true"}, (5, True)),
    ],
)
def test_options_come_from_the_query(query, expected):
    for request in (parse(PNG, query=query), parse(json.dumps(URL), content_type="application/json", query=query)):
        assert (request.top_k, request.scores) == expected


@pytest.mark.parametrize(
    "read", [parse, lambda image: from_document({"image": base64.b64encode(image).decode()}, LIMIT)]
)
def test_the_limit_is_on_the_image_and_inclusive(read):
    assert read(b"x" * LIMIT).image == b"x" * LIMIT
    with pytest.raises(ImageTooLargeError, match=r"1001 bytes; at most 1000"):
        read(b"x" * (LIMIT + 1))


AS_JSON = {"content-type": "application/json"}
NOT_BASE64 = ("not base64!", INLINE + "=", "AAAA_-==", "\ud800", "   ")
WRONG_QUERIES = (
    {"top_k": "0"}, {"top_k": "1001"}, {"top_k": "+5"}, {"top_k": " 5"}, {"top_k": "1_0"}, {"top_k": "\u0665"},
    {"top_k": "9" * 5000}, {"top_k": ""}, {"scores": "1"}, {"topk": "5"}, {"url": "https://example.com/"},
)  # fmt: skip
WRONG_EVENTS = (
    {"requestContext": None}, *({"requestContext": {"http": {"method": method}}} for method in (5, "\ud800")),
    {"headers": [1]}, {"body": 5}, {"body": "not base64!", "isBase64Encoded": True}, {"body": "\ud800"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "must be an object"), ({}, 'either "url" or "image"'), ({**URL, "image": None}, 'either "url" or "image"'),
        ({"key1": "value1"}, 'allowed are "image", "scores"'), ({"image": None}, "in base64"),
        *(({"image": text}, "not valid base64") for text in NOT_BASE64),
        ({"image": "data:image/png;base64," + INLINE}, "without"),
        *(({**URL, "top_k": value}, '"top_k" must be') for value in (0, 1001, True, 5.5, "5", None, 10**400)),
        *(({**URL, "scores": value}, '"scores" must be') for value in (1, "true", None)),
    ],
)  # fmt: skip
def test_a_document_that_is_no_request_is_refused_with_a_reason(document, message):
    with pytest.raises(BadRequestError) as caught:
        from_document(document, LIMIT)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"queryStringParameters": query}, '"top_k"') for query in WRONG_QUERIES),
        *((changes, "not an HTTP request") for changes in WRONG_EVENTS),
        *(({"headers": AS_JSON, "body": body}, "not valid JSON") for body in ("[" * 200_000, "{")),
        ({"headers": AS_JSON, "body": '{"url": "", "top_k": 5}', "queryStringParameters": {"top_k": "5"}}, "twice"),
    ],
)  # fmt: skip
def test_an_event_that_is_no_request_is_refused_with_a_reason(changes, message):
    with pytest.raises(BadRequestError) as caught:
        from_http(HttpRequest.from_event(http_event("x") | changes), LIMIT)
    assert message in caught.value.message.replace('"scores" must', '"scores" must, "top_k"')

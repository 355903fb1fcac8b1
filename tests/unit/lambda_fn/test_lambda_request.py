"""What the parser makes of bodies, queries and documents, friendly and hostile."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_fn.errors import BadRequestError, ImageTooLargeError, ServiceError, UnsupportedMediaTypeError
from lambda_fn.events import HttpRequest, http_request, is_http
from lambda_fn.image_url import ImageUrl
from lambda_fn.request import ClassificationRequest, from_document, from_http

LIMIT = 1000
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
INLINE = base64.b64encode(PNG).decode()
URL = {"url": "https://example.com/dog.jpg"}
IMAGE_URL = ImageUrl("example.com", "/dog.jpg")


def event(body=None, *, content_type=None, method="POST", path="/", query=None, base64_encoded=None, **changes):
    headers = {"host": "x", **({"content-type": content_type} if content_type is not None else {})}
    if isinstance(body, bytes):
        body, base64_encoded = base64.b64encode(body).decode(), True
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": headers,
        **({"queryStringParameters": query} if query else {}),
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"},
        **({"body": body} if body is not None else {}),
        "isBase64Encoded": bool(base64_encoded),
        **changes,
    }


def parse(*args, **kwargs):
    return from_http(http_request(event(*args, **kwargs)), LIMIT)


@pytest.mark.parametrize(
    "content_type",
    [
        None, "", "image/jpeg", "IMAGE/PNG", "image/webp; q=1", "application/octet-stream", "application/x-image",
        "image/svg+xml",
    ],
)  # fmt: skip
def test_an_image_body_is_taken_as_it_is(content_type):
    assert parse(PNG, content_type=content_type) == ClassificationRequest(PNG, "body")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"])
@pytest.mark.parametrize("encode", [str, lambda text: text.encode(), lambda text: b"\xef\xbb\xbf" + text.encode()])
def test_json_is_read_as_text_and_as_bytes(content_type, encode):
    body = encode(json.dumps({**URL, "top_k": 3, "scores": True}))
    assert parse(body, content_type=content_type) == ClassificationRequest(IMAGE_URL, "url", 3, True)


def test_a_document_needs_no_http():
    assert from_document({"image": INLINE}, LIMIT) == ClassificationRequest(PNG, "base64")
    assert from_document({**URL, "top_k": 1000}, LIMIT) == ClassificationRequest(IMAGE_URL, "url", 1000)


def test_base64_may_be_wrapped_as_the_command_line_tool_wraps_it():
    wrapped = base64.encodebytes(PNG * 40).decode().replace("\n", "\r\n")
    assert from_document({"image": wrapped}, LIMIT).image == PNG * 40


def test_header_names_are_not_case_sensitive():
    changed = event(json.dumps(URL), headers={"CONTENT-Type": "application/json"})
    assert from_http(http_request(changed), LIMIT).source == "url"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"top_k": "3"}, (3, False)),
        ({"scores": "true"}, (5, True)),
        ({"scores": "False", "top_k": "1000"}, (1000, False)),
        ({"X-Amz-Signature": "abc", "x-amz-date": "now", "top_k": "2"}, (2, False)),
    ],
)
def test_options_come_from_the_query(query, expected):
    for request in (
        parse(PNG, query=query),
        parse(json.dumps(URL), content_type="application/json", query=query),
    ):
        assert (request.top_k, request.scores) == expected


@pytest.mark.parametrize(
    "query",
    [
        {"top_k": "0"}, {"top_k": "-1"}, {"top_k": "1001"}, {"top_k": "+5"}, {"top_k": " 5"}, {"top_k": "5.0"},
        {"top_k": "5,6"}, {"top_k": "1_0"}, {"top_k": "\u0665"}, {"top_k": "9" * 5000}, {"top_k": ""},
        {"top_k": "true"}, {"scores": "1"}, {"scores": ""}, {"scores": "true,false"}, {"topk": "5"}, {"TOP_K": "5"},
        {"url": "https://example.com/"},
    ],
)  # fmt: skip
def test_wrong_options_in_the_query_are_refused(query):
    with pytest.raises(BadRequestError) as caught:
        parse(PNG, query=query)
    assert any(word in caught.value.message for word in ('"top_k"', '"scores"'))


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0}, {"top_k": 1001}, {"top_k": -1}, {"top_k": True}, {"top_k": 5.0}, {"top_k": "5"},
        {"top_k": None}, {"top_k": [5]}, {"top_k": 10**400}, {"scores": 1}, {"scores": "true"}, {"scores": None},
    ],
)  # fmt: skip
def test_wrong_options_in_a_document_are_refused(options):
    with pytest.raises(BadRequestError) as caught:
        from_document({**URL, **options}, LIMIT)
    assert next(iter(options)) in caught.value.message


def test_an_option_given_twice_is_refused():
    with pytest.raises(BadRequestError, match="twice"):
        parse(json.dumps({**URL, "top_k": 5}), content_type="application/json", query={"top_k": "5"})


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "https://example.com/dog.jpg",
        5,
        True,
        {},
        {"top_k": 5},
        {"key1": "value1", "key2": "value2"},
        {"URL": "https://example.com/dog.jpg"},
        {**URL, "image": INLINE},
        {**URL, "image": None},
        {**URL, "extra": 1},
        {"image": None},
        {"image": ""},
        {"image": 5},
        {"image": "not base64!"},
        {"image": INLINE + "="},
        {"image": INLINE[:-1]},
        {"image": "AAAA_-=="},
        {"image": "=" * 8},
        {"image": "\u00e9" * 4},
        {"image": "\ud800"},
        {"image": "   "},
        {"image": "data:image/png;base64," + INLINE},
        {"image": [INLINE]},
    ],
)
def test_a_document_that_is_no_request_is_refused(document):
    with pytest.raises(BadRequestError):
        from_document(document, LIMIT)


def test_an_unknown_key_is_answered_with_the_allowed_ones():
    with pytest.raises(BadRequestError) as caught:
        from_document({"picture": "x", "image": INLINE}, LIMIT)
    assert '"picture"' in caught.value.message
    assert all(f'"{key}"' in caught.value.message for key in ("image", "url", "top_k", "scores"))


@pytest.mark.parametrize(
    "body",
    [
        "", "{", "nonsense", '{"url": "https://example.com/"', "[" * 200_000, '{"a":' * 100_000, b"\xff\xfe\x00",
        "1" * 5000, "\x00",
    ],
)  # fmt: skip
def test_broken_json_is_refused(body):
    with pytest.raises(BadRequestError):
        parse(body, content_type="application/json")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "text/html",
        "video/mp4", "json",
    ],
)  # fmt: skip
def test_other_media_types_are_refused_with_a_hint(content_type):
    with pytest.raises(UnsupportedMediaTypeError, match="image/jpeg"):
        parse(PNG, content_type=content_type)


def test_the_limit_is_on_the_image_and_inclusive():
    allowed, refused = b"x" * LIMIT, b"x" * (LIMIT + 1)
    assert parse(allowed).image == allowed
    assert from_document({"image": base64.b64encode(allowed).decode()}, LIMIT).image == allowed
    for attempt in (
        lambda: parse(refused),
        lambda: from_document({"image": base64.b64encode(refused).decode()}, LIMIT),
    ):
        with pytest.raises(ImageTooLargeError) as caught:
            attempt()
        assert "1001" in caught.value.message and "1000" in caught.value.message


@pytest.mark.parametrize("body", [None, ""])
def test_an_empty_body_is_refused_with_a_hint(body):
    with pytest.raises(BadRequestError, match="empty"):
        parse(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"requestContext": None}, {"requestContext": {}}, {"requestContext": {"http": {}}},
        {"requestContext": {"http": {"method": 5}}}, {"rawPath": 5}, {"headers": [1]}, {"headers": {"a": None}},
        {"queryStringParameters": {"top_k": 5}}, {"body": 5}, {"body": {"url": "x"}},
        {"body": "not base64!", "isBase64Encoded": True}, {"body": "\ud800"},
        {"body": "\ud800", "isBase64Encoded": True},
    ],
)  # fmt: skip
def test_an_event_that_is_no_http_request_is_refused(changes):
    with pytest.raises(BadRequestError):
        http_request(event(PNG) | changes)


@pytest.mark.parametrize(
    ("path", "stage", "expected"),
    [
        ("", "$default", "/"), ("/health", "$default", "/health"), ("/prod/health", "prod", "/health"),
        ("/prod", "prod", "/"), ("/production/health", "prod", "/production/health"), ("/health", "", "/health"),
    ],
)  # fmt: skip
def test_the_stage_is_no_part_of_the_path(path, stage, expected):
    given_event = event(path=path)
    given_event["requestContext"]["stage"] = stage
    assert http_request(given_event).path == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["url", "image", "top_k", "scores", "x"]), JSON) | JSON)
def test_no_document_escapes_the_parser(document):
    try:
        request = from_document(document, LIMIT)
    except ServiceError as error:
        assert 400 <= error.status < 500
    else:
        assert isinstance(request, ClassificationRequest)


@given(st.binary() | st.text(), st.text(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_no_http_body_escapes_the_parser(body, content_type, query):
    try:
        request = parse(body, content_type=content_type, query=query)
    except ServiceError as error:
        assert 400 <= error.status < 500
    else:
        assert isinstance(request, ClassificationRequest)


@given(JSON)
def test_no_event_escapes_the_reader(context):
    candidate = {"requestContext": context, "rawPath": context, "headers": context, "body": context}
    assert is_http(candidate)
    with contextlib.suppress(BadRequestError):
        assert isinstance(http_request(candidate), HttpRequest)

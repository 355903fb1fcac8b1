"""Fetching for real, over TLS on the loopback interface; only the resolver, the trust and the policy are the test's.

What hostile hosts send, and which URLs are refused, is in tests/security/hostile_input.
"""

import threading
import time

import pytest
from lambda_fakes import JPEG, certificate_authority, drip, fake_server, raw, reply

from lambda_fn.connection import Deadline
from lambda_fn.errors import ServiceError, UrlFetchError
from lambda_fn.fetching import ImageFetcher, resolve
from lambda_fn.image_url import parse_image_url

HOST = "dogs.example"
URL = f"https://{HOST}/dog.jpg?size=1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return certificate_authority(tmp_path_factory.mktemp("ca"), HOST, "other.example", "xn--dgs-sna.example")


def fetch(server, authority, *, url=URL, deadline=30.0, seconds=5.0, **options):
    options = {"resolver": lambda *_: ["127.0.0.1"], "is_permitted": "127.0.0.1".__eq__} | options
    fetcher = ImageFetcher(1000, seconds, port=server.port, tls=authority and authority.client(), **options)
    return fetcher.fetch(parse_image_url(url), Deadline(deadline))


def failure(server, authority, **options):
    with pytest.raises(ServiceError) as caught:
        fetch(server, authority, **options)
    assert "127.0.0.1" not in caught.value.message
    return caught.value


def image(media_type="image/jpeg"):
    return reply(raw=JPEG, headers={"Content-Type": media_type})


def redirect(location, status=302):
    return reply(status, raw=b"", headers={"Location": location})


@pytest.mark.parametrize("media_type", ["IMAGE/PNG; x=y", "application/octet-stream", "text/plain", "jpg", ""])
def test_an_image_is_fetched_as_it_is_without_a_proxy(authority, media_type, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with fake_server(image(media_type), tls=authority.server) as server:
        assert fetch(server, authority, contact="a@b.org") == JPEG
    (request,) = server.requests
    assert request.headers["user-agent"] == "image-classifier/1 (a@b.org)"
    assert (request.method, request.path) == ("GET", "/dog.jpg?size=1")
    assert (request.headers["host"], request.headers["accept-encoding"]) == (HOST, "identity")
    assert not {"authorization", "cookie"} & request.headers.keys()


@pytest.mark.parametrize("coding", ["", "aws-chunked", "base64", "utf-8", "none", "identity, aws-chunked", "IDENTITY"])
def test_a_coding_that_compresses_nothing_is_left_to_the_decoder(authority, coding):
    with fake_server(reply(raw=JPEG, headers={"Content-Encoding": coding}), tls=authority.server) as server:
        assert fetch(server, authority) == JPEG


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "ZSTD", "identity, gzip", "aws-chunked,x-gzip"])
def test_a_coding_that_compresses_is_refused_by_its_name(authority, coding):
    with fake_server(reply(raw=JPEG, headers={"Content-Encoding": coding}), tls=authority.server) as server:
        assert coding.lower().rpartition(",")[2].strip() in failure(server, authority).message


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/d\u00f6g \u00c5.jpg?q=\u00e0".encode(), "/d%C3%B6g%20%C3%85.jpg?q=%C3%A0"), (b"/d\xf6g.jpg", "/d%F6g.jpg"),
        (b"//dogs.example/x#part", "/x"), (b"y?a=b c", "/y?a=b%20c"), (b"?z", "/dog.jpg?z"),
        (b"/%C3%B6 b", "/%C3%B6%20b"), ("https://D\u00f6gs.example/x".encode(), "/x"), (b"/a\r\nLocation: /b", "/a"),
    ],
)  # fmt: skip
def test_a_location_is_read_as_browsers_read_it(authority, location, path):
    found = raw(b"HTTP/1.1 302 Found\r\nlocation: " + location + b"\r\n\r\n")
    with fake_server(found, image(), tls=authority.server) as server:
        assert fetch(server, authority) == JPEG
    assert server.requests[-1].path == path


@pytest.mark.parametrize("status", [301, 308])
def test_redirects_are_followed_and_resolved_again(authority, status):
    asked, answers = [], (redirect("https://other.example/x", status), redirect("y?z"), image())
    with fake_server(*answers, tls=authority.server) as server:
        assert fetch(server, authority, resolver=lambda host, _: asked.append(host) or ["127.0.0.1"]) == JPEG
    assert asked == [HOST, "other.example", "other.example"]
    assert [request.path for request in server.requests] == ["/dog.jpg?size=1", "/x", "/y?z"]
    assert [request.headers["host"] for request in server.requests] == asked
    assert {request.headers["user-agent"] for request in server.requests} == {"image-classifier/1"}


def test_the_next_address_is_tried_when_one_does_not_answer(authority):
    with fake_server(image(), tls=authority.server) as server:
        both = {"resolver": lambda *_: ["::1", "127.0.0.1"], "is_permitted": lambda _: True}
        assert fetch(server, authority, **both) == JPEG  # nobody listens on ::1 at that port


def test_a_certificate_for_another_name_or_of_an_unknown_authority_is_refused(authority):
    with fake_server(image(), tls=authority.server) as server:
        for error in (failure(server, authority, url="https://evil.example/x"), failure(server, None)):
            assert isinstance(error, UrlFetchError) and "certificate" in error.message
    assert not server.requests


PAGES = [image("text/html"), image("application/ld+json")]
NO_IMAGES = [reply(302, raw=b""), reply(404, raw=b"x"), reply(raw=b""), raw(), *PAGES]


@pytest.mark.parametrize("answer", NO_IMAGES)
def test_what_is_no_image_is_refused(authority, answer):
    with fake_server(answer, raw(), tls=authority.server) as server:
        assert isinstance(failure(server, authority, seconds=1), UrlFetchError)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e7\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("limits", [{"seconds": 0.4}, {"seconds": 30, "deadline": 0.4}])
def test_a_dripping_host_is_left_at_the_earlier_deadline(authority, head, limits):
    with fake_server(image(), tls=authority.server) as server:
        server.answers[:] = [drip(server, head)]
        started = time.monotonic()
        error = failure(server, authority, **limits)
        assert time.monotonic() - started < 10  # not half a minute
    assert isinstance(error, UrlFetchError) and f"{limits['seconds']} seconds" in error.message


def test_the_systems_resolver_answers_with_addresses_and_in_time(monkeypatch):
    assert "127.0.0.1" in resolve("127.0.0.1", Deadline(5))
    stuck = threading.Event()
    monkeypatch.setattr("lambda_fn.fetching.socket.getaddrinfo", lambda *_, **__: stuck.wait(30) and [])
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        resolve("slow.example", Deadline(0.2))
    assert time.monotonic() - started < 10  # not half a minute
    stuck.set()

"""Fetching for real, over TLS on the loopback interface; only the resolver, the trust and the policy are the test's."""

import threading
import time

import pytest
from lambda_fakes import certificate_authority, drip, drop, fake_server, hang, reply

from lambda_fn.connection import Deadline
from lambda_fn.errors import ImageTooLargeError, ServiceError, UrlFetchError, UrlNotAllowedError
from lambda_fn.fetching import MAX_REDIRECTS, ImageFetcher, resolve
from lambda_fn.image_url import is_public_address, parse_image_url

HOST = "dogs.example"
URL = f"https://{HOST}/dog.jpg?size=1"
JPEG = b"\xff\xd8\xff\xe0 not decoded here"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return certificate_authority(tmp_path_factory.mktemp("ca"), HOST, "other.example")


class Names:
    """A resolver that answers from a script and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, deadline):
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def fetcher(server, authority, *, names=None, max_bytes=1000, seconds=5.0, is_permitted=None):
    return ImageFetcher(
        max_bytes,
        seconds,
        resolver=names or Names(["127.0.0.1"]),
        is_permitted=is_permitted or (lambda address: address == "127.0.0.1"),
        port=server.port,
        tls=authority.client(),
    )


def fetch(server, authority, *, url=URL, deadline=30.0, **options):
    return fetcher(server, authority, **options).fetch(parse_image_url(url), Deadline(deadline))


def failure(server, authority, **options):
    with pytest.raises(ServiceError) as caught:
        fetch(server, authority, **options)
    assert "127.0.0.1" not in caught.value.message
    return caught.value


def image(**headers):
    return reply(raw=JPEG, headers={name.replace("_", "-"): value for name, value in headers.items()})


def redirect(location, status=302):
    return reply(status, raw=b"", headers={"Location": location})


@pytest.mark.parametrize(
    "media_type", ["image/jpeg", "IMAGE/PNG; x=y", "application/octet-stream", "binary/octet-stream"]
)
def test_an_image_is_fetched_as_it_is(authority, media_type):
    with fake_server(image(Content_Type=media_type), tls=authority.server) as server:
        assert fetch(server, authority) == JPEG
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/dog.jpg?size=1")
    assert request.headers["host"] == HOST
    assert request.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie"} & request.headers.keys()


def test_a_missing_content_type_and_length_are_accepted(authority):
    def send(handler):
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + JPEG)

    with fake_server(send, tls=authority.server) as server:
        assert fetch(server, authority) == JPEG


def test_proxies_of_the_environment_are_ignored(authority, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with fake_server(image(), tls=authority.server) as server:
        assert fetch(server, authority) == JPEG


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_resolved_again(authority, status):
    names = Names(["127.0.0.1"])
    with fake_server(
        redirect("https://other.example/x", status), redirect("y?z"), image(), tls=authority.server
    ) as server:
        assert fetch(server, authority, names=names) == JPEG
    assert names.asked == [HOST, "other.example", "other.example"]
    assert [request.path for request in server.requests] == ["/dog.jpg?size=1", "/x", "/y?z"]
    assert [request.headers["host"] for request in server.requests] == [HOST, "other.example", "other.example"]


def test_redirects_end(authority):
    with fake_server(redirect("/again"), tls=authority.server) as server:
        error = failure(server, authority)
    assert isinstance(error, UrlFetchError) and str(MAX_REDIRECTS) in error.message
    assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "location",
    [
        "http://dogs.example/x", "file:///etc/passwd", "https://user:pw@dogs.example/",
        "https://dogs.example:8443/", "https://[::1", "https://2130706433/", "//user@dogs.example/",
        "\\\\evil.example\\x",
    ],
)  # fmt: skip
def test_a_redirect_to_what_is_not_fetched_is_refused(authority, location):
    with fake_server(redirect(location), image(), tls=authority.server) as server:
        error = failure(server, authority)
    assert isinstance(error, UrlNotAllowedError) and "redirect" in error.message
    assert len(server.requests) == 1


def test_a_redirect_to_nowhere_is_refused(authority):
    with fake_server(reply(302, raw=b""), tls=authority.server) as server:
        assert isinstance(failure(server, authority), UrlFetchError)


def test_a_redirect_into_the_private_network_is_refused(authority):
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    with fake_server(redirect("https://other.example/latest/meta-data/"), image(), tls=authority.server) as server:
        assert isinstance(failure(server, authority, names=names), UrlNotAllowedError)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["::1"], ["::ffff:169.254.169.254"],
        ["fe80::1%lo"],
    ],
)  # fmt: skip
def test_one_private_address_among_many_is_enough_to_refuse(authority, addresses):
    with fake_server(image(), tls=authority.server) as server:
        error = failure(server, authority, names=Names(addresses), is_permitted=is_public_address)
    assert isinstance(error, UrlNotAllowedError)
    assert not server.requests


def test_a_name_that_changes_its_mind_after_the_check_gains_nothing(authority):
    """DNS rebinding: the first answer is permitted, every later one leads to the server that must not be reached."""
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    with fake_server(image(), tls=authority.server, address="127.0.0.1") as server:
        error = failure(server, authority, names=names, is_permitted=lambda address: address == "127.0.0.2", seconds=1)
    assert isinstance(error, UrlFetchError)
    assert names.asked == [HOST]
    assert not server.requests


def test_a_private_name_and_an_unknown_name_look_the_same(authority):
    with fake_server(image(), tls=authority.server) as server:
        private = failure(server, authority, names=Names(["10.0.0.1"]))
        unknown = failure(server, authority, names=Names(OSError("no such name")))
        none = failure(server, authority, names=Names([]))
    assert private.message == unknown.message == none.message


def test_the_next_address_is_tried_when_one_does_not_answer(authority):
    with fake_server(image(), tls=authority.server) as server:
        names = Names(["::1", "127.0.0.1"])  # nobody listens on ::1 at that port
        assert fetch(server, authority, names=names, is_permitted=lambda _: True) == JPEG


def test_a_certificate_for_another_name_is_refused(authority):
    with fake_server(image(), tls=authority.server) as server:
        error = failure(server, authority, url="https://evil.example/x")
    assert isinstance(error, UrlFetchError) and "certificate" in error.message
    assert not server.requests


def test_a_certificate_of_an_unknown_authority_is_refused(authority):
    with fake_server(image(), tls=authority.server) as server:
        strict = ImageFetcher(
            1000, 5, resolver=Names(["127.0.0.1"]), is_permitted=lambda _: True, port=server.port
        )  # the system's authorities
        with pytest.raises(UrlFetchError, match="certificate"):
            strict.fetch(parse_image_url(URL), Deadline(5))
    assert not server.requests


def test_a_host_that_speaks_no_tls_is_refused(authority):
    with fake_server(image()) as server:
        assert isinstance(failure(server, authority), UrlFetchError)


@pytest.mark.parametrize("status", [100, 204, 206, 304, 400, 403, 404, 500, 503])
def test_any_status_but_200_is_refused(authority, status):
    with fake_server(reply(status, raw=b""), drop, tls=authority.server) as server:
        assert isinstance(failure(server, authority, seconds=1), UrlFetchError)


@pytest.mark.parametrize(
    "media_type", ["text/html", "application/json", "video/mp4", "imagex/jpeg", "text/plain, image/png"]
)
def test_what_is_no_image_is_refused(authority, media_type):
    with fake_server(image(Content_Type=media_type), tls=authority.server) as server:
        error = failure(server, authority)
    assert isinstance(error, UrlFetchError) and media_type in error.message


def test_compressed_transfer_is_refused_not_inflated(authority):
    with fake_server(image(Content_Type="image/png", Content_Encoding="gzip"), tls=authority.server) as server:
        assert isinstance(failure(server, authority), UrlFetchError)


def test_a_declared_length_over_the_limit_is_refused_before_the_body(authority):
    def send(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1001")
        handler.end_headers()
        server.closing.wait()  # the body never comes

    with fake_server(send, tls=authority.server) as server:
        error = failure(server, authority)
    assert isinstance(error, ImageTooLargeError) and "1001" in error.message and "1000" in error.message


def test_the_limit_holds_whatever_the_declared_length(authority):
    with fake_server(reply(raw=b"x" * 1001), reply(raw=b"x" * 1000), tls=authority.server) as server:
        assert isinstance(failure(server, authority), ImageTooLargeError)
        assert len(fetch(server, authority)) == 1000


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_an_endless_body_is_cut_off_at_the_limit(authority, head):
    sent = []

    def send(handler):
        handler.close_connection = True
        handler.wfile.write(head)
        block = b"x" * 65536 if b"chunked" not in head else b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            while len(sent) < 10_000:
                handler.wfile.write(block)
                sent.append(len(block))
        except OSError:
            pass

    with fake_server(send, tls=authority.server) as server:
        assert isinstance(failure(server, authority), ImageTooLargeError)
    assert len(sent) < 10_000


def test_a_body_that_ends_early_is_refused(authority):
    def send(handler):
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + JPEG)

    with fake_server(send, tls=authority.server) as server:
        assert isinstance(failure(server, authority), UrlFetchError)


def test_an_empty_body_is_refused(authority):
    with fake_server(reply(raw=b""), tls=authority.server) as server:
        assert isinstance(failure(server, authority), UrlFetchError)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e7\r\n",
    ],
)
def test_a_dripping_host_is_left_at_the_deadline(authority, head):
    with fake_server(image(), tls=authority.server) as server:
        server.answers[:] = [drip(server, head)]
        started = time.monotonic()
        error = failure(server, authority, seconds=0.4)
        assert time.monotonic() - started < 2
    assert isinstance(error, UrlFetchError) and "0.4 seconds" in error.message


def test_a_silent_host_is_left_at_the_callers_deadline_when_that_is_earlier(authority):
    with fake_server(image(), tls=authority.server) as server:
        server.answers[:] = [hang(server)]
        started = time.monotonic()
        assert isinstance(failure(server, authority, seconds=30, deadline=0.3), UrlFetchError)
        assert time.monotonic() - started < 2


def test_slow_redirects_share_one_deadline(authority):
    def slow(handler):
        server.closing.wait(0.3)
        redirect("/again")(handler)

    with fake_server(slow, tls=authority.server) as server:
        started = time.monotonic()
        failure(server, authority, seconds=0.5)
        assert time.monotonic() - started < 2
    assert len(server.requests) <= 2


def test_the_limit_on_connecting_is_none_on_reading(authority, monkeypatch):
    monkeypatch.setattr("lambda_fn.fetching._CONNECT_SECONDS", 0.2)

    def slow(handler):
        server.closing.wait(0.4)
        image()(handler)

    with fake_server(slow, tls=authority.server) as server:
        assert fetch(server, authority) == JPEG


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\r\n\r\n", b"HTTP/9.9 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://\xff\xfe/\r\n\r\n",
    ],
)  # fmt: skip
def test_a_host_that_speaks_broken_http_is_refused(authority, raw):
    def send(handler):
        handler.close_connection = True
        handler.wfile.write(raw)

    with fake_server(send, tls=authority.server) as server:
        assert failure(server, authority).status == 422


def test_the_systems_resolver_answers_with_addresses_and_in_time(monkeypatch):
    assert "127.0.0.1" in resolve("127.0.0.1", Deadline(5))
    stuck = threading.Event()
    monkeypatch.setattr("lambda_fn.fetching.socket.getaddrinfo", lambda *_, **__: stuck.wait(30) and [])
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        resolve("slow.example", Deadline(0.2))
    assert time.monotonic() - started < 2
    stuck.set()


def test_the_default_policy_refuses_the_loopback_interface_by_name():
    for url in (
        "https://localhost/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data/",
    ):
        with pytest.raises(UrlNotAllowedError):
            ImageFetcher(1000, 5).fetch(parse_image_url(url), Deadline(5))

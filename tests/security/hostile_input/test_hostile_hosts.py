"""A host that a stranger named: whatever it sends, the function reads little more than an image may have."""

import time
import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from itertools import chain, repeat

import pytest
from lambda_fakes import JPEG, Authority, certificate_authority, fake_server, raw

from lambda_fn.connection import Deadline
from lambda_fn.errors import ImageTooLargeError, ServiceError
from lambda_fn.fetching import MAX_REDIRECTS, ImageFetcher
from lambda_fn.image_url import parse_image_url

HOST = "dogs.example"
MAX_BYTES = 100_000
# The limit, what may surround it, and what systems and TLS hold in their buffers on the way.
MOST_SENT = MAX_BYTES + 8 * 2**20
FLOOD = 64 * 2**20
BLOCK = b"x" * 65536
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return certificate_authority(tmp_path_factory.mktemp("ca"), HOST)


def chunk(size: bytes, content: bytes = JPEG) -> bytes:
    return CHUNKED + size + b"\r\n" + content + b"\r\n0\r\n\r\n"


def plain(*headers: bytes, content: bytes = JPEG) -> bytes:
    return OK + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + content


SIZE = b"%x" % len(JPEG)
LENGTH = b"Content-Length: %d" % len(JPEG)
ENDLESS = (
    *(CHUNKED + size for size in (b"-1\r\n", b"ffffffff\r\n", b"1;")),
    *(b"HTTP/1.1 200 ", OK + b"X: ", OK + b"\r\n"),
    *(plain(b"Content-Length: " + length, content=b"") for length in (b"10", b"4000000000")),
)
# What comes first, and what comes again and again after it.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    **{repr(head): (head, BLOCK) for head in ENDLESS},
    "chunks of one byte": (CHUNKED, b"1\r\nx\r\n" * 10_000),
    "chunks with extensions": (CHUNKED, (b"1;" + b"y" * 1000 + b"\r\nx\r\n") * 60),
    "size without end": (CHUNKED, b"0" * 65536),
    "trailers without end": (CHUNKED + b"0\r\n", b"X: y\r\n" * 10_000),
    "headers without end": (OK, b"X: y\r\n" * 10_000),
    **{f"{code} without end": (b"", b"HTTP/1.1 %d X\r\nX: y\r\n\r\n" % code * 2000) for code in (100, 102, 103, 199)},
    "redirect with a body": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 4000000000\r\n\r\n", BLOCK),
}
CHUNK_SIZES = (b"-1", b"+" + SIZE, b"0x" + SIZE, b"0_" + SIZE, b" " + SIZE, b"0" * 8 + SIZE, b"", b"fff", b"1")
LENGTHS = (b"%d, 3" % len(JPEG), b"+%d" % len(JPEG), b"2_5", b"-5", b"9" * 5000, b"999")
MALFORMED = {
    **{f"chunk of size {size!r}": chunk(size) for size in CHUNK_SIZES},
    **{f"length {length[:20]!r}": plain(b"Content-Length: " + length) for length in LENGTHS},
    "no HTTP": b"\x00\x01\x02\r\n\r\n",
    "chunks without an end": CHUNKED + SIZE + b"\r\n" + JPEG + b"\r\n",
    "line feeds only": CHUNKED + SIZE + b"\n" + JPEG + b"\n0\n\n",
    "length and chunks": chunk(SIZE).replace(b"\r\n", b"\r\n" + LENGTH + b"\r\n", 1),
    "chunks twice": chunk(SIZE).replace(b"\r\n", b"\r\nTransfer-Encoding: chunked\r\n", 1),
    "another coding": plain(b"Transfer-Encoding: gzip, chunked", content=SIZE + b"\r\n" + JPEG + b"\r\n0\r\n\r\n"),
    "two lengths": plain(LENGTH, b"Content-Length: 3"),
    "deflated as well": plain(LENGTH, b"Content-Encoding: identity", b"Content-Encoding: gzip"),
}


def fetch(authority: Authority, answer: Callable[[BaseHTTPRequestHandler], None]) -> bytes:
    with fake_server(answer, tls=authority.server) as server:
        reachable = {"resolver": lambda *_: ["127.0.0.1"], "is_permitted": "127.0.0.1".__eq__, "port": server.port}
        fetcher = ImageFetcher(MAX_BYTES, 20, **reachable, tls=authority.client())  # type: ignore[arg-type]
        return fetcher.fetch(parse_image_url(f"https://{HOST}/"), Deadline(20))


@pytest.mark.parametrize("name", FLOODS)
def test_flood_is_cut_off(authority: Authority, name: str) -> None:
    sent = 0
    head, block = FLOODS[name]

    def send(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.close_connection = True
        try:
            for piece in chain([head], repeat(block, FLOOD // len(block))):
                handler.wfile.write(piece)
                sent += len(piece)
        except OSError:
            pass

    started = time.monotonic()
    tracemalloc.start()
    try:
        try:
            # Trailers and what lies behind a length are not read; then what was there before is the image.
            assert len(fetch(authority, send)) <= MAX_BYTES
        except ServiceError as error:
            assert error.status in (413, 422)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert sent < MOST_SENT * (1 + MAX_REDIRECTS if "redirect" in name else 1)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_framing_that_could_be_read_in_two_ways_is_refused(authority: Authority, answer: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        fetch(authority, raw(answer))
    assert caught.value.status == 422


@pytest.mark.parametrize("answer", [plain(b"Content-Length: 100001"), plain(content=b"x" * (MAX_BYTES + 1))])
def test_one_byte_over_the_limit_is_refused_with_the_limit(authority: Authority, answer: bytes) -> None:
    with pytest.raises(ImageTooLargeError, match="100000 bytes"):
        fetch(authority, raw(answer))


@pytest.mark.parametrize(
    "answer",
    [
        plain(LENGTH),
        plain(LENGTH, LENGTH),
        plain(),
        chunk(SIZE.upper() + b" ; name=value"),
        chunk(b"1", JPEG[:1] + b"\r\n%x\r\n" % (len(JPEG) - 1) + JPEG[1:]),
        *(b"HTTP/1.1 %d X\r\nLink: <x>\r\n\r\n" % code * 3 + plain(LENGTH) for code in (100, 102, 103)),
        plain(LENGTH + b", %d" % len(JPEG)),
        plain(LENGTH, b"Transfer-Encoding: identity"),
        plain(b"transfer-encoding: Identity"),
        plain(LENGTH.lower(), b"X-Folded: a\r\n b"),
        plain().replace(b"1.1", b"1.0"),
        chunk(SIZE).replace(b"\r\n0\r\n", b"\r\n0\r\nTrailer: x\r\n"),
    ],
)
def test_what_servers_send_is_read(authority: Authority, answer: bytes) -> None:
    assert fetch(authority, raw(answer)) == JPEG

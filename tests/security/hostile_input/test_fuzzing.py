"""Random requests and images: no 5xx, no crash, little memory and time, and nothing secret in a log.

They are the same every time; `make security FUZZ=10` sends ten times as many, by other random numbers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import resource
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lambda_fakes import certificate_authority, fake_server, http_event, raw, reply
from PIL import Image
from serving_fixtures import encode, make_artifact

from model.core.decoding import MAX_PIXELS
from model.core.logs import configure_logging
from model.core.predictor import Predictor
from model.serving.invocation import Answer, classify, respond
from model.serving.request import Options

TIMES = int(os.environ.get("FUZZ", "1"))
LOOPS = 36  # as in test_images.py: processor time, in that of a loop of a million steps
MEGABYTES = 8 * MAX_PIXELS // 2**20 + 60  # as in test_images.py
# What no log may hold: pixels, a URL's query, a caller's signature and token, and the function's own key.
SECRETS = [f"{name}-{'7c1f9e' * 4}" for name in ("pixels", "query", "signature", "token", "key")]
PIXELS, QUERY, SIGNATURE, TOKEN, KEY = SECRETS
Run = Callable[..., int]
Record = Callable[[str, object], None]


def model_server(folder: Path) -> Run:
    """Make the model's server, without HTTP."""
    configure_logging(logging.INFO)
    predictor = Predictor.load(folder)

    async def ask(image: bytes, options: Options) -> Answer:
        return classify(predictor, image, options)

    return lambda content_type, body: asyncio.run(respond(content_type, body, 6 * 2**20, ask)).status


def function(endpoint: int, web: int, authority: str) -> Run:
    """Make Lambda's handler; both its endpoint and its Internet are servers on the loopback interface."""
    named = {"ENDPOINT_NAME": "dogs-1", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{endpoint}"}
    os.environ |= named | {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": KEY}
    from lambda_fn import handler
    from lambda_fn.errors import UnsupportedEventError

    tls = ssl.create_default_context(cadata=authority)
    reachable = {"_resolver": lambda *_: ["127.0.0.1"], "_is_permitted": bool, "_port": web, "_tls": tls}
    vars(handler._service._fetcher).update(reachable)
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 5000)

    def call(event: object) -> int:
        try:
            return int(handler.handler(event, context)["statusCode"])
        except UnsupportedEventError:
            return 400

    return call


def memory(field: str) -> int:
    return int(re.findall(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())[0]) // 1024


def begin(log: Path, make: Callable[..., Run], *arguments: object) -> None:
    global run
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), stream)
    run = make(*arguments)
    resource.setrlimit(resource.RLIMIT_AS, ((memory("VmSize") + MEGABYTES) * 2**20,) * 2)


def measure(*case: object) -> tuple[int, float, int]:
    for _ in range(4):  # what else the machine does only adds to it
        before = time.process_time()
        status, after = run(*case), time.process_time()
        seconds = after - before
        # Measured beside it, because a shared machine is slow at times.
        if seconds < 1 or (sum(n * n for n in range(10**6)) and seconds < LOOPS * (time.process_time() - after)):
            return status, seconds, memory("VmHWM")
    raise AssertionError(f"It took {seconds:.1f} s of processor time, each time.")


class Isolated:
    """A process with a limit of memory, in which case after case runs."""

    def __init__(self, name: str, log: Path, *target: object) -> None:
        self.name, self.log, self.target = name, log, target
        self.cases, self.slowest, self.peak = 0, 0.0, 0
        self._start()

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=begin, initargs=(self.log, *self.target))
        self.before = self._pool.submit(memory, "VmHWM").result()

    def __call__(self, *case: object) -> None:
        try:
            status, seconds, self.peak = self._pool.submit(measure, *case).result()
        except BrokenProcessPool:
            self._start()
            raise
        assert status in (200, 400, 404, 405, 413, 415, 422)
        self.cases, self.slowest = self.cases + 1, max(self.slowest, seconds)

    def finish(self, record: Record) -> None:
        self._pool.shutdown()
        assert self.peak - self.before < MEGABYTES
        lines = self.log.read_bytes()
        assert len(lines.splitlines()) > self.cases / 4
        for secret in map(str.encode, SECRETS):
            in_base64 = [base64.b64encode(b"x" * n + secret)[4:-4] for n in range(3)]
            assert [text for text in (secret, secret.hex().encode(), *in_base64) if text in lines] == []
        record("fuzzing: cases without a crash, a 5xx or a secret in the log", self.cases)
        record(f"fuzzing: slowest case of {self.name}", f"{self.slowest * 1000:.0f} ms")
        record(f"fuzzing: memory that {self.name} took", f"{self.peak - self.before} MB")


def fuzz(cases: int, call: Callable[..., None], *strategies: Any) -> None:
    @settings(max_examples=cases * TIMES, derandomize=TIMES == 1, database=None, suppress_health_check=[*HealthCheck])
    @given(st.tuples(*strategies))
    def one(case: tuple[Any, ...]) -> None:
        call(*case)

    one()


FORMATS: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "RGB", {}), ("JPEG", "CMYK", {"progressive": True}), ("JPEG", "L", {"exif": b"Exif\0\0II*\0\x08\0\0\0"}),
    ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "I;16", {}), ("GIF", "P", {}), ("BMP", "RGB", {}), ("BMP", "P", {}),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("AVIF", "RGB", {"speed": 10}), ("TIFF", "RGB", {}),
    ("TIFF", "L", {"compression": "tiff_lzw"}), ("TIFF", "F", {"compression": "tiff_adobe_deflate"}),
]  # fmt: skip
NOISE = Image.effect_noise((40, 24), 60).convert("RGB")
SEEDS = [encode(NOISE.convert(mode), kind, **more) + PIXELS.encode() for kind, mode, more in FORMATS]
LIES = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff\xff", b"\0\1\0\1", b"\x80"]
# What may happen to a file from a place on; `other` is a lie or another file.
CHANGES: dict[str, Callable[[bytes, bytes, bytes, bytes], bytes]] = {
    "flip": lambda before, part, behind, _: before + bytes(x ^ 1 << x % 8 for x in part[:1]) + part[1:] + behind,
    "lie": lambda before, part, behind, other: before + other[:4] + (part + behind)[len(other[:4]) :],
    "cut": lambda before, *_: before,
    "drop": lambda before, part, behind, _: before + behind,
    "repeat": lambda before, part, behind, _: before + part * 3 + behind,
    "splice": lambda before, part, behind, other: before + other[len(before) :][: len(part)] + behind,
}


def changed(data: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, place, length, other in changes:
        at = place % (len(data) + 1)
        data = CHANGES[kind](data[:at], data[at : at + length], data[at + length :], other)
    return data


PLACE = st.integers(0, 63) | st.integers(0, 4095)
CHANGE = st.tuples(st.sampled_from([*CHANGES, "flip", "flip", "lie"]), PLACE, PLACE, st.sampled_from(LIES + SEEDS))
IMAGES = st.builds(changed, st.sampled_from(SEEDS), st.lists(CHANGE, max_size=4)) | st.binary(max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
INLINE = IMAGES.map(lambda image: base64.b64encode(image).decode())
START = st.sampled_from(["https://dogs.example/", "https://", "http://127.0.0.1/", "//"])
URLS = st.builds(f"{{}}{{}}?{QUERY}".format, START, st.text(max_size=8))
VALUES = JSON | INLINE | URLS | st.integers(1, 9)
DOCUMENTS = st.dictionaries(st.sampled_from(["url", "image", "top_k", "scores", "x"]), VALUES, max_size=3)
OTHERS = [b"[" * 99_999, b'{"image":' * 9_999, b"\x93NUMPY\1\0v\0{'descr': '|O'}", b"a,b\n1,2\n", b"\xef\xbb\xbf{}"]
BODIES = (
    IMAGES
    | (DOCUMENTS | JSON).map(lambda document: json.dumps(document).encode())
    | IMAGES.map(lambda image: b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n%s\r\n--b--' % image)
    | st.text().map(lambda text: text.encode(errors="surrogatepass"))
    | st.sampled_from(OTHERS)
)
TYPES = st.text(max_size=20) | st.sampled_from([
    "", "image/jpeg", "image/svg+xml", "image/*;errors=inline", "application/x-image; top_k=3; scores=true", "text/csv",
    "application/json", "application/json; charset=utf-16", "application/octet-stream", "application/x-npy",
    "multipart/form-data; boundary=b",
])  # fmt: skip
FIELDS = st.dictionaries(st.text(max_size=9), JSON, max_size=2)


def http(path: str, method: str, kind: str, fields: dict[str, Any], query: object, body: bytes) -> dict[str, object]:
    signed = {"authorization": SIGNATURE, "x-amz-security-token": TOKEN, "content-type": kind}
    return http_event(body, method=method, path=path, headers=fields | signed, queryStringParameters=query)


PATHS = st.sampled_from(["/", "/", "/health", "/openapi.json", "/%2e%2e/"]) | st.text(max_size=9)
METHODS = st.sampled_from(["POST", "POST", "GET", "HEAD", "\u00df"])
HTTP = st.builds(http, PATHS, METHODS, TYPES, FIELDS, st.none() | FIELDS, BODIES)
MEMBERS = st.sampled_from(["rawPath", "headers", "body", "requestContext", "queryStringParameters", "isBase64Encoded"])
EVENTS = HTTP | DOCUMENTS | JSON | st.builds(dict.__or__, HTTP, st.dictionaries(MEMBERS, JSON, max_size=2))
HEADS = st.sampled_from([b"", *(b"HTTP/1.1 " + rest for rest in (b"200 OK\r\n\r\n", b"302 Found\r\nLocation: "))])


def test_images_and_requests_of_the_models_server(tmp_path: Path, record_property: Record) -> None:
    call = Isolated("the model's server", tmp_path / "log", model_server, make_artifact(tmp_path / "artifact"))
    fuzz(6000, call, st.just("application/x-image"), IMAGES)
    fuzz(2000, call, TYPES, BODIES)
    call.finish(record_property)


def test_events_and_hosts_of_the_function(tmp_path: Path, record_property: Record) -> None:
    authority = certificate_authority(tmp_path, "dogs.example")
    with fake_server(reply()) as endpoint, fake_server(reply(), tls=authority.server) as web:
        call = Isolated("the function", tmp_path / "log", function, endpoint.port, web.port, authority.certificate)

        def fetch(head: bytes, body: bytes, path: str) -> None:
            web.answers[:] = [raw(head, body)]
            call({"url": f"https://dogs.example/{path}?{QUERY}"})

        fuzz(2000, call, EVENTS)
        fuzz(500, fetch, HEADS, IMAGES, st.text(max_size=5))
        call.finish(record_property)

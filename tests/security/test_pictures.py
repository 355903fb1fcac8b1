"""Pictures made to cost much: each is answered with little memory and time, however few bytes it has."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from serving_fixtures import make_artifact, picture
from serving_process import ModelServer, model_server

from model.core.decoding import BYTES_PER_PIXEL, MAX_PIXELS, decode

BODY = 6 * 2**20  # the largest request
SIDES = (8192, 6144)
# Processor time of the worst; the server's own limit for one picture, which ends the worker, is 5 s.
SECONDS = 4.5
# What the largest JPEG needs, the file itself, and what Pillow's plug-ins take when they are imported.
MEGABYTES = 8 * MAX_PIXELS / 1e6 + 60

MEASURE = """
import json, resource, sys, time
from model.core.decoding import ImageError, decode
data = sys.stdin.buffer.read()
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
before, started, status = peak(), time.process_time(), 200
try:
    decode(data, target_size=256)
except ImageError as error:
    status = error.status
print(json.dumps([status, time.process_time() - started, peak() - before]))
"""


def measure(data: bytes) -> tuple[int, float, float]:
    """Decode in a fresh process; return the status, seconds of processor time, and megabytes at the peak."""
    done = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True, timeout=120, check=True)
    status, seconds, megabytes = json.loads(done.stdout)
    return status, seconds, megabytes


def encoded(mode: str, file_format: str, size: tuple[int, int] = SIDES, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, file_format, **options)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_of_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG of a few kilobytes: a refining scan of 63 coefficients takes 15 bits for 16,384 blocks."""
    blocks = -(-width // 8) * -(-height // 8)
    refining = bytes((-(-blocks // 16384) * 15 + 7) // 8)
    return b"".join(
        [
            b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64),
            segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"),
            segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0"),
            segment(0xDA, b"\1\1\0\0\0\0") + bytes((blocks + 7) // 8),
            segment(0xDA, b"\1\1\0\1\x3f\1") + refining,
            (segment(0xDA, b"\1\1\0\1\x3f\x10") + refining) * scans,
            b"\xff\xd9",
        ]
    )


def jpeg_with(repeated: bytes) -> bytes:
    base = encoded("RGB", "JPEG", (64, 64))
    return base[:2] + repeated * ((BODY - len(base)) // len(repeated)) + base[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(repeated: bytes) -> bytes:
    base = encoded("RGB", "PNG", (64, 64))
    return base[:33] + repeated * ((BODY - len(base)) // len(repeated)) + base[33:]


def gif_with(repeated: bytes) -> bytes:
    base = encoded("P", "GIF", (64, 64))
    start = base.rindex(b",\0\0\0\0")
    return base[:start] + repeated * ((BODY - len(base)) // len(repeated)) + base[start:]


def webp_header() -> bytes:
    """A lossless WebP of the largest sides that Pillow opens, and not one pixel."""
    content = b"\x2f" + struct.pack("<I", 13_300 | 13_300 << 14) + bytes(3)
    body = b"VP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff(width: int, height: int, content: bytes, *, bits: int = 8, tile: int | None = None) -> bytes:
    """A TIFF in RGBA that is one deflated strip or tile."""
    tags: dict[int, tuple[int, list[int]]] = {
        **{256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * 4), 259: (3, [8]), 262: (3, [2])},
        **{277: (3, [4]), 284: (3, [1]), 338: (3, [2])},
        **({278: (4, [height])} if tile is None else {322: (4, [tile]), 323: (4, [tile])}),
        **{(273 if tile is None else 324): (4, [0]), (279 if tile is None else 325): (4, [len(content)])},
    }
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273 if tile is None else 324] = (4, [start + 8])
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        value = struct.pack("<I", start) if len(values) > 1 else struct.pack("<I", values[0])
        entries += struct.pack("<HHI", tag, kind, len(values)) + value
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return header + struct.pack("<4H", *[bits] * 4) + content


def deflated(count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(count >> 20)) + packer.flush()


EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "JPEG of 400 scans": lambda: jpeg_of_scans(*SIDES, 400),
    "JPEG of many scans, small": lambda: jpeg_of_scans(1024, 1024, 20_000),
    "JPEG of many blocks of EXIF": lambda: jpeg_with(segment(0xE1, b"Exif\0\0x")),
    "PNG of many colour profiles": lambda: png_with(chunk(b"iCCP", b"a\0\0" + deflated(2**20))),
    "PNG of 20,000,000 rows": lambda: encoded("RGBA", "PNG", (1, 20_000_000)),
    "WebP, a header": webp_header,
    "WebP, 46 bytes": lambda: encoded("RGBA", "WEBP", lossless=True, method=0),
    "TIFF with a tile larger than itself": lambda: tiff(64, 64, deflated(4 * 8_000**2), tile=8_000),
}
LARGE: dict[str, Callable[[], bytes]] = {
    "JPEG of scans": lambda: jpeg_of_scans(*SIDES, 18),
    "JPEG, progressive, CMYK": lambda: encoded("CMYK", "JPEG", progressive=True),
    "JPEG of many segments": lambda: jpeg_with(segment(0xE5, b"")),
    "JPEG of many comments": lambda: jpeg_with(segment(0xFE, b"")),
    "JPEG of fill bytes": lambda: jpeg_with(b"\xff"),
    "PNG of many chunks": lambda: png_with(chunk(b"abCd", b"")),
    "PNG, RGBA": lambda: encoded("RGBA", "PNG"),
    "PNG, grey and alpha": lambda: encoded("LA", "PNG"),
    "PNG, 16 bits": lambda: encoded("I;16", "PNG"),
    "PNG, turned": lambda: encoded("RGBA", "PNG", exif=turned()),
    "GIF": lambda: encoded("P", "GIF"),
    "GIF of many comments": lambda: gif_with(b"!\xfe\1c\0"),
    "GIF of one comment": lambda: gif_with(b"!\xfe" + b"\xff" + b"c" * 255 + b"\0"),
    "TIFF, 16 bits in one strip": lambda: tiff(4096, 8192, deflated(8 * 4096 * 8192), bits=16),
    "TIFF, floating point": lambda: encoded("F", "TIFF", (4096, 8192), compression="tiff_adobe_deflate"),
    "WebP": lambda: encoded("RGBA", "WEBP", (5120, 3900), lossless=True, method=0, exif=turned()),
}


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


@pytest.mark.parametrize("name", EXPENSIVE)
def test_picture_that_would_cost_too_much_is_refused_before_it_is_decoded(name: str) -> None:
    data = EXPENSIVE[name]()
    assert len(data) <= BODY
    status, seconds, megabytes = measure(data)
    assert status == 413
    assert seconds < 0.5
    assert megabytes < 60


@pytest.mark.parametrize("name", LARGE)
def test_largest_pictures_keep_to_the_documented_memory_and_time(name: str) -> None:
    data = LARGE[name]()
    assert len(data) <= BODY
    status, seconds, megabytes = measure(data)
    assert status == 200
    assert seconds < SECONDS
    assert megabytes < MEGABYTES


@pytest.mark.parametrize("size", [(3, 2), (500, 375), (4032, 3024)])
def test_progressive_photograph_of_any_size_is_decoded(size: tuple[int, int]) -> None:
    assert decode(encoded("RGB", "JPEG", size, progressive=True), target_size=256).mode == "RGB"


def test_small_picture_may_have_more_scans() -> None:
    assert decode(jpeg_of_scans(500, 375, 1000)).size == (500, 375)


def test_each_format_has_a_limit() -> None:
    assert set(BYTES_PER_PIXEL) == {"JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("server")
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "MODEL_SERVER_DECODE_SECONDS": "1"}
    with model_server(make_artifact(folder / "artifact"), folder / "log", **settings) as server:
        yield server.wait_until_ready()


def test_worker_that_decodes_too_long_is_replaced_and_the_picture_is_refused(server: ModelServer) -> None:
    (before,) = server.workers()
    reply = server.invoke(jpeg_with(segment(0xE5, b"")))
    assert (reply.status, reply.document["error"]["code"]) == (413, "image_too_large")
    assert "more than 1 s of processor time to decode" in reply.document["error"]["message"]
    assert server.wait_until_ready().invoke(picture()).status == 200
    assert before.pid not in {worker.pid for worker in server.workers()}


def test_time_of_many_pictures_is_not_added_up(server: ModelServer) -> None:
    (before,) = server.workers()
    large = encoded("RGB", "PNG", (4000, 3000))
    assert {server.invoke(large).status for _ in range(12)} == {200}
    assert [worker.pid for worker in server.workers()] == [before.pid]

"""Images made to cost much: each is answered with little memory and time, however few bytes it has."""

import json
import math
import struct
import subprocess
import sys
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from serving_fixtures import encode, image_bytes, make_artifact, png_chunk
from serving_process import ModelServer, model_server

from model.core.decoding import MAX_PIXELS, ImageError, decode

BODY = 6 * 2**20  # the largest request
SIDES = (8192, 6144)
# Processor time in that of a loop of a million steps, because a shared machine may be four times as slow as it was. The
# worst image took 24 loops; the time that the server allows an image, after which it ends the worker, is its own test.
# What else the machine does only adds to it, once to 45 loops: the least of some tries counts.
LOOPS, TRIES = 36, 4
# What the largest JPEG needs, the file itself, and what Pillow's plug-ins take when they are imported.
MEGABYTES = 8 * MAX_PIXELS / 1e6 + 60

MEASURE = """
import json, re, sys, time
started, total = time.process_time(), 0
for number in range(1_000_000):
    total += number * number
loop = time.process_time() - started
from model.core.decoding import ImageError, decode
data = sys.stdin.buffer.read()
# Of this program alone; `ru_maxrss` keeps that of the process which started it.
def peak(): return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024 / 1e6
before, started, status = peak(), time.process_time(), 200
try:
    decode(data, target_size=256)
except ImageError as error:
    status = error.status
print(json.dumps([status, (time.process_time() - started) / loop, peak() - before]))
"""


def assert_cost(data: bytes, status: int, most_loops: float = LOOPS, most_megabytes: float = MEGABYTES) -> None:
    """Decode in a fresh process, in the processor time of at most so many loops and megabytes at the peak."""
    assert len(data) <= BODY
    least = math.inf
    for _ in range(TRIES):
        done = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True, timeout=120, check=True)
        got, loops, megabytes = json.loads(done.stdout)
        assert got == status
        assert megabytes < most_megabytes
        if (least := min(least, loops)) < most_loops:
            break
    assert least < most_loops


def encoded(mode: str, file_format: str, size: tuple[int, int] = SIDES, **options: object) -> bytes:
    return encode(Image.new(mode, size), file_format, **options)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_of_scans(width: int, height: int, scans: int, sampling: bytes = b"\x11", restart: int = 0) -> bytes:
    """A progressive JPEG of a few kilobytes: a refining scan of 63 coefficients takes 15 bits for 16,384 blocks.

    `sampling` has the factors of each component; the scans are of the first.
    """
    components = b"".join(bytes((number, factors, 0)) for number, factors in enumerate(sampling, 1))
    blocks = -(-width // 8) * -(-height // 8)
    refining = bytes((-(-blocks // 16384) * 15 + 7) // 8)
    return b"".join(
        [
            b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64),
            segment(0xC2, struct.pack(">BHHB", 8, height, width, len(sampling)) + components),
            segment(0xDD, struct.pack(">H", restart)),
            segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0"),
            segment(0xDA, b"\1\1\0\0\0\0") + bytes((blocks + 7) // 8),
            segment(0xDA, b"\1\1\0\1\x3f\1") + refining,
            (segment(0xDA, b"\1\1\0\1\x3f\x10") + refining) * scans,
            b"\xff\xd9",
        ]
    )


def full_of(repeated: bytes, file_format: str) -> bytes:
    """A small image whose metadata fill the largest request."""
    base = encoded("P" if file_format == "GIF" else "RGB", file_format, (64, 64))
    start = {"JPEG": 2, "PNG": 33, "GIF": base.rfind(b",\0\0\0\0")}[file_format]
    return base[:start] + repeated * ((BODY - len(base)) // len(repeated)) + base[start:]


def webp_header() -> bytes:
    """A lossless WebP of the largest sides that Pillow opens, and not one pixel."""
    content = b"\x2f" + struct.pack("<I", 13_300 | 13_300 << 14) + bytes(3)
    body = b"VP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff(tags: dict[int, tuple[int, int]], behind: bytes, offset: int) -> bytes:
    """A TIFF whose tags have a count and a value each; the tag `offset` points to what lies behind the directory."""
    tags[offset] = tags[offset][0], 14 + 12 * len(tags)
    entries = b"".join(struct.pack("<HHII", tag, 4, *tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + behind


def tiff_of_tiles(width: int, height: int, tiles: int) -> bytes:
    """A grey TIFF without compression, of tiles of one pixel, which are all the same."""
    tags = {256: (1, width), 257: (1, height), 258: (1, 8), 259: (1, 1), 262: (1, 1), 322: (1, 1), 323: (1, 1)}
    return tiff(tags | {324: (tiles, 0), 325: (1, 1)}, struct.pack("<I", 8) * tiles, 324)


def tiff_of_one_tile(width: int, height: int, tile: int) -> bytes:
    """A grey TIFF that is one deflated tile, larger than itself."""
    content = deflated(tile * tile)
    tags = {256: (1, width), 257: (1, height), 258: (1, 8), 259: (1, 8), 262: (1, 1), 322: (1, tile), 323: (1, tile)}
    return tiff(tags | {324: (1, 0), 325: (1, len(content))}, content, 324)


def bmp_of_runs(width: int, height: int) -> bytes:
    """A BMP whose rows are one pixel and the mark that the rest of the row is empty."""
    runs = b"\1\0\0\0" * height + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(runs), 0, 0, 14 + len(header)) + header + runs


def deflated(count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(count >> 20)) + packer.flush()


EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "JPEG of 400 scans": lambda: jpeg_of_scans(*SIDES, 400),
    "JPEG of many scans, small": lambda: jpeg_of_scans(1024, 1024, 20_000),
    "JPEG of many scans, thin": lambda: jpeg_of_scans(1, 65_500, 15_300),
    "JPEG of many scans, arithmetic": lambda: jpeg_of_scans(1024, 1024, 300).replace(b"\xff\xc2\0", b"\xff\xca\0"),
    "BMP with run-length encoding": lambda: bmp_of_runs(8192, 6144),
    "JPEG of many scans without its end": lambda: jpeg_of_scans(*SIDES, 20)[:-2],
    "PNG of 20,000,000 rows": lambda: encoded("RGBA", "PNG", (1, 20_000_000)),
    "WebP, a header": webp_header,
    "WebP, 46 bytes": lambda: encoded("RGBA", "WEBP", lossless=True, method=0),
    "TIFF of 1,500,000 tiles": lambda: tiff_of_tiles(1000, 1000, 1_500_000),
    "TIFF with a tile larger than itself": lambda: tiff_of_one_tile(64, 64, 8_000),
}
LARGE: dict[str, Callable[[], bytes]] = {
    "JPEG of scans": lambda: jpeg_of_scans(*SIDES, 22),
    "BMP with run-length encoding": lambda: bmp_of_runs(4096, 3072),
    "TIFF of many tiles": lambda: tiff_of_tiles(1, 65_535, 65_535),
    "JPEG, progressive, CMYK": lambda: encoded("CMYK", "JPEG", progressive=True),
    "JPEG of many segments": lambda: full_of(segment(0xE5, b""), "JPEG"),
    "JPEG of many comments": lambda: full_of(segment(0xFE, b""), "JPEG"),
    "JPEG of fill bytes": lambda: full_of(b"\xff", "JPEG"),
    "JPEG of many blocks of EXIF": lambda: full_of(segment(0xE1, b"Exif\0\0x"), "JPEG"),
    "JPEG without its end": lambda: jpeg_of_scans(*SIDES, 2)[:-2],
    "PNG of many colour profiles": lambda: full_of(png_chunk(b"iCCP", b"a\0\0" + deflated(2**20)), "PNG"),
    "PNG of compressed text": lambda: full_of(png_chunk(b"zTXt", b"a\0\0" + deflated(2**24)), "PNG"),
    "PNG of many chunks": lambda: full_of(png_chunk(b"abCd", b""), "PNG"),
    "PNG of many chunks of no pixels": lambda: full_of(png_chunk(b"IDAT", b""), "PNG"),
    "JPEG of many tables": lambda: full_of(segment(0xDB, b""), "JPEG"),
    "PNG, 16 bits": lambda: encoded("I;16", "PNG"),
    "PNG, turned": lambda: encoded("RGBA", "PNG", exif=turned()),
    "GIF of many comments": lambda: full_of(b"!\xfe\1c\0", "GIF"),
    "GIF of one comment": lambda: full_of(b"!\xfe\xff" + b"c" * 255 + b"\0", "GIF"),
    "TIFF, CMYK in one strip": lambda: encoded("CMYK", "TIFF", (4096, 8192), compression="tiff_adobe_deflate"),
    "TIFF, floating point": lambda: encoded("F", "TIFF", (4096, 8192), compression="tiff_adobe_deflate"),
    "AVIF": lambda: encoded("RGBA", "AVIF", (5120, 3900), speed=10, subsampling="4:4:4"),
    "WebP": lambda: encoded("RGBA", "WEBP", (5120, 3900), lossless=True, method=0, exif=turned()),
}


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


@pytest.mark.parametrize("name", EXPENSIVE)
def test_image_that_would_cost_too_much_is_refused_before_it_is_decoded(name: str) -> None:
    assert_cost(EXPENSIVE[name](), 413, most_loops=4, most_megabytes=60)


@pytest.mark.parametrize("name", LARGE)
def test_largest_images_keep_to_the_documented_memory_and_time(name: str) -> None:
    assert_cost(LARGE[name](), 200)


@pytest.mark.parametrize(("sampling", "restart"), [(b"\x11", 1), (b"\x44\x11\x11", 0)], ids=["grey", "4:1:0"])
@pytest.mark.parametrize("size", [(1, 65_500), (65_500, 1), (1, 1), (33, 2000), (1024, 1024)])
def test_any_jpeg_that_is_accepted_is_decoded_in_time(size: tuple[int, int], sampling: bytes, restart: int) -> None:
    """The one of as many scans as the limits and the largest request allow, whatever its shape."""

    def is_accepted(data: bytes) -> bool:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ImageError) as refusal:
            patch.setattr(JpegImageFile, "load", lambda _: 1 / 0)  # which is called when all is checked
            decode(data)
        return refusal.value.status != 413

    scans = range((BODY - 300) // 12)  # a scan has at least 12 bytes
    most = bisect_left(scans, True, key=lambda count: not is_accepted(jpeg_of_scans(*size, count, sampling, restart)))
    assert_cost(jpeg_of_scans(*size, most - 1, sampling, restart), 200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("server")
    with model_server(make_artifact(folder / "artifact"), folder / "log", MODEL_SERVER_DECODE_SECONDS="1") as server:
        yield server


def test_worker_that_decodes_too_long_is_replaced_and_the_image_is_refused(server: ModelServer) -> None:
    (before,) = server.workers()
    reply = server.invoke(full_of(segment(0xE5, b""), "JPEG"))
    assert (reply.status, reply.document["error"]["code"]) == (413, "image_too_large")
    assert "more than 1 s of processor time to decode" in reply.document["error"]["message"]
    assert server.wait_until_ready().invoke(image_bytes()).status == 200
    assert before.pid not in {worker.pid for worker in server.workers()}


def test_time_of_many_requests_is_not_added_up(server: ModelServer) -> None:
    large = encoded("RGB", "PNG", (4000, 3000))
    assert {server.invoke(large).status for _ in range(12)} == {200}

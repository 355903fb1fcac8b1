"""Metadata never decides over pixels: whatever stands beside them, an image is decoded to the same pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from serving_fixtures import encode, image_bytes, png_chunk

from model.core.decoding import UnreadableImageError, decode

BOMB = zlib.compress(bytes(4 * 2**20))
XMP = b"<tiff:Orientation>6</tiff:Orientation>"
BROKEN_EXIF = (b"", b"x", b"MM\0*\xff\xff\xff\xff garbage", b"II*\0\x08\0\0\0\xff\xff" + b"\1\2\3" * 50)
BIG = st.integers(0, 2**32 - 1)


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def tiff_entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def wrong_checksum(kind: bytes, content: bytes) -> bytes:
    return png_chunk(kind, content)[:-1] + b"?"


PNG = [
    *(png_chunk(b"tEXt", key + b"\0x") for key in (b"interlace", b"transparency", b"bbox")),
    wrong_checksum(b"tEXt", b"k\0"), png_chunk(b"tEXt", b"k\0" + bytes(2**21)), png_chunk(b"zTXt", b"k\0\0" + BOMB),
    png_chunk(b"zTXt", b"k\0\1"), png_chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB),
    png_chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP),
    png_chunk(b"iCCP", b"p\0\0" + BOMB), png_chunk(b"iCCP", b"p\0\1x"), wrong_checksum(b"iCCP", b"p\0\0x"),
    *(png_chunk(kind, b"") for kind in (b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL")),
    *(png_chunk(b"tRNS", bytes(size)) for size in (0, 1, 3, 999)), wrong_checksum(b"tRNS", bytes(6)),
    *(png_chunk(b"eXIf", exif) for exif in BROKEN_EXIF),
]  # fmt: skip
JPEG = [
    jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), jpeg_segment(0xE2, b"ICC_PROFILE\0"),
    jpeg_segment(0xE2, b"ICC_PROFILE\0\1\3abc"), jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\4abcd"),
    *(jpeg_segment(0xE2, b"MPF\0" + index) for index in BROKEN_EXIF), jpeg_segment(0xE0, b"JFIF\0"),
    *(jpeg_segment(0xE1, b"Exif\0\0" + exif) for exif in BROKEN_EXIF), jpeg_segment(0xEE, b"Adobe"),
    jpeg_segment(0xFE, b"comment"), jpeg_segment(0xE7, bytes(65_000)), b"\xff" * 9, b"\xff\xe1\0\0",
]  # fmt: skip
GIF = [
    *(b"!" + label + rest for label in (b"\xff", b"\xfe", b"\1", b"\xf9") for rest in (b"\0", b"\1,\0", b"\3,!;\1!\0")),
    b"!\xff\x0bNETSCAPE2.0\0", b"!\xff\x0bXMP DataXMP\2<x\0", b"junk",
]  # fmt: skip
WEBP = [*(riff_chunk(b"EXIF", exif) for exif in BROKEN_EXIF), riff_chunk(b"XMP ", XMP), riff_chunk(b"what", b"x"), b"x"]
TIFF = [
    tiff_entry(270, 2, 100, 10**7), tiff_entry(200, 2, 99, 10**9), tiff_entry(270, 2, 10**9, 8),
    tiff_entry(34665, 4, 1, 9), tiff_entry(34675, 7, 10**6, 10), tiff_entry(700, 1, 38, 10**8),
    tiff_entry(269, 99, 5, 5), tiff_entry(305, 2, 0, 0),
]  # fmt: skip
PNG_NAMES = st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"sPLT", b"vpAg", b"tIME"])
METADATA = {
    "PNG": st.sampled_from(PNG) | st.builds(png_chunk, PNG_NAMES, st.binary()),
    "JPEG": st.sampled_from(JPEG) | st.builds(jpeg_segment, st.integers(0xE1, 0xED), st.binary()),
    "GIF": st.sampled_from(GIF),
    "WEBP": st.sampled_from(WEBP) | st.builds(riff_chunk, st.sampled_from([b"ICCP", b"EXIF", b"XMP "]), st.binary()),
    "TIFF": st.sampled_from(TIFF) | st.builds(tiff_entry, st.integers(305, 316), st.integers(0, 20), BIG, BIG),
}


def insert(data: bytes, metadata: bytes, *, before: bool) -> bytes:
    """Put metadata before the pixels of an image, or behind them where the format allows that."""
    if data.startswith(b"RIFF"):
        return data + metadata  # and the length of the whole is too small
    if data.startswith(b"\xff\xd8"):
        return data[:20] + metadata + data[20:]
    if data.startswith(b"GIF"):
        at = 13 + 3 * 2 ** (data[10] % 8 + 1)
        return data[:at] + metadata + data[at:]
    if data.startswith(b"\x89PNG"):
        at = 33 if before else len(data) - 12  # behind the header, or before the end
        return data[:at] + metadata + data[at:]
    (at,) = struct.unpack_from("<I", data, 4)  # the directory of a TIFF; a new one goes to the end
    (count,) = struct.unpack_from("<H", data, at)
    entries = sorted([metadata, *(data[at + 2 + 12 * i :][:12] for i in range(count))], key=lambda entry: entry[1::-1])
    new = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + new


@pytest.mark.parametrize("file_format", METADATA)
@given(data=st.data(), seed=st.integers(0, 99), mode=st.sampled_from(["RGB", "L"]), before=st.booleans())
def test_metadata_never_decides_over_pixels(file_format, data, seed, mode, before):
    pixels = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8 + seed, 20, 3), np.uint8)).convert(mode)
    bare = encode(pixels, file_format, **({"xmp": XMP} if file_format == "WEBP" else {}))
    image = bare
    for metadata in data.draw(st.lists(METADATA[file_format], min_size=1, max_size=3)):
        image = insert(image, metadata, before=before)
    assert np.array_equal(decode(image), Image.open(io.BytesIO(bare)).convert("RGB"))


def test_png_with_a_broken_header_is_damaged_and_not_called_no_image() -> None:
    data = bytearray(image_bytes())
    data[29] ^= 1  # the checksum of its size
    with pytest.raises(UnreadableImageError, match=r"damaged.*PNG"):
        decode(bytes(data))

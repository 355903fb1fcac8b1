"""Take out of an image's file what its pixels do not depend on, before a decoder meets it.

Each function follows the structure of its format as far as the pixels, and leaves what is damaged to the decoder.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

from PIL import AvifImagePlugin

from .errors import ImageTooLargeError

_JPEG_END = b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff+([^\xff\0])")
_JPEG_SCAN = 0xDA
_JPEG_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
# Application segments and comments. Two say what the components are: APP0 of JFIF and APP14 of Adobe.
_JPEG_METADATA = {**dict.fromkeys((*range(0xE0, 0xF0), 0xFE), b""), 0xE0: b"JFIF\0", 0xEE: b"Adobe"}
# How long the chunk tRNS is, by the type of colour; the other types have none.
_PNG_TRANSPARENCY = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
_WEBP_ALPHA_AND_ANIMATION = 0x12
_AVIF_EXIF = re.compile(rb"(infe[\2\3].{7,9})Exif", re.DOTALL)
# Tags of TIFF, by its specification, those of JPEG and of LERC: size, samples, compression, colours, strips and tiles.
_TIFF_TAGS = {
    *range(256, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326), 332, 334, 338, 339,
    347, *range(512, 522), *range(529, 533), 50674,
}  # fmt: skip
# Pillow lists each tile or strip of a TIFF when it opens it, 2 us each, and decodes each of an uncompressed one by
# itself: up to 15 us, however few pixels it has.
MAX_TILES = 65_535
_EXIF_HEADER = re.compile(rb"(?:Exif\0\0)*(II\*\0|MM\0\*)")
_ORIENTATION, _LONG = 274, 4


def without_metadata(data: bytes) -> tuple[str | None, bytes, bytes]:
    """Return the name of a file's format, None if it is another one, the file without metadata, and its EXIF."""
    for name, (start, strip) in _FORMATS.items():
        if start.match(data):
            return name, *strip(data)
    return None, data, b""


def has_jpeg_end(data: bytes | bytearray) -> bool:
    """Tell whether a JPEG has its end marker."""
    return data.rfind(_JPEG_END) >= 0  # `in` would look at all of it, from the front


def orientation_of(exif: bytes) -> int:
    """Return the orientation that EXIF gives, 1 to 8; 1, upright, where it gives none or is broken."""
    if not (header := _EXIF_HEADER.match(exif)):
        return 1
    order, tiff = "<" if header[1][0] == ord("I") else ">", exif[header.start(1) :]
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(count):
            at = directory + 2 + 12 * entry
            tag, kind = struct.unpack_from(order + "HH", tiff, at)
            if tag == _ORIENTATION:
                return int(struct.unpack_from(order + ("I" if kind == _LONG else "H"), tiff, at + 8)[0])
    except struct.error:
        pass
    return 1


def _jpeg(data: bytes) -> tuple[bytes, bytes]:
    view, kept, exif, at = memoryview(data), bytearray(data[:2]), b"", 2
    while found := _JPEG_MARKER.search(data, at):
        marker, begin, at = found[1][0], found.end() - 2, found.end()
        if marker == _JPEG_SCAN:
            kept += view[begin:]
            break
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        at += max(2, int.from_bytes(data[at : at + 2]))
        content = begin + 4
        needed = _JPEG_METADATA.get(marker)
        if needed is None or (needed and at - content >= 12 and data.startswith(needed, content)):
            kept += view[begin:at]
        elif not exif and data.startswith(b"Exif\0\0", content):
            exif = data[content:at]
    if not has_jpeg_end(kept):
        end = len(kept.rstrip(b"\0"))
        if len(kept) - end > 1:  # zeros that fill a file up to its size, save the one of FF 00: none of its pixels
            del kept[end + kept.endswith(b"\xff", 0, end) :]
        kept = kept.rstrip(b"\xff")  # half a marker
    return bytes(kept), exif


def _png(data: bytes) -> tuple[bytes, bytes]:
    view, kept, exif, at = memoryview(data), bytearray(data[:8]), b"", 8
    has_pixels = has_transparency = False
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        begin, at = at, at + 12 + length
        has_pixels |= kind == b"IDAT"
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            kept += view[begin:at]
            if kind == b"IEND":
                break
        elif kind in (b"tRNS", b"eXIf") and zlib.crc32(view[begin + 4 : at - 4]) == int.from_bytes(data[at - 4 : at]):
            if kind == b"eXIf":
                exif = exif or data[begin + 8 : at - 4]
            elif not has_pixels and not has_transparency and length in _PNG_TRANSPARENCY.get(data[25], ()):
                has_transparency = True
                kept += view[begin:at]
    return bytes(kept), exif


def _gif(data: bytes) -> tuple[bytes, bytes]:
    at = 13 + (3 * 2 ** (data[10] % 8 + 1) if data[10] & 0x80 else 0)  # after the header and the palette of all frames
    head, control = data[:at], b""
    while data[at] != ord(","):  # the first frame
        begin, at = at, at + 1
        if data[begin] == ord("!"):
            at += 1
            while size := data[at]:
                at += 1 + size
            at += 1
            if data[begin + 1 : begin + 3] == b"\xf9\4":
                control = data[begin:at]
    return head + control + data[at:], b""


def _webp(data: bytes) -> tuple[bytes, bytes]:
    if 8 + int.from_bytes(data[4:8], "little") > len(data):
        return data, b""  # truncated
    view, kept, exif, at = memoryview(data), bytearray(b"WEBP"), b"", 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        begin, at = at, at + 8 + length + length % 2
        if kind == b"EXIF":
            exif = exif or data[begin + 8 : begin + 8 + length]
        elif kind in (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"):
            kept += view[begin:at]
    if kept[4:8] == b"VP8X":
        kept[12] &= _WEBP_ALPHA_AND_ANIMATION
    else:
        exif = b""  # the simple format has no metadata
    kept += bytes(len(kept) % 2)
    return b"RIFF" + struct.pack("<I", len(kept)) + kept, exif


def _tiff(data: bytes) -> tuple[bytes, bytes]:
    order, is_big = "<" if data[0] == ord("I") else ">", ord("+") in data[2:4]
    number = struct.Struct(order + ("Q" if is_big else "I"))
    count = struct.Struct(order + ("Q" if is_big else "H"))
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))
    (directory,) = number.unpack_from(data, 8 if is_big else 4)
    begin = directory + count.size
    kept: dict[int, bytes] = {}
    for at in range(begin, begin + count.unpack_from(data, directory)[0] * entry.size, entry.size):
        tag, _, values, _ = entry.unpack_from(data, at)
        if tag in _TIFF_TAGS:
            kept.setdefault(tag, data[at : at + entry.size])
            if values > MAX_TILES:
                raise ImageTooLargeError(
                    f"The image has {values:,} tiles or strips; at most {MAX_TILES:,} are allowed."
                )
    entries = b"".join([count.pack(len(kept)), *kept.values(), number.pack(0)])
    return data[:directory] + entries + data[directory + len(entries) :], b""


def _avif(data: bytes) -> tuple[bytes, bytes]:
    return _AVIF_EXIF.sub(rb"\1none", data), b""


_FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], tuple[bytes, bytes]]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _jpeg),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    "GIF": (re.compile(rb"GIF8[79]a"), _gif),
    "WebP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    **({"AVIF": (re.compile(rb".{4}ftyp.{0,60}?avi[fs]", re.DOTALL), _avif)} if AvifImagePlugin.SUPPORTED else {}),
}

"""Picture files made byte by byte: what Pillow does not write, and what is broken beside pixels."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes, sound: bool = True) -> bytes:
    check = zlib.crc32(kind + data) ^ (not sound)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(values: np.ndarray, *before: bytes, behind: bytes = b"") -> bytes:
    """A PNG of (h, w) or (h, w, c) uint8 or uint16, with chunks before and behind its pixels."""
    h, w = values.shape[:2]
    colours = {1: 0, 2: 4, 3: 2, 4: 6}[values.size // (h * w)]
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(h, -1)
    head = struct.pack(">IIBBBBB", w, h, 8 * values.itemsize, colours, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [chunk(b"IHDR", head), *before, chunk(b"IDAT", data), behind, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: np.ndarray, sample: int = 1, photometric: int = 1) -> bytes:
    """A grey TIFF of (h, w): ``sample`` 1 unsigned, 2 signed, 3 float; photometric 0 white is 0."""
    h, w = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = {256: w, 257: h, 258: 8 * values.itemsize, 259: 1, 262: photometric, 273: 0, 277: 1}
    tags |= {278: h, 279: len(data), 339: sample}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + data


def exif(orientation: int, *more: bytes) -> bytes:
    entry = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 1 + len(more)) + entry + b"".join(more) + bytes(4)


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    return file.getvalue()[:2] + b"".join(segments) + file.getvalue()[2:]


def webp() -> bytes:
    file, extra = io.BytesIO(), {"exif": b"Exif\0\0II*\0" + b"\xff" * 20, "xmp": b"<x:xmp"}
    Image.fromarray(PIXELS).save(file, "WEBP", lossless=True, icc_profile=b"no", **extra)
    return file.getvalue()


BOMB = zlib.compress(bytes(70 * 2**20))
OUTSIDE = struct.pack("<HHII", 0x11A, 5, 1, 9999)  # a tag whose value lies behind the end
PNG_CHUNKS = {
    "a sum": [chunk(b"tEXt", b"a\0b", sound=False)],
    "swelling text": [chunk(b"zTXt", b"a\0\0" + BOMB)],
    "swelling international text": [chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)],
    "swelling profile": [chunk(b"iCCP", b"a\0\0" + BOMB)],
    "much text": [chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20)))] * 70,
    "unknown compression": [chunk(b"zTXt", b"a\0\5")],
    "empty profile": [chunk(b"iCCP", b"")],
    "short text": [chunk(b"iTXt", b"a")],
    "short resolution": [chunk(b"pHYs", b"a")],
    "short gamma": [chunk(b"gAMA", b"a")],
    "short animation": [chunk(b"acTL", b"")],
    "short exif": [chunk(b"eXIf", b"junk")],
    "long exif": [chunk(b"eXIf", b"MM\0*" + b"\xff" * 20)],
}
JPEG_SEGMENTS = {
    "exif": segment(0xE1, b"Exif\0\0II*\0" + b"\xff" * 30),
    "empty exif": segment(0xE1, b"Exif\0\0"),
    "short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "lacking profile": segment(0xE2, b"ICC_PROFILE\0\1\2xxx"),
    "short JFIF": segment(0xE0, b"JFIF\0"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "several pictures": segment(0xE2, b"MPF\0junk"),
    "truncated XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orient"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0"),
}

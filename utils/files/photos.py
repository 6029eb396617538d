"""What a file's first bytes say: which kind of photo it is, and whether it can be read here."""

import threading
from collections.abc import Sequence
from pathlib import Path

import PIL.Image

PHOTO_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "PSD", "QOI",
    "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's names of what counts as a photo in a folder."""

ADVICE = {
    "HEIC": "`pip install pillow-heif` lets it be read",
    "AVIF": "this Pillow cannot read it; `pip install --upgrade pillow`",
    "JPEG 2000": "this Pillow cannot read it; `pip install --upgrade pillow`",
    "JPEG XL": "convert it to JPEG or PNG",
    "camera RAW": "convert it to JPEG or PNG",
}
"""What to do about photos of kinds that cannot always be read."""
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM")
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}


def photo_kind(path: Path) -> str:
    """Return which kind in `ADVICE` a file's first bytes name; empty for any other file."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        length = int.from_bytes(head[:4], "big")
        # the first brand, and after the version those that it is compatible with
        brands = {head[start : start + 4] for start in (8, *range(16, min(length, 64), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if b"crx " in brands:
            return "camera RAW"
        return "HEIC" if brands & _HEIC_BRANDS or head[8:12] in (b"mif1", b"msf1") else ""
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    if head.startswith((b"\0\0\0\x0cJXL ", b"\xff\x0a")):
        return "JPEG XL"
    is_tiff = head.startswith((b"II*\0", b"MM\0*"))
    if head.startswith(_RAW_STARTS) or (is_tiff and (head[8:10] == b"CR" or _is_raw_tiff(path))):
        return "camera RAW"
    return ""


def _is_raw_tiff(path: Path) -> bool:
    """Say whether a TIFF is a camera's DNG, NEF or ARW, of which Pillow would read the preview."""
    dng_version, kind, parts = 0xC612, 254, 330
    try:
        with open_photo(path) as file:
            tags = getattr(file, "tag_v2", {})
            return dng_version in tags or (parts in tags and bool(tags.get(kind, 0) & 1))
    except Exception:  # a damaged header can raise anything
        return False


def is_readable(kind: str) -> bool:
    """Say whether photos of a kind that `photo_kind` returns can be read here."""
    if kind == "HEIC":
        try:
            from pillow_heif import register_heif_opener  # here, as it need not be installed
        except ImportError:
            return False
        register_heif_opener()
        return True
    if kind in ("AVIF", "JPEG 2000"):
        PIL.Image.init()
        return kind.replace(" ", "") in PIL.Image.OPEN
    return not kind


_OPENING = threading.Lock()


def open_photo(path: Path, formats: Sequence[str] | None = None) -> PIL.Image.Image:
    """Open an image without reading its pixels; Pillow's limit of size does not apply.

    Args:
        path: of the file.
        formats: Pillow's names of what it may be; None: anything that Pillow knows.
    """
    if formats is not None:
        PIL.Image.init()
        formats = [name for name in formats if name in PIL.Image.OPEN]  # others are not installed
    with _OPENING:
        limit = PIL.Image.MAX_IMAGE_PIXELS
        PIL.Image.MAX_IMAGE_PIXELS = None
        try:
            return PIL.Image.open(path, formats=formats)
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit

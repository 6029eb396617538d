"""What a file's first bytes say: whether it is a video."""

from pathlib import Path

PHOTO_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"avif")
"""Of files in the ISO base media format, those that hold photos; `avis` is AVIF's sequence."""
_STARTS = {
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"FLV\x01": "FLV",
    b"\0\0\x01\xba": "MPEG",
    b"\0\0\x01\xb3": "MPEG",
    b"0&\xb2u\x8ef\xcf\x11": "Windows Media",
    b"OggS": "Ogg",
}
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""What old QuickTime files begin with, behind four bytes of length."""


def video_kind(path: Path) -> str:
    """Return which kind of video a file's first bytes name; empty for any other file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(400)
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if head[4:8] == b"ftyp":
        return "" if head[8:12] in (*PHOTO_BRANDS, b"avis", b"crx ") else "MP4"
    length = int.from_bytes(head[:4], "big")
    if head[4:8] in _ATOMS and (length <= 1 or 8 <= length < 2**31):
        return "QuickTime"
    packets = (head[start::188][:2] for start in (0, 4))  # the second with time codes, M2TS
    return "MPEG-TS" if len(head) > 376 and any(x == b"GG" for x in packets) else ""

"""One table of METRO's TSV layout: its rows by number, through a memory map.

Beside `X.tsv` lies `X.lineidx` with the byte at which each row starts; it is made when missing. A
file of that name that holds other than numbers is left alone.
"""

import io
import logging
import mmap
import os
import re
import struct
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Int

from smpler.utils.files.text import read_bytes, shown
from smpler.utils.files.whole import write_bytes_whole
from smpler.utils.image import MAX_PIXELS
from smpler.utils.paths import display

log = logging.getLogger(__name__)

MAX_NUMBERS = 2**28
"""Bytes of a table of numbers: 30 million rows and more."""
MAX_KEY = 4096
"""Bytes of a key; the rest of a longer one is left out."""
CHUNK = 2**24
"""Bytes in which rows are looked for at once."""
ROWS = {
    columns: re.compile(rb"\s*+(?:%b[ \r]*+(?:\n\s*+|\Z))*+" % row)
    for columns, row in ((1, rb"[0-9]{1,18}+"), (2, rb"[0-9]{1,18}+\t[0-9]{1,18}+"))
}
"""Whole numbers below 10^18, which fit into 64 bits; nothing is tried twice."""


SCANS, SIZES = b"\xda", bytes({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Kinds of a JPEG's segments: its pixels, and its height and width."""


class BadSampleError(ValueError):
    """A row cannot be used; the message names file and row."""


class TsvFile:
    """The rows of one table by number, through a memory map that each process opens itself."""

    def __init__(self, path: Path):
        self.path = path
        self._map: mmap.mmap | bytes | None = None
        self._starts: Int[np.ndarray, "n"] | None = None

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def content(self) -> mmap.mmap | bytes:
        """The whole file as a memory map.

        Raises:
            FileNotFoundError: it is not there any more.
        """
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    empty = os.fstat(file.fileno()).st_size == 0
                    self._map = (
                        b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    )
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"{self._shown} is gone: was the data set written anew while it was read? "
                    "Start again."
                ) from error
        return self._map

    @property
    def starts(self) -> Int[np.ndarray, "n"]:
        """Byte at which each row starts."""
        if self._starts is None:
            self._starts = self._read_index()
        return self._starts

    def key(self, row: int) -> str:
        """Return the first column of a row."""
        start, end = self._span(row)
        end = min(end, start + MAX_KEY)
        tab = self.content.find(b"\t", start, end)
        return self.content[start : end if tab < 0 else tab].decode("utf-8", "replace").strip()

    def last_column(self, row: int, limit: int) -> memoryview:
        """Return the last column of a row, where it lies in the file; nothing is copied.

        Args:
            row: its number, from 0.
            limit: bytes that it may have.

        Raises:
            BadSampleError: there is no such row, or it has a single column, or a longer one.
        """
        start, end = self._span(row)
        tab = self.content.rfind(b"\t", start, end)
        if tab < 0:
            raise BadSampleError(
                f"{self.where(row)}: one column, but a key and a value belong here."
            )
        if end - tab > limit:
            raise BadSampleError(
                f"{self.where(row)}: its value has {end - tab - 1:,} bytes, more than {limit:,}."
            )
        return memoryview(self.content)[tab + 1 : end]

    def _span(self, row: int) -> tuple[int, int]:
        """Return where a row starts and ends, without its line break."""
        if not 0 <= row < len(self):
            raise BadSampleError(
                f"{self.where(row)}: the file has {len(self)} rows; does its linelist belong to "
                "another table?"
            )
        start = int(self.starts[row])
        end = int(self.starts[row + 1]) if row + 1 < len(self) else len(self.content)
        for line_break in (b"\n", b"\r"):
            if self.content[max(start, end - 1) : end] == line_break:
                end -= 1
        return start, end

    def where(self, row: int) -> str:
        """Return file and row (counted from 0) as errors name them."""
        return f"{self._shown} row {row}"

    @cached_property
    def _shown(self) -> str:
        return display(self.path)

    def _read_index(self) -> Int[np.ndarray, "n"]:
        path = self.path.with_suffix(".lineidx")
        may_write = not path.exists()
        if path.is_file() and not path.samefile(self.path):
            try:
                starts = read_numbers(path)[:, 0]
                if self._fits(starts):
                    return starts
                may_write = True
                log.warning("%s does not fit %s and is made anew.", display(path), self.path.name)
            except (OSError, ValueError) as error:
                log.warning("%s Rows of %s are counted instead.", error, self.path.name)
        starts = find_rows(self.content)
        if may_write:
            try:
                write_bytes_whole(path, "".join(f"{start}\n" for start in starts).encode())
            except OSError as error:  # a read-only store: this process keeps it in memory
                log.info("%s", error)
        return starts

    def _fits(self, starts: Int[np.ndarray, "n"]) -> bool:
        """Say whether rows start where an index says, by a few of them."""
        if len(starts) == 0 or len(self.content) == 0:
            return len(starts) == len(self.content)
        if starts[0] != 0 or starts[-1] >= len(self.content) or (np.diff(starts) <= 0).any():
            return False
        some = starts[np.linspace(0, len(starts) - 1, 16).astype(int)]
        begins = all(start == 0 or self.content[start - 1] == ord("\n") for start in some.tolist())
        end = self.content.find(b"\n", int(starts[-1]))
        return begins and end in (-1, len(self.content) - 1)


def read_numbers(path: Path) -> Int[np.ndarray, "n columns"]:
    """Read a table of whole numbers: one a line, or two with a tab between.

    Raises:
        ValueError: something in it is not a number, or a line has another count.
    """
    text = read_bytes(path, MAX_NUMBERS)
    columns = 2 if b"\t" in text[: text.find(b"\n")] else 1
    found = ROWS[columns].match(text)
    end = found.end() if found else 0
    if end != len(text):
        line, rest = text.count(b"\n", 0, end) + 1, text[end : end + 100].split(b"\n")[0]
        raise ValueError(
            f"{display(path)} holds more than row numbers: line {line} is "
            f"{shown(rest.decode('utf-8', 'replace'))}."
        )
    numbers = np.fromstring(text, np.int64, sep=" ") if text.strip() else np.empty(0, np.int64)
    return numbers.reshape(-1, columns)


def find_rows(content: mmap.mmap | bytes) -> Int[np.ndarray, "n"]:
    """Return the byte at which each row starts."""
    starts = [np.zeros(min(1, len(content)), np.int64)]
    for begin in range(0, len(content), CHUNK):
        chunk = np.frombuffer(content[begin : begin + CHUNK], np.uint8)
        starts.append(np.flatnonzero(chunk == ord("\n")) + begin + 1)
    found = np.concatenate(starts)
    return found[: len(found) - (found[-1:] == len(content)).sum()]


def is_too_large(data: bytes) -> bool:
    """Say whether an image has more pixels than are read, without decoding it."""
    if data[:2] == b"\xff\xd8":
        start = _find_segment(data, SIZES)
        height, width = struct.unpack(">HH", data[start + 5 : start + 9].ljust(4, b"\0"))
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about sizes
                width, height = PIL.Image.open(io.BytesIO(data)).size
        except PIL.Image.DecompressionBombError:
            return True
        except Exception:  # damaged bytes can raise anything; they are no image for OpenCV either
            return False
    return width * height > MAX_PIXELS


def is_cut_off(data: bytes) -> bool:
    """Say whether a JPEG or PNG lacks its end; decoders would fill the rest with grey."""
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") < _find_segment(data, SCANS)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in data[-16:]
    return len(data) == 0


def _find_segment(data: bytes, kinds: bytes) -> int:
    """Return where a JPEG's first segment of some kinds begins, before the pixels; else its end.

    A thumbnail before the pixels has segments of its own, which are not looked at.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] in kinds:
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)

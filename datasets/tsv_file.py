"""One table of METRO's TSV layout: its rows by number, through a memory map.

Beside `X.tsv` lies `X.lineidx` with the byte at which each row starts; it is made when missing.
"""

import logging
import mmap
import os
from pathlib import Path

import numpy as np
from jaxtyping import Int

from smpler.utils.paths import display

log = logging.getLogger(__name__)


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
        """The whole file as a memory map."""
        if self._map is None:
            with self.path.open("rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                self._map = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
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
        tab = self.content.find(b"\t", start, end)
        return self.content[start : end if tab < 0 else tab].decode("utf-8", "replace").strip()

    def last_column(self, row: int) -> memoryview:
        """Return the last column of a row, where it lies in the file; nothing is copied.

        Raises:
            BadSampleError: there is no such row, or it has a single column.
        """
        start, end = self._span(row)
        tab = self.content.rfind(b"\t", start, end)
        if tab < 0:
            raise BadSampleError(
                f"{self.where(row)}: one column, but a key and a value belong here."
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
        while end > start and self.content[end - 1] in b"\r\n":
            end -= 1
        return start, end

    def where(self, row: int) -> str:
        """Return file and row (counted from 0) as errors name them."""
        return f"{display(self.path)} row {row}"

    def _read_index(self) -> Int[np.ndarray, "n"]:
        path = self.path.with_suffix(".lineidx")
        if path.is_file():
            starts = read_numbers(path)[:, 0]
            if self._fits(starts):
                return starts
            log.warning("%s does not fit %s and is made anew.", display(path), self.path.name)
        starts = find_rows(self.content)
        try:
            write_atomically(path, "".join(f"{start}\n" for start in starts).encode())
        except OSError as error:  # a read-only store: this process keeps it in memory
            log.info("%s was not written: %s.", display(path), error.strerror)
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
    text = path.read_bytes()
    columns = 2 if b"\t" in text[: text.find(b"\n")] else 1
    try:
        numbers = np.array(text.split(), dtype=np.int64)
        return numbers.reshape(-1, columns)
    except ValueError as error:
        raise ValueError(f"{display(path)} holds more than row numbers: {error}.") from error


def find_rows(content: mmap.mmap | bytes) -> Int[np.ndarray, "n"]:
    """Return the byte at which each row starts."""
    starts, start = [], 0
    while start < len(content):
        starts.append(start)
        start = content.find(b"\n", start) + 1 or len(content)
    return np.array(starts, dtype=np.int64)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_cut_off(data: bytes) -> bool:
    """Say whether a JPEG or PNG lacks its end; decoders would fill the rest with grey."""
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") < _start_of_scan(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in data[-16:]
    return len(data) == 0


def _start_of_scan(data: bytes) -> int:
    """Return where a JPEG's pixels begin; a thumbnail before them has an end of its own."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xDA:
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)

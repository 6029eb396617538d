"""A hash in each checkpoint of ours, by which flipped bits are found.

A torch file is a zip archive. Its comment, the last bytes of the file, holds the SHA-256 of all
bytes before it; other readers pass over it. Files without such a comment are read unchecked.
"""

import hashlib
import io
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch

_MARK = b"smpler-sha256:"
_LENGTH = len(_MARK) + 64
_END_LENGTH = 22
"""Of the record that ends an archive without comment; its last two bytes: the comment's length."""


def save_sealed(content: Any, file: BinaryIO) -> None:
    """Write a checkpoint with its hash.

    Args:
        content: tensors and plain values.
        file: empty, open for reading and writing.
    """
    torch.save(content, file)
    end = file.seek(-_END_LENGTH, io.SEEK_END) + _END_LENGTH
    assert file.read(4) == b"PK\x05\x06", "torch files end as zip archives do"
    file.seek(end - 2)
    file.write(_LENGTH.to_bytes(2, "little"))
    file.flush()
    digest = _digest(file, end)
    file.seek(end)
    file.write(_MARK + digest)


def load_checked(path: Path) -> tuple[Any, bool]:
    """Load a file of tensors and plain values; nothing in it is executed.

    Returns:
        What it holds, and whether it is as it was written; True for files without a hash.
    """
    with ThreadPoolExecutor(1) as thread:  # beside the loading, which takes longer
        is_whole = thread.submit(_is_whole, path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    return content, is_whole.result()


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        end = file.seek(0, io.SEEK_END) - _LENGTH
        if end <= 0:
            return True
        file.seek(end)
        comment = file.read()
        return not comment.startswith(_MARK) or comment[len(_MARK) :] == _digest(file, end)


def _digest(file: BinaryIO, end: int) -> bytes:
    """Return the SHA-256 of a file's first bytes, in hexadecimal digits."""
    with mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ) as content:
        return hashlib.sha256(content).hexdigest().encode()  # in one go: other threads go on

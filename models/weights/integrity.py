"""A hash in each checkpoint of ours, by which flipped bits are found.

A torch file is a zip archive. Its comment, the last bytes of the file, holds the SHA-256 of all
bytes before it; other readers pass over it. Of files without such a comment, the archive's own
checksums are compared; the old format has none.
"""

import hashlib
import io
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch

from smpler.models.weights.torch_files import read_torch
from smpler.utils.files.arrays import unreadable
from smpler.utils.paths import display, require

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


def read_checked(path: Path) -> Any:
    """Read a file of tensors and plain values; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another kind.
    """
    require(path)
    try:
        has_hash = _hash_of(path) is not None
        with ThreadPoolExecutor(1) as thread:  # beside the reading, which takes longer
            is_whole = thread.submit(_is_whole, path)
            content = read_torch(path, check_sums=not has_hash)
    except Exception as error:  # a damaged file can raise anything
        what, advice = "is not a readable checkpoint", "take another, or get it anew"
        raise unreadable(path, what, error, advice) from error
    if not is_whole.result():
        raise ValueError(
            f"{display(path)} is damaged: its bytes are not those that were written; take another "
            "checkpoint, or get it anew."
        )
    return content


def _hash_of(path: Path) -> bytes | None:
    """Return the hash that a file holds, if any."""
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) <= _LENGTH:
            return None
        file.seek(-_LENGTH, io.SEEK_END)
        comment = file.read()
    return comment[len(_MARK) :] if comment.startswith(_MARK) else None


def _is_whole(path: Path) -> bool:
    """Say whether a file is as it was written; True for files without a hash."""
    expected = _hash_of(path)
    if expected is None:
        return True
    with path.open("rb") as file:
        return expected == _digest(file, file.seek(0, io.SEEK_END) - _LENGTH)


def _digest(file: BinaryIO, end: int) -> bytes:
    """Return the SHA-256 of a file's first bytes, in hexadecimal digits."""
    with mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ) as content:
        return hashlib.sha256(content).hexdigest().encode()  # in one go: other threads go on

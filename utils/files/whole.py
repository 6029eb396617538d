"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a crash at any moment leaves the old one, if any, or the new one.

    Args:
        path: of the file; its folder must be there.
        write: writes the content into the open file that it is given.

    Raises:
        OSError: it could not be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes_whole(path: Path, content: bytes) -> None:
    """Write these bytes, see `write_whole`."""
    write_whole(path, lambda file: file.write(content))

"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from smpler.utils.paths import display


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a crash at any moment leaves the old one, if any, or the new one.

    Args:
        path: of the file; its folder must be there.
        write: writes the content into the open file that it is given.

    Raises:
        OSError: it could not be written; the message names the file.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:  # a full disk's names no file, others name the temporary one
        reason = error.strerror or str(error)
        raise OSError(f"{display(path)} could not be written: {reason}.") from error
    finally:
        part.unlink(missing_ok=True)


def write_bytes_whole(path: Path, content: bytes) -> None:
    """Write these bytes, see `write_whole`."""
    write_whole(path, lambda file: file.write(content))

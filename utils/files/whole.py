"""Files and folders that are written whole or not at all.

What is being written lies beside its place as `NAME.MACHINE-PROCESS.part` until it is renamed. The
parts of processes that were killed are removed when another one first writes into the folder.
"""

import hashlib
import os
import re
import shutil
import socket
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from smpler.utils.paths import display

_PART = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})\.part$")
_SET = ".set"
"""Ends the name of a folder of files that belong together, until they get their places."""
_cleared: set[str] = set()
"""Folders in which this process has looked for parts."""


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a crash at any moment leaves the old one, if any, or the new one.

    Args:
        path: of the file; its folder must be there.
        write: writes the content into the open file that it is given.

    Raises:
        OSError: it could not be written; the message names the file.
    """
    with replacing(path) as part, part.open("w+b") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def write_bytes_whole(path: Path, content: bytes) -> None:
    """Write these bytes, see `write_whole`."""
    write_whole(path, lambda file: file.write(content))


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """Give the place of a part, a file or a folder; it is renamed when the block ends well.

    Args:
        path: of the file or the folder; a folder must not be there yet.

    Raises:
        OSError: it could not be written; the message names PATH.
    """
    part = part_of(path)
    clear_parts(path.parent)
    try:
        remove(part)
        yield part
        os.replace(part, path)
    except OSError as error:  # a full disk's names no file, others name the part
        if error.errno is None:  # a sentence of ours: a file inside a folder
            raise
        raise not_written(path, error.strerror) from error
    finally:
        remove(part)


@contextmanager
def replacing_set(mark: Path, older: Iterable[Path] = ()) -> Generator[Path, None, None]:
    """Give a folder for files that belong together; they get their places when the block ends well.

    Nobody sees new ones beside older ones: all older ones go before the first new one comes. Who
    goes by MARK sees whole sets only: of the older ones it is the first to go, of the new ones the
    last to come.

    Args:
        mark: place of one of the files; the others go beside it.
        older: places of files of the set before, whose names the new one may lack.

    Raises:
        OSError: one could not be written; the message names it.
    """
    folder = part_of(mark.with_name(mark.name + _SET))
    clear_parts(mark.parent)
    try:
        remove(folder)
        folder.mkdir()
        yield folder
        names = sorted(path.name for path in folder.iterdir() if path.name != mark.name)
        for path in (mark, *older, *(mark.with_name(name) for name in names)):
            path.unlink(missing_ok=True)
        for name in (*names, mark.name):
            os.replace(folder / name, mark.with_name(name))
    except OSError as error:
        if error.errno is None:  # a sentence of ours, of one of the files
            raise
        raise not_written(mark, error.strerror) from error
    finally:
        remove(folder)


def not_written(path: Path, reason: object) -> OSError:
    """Return an error that names the file that was to be written, and why it was not."""
    return OSError(f"{display(_place(path))} could not be written: {reason}.")


def _place(path: Path) -> Path:
    """Return where a file goes that is written into the part of a folder or of a set."""
    names = []
    for part in path.parts:
        name = _PART.sub("", part)
        if name == part or not name.endswith(_SET):
            names.append(name)
    return Path(*names)


def part_of(path: Path) -> Path:
    """Return where this process keeps a file or folder until it is whole: beside it."""
    return path.with_name(f"{path.name}.{_machine()}-{os.getpid()}.part")


def clear_parts(folder: Path) -> None:
    """Remove the parts that ended processes of this machine left in a folder; once a process."""
    key = f"{os.getpid()} {folder.absolute()}"
    if key in _cleared:
        return
    _cleared.add(key)
    for path in folder.glob("*.part"):
        found = _PART.search(path.name)
        if found and found["machine"] == _machine() and not is_running(int(found["process"])):
            with suppress(OSError):  # another user's
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Say whether a process of this machine runs, as far as can be seen."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def process_space() -> str:
    """Return a name of what numbers processes: containers on one machine count their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):  # not Linux
        return ""


def _machine() -> str:
    return hashlib.sha256(f"{socket.gethostname()}{process_space()}".encode()).hexdigest()[:8]

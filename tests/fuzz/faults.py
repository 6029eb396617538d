"""Kills a writer at each of its operations on files, and fills the disk at each of its writes."""

import builtins
import errno
import io
import itertools
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

KILLED = 77
"""Exit code of a process that was killed here."""
TAKE_SPACE = ("open", "write", "mkdir", "link", "symlink", "fsync", "sendfile")
"""Operations that fail on a full disk."""
OTHERS = ("replace", "rename", "unlink", "remove", "rmdir", "truncate")
SECONDS = 20
"""After which a writer hangs."""

Files = dict[str, bytes]
"""Name in a folder -> content."""


class Killed(BaseException):
    """Ends a writer in this process, as a kill would end it."""


class Fault:
    """Decides at each operation on files of this process what becomes of it.

    Args:
        number: of the operation at which the fault comes, from 1.
        kind: `kill`, `exit` (a kill that ends the process) or `full` (the disk, from then on).
        every_write: counts, else the first one of each file.
    """

    def __init__(self, number: int, kind: str, every_write: bool = False):
        self.number, self.kind, self.every_write = number, kind, every_write
        self.count, self.is_dead = 0, False

    def meet(self, name: str) -> bool:
        """Count an operation; return whether the process is killed at it."""
        if self.kind == "full":
            self.count += name in TAKE_SPACE
            if name in TAKE_SPACE and self.count >= self.number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return False
        self.count += not self.is_dead
        return self.is_dead or self.count == self.number

    def die(self) -> None:
        """End the writer; what it still does, as Python clears up, does nothing."""
        if self.kind == "exit":
            os._exit(KILLED)
        self.is_dead = True
        raise Killed


@contextmanager
def each_operation(fault: Fault) -> Generator[None, None, None]:
    """Let a fault meet each operation on files of this process."""
    real_open = io.open

    class Raw(io.FileIO):
        is_new = True

        def write(self, data) -> int:
            data = bytes(data)
            if fault.is_dead:  # closing a file writes what waits
                return len(data)
            counts, self.is_new = self.is_new or fault.every_write, False
            if counts and fault.meet("write"):
                super().write(data[: len(data) // 2])
                fault.die()
            return super().write(data)

    def opened(file, mode="r", *args, **options):
        if not isinstance(mode, str) or not set(mode) & set("wax+"):
            return real_open(file, mode, *args, **options)
        if fault.meet("open"):
            fault.die()
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, 2**16)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args[1:], **options)

    def counted(name: str):
        real = getattr(os, name)

        def call(*args, **options):
            is_read = name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not is_read and fault.meet(name):
                fault.die()
            return None if name == "fsync" else real(*args, **options)  # it only takes time here

        return call

    names = {*TAKE_SPACE, *OTHERS} - {"write"}
    with (
        mock.patch.multiple(os, **{name: counted(name) for name in names if hasattr(os, name)}),
        mock.patch.object(builtins, "open", opened),
        mock.patch.object(io, "open", opened),
    ):
        yield


def kills(
    folder: Path, write: Callable[[], object], check: Callable[[Files], None], in_children: bool
) -> int:
    """Kill a writer at each of its operations and check what is there.

    Args:
        folder: of the files; each time it is what it is now.
        write: what is killed.
        check: gets the files that are there.
        in_children: kill processes, at every write, which takes twenty times as long; after some,
            another process writes, and clears up.

    Returns:
        How often it was killed.
    """
    before = files_of(folder)
    for number in itertools.count(1):
        lay(folder, before)
        if in_children:
            code = _in_a_child(write, Fault(number, "exit", every_write=True))
        else:
            code = 0
            try:
                with each_operation(Fault(number, "kill")):
                    write()
            except Killed:
                code = KILLED
        check(files_of(folder))
        if code == 0:
            return number - 1
        assert code == KILLED, f"operation {number}: exit code {code}"
        if in_children and number % 4 == 1:
            assert _in_a_child(write, Fault(0, "exit")) == 0
            check(files_of(folder))
            left = [path.name for path in folder.iterdir() if path.name.endswith(".part")]
            assert not left, f"operation {number}: {left}"
    raise AssertionError


def full_disks(folder: Path, write: Callable[[], object], every_write: bool = False) -> int:
    """Fill the disk before each write; a sentence names the file, and nothing else is changed.

    Args:
        folder: of the files; each time it is what it is now.
        write: what is tried.
        every_write: not only the first one of each file.

    Returns:
        How often it was full.
    """
    before = files_of(folder)
    names = before.keys()
    for number in itertools.count(1):
        lay(folder, before)
        fault = Fault(number, "full", every_write)
        try:
            with each_operation(fault):
                write()
        except OSError as error:
            said = str(error)
            assert "could not be written: No space left on device" in said, said
            assert "\n" not in said and ".part" not in said and error.errno is None, said
            assert files_of(folder) == before, f"write {number}: {files_of(folder).keys() - names}"
            assert not list(folder.rglob("*.part")), number
        else:
            assert fault.count < number
            return number - 1
    raise AssertionError


def files_of(folder: Path) -> Files:
    """Return the files below a folder, but for those that are not whole yet."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".part" not in str(path.relative_to(folder))
    }


def lay(folder: Path, files: Files) -> None:
    """Make a folder hold these files and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _in_a_child(write: Callable[[], object], fault: Fault) -> int:
    """Run a writer in a process of its own and return the exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with each_operation(fault):
                write()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"a writer took more than {SECONDS} s")

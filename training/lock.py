"""One training at a time in a run's folder, and none over another one's checkpoints unasked."""

import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from smpler.training.distributed import Processes
from smpler.training.options import RunOptions
from smpler.utils.files.text import parse_json
from smpler.utils.files.whole import is_running, process_space
from smpler.utils.paths import display

NAME = "training.lock"
"""The lock's name in the run's folder; it holds the process, its start and its machine."""


@contextmanager
def locked(folder: Path, processes: Processes) -> Generator[None, None, None]:
    """Keep other trainings out of a run's folder; the main process decides for all.

    A lock whose process is dead is taken over.

    Raises:
        SharedError: a training is running there.
    """
    processes.together(lambda: acquire(folder / NAME) if processes.is_main else None)
    try:
        yield
    finally:
        if processes.is_main:
            release(folder / NAME)


def acquire(path: Path) -> None:
    """Write this process into a lock.

    Raises:
        ValueError: another process that may be alive is in it.
    """
    with _opened(path) as file:
        owner = _owner(os.pread(file, 1000, 0))
        if owner is not None and _may_live(**owner):
            raise ValueError(
                f"{display(path.parent)} is being trained by process {owner['pid']} on "
                f"{owner['host']}. Use another --exp_name; if that process is dead, delete "
                f"{display(path)}."
            )
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(_identity(os.getpid())).encode(), 0)


def release(path: Path) -> None:
    """Remove a lock if this process is in it."""
    with suppress(OSError, ValueError):
        if parse_json(path.read_bytes(), NAME) == _identity(os.getpid()):
            path.unlink()


def check_may_train(options: RunOptions) -> None:
    """Make sure that a training replaces checkpoints of an earlier one only when it is told to.

    Raises:
        ValueError: there are some, and the training would not continue from the last.
    """
    checkpoints = options.folder / "checkpoints"
    there = sorted(path.name for path in checkpoints.glob("*.pt"))
    if not there or options.overwrite or (options.auto_load and "last.pt" in there):
        return
    if options.auto_load:
        raise ValueError(
            f"{display(checkpoints)} holds {there[0]} but no last.pt to continue from: begin anew "
            "over it with --overwrite, or use another --exp_name."
        )
    raise ValueError(
        f"{display(checkpoints)} holds checkpoints of an earlier training: continue it with "
        "--auto_load 1, begin anew over it with --overwrite, or use another --exp_name."
    )


@contextmanager
def _opened(path: Path) -> Generator[int, None, None]:
    """Open a lock, alone among processes that do."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with suppress(OSError):  # a file system without
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):  # not removed meanwhile
                    yield file
                    return
        finally:
            os.close(file)


def _identity(pid: int) -> dict:
    place = {"host": socket.gethostname(), "space": process_space()}
    return {"pid": pid, "started": _start_of(pid)} | place


def _owner(content: bytes) -> dict | None:
    """Return what a lock says; None when it is empty or cut off, as its writer died."""
    try:
        owner = parse_json(content, NAME)
        place = {"host": owner["host"], "space": owner.get("space", process_space())}
        return {"pid": int(owner["pid"]), "started": owner["started"]} | place
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _may_live(pid: int, started: str, host: str, space: str) -> bool:
    """Say whether a lock's process lives, as far as can be seen from this machine."""
    if (host, space) != (socket.gethostname(), process_space()):
        return True
    return is_running(pid) and started == _start_of(pid)


def _start_of(pid: int) -> str:
    """Return when a process was started, in ticks since the machine was; empty if unknown or dead.

    Another process may get the number of one that is dead.
    """
    try:
        # after the name, which may hold spaces: state, ..., start as number 22 of all
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]

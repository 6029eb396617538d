"""A temporary folder whose files disappear after some minutes, and the whole at the end."""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path

SHARE = 0.1
"""How often old files are looked for, in lifetimes."""


class PrivateFolder:
    """Holds uploads and results of a server; use it as a context manager.

    Args:
        seconds: how long a file stays.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.path = Path(tempfile.mkdtemp(prefix="smpler-"))  # for this user alone
        self._in_use: set[Path] = set()
        self._is_over = threading.Event()
        self._cleaner = threading.Thread(target=self._clean, daemon=True)

    def __enter__(self) -> "PrivateFolder":
        """Begin to delete old files."""
        self._cleaner.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Delete everything."""
        self._is_over.set()
        self._cleaner.join()
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def place(self) -> Generator[Path]:
        """Give a new folder inside, whose files count as new until the context ends."""
        folder = Path(tempfile.mkdtemp(dir=self.path))
        self._in_use.add(folder)
        try:
            yield folder
            for path in (folder, *folder.rglob("*")):
                os.utime(path)
        finally:
            self._in_use.remove(folder)

    def delete_old(self) -> None:
        """Delete the files that are too old, and folders that are empty and too old."""
        oldest = time.time() - self.seconds
        for path in sorted(self.path.rglob("*"), reverse=True):  # what a folder holds, before it
            if not self._in_use.isdisjoint((path, *path.parents)):
                continue
            try:
                if path.stat().st_mtime > oldest:
                    continue
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
            except OSError:  # it is gone already, or the folder holds something younger
                continue

    def _clean(self) -> None:
        while not self._is_over.wait(SHARE * self.seconds):
            self.delete_old()

"""Compiles functions by numba, and keeps the machine code for the next process.

numba keeps it beside the source, else in the user's cache folder, and refuses to compile where
neither can be written: in a read-only checkout without a home. There a temporary folder takes it.
"""

import functools
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import numba

log = logging.getLogger(__name__)

OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def compiled(function: Callable) -> Callable:
    """Compile a function when it is first called, or take what an earlier process compiled."""
    try:
        return numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # nothing can be written where numba looks
        folder = temporary_folder()
    if folder is None:
        return numba.njit(**OPTIONS)(function)
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
    try:  # the place is chosen here, for good
        return numba.njit(cache=True, **OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before


@functools.cache
def temporary_folder() -> Path | None:
    """Return a temporary folder that is the user's alone, as code is run from it; None without one.

    It is the same for every process of the user.
    """
    try:
        user = os.getuid()
        folder = Path(tempfile.gettempdir()) / f"smpler_compiled_{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        is_own = stat.S_ISDIR(about.st_mode) and about.st_uid == user
        if is_own and not stat.S_IMODE(about.st_mode) & 0o077:
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    except (OSError, AttributeError):  # no place, or Windows, which has no getuid
        pass
    log.warning(
        "Note: compiled code cannot be kept, so that each process compiles the renderer anew, for "
        "about half a minute; NUMBA_CACHE_DIR=FOLDER names a folder that can be written."
    )
    return None

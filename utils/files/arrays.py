"""Reads npz and npy files of anybody: sizes are known before memory is taken, nothing is unpickled.

numpy, zipfile and zlib raise a dozen kinds of exceptions on damaged files, and numpy believes the
shape that a file names. Here every fault is one sentence about the file.
"""

import math
import warnings
import zipfile
from collections.abc import Collection
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np

from smpler.utils.paths import display, require

MAX_BYTES = 2**31
"""What the arrays of one file may take."""
KINDS = "biufUS"
"""Kinds of numpy's types that are read: numbers and texts."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The two that numpy writes."""
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
MAX_HEADER = 2**16
CHUNK = 2**18
"""Bytes that are unpacked at once; they stay in a processor's cache."""


def read_npz(
    path: Path,
    fields: Collection[str] | None = None,
    what: str = "is no npz of arrays",
    advice: str = "get it again",
) -> dict[str, np.ndarray]:
    """Read arrays of an npz file.

    Args:
        path: the file.
        fields: names of the arrays that are wanted, by default all; others stay unread, and those
            that the file lacks are left out.
        what: how the sentence about a damaged file begins.
        advice: how it ends.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, too large, or holds other than numbers and texts.
    """
    require(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            names = [name for name in members if fields is None or name in fields]
            arrays, left = {}, MAX_BYTES
            for name in names:
                with archive.open(members[name]) as file:
                    arrays[name] = _read_array(file, members[name].file_size, left)
                left -= arrays[name].nbytes
            return arrays
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{display(path)} {what}: {_reason(error)}; {advice}.") from error


def npz_names(path: Path) -> list[str]:
    """Return the names of an npz file's arrays, which are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    require(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return list(_members(archive))
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{display(path)} is no npz of arrays: {_reason(error)}.") from error


def read_npy(path: Path) -> np.ndarray:
    """Read an npy file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, too large, or holds other than numbers and texts.
    """
    size = require(path).stat().st_size
    try:
        with path.open("rb") as file:
            return _read_array(file, size, MAX_BYTES)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f"{display(path)} is not an npy file: {_reason(error)}; get it again."
        ) from error


class _Unreadable(ValueError):
    """A reason in our words."""


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for info in archive.infolist():
        if info.compress_type not in COMPRESSIONS or info.flag_bits & 1:
            raise _Unreadable(f"{info.filename!r} is not packed as numpy packs arrays")
        if info.filename.endswith(".npy"):
            members[info.filename.removesuffix(".npy")] = info
    return members


def _read_array(file: BufferedIOBase | IO[bytes], file_size: int, limit: int) -> np.ndarray:
    """Read what `numpy.save` wrote, to the last byte: that is where zipfile compares checksums.

    Raises:
        _Unreadable: it is larger than the limit, not what the file holds, or of another kind.
    """
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise _Unreadable(f"version {version} of npy is not known")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of Python 2, and of damaged files
        shape, by_columns, dtype = HEADERS[version](file, max_header_size=MAX_HEADER)
    if dtype.kind not in KINDS or (dtype.kind == "f" and dtype.itemsize > 8):
        raise _Unreadable(f"an array of {dtype} is neither numbers nor texts")
    if not all(0 <= length < 2**63 for length in shape):
        raise _Unreadable(f"an array has the shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise _Unreadable(f"its arrays take more than {MAX_BYTES / 2**30:.0f} GiB")
    stored = file_size - file.tell()
    if size != stored:
        raise _Unreadable(f"an array of {size} bytes is named where {stored} are stored")
    if not size:
        return np.empty(shape, dtype)
    data = np.empty(size, np.uint8)
    for start in range(0, size, CHUNK):
        wanted = min(CHUNK, size - start)
        part = file.read(wanted)
        if len(part) != wanted:
            raise _Unreadable("it is cut off")
        data[start : start + wanted] = np.frombuffer(part, np.uint8)
    return data.view(dtype).reshape(shape, order="F" if by_columns else "C")


def _reason(error: Exception) -> str:
    """Return one line about an exception of the libraries."""
    if isinstance(error, _Unreadable | OSError | zipfile.BadZipFile | EOFError) and str(error):
        return str(error).splitlines()[0]
    return f"it is damaged ({type(error).__name__})"

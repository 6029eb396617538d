"""Reads npz and npy files of anybody: sizes are known before memory is taken, nothing is unpickled.

numpy, zipfile and zlib raise a dozen kinds of exceptions on damaged files, and numpy believes the
shape that a file names. Here every fault is one sentence about the file.
"""

import errno
import math
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np

from smpler.utils.files.pickled_calls import Refused
from smpler.utils.files.text import one_line
from smpler.utils.paths import display, require

MAX_BYTES = 2**31
"""What the arrays of one file may take; meshes of a person through 10,000 frames take 1.6 GB."""
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
        raise unreadable(path, what, error, advice) from error


def read_numbers(
    path: Path,
    shapes: Mapping[str, Sequence[int | str]],
    texts: Mapping[str, Sequence[int | str]] | None = None,
    advice: str = "get it again",
) -> dict[str, np.ndarray]:
    """Read arrays whose shapes are known: numbers as float64, all of them finite, and texts.

    Args:
        path: an npz file.
        shapes: name of each array of numbers -> its shape; names in it stand for lengths, at least
            1, that must agree.
        texts: the same of arrays of texts.
        advice: how the sentence about a damaged file ends.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds other arrays.
    """
    expected = {**shapes, **(texts or {})}
    arrays = read_npz(path, expected, advice=advice)
    problem = misfit(arrays, expected)
    for name in shapes if problem is None else ():
        if arrays[name].dtype.kind not in "biuf":
            problem = f"{name!r} holds no numbers"
        elif not np.isfinite(arrays[name]).all():
            problem = f"{name!r} has a value that is not finite"
    if problem is not None:
        raise ValueError(f"{display(path)} cannot be used: {problem}; {advice}.")
    numbers = {name: arrays[name].astype(np.float64) for name in shapes}
    return arrays | numbers


def misfit(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int | str]]
) -> str | None:
    """Say which array is missing or of another shape, see `read_numbers`; None if all fit."""
    lengths: dict[str, int] = {}
    for name, expected in shapes.items():
        if name not in arrays:
            return f"it has no {name!r}"
        shape = arrays[name].shape
        fits = len(shape) == len(expected)
        for size, entry in zip(shape, expected, strict=False):
            known = lengths.setdefault(entry, size) if isinstance(entry, str) else entry
            fits &= size == known and size > 0
        if not fits:
            wanted = ", ".join(str(entry) for entry in expected)
            return f"{name!r} is of shape {shape}, not ({wanted})"
    return None


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
        raise unreadable(path, "is no npz of arrays", error) from error


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
        raise unreadable(path, "is not an npy file", error) from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for info in archive.infolist():
        if info.compress_type not in COMPRESSIONS or info.flag_bits & 1:
            raise Refused(f"{info.filename!r} is not packed as numpy packs arrays")
        if info.filename.endswith(".npy"):
            members[info.filename.removesuffix(".npy")] = info
    return members


def _read_array(file: BufferedIOBase | IO[bytes], file_size: int, limit: int) -> np.ndarray:
    """Read what `numpy.save` wrote, to the last byte: that is where zipfile compares checksums.

    Raises:
        Refused: it is larger than the limit, not what the file holds, or of another kind.
    """
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise Refused(f"version {version} of npy is not known")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of Python 2, and of damaged files
        shape, by_columns, dtype = HEADERS[version](file, max_header_size=MAX_HEADER)
    if dtype.kind not in KINDS or (dtype.kind == "f" and dtype.itemsize > 8):
        raise Refused(f"an array of {dtype} is neither numbers nor texts")
    if not all(0 <= length < 2**63 for length in shape):
        raise Refused(f"an array has the shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise Refused(f"its arrays take more than {MAX_BYTES / 2**30:.0f} GiB")
    stored = file_size - file.tell()
    if size != stored:
        raise Refused(f"an array of {size} bytes is named where {stored} are stored")
    if not size:
        return np.empty(shape, dtype)
    data = np.empty(size, np.uint8)
    for start in range(0, size, CHUNK):
        wanted = min(CHUNK, size - start)
        part = file.read(wanted)
        if len(part) != wanted:
            raise Refused("it is cut off")
        data[start : start + wanted] = np.frombuffer(part, np.uint8)
    return data.view(dtype).reshape(shape, order="F" if by_columns else "C")


def unreadable(
    path: Path, what: str, error: Exception, advice: str = "get it again"
) -> ValueError | OSError:
    """Return what to raise instead of an exception that reading a file ended with.

    Args:
        path: of the file.
        what: what it is not, or not any more.
        error: of the libraries, or a `Refused` with a reason in our words.
        advice: what to do.
    """
    # seeking to where a damaged file points is an invalid argument
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return OSError(f"{display(path)} could not be read: {error.strerror}.")
    reason = f"it is damaged ({type(error).__name__})"
    if isinstance(error, Refused | zipfile.BadZipFile | EOFError) and str(error):
        reason = one_line(error).rstrip(".")
    return ValueError(f"{display(path)} {what}: {reason}; {advice}.")

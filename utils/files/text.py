"""Reads JSON of anybody; whatever is wrong with it is one sentence about the file.

Python's decoder raises several kinds of exceptions, among them RecursionError and MemoryError.
NaN and Infinity, which Python's own `json` writes, are read, as labels that say "not annotated"
hold them: whoever uses a number checks that it is finite.
"""

import json
import re
import reprlib
from pathlib import Path
from typing import Any

from smpler.utils.paths import display, require

MAX_JSON = 2**29
"""Bytes of a JSON file; its lists and numbers take five times as much memory, 30 at the worst."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks among them, and bytes of a path that are no UTF-8."""

_shortened = reprlib.Repr()
_shortened.maxlevel, _shortened.maxlist, _shortened.maxdict, _shortened.maxstring = 2, 4, 4, 60


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read; the message names it.
        ValueError: it is too large, no UTF-8, no JSON, nested too deep, or names a key twice.
    """
    return parse_json(read_bytes(path, MAX_JSON), display(path))


def parse_json(data: bytes | memoryview | str, name: str) -> Any:
    """Return what JSON says.

    Args:
        data: UTF-8, also with a byte order mark.
        name: of the file or its part, which begins the sentence about a fault.

    Raises:
        ValueError: it is no UTF-8, no JSON, nested too deep, or names a key twice.
    """
    try:
        return _DECODER.decode(decode(data))
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except Unreadable as error:
        reason = str(error)
    except ValueError:  # of Python's integers
        reason = "a number has thousands of digits"
    except RecursionError:
        reason = "it is nested too deep"
    except MemoryError:
        reason = "it does not fit into this machine's memory"
    raise ValueError(f"{name}: broken JSON ({reason}). Mend it or get it again.")


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a file's content.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read; the message names it.
        ValueError: it is a folder, pipe or device, or longer than so many bytes.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{display(path)} is a folder, pipe or device; give a file.")
        with require(path).open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{display(path)} could not be read: {error.strerror}.") from error
    if len(data) > limit:
        raise ValueError(
            f"{display(path)} is longer than {limit / 2**20:g} MiB; is it another kind of file?"
        )
    return data


def decode(data: bytes | memoryview | str) -> str:
    """Return UTF-8 as text, without a byte order mark."""
    if not isinstance(data, str):
        try:
            data = str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(f"byte {error.start} is no UTF-8") from error
    return data.removeprefix("\ufeff")


def one_line(text: object, limit: int = 200) -> str:
    """Return others' words as one printable line of at most so many characters."""
    line = " ".join(str(text).split())[: limit + 1]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def shown(value: object) -> str:
    """Return a value of a file as messages show it: one short line, however deep or long it is."""
    return one_line(_shortened.repr(value))


class Unreadable(ValueError):
    """A reason in our words."""


def unique(pairs: list) -> dict:
    """Return pairs of key and value as a dict.

    Raises:
        Unreadable: a key is there twice.
    """
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unreadable(f"the key {shown(twice)} is there twice")
    return entries


_DECODER = json.JSONDecoder(object_pairs_hook=unique)

"""Reads JSON and yaml of anybody; whatever is wrong with them is one sentence about the file.

The libraries raise a dozen kinds of exceptions, among them RecursionError, and follow a file's
wishes: yaml's tags make objects, its aliases make a kilobyte into gigabytes. Here a value is made
of nothing but texts, numbers, truth values, null, lists and dicts.

NaN and Infinity, which Python's own `json` writes, are read, as labels that say "not annotated"
hold them: whoever uses a number checks that it is finite.
"""

import json
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from smpler.utils.paths import display, require

MAX_JSON = 2**29
"""Bytes of a JSON file; its lists and numbers take five times as much memory, 30 at the worst."""
MAX_YAML = 2**19
"""Bytes of a yaml file. It names tables: those of three thousand data sets fit."""
MAX_YAML_DEPTH = 20
WORDS = {"": None, "~": None, "null": None}
WORDS |= dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off"), False)
"""Plain words of yaml -> what they mean, in any case."""
WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
"""Plain numbers of yaml that become an int; it fits into 64 bits. Others stay text."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks among them, and bytes of a path that are no UTF-8."""
PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

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
    except _Unreadable as error:
        reason = str(error)
    except ValueError:  # of Python's integers
        reason = "a number has thousands of digits"
    except RecursionError:
        reason = "it is nested too deep"
    except MemoryError:
        reason = "it does not fit into this machine's memory"
    raise ValueError(f"{name}: broken JSON ({reason}). Mend it or get it again.")


def read_yaml(path: Path) -> Any:
    """Return what a yaml file holds: texts, whole numbers, truth values, null, lists, dicts.

    Tags and aliases are refused; what yaml takes for a date or a fraction stays text.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read; the message names it.
        ValueError: it is too large, no UTF-8, no yaml, nested too deep, or names a key twice.
    """
    data = read_bytes(path, MAX_YAML)
    try:
        return _build(yaml.parse(decode(data), Loader=PARSER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        reason = line + one_line(error.problem or error.context or "no yaml")
    except yaml.YAMLError as error:
        reason = one_line(error)
    except _Unreadable as error:
        reason = str(error)
    raise ValueError(f"{display(path)}: broken yaml ({reason}). Mend it or get it again.")


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
            raise _Unreadable(f"byte {error.start} is no UTF-8") from error
    return data.removeprefix("\ufeff")


def one_line(text: object, limit: int = 200) -> str:
    """Return others' words as one printable line of at most so many characters."""
    line = " ".join(str(text).split())[: limit + 1]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def shown(value: object) -> str:
    """Return a value of a file as messages show it: one short line, however deep or long it is."""
    return one_line(_shortened.repr(value))


class _Unreadable(ValueError):
    """A reason in our words."""


def _unique(pairs: list) -> dict:
    """Return pairs of key and value as a dict.

    Raises:
        _Unreadable: a key is there twice.
    """
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unreadable(f"the key {shown(twice)} is there twice")
    return entries


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _build(events: Iterable) -> Any:
    """Make a yaml's value out of its events, without recursion.

    Raises:
        _Unreadable: it holds more than one value, or what is not read.
    """
    opened: list = [[]]  # the collections around an event, each with its own children
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise _Unreadable(f"{_line(event)}the alias *{one_line(event.anchor)} is not followed")
        if getattr(event, "tag", None) not in (None, "!"):
            raise _Unreadable(f"{_line(event)}the tag {shown(event.tag)} is not followed")
        if isinstance(event, yaml.ScalarEvent):
            opened[-1].append(_scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append([])
            if len(opened) > MAX_YAML_DEPTH:
                raise _Unreadable(f"{_line(event)}it is nested too deep")
        elif isinstance(event, yaml.SequenceEndEvent):
            children = opened.pop()
            opened[-1].append(children)
        elif isinstance(event, yaml.MappingEndEvent):
            children = opened.pop()
            keys = children[::2]
            if not all(isinstance(key, str) for key in keys):
                raise _Unreadable(f"{_line(event)}a key is no text")
            opened[-1].append(_unique(list(zip(keys, children[1::2], strict=True))))
    if len(opened[0]) > 1:
        raise _Unreadable("it holds more than one document")
    return opened[0][0] if opened[0] else None


def _scalar(event: yaml.ScalarEvent) -> str | int | bool | None:
    text = event.value
    if not event.implicit[0] or event.tag == "!":  # quoted
        return text
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    return int(text) if WHOLE.fullmatch(text) else text


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}: " if event.start_mark else ""

"""Reads yaml of anybody; whatever is wrong with it is one sentence about the file.

The library raises a dozen kinds of exceptions and follows a file's wishes: tags make objects,
aliases make a kilobyte into gigabytes. Here a value is made of nothing but texts, whole numbers,
truth values, null, lists and dicts.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from smpler.utils.files.text import Unreadable, decode, one_line, read_bytes, shown, unique
from smpler.utils.paths import display

MAX_YAML = 2**19
"""Bytes of a yaml file. It names tables: those of three thousand data sets fit."""
MAX_YAML_DEPTH = 20
WORDS = {"": None, "~": None, "null": None}
WORDS |= dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off"), False)
"""Plain words of yaml -> what they mean, in any case."""
WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
"""Plain numbers of yaml that become an int; it fits into 64 bits. Others stay text."""
PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    except Unreadable as error:
        reason = str(error)
    raise ValueError(f"{display(path)}: broken yaml ({reason}). Mend it or get it again.")


def _build(events: Iterable) -> Any:
    """Make a yaml's value out of its events, without recursion.

    Raises:
        Unreadable: it holds more than one value, or what is not read.
    """
    opened: list = [[]]  # the collections around an event, each with its own children
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable(f"{_line(event)}the alias *{one_line(event.anchor)} is not followed")
        if getattr(event, "tag", None) not in (None, "!"):
            raise Unreadable(f"{_line(event)}the tag {shown(event.tag)} is not followed")
        if isinstance(event, yaml.ScalarEvent):
            opened[-1].append(_scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append([])
            if len(opened) > MAX_YAML_DEPTH:
                raise Unreadable(f"{_line(event)}it is nested too deep")
        elif isinstance(event, yaml.SequenceEndEvent):
            children = opened.pop()
            opened[-1].append(children)
        elif isinstance(event, yaml.MappingEndEvent):
            children = opened.pop()
            keys = children[::2]
            if not all(isinstance(key, str) for key in keys):
                raise Unreadable(f"{_line(event)}a key is no text")
            opened[-1].append(unique(list(zip(keys, children[1::2], strict=True))))
    if len(opened[0]) > 1:
        raise Unreadable("it holds more than one document")
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

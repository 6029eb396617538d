"""Damaged files for readers, and what a reader may make of them.

A reader returns a right value, or raises one of our errors: a ValueError or OSError whose one line
names the file. Where checksums protect a file, a value that is not what was written is a fault.
"""

import re
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from torch import Tensor

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "smpler-hypothesis")  # not into the checkout

FOREIGN = re.compile(
    r"weights_only|torch\.load|allow_pickle|Traceback|0x[0-9a-f]{6}|\[Errno|\[enforce|site-packages"
)
"""What only libraries say."""
LONGEST_LINE = 1000
EXAMPLES = 20
"""Damaged files of each reader in the default tests."""
OTHER_KINDS = (
    b"", b"\0", b"hello world\n", b"PK\x03\x04", b"PK\x05\x06" + 18 * b"\0", b"\x93NUMPY\x01\0",
    b"\x80\x02}q\0.", b"{", b"[" * 3000, b"{}", b"- a\n- b\n", b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff", b"II*\0" + 20 * b"\xff", b"RIFF\xff\xff\xff\xffWEBPVP8X",
    b"\0\0\0\x18ftypisom",
    b"\x02\0\0\0\0\0\0\0{}", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", 5000 * b"\xff",
)  # fmt: skip
HUGE = (2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 2**20, 0, 1)
MAX_PARTS = 20_000
"""Bytes that are doubled, taken out or mixed in at once."""


@dataclass(frozen=True)
class Reader:
    """What reads files of a kind, and whole files to begin with."""

    name: str
    suffix: str
    whole: Callable[[], Sequence[bytes]]
    read: Callable[[Path], Any]
    check: Callable[[Any, Sequence[Any]], str | None] = lambda value, whole: None
    """Says what is wrong with a value, beside those of whole files; None: it is right."""
    seconds: float = 1.0
    """Of a processor, for a file; in the default tests five times as many."""


@cache
def whole_files(reader: Reader) -> tuple[bytes, ...]:
    """Return whole files, made once."""
    return tuple(reader.whole())


@cache
def whole_values(reader: Reader) -> tuple[Any, ...]:
    """Return what whole files hold."""
    values = []
    with tempfile.TemporaryDirectory() as folder:
        for content in whole_files(reader):
            path = Path(folder) / f"whole{reader.suffix}"
            path.write_bytes(content)
            values.append(reader.read(path))
    return tuple(values)


@st.composite
def damaged(draw, files: Sequence[bytes]) -> bytes:
    """Draw a file: a whole one with some damages, or something of another kind."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.binary(max_size=300))
    if kind == 1:
        return draw(st.sampled_from(OTHER_KINDS))
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 3))):
        _damage(draw, content, files)
    return bytes(content)


def _damage(draw, content: bytearray, files: Sequence[bytes]) -> None:
    """Change bytes in one of many ways."""
    size = len(content)
    if not size:
        content += draw(st.binary(max_size=20))
        return
    # the beginning and the end, where headers are, as often as all the rest
    far = st.integers(0, size - 1)
    place = draw(
        st.one_of(
            far, st.integers(0, min(size, 200) - 1), st.integers(max(0, size - 300), size - 1)
        )
    )
    length = draw(st.integers(1, min(size, MAX_PARTS)))
    how = draw(st.integers(0, 8))
    if how <= 1:
        content[place] ^= 1 << draw(st.integers(0, 7))
    elif how == 2:
        new = draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(new)] = new
    elif how == 3:
        del content[place:]
    elif how == 4:
        del content[place : place + length]
    elif how == 5:
        content[place:place] = content[place : place + length]
    elif how == 6:
        width = draw(st.sampled_from((1, 2, 4, 8)))
        number = draw(st.sampled_from(HUGE)) % 2 ** (8 * width)
        order = draw(st.sampled_from(("little", "big")))
        content[place : place + width] = number.to_bytes(width, order)
    elif how == 7:
        other = draw(st.sampled_from(files))
        start = draw(st.integers(0, max(0, len(other) - 1)))
        content[place : place + length] = other[start : start + length]
    else:
        digits = list(re.finditer(rb"\d+", bytes(content[:5000])))
        if digits:
            found = draw(st.sampled_from(digits))
            number = draw(st.sampled_from((b"0", b"-1", b"1e999", b"99999999999", b"9" * 400)))
            content[found.start() : found.end()] = number


def fault_of(reader: Reader, path: Path, patience: int = 1) -> tuple[str | None, bool]:
    """Read a file; return what is wrong with the reader, and whether it refused the file."""
    start, was_refused = time.process_time(), False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = reader.read(path)
    except (ValueError, OSError) as error:
        fault, was_refused = _of_sentence(str(error), path), True
    except Exception as error:
        fault = f"{type(error).__name__}: {str(error)[:200]}"
    else:
        fault = reader.check(value, whole_values(reader))
    used = time.process_time() - start
    if fault is None and used > patience * reader.seconds:
        fault = f"it took {used:.1f} s"
    return fault, was_refused


def _of_sentence(said: str, path: Path) -> str | None:
    if path.name not in said:
        return f"an error does not name the file: {said[:300]!r}"
    if not said.isprintable() or len(said) > LONGEST_LINE:
        return f"an error is no line: {said[:300]!r}"
    found = FOREIGN.search(said)
    return f"an error holds others' words, {found.group()}: {said[:300]!r}" if found else None


def check_by_examples(reader: Reader, folder: Path, examples: int) -> None:
    """Try so many files, the same ones each time; raise an AssertionError at a fault."""
    whole_values(reader)

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(whole_files(reader)))
    def check(content: bytes) -> None:
        path = folder / f"x{reader.suffix}"
        path.write_bytes(content)
        fault, _ = fault_of(reader, path, patience=5)
        assert fault is None, f"{reader.name}: {fault}"

    check()


def is_same(a: Any, b: Any) -> bool:
    """Compare nested values with arrays and tensors in them."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and is_same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and (a.shape, a.dtype) == (b.shape, b.dtype)
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(is_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(is_same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def is_whole(value: Any, whole: Sequence[Any]) -> str | None:
    """Say that a value is none of those that were written."""
    return None if any(is_same(value, x) for x in whole) else "a damage was not found"


def are_finite(*arrays: np.ndarray | None) -> str | None:
    """Say which of some arrays holds NaN or infinities."""
    for array in arrays:
        if array is not None and not np.isfinite(array).all():
            return f"an array of shape {array.shape} is not finite"
    return None

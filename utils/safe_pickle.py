"""Reads pickles of arrays, also those made with chumpy and scipy.sparse, without running any code.

SMPL's body files and 3DPW's sequences are such pickles, written by Python 2. A pickle is a program
that names functions and calls them. Here every name is looked up in the table of
`smpler.utils.files.pickled_calls`, nothing is imported, and a call is only written down.
"""

import io
import mmap
import pickle
import struct
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any, cast, no_type_check

import numpy as np

from smpler.utils.files.pickled_calls import KINDS, Made, Name, Pairs, Refused, make
from smpler.utils.files.pickled_values import Values
from smpler.utils.paths import display, require

MAX_BYTES = 2**30
"""Largest file; SMPL's own largest has a quarter of it."""
MAX_OPCODES = 2_000_000
"""Steps of the pickle's program; a file of SMPL or 3DPW has thousands."""


def read_array_pickle(path: Path, fields: Collection[str] | None = None) -> dict:
    """Read a pickled dict of arrays, numbers, strings, lists and dicts; nothing in it is executed.

    Values of chumpy and scipy.sparse become dense arrays, sets become lists.

    Args:
        fields: entries of the dict that are wanted, by default all; others are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds anything else, is too large or broken.
    """
    size = require(path).stat().st_size
    try:
        if size > MAX_BYTES:
            raise Refused(f"it has {size / 2**30:.1f} GiB, more than {MAX_BYTES / 2**30:.0f}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged escapes; whether they fit is seen below
            content = Recorder(io.BytesIO(path.read_bytes())).load()
            if not isinstance(content, Pairs):
                kind = content.kind if isinstance(content, Made) else type(content).__name__
                raise Refused(f"it holds a {kind}, not a dict of arrays")
            return Values().fields(content, fields)
    except Refused as error:
        raise ValueError(
            f"{display(path)} was not read: {error}. Give the file as it was published."
        ) from error
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(
            f"{display(path)} was not read: it is damaged or no pickle of arrays "
            f"({type(error).__name__}). Get the file again."
        ) from error


def to_array(value) -> np.ndarray:
    """Return a number, a nested list or a matrix of scipy.sparse as a dense array.

    Raises:
        ValueError: a list's entries have different lengths.
    """
    if hasattr(value, "toarray"):
        return value.toarray()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError("A list whose entries have different lengths is no array.") from error


class _Opcodes(dict):
    """The steps of a pickle's program -> what is done; counts them."""

    def __init__(self, entries: Mapping):
        super().__init__(entries)
        self.left = MAX_OPCODES

    @no_type_check  # called for each entry of a file: the tests would check a type each time
    def __getitem__(self, code):
        self.left -= 1
        if self.left < 0:
            raise Refused(f"it holds more than {MAX_OPCODES:,} entries")
        return super().__getitem__(code)


class Recorder(pickle._Unpickler):
    """Writes down what a pickle asks for; calls, imports and hashes nothing.

    It is Python's own unpickler in Python: the one in C cannot be kept from changing attributes,
    or from allocating what a file says before it is read.

    Args:
        file: has `read` and `readline`.
    """

    steps: Mapping[int, Callable[[Any], None]]
    """Steps of a program -> what is done."""
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list]
    read: Callable[[int], bytes]

    def __init__(self, file: io.BytesIO | mmap.mmap):
        super().__init__(cast(IO[bytes], file), encoding="latin1")
        vars(self)["dispatch"] = _Opcodes(self.steps)  # this file's own, as it counts

    def find_class(self, module: str, name: str) -> Name:
        """Return what stands for a name; nothing is imported."""
        if (module, name) not in KINDS:
            shown = f"{module[:80]}.{name[:80]}".encode("unicode_escape").decode()
            raise Refused(f"it asks for {shown}, which is not an array")
        return Name(KINDS[module, name])

    def _instantiate(self, klass, args) -> None:
        self.append(make(klass, tuple(args)))

    def _call(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = make(self.stack[-1], args)

    def _call_from_mark(self) -> None:
        klass, *args = self.pop_mark()
        self.append(make(klass, tuple(args)))

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Made):
            raise Refused("it changes what is not an array")
        self.stack[-1].state = state

    def _empty_dict(self) -> None:
        self.append(Pairs())

    def _dict(self) -> None:
        items = self.pop_mark()  # changes `append`
        self.append(Pairs().add(items))

    def _set_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].add(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].add([key, value])

    def _empty_set(self) -> None:
        self.append([])

    def _frozen_set(self) -> None:
        items = self.pop_mark()
        self.append(items)

    def _bytes(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    def _refuse(self) -> None:
        raise Refused("it asks for objects that are not in the file")


Recorder.steps = pickle._Unpickler.dispatch | {
    pickle.REDUCE[0]: Recorder._call,
    pickle.NEWOBJ[0]: Recorder._call,
    pickle.OBJ[0]: Recorder._call_from_mark,
    pickle.BUILD[0]: Recorder._build,
    pickle.EMPTY_DICT[0]: Recorder._empty_dict,
    pickle.DICT[0]: Recorder._dict,
    pickle.SETITEM[0]: Recorder._set_item,
    pickle.SETITEMS[0]: Recorder._set_items,
    pickle.EMPTY_SET[0]: Recorder._empty_set,
    pickle.ADDITEMS[0]: pickle._Unpickler.dispatch[pickle.APPENDS[0]],
    pickle.FROZENSET[0]: Recorder._frozen_set,
    pickle.BYTEARRAY8[0]: Recorder._bytes,
    **{
        code[0]: Recorder._refuse
        for code in (
            pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID,
            pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
        )
    },
}  # fmt: skip

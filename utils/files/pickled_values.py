"""Rebuilds the values of a pickle from what was written down of it.

All checks are here: shapes against lengths and limits, indices against shapes, depth, cycles. The
dense form of scipy's sparse matrices is made here too, as scipy does not check their indices.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from smpler.utils.files.pickled_calls import SPARSE, Made, Pairs, Refused

MAX_NUMBERS = 2**27
"""Numbers and texts of a file, shared ones counted wherever they stand."""
MAX_DEPTH = 32
NUMERIC = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
OBJECTS = ("O", "O4", "O8")


class Values:
    """Rebuilds values; what stands at several places of a file is rebuilt once."""

    builders: Mapping[str, Callable[[Any, Made], Any]]
    """What is called -> what rebuilds it."""

    def __init__(self):
        self._spent = 0
        self._done: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def fields(self, content: Pairs, wanted: Collection[str] | None = None) -> dict:
        """Return the wanted entries of a dict.

        Raises:
            Refused: they are too many, too deep, or no arrays.
        """
        named = content.named()
        chosen = {name: named[name] for name in named if wanted is None or name in wanted}
        total, values = 0, {}
        for name, item in chosen.items():
            values[name], size = self._sized(item)
            total += size
            limited(total)
        return values

    def _spend(self, count: int) -> None:
        """Count what is about to be allocated or walked through, in numbers."""
        self._spent += count
        limited(self._spent)

    def _sized(self, item) -> tuple[Any, int]:
        """Return a value and how many numbers it takes when it is written out."""
        if isinstance(item, int) and not -(2**63) <= item < 2**64:
            raise Refused("it holds an integer of more than 64 bits")
        if item is None or isinstance(item, str | bytes | int | float):
            return item, 1
        key = id(item)
        if key not in self._done:
            if key in self._open:
                raise Refused("it holds a list that holds itself")
            if len(self._open) > MAX_DEPTH:
                raise Refused(f"its lists are nested more than {MAX_DEPTH} deep")
            self._open.add(key)
            try:
                self._done[key] = self._rebuilt(item)
            finally:
                self._open.remove(key)
        return self._done[key]

    def _rebuilt(self, item) -> tuple[Any, int]:
        if isinstance(item, Pairs):
            parts = {name: self._sized(value) for name, value in item.named().items()}
            size = 1 + sum(size for _, size in parts.values())
            return {name: value for name, (value, _) in parts.items()}, limited(size)
        if isinstance(item, list | tuple):
            parts = [self._sized(value) for value in item]
            size = 1 + sum(size for _, size in parts)
            return type(item)(value for value, _ in parts), limited(size)
        if not isinstance(item, Made) or item.kind not in self.builders:
            raise Refused("it holds something that is no array")
        value = self.builders[item.kind](self, item)
        return value, limited(1 + (value.size if isinstance(value, np.ndarray) else 1))

    def _state(self, made: Made) -> dict[str, Any]:
        """Return the attributes of an instance, not yet rebuilt."""
        if not isinstance(made.state, Pairs):
            raise Refused(f"a {made.kind} in it has no content")
        return made.state.named()

    def _array_of(self, item) -> np.ndarray:
        """Return an item as an array of numbers."""
        value, size = self._sized(item)
        if not isinstance(value, np.ndarray):
            self._spend(size)
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise Refused("it holds something else where numbers belong")
        return array

    def _array(self, made: Made) -> np.ndarray | list:
        shape, dtype, by_columns, data = made.state[-4:]
        return self._from_data(dtype, shape, data, "F" if by_columns else "C")

    def _buffer(self, made: Made) -> np.ndarray | list:
        data, dtype, shape, order = made.args
        return self._from_data(dtype, shape, data, "F" if order == "F" else "C")

    def _scalar(self, made: Made) -> Any:
        dtype, data = made.args
        return self._from_data(dtype, (), data, "C").item()

    def _from_data(self, dtype, shape, data, order: str) -> Any:
        count = math.prod(_shape(shape))
        if _code(dtype) in OBJECTS:
            if not isinstance(data, list) or len(shape) != 1 or len(data) != count:
                raise Refused("it holds an array of objects that is no list")
            return self._sized(data)[0]
        kind, data = _dtype(dtype), self._bytes(data)
        if len(data) != count * kind.itemsize:
            raise Refused(f"an array in it has {len(data)} bytes, which its shape {shape} is not")
        self._spend(count)
        array = np.frombuffer(data, kind).reshape(shape, order="F" if order == "F" else "C")
        return array.astype(kind.newbyteorder("="), order="K")

    def _bytes(self, data) -> bytes:
        """Return bytes, which Python 2 wrote as text of the same codes."""
        if isinstance(data, Made) and data.kind == "bytes":
            return self._sized(data)[0]
        if isinstance(data, str):
            self._spend(len(data) // 8)
            return data.encode("latin1")
        if isinstance(data, bytes):
            return data
        raise Refused(f"it holds a {type(data).__name__} where bytes belong")

    def _called_bytes(self, made: Made) -> bytes:
        """_codecs.encode, bytes and bytearray: of nothing, of bytes, of text in latin1."""
        return self._bytes(made.args[0] if made.args else b"")

    def _chumpy(self, made: Made) -> np.ndarray:
        """chumpy.ch.Ch: its value is the array `x`."""
        return self._array_of(self._state(made)["x"])

    def _select(self, made: Made) -> np.ndarray:
        """chumpy.reordering.Select: entries `idxs` of the flattened array `a`."""
        state = self._state(made)
        array, chosen = self._array_of(state["a"]), self._array_of(state["idxs"])
        self._spend(array.size + chosen.size)
        chosen = array.ravel()[chosen]
        shape = self._sized(state["preferred_shape"])[0] if "preferred_shape" in state else None
        return chosen if shape is None else chosen.reshape(_shape(shape))

    def _sparse(self, made: Made) -> np.ndarray:
        state = self._state(made)
        shape = _shape(self._sized(state.get("_shape", state.get("shape")))[0])
        if len(shape) != 2:
            raise Refused(f"a sparse matrix in it has the shape {shape}")
        self._spend(math.prod(shape))
        if made.kind == "lil":
            rows, values = (self._sized(state[name])[0] for name in ("rows", "data"))
            self._spend(2 * sum(map(len, rows)))
            number = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
            return _dense(shape, number, _flat(rows), _flat(values))
        if made.kind == "dok":
            pairs = state["_dict"].items if "_dict" in state else made.pairs.items
            self._spend(8 * len(pairs))
            keys = np.reshape([self._sized(key)[0] for key, _ in pairs], (-1, 2))
            return _dense(shape, *keys.T, np.array([self._sized(value)[0] for _, value in pairs]))
        data = self._array_of(state["data"])
        self._spend(4 * data.size)
        if made.kind == "dia":
            return _diagonals(shape, self._array_of(state["offsets"]), data)
        if made.kind == "coo":
            places = state["coords"] if "coords" in state else (state["row"], state["col"])
            row, column = (self._array_of(place) for place in places)
            return _dense(shape, row, column, data)
        inner = self._array_of(state["indices"])
        starts = self._array_of(state["indptr"]).astype(np.int64)  # unsigned steps would wrap
        steps = np.diff(starts)
        if starts[0] != 0 or starts[-1] > len(inner) or (steps < 0).any():
            raise Refused("a sparse matrix in it has indices that do not fit")
        outer = np.repeat(np.arange(len(steps)), steps)
        inner, data = inner[: len(outer)], data[: len(outer)]
        if made.kind == "bsr":
            return _dense(shape, outer, inner, data)
        return _dense(shape, *((inner, outer) if made.kind == "csc" else (outer, inner)), data)


Values.builders = {
    "array": Values._array,
    "buffer": Values._buffer,
    "scalar": Values._scalar,
    "bytes": Values._called_bytes,
    "chumpy": Values._chumpy,
    "select": Values._select,
    **dict.fromkeys(SPARSE, Values._sparse),
}


def limited(size: int) -> int:
    """Return so many numbers, if a file may hold them."""
    if size > MAX_NUMBERS:
        raise Refused(f"it holds more than {MAX_NUMBERS:,} numbers")
    return size


def _shape(shape) -> tuple[int, ...]:
    is_shape = isinstance(shape, tuple) and len(shape) <= MAX_DEPTH
    if not is_shape or not all(type(n) is int and n >= 0 for n in shape):
        raise Refused("an array in it has no shape")
    limited(math.prod(shape))
    return shape


def _code(dtype) -> str:
    """Return the letter and size of a type of numbers."""
    if not isinstance(dtype, Made) or dtype.kind != "dtype" or not isinstance(dtype.args[0], str):
        raise Refused("an array in it has no type")
    return dtype.args[0].lstrip("<>|=")


def _dtype(made: Made) -> np.dtype:
    code = _code(made)
    if code not in NUMERIC:
        raise Refused(f"it holds an array of type {code[:20]!r}; only numbers are read")
    order = made.state[1] if isinstance(made.state, tuple) else made.args[0][:1]
    return np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")


def _flat(rows: list[list]) -> np.ndarray:
    return np.array([number for row in rows for number in row])


def _dense(shape: tuple[int, ...], row, column, data: np.ndarray) -> np.ndarray:
    """Add values, or blocks of them, at places of a matrix.

    Args:
        shape: the matrix's.
        row: of each value; of blocks, counted in blocks.
        column: likewise.
        data: values (n,), or blocks (n, height, width).
    """
    height, width = data.shape[1:] or (1, 1)
    blocks = shape[0] // height, shape[1] // width
    row, column = row.astype(np.int64), column.astype(np.int64)
    if not row.shape == column.shape == data.shape[:1]:
        raise Refused("a sparse matrix in it has more places than values, or fewer")
    for index, size in ((row, blocks[0]), (column, blocks[1])):
        if index.size and not 0 <= index.min() <= index.max() < size:
            raise Refused(f"a sparse matrix in it names place {index.max()} of {size}")
    # (M, N) -> (M / height, N / width, height, width), without a copy
    dense = np.zeros(shape, data.dtype if data.size else np.float64)
    view = dense.reshape(blocks[0], height, blocks[1], width).swapaxes(1, 2)
    np.add.at(view, (row, column), data.reshape(-1, height, width))
    return dense


def _diagonals(shape: tuple[int, ...], offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Return a matrix from its diagonals: `data[k, j]` stands at row j - offsets[k], column j."""
    if data.ndim != 2 or offsets.shape != data.shape[:1]:
        raise Refused("a sparse matrix in it has more diagonals than offsets, or fewer")
    column = np.arange(min(data.shape[1], shape[1]))
    row = column - offsets[:, None].astype(np.int64)
    inside = (row >= 0) & (row < shape[0])
    values = data[:, : len(column)][inside]
    return _dense(shape, row[inside], np.broadcast_to(column, row.shape)[inside], values)

"""What a pickle of arrays may name, and the calls that it asks for, written down.

`smpler.utils.safe_pickle` writes down, `smpler.utils.files.pickled_values` rebuilds.
"""

from dataclasses import dataclass, field
from typing import Any

SPARSE = ("csc", "csr", "coo", "lil", "bsr", "dia", "dok")

KINDS = {  # copy_reg and __builtin__ are what Python 2 called them
    (module, name): kind
    for modules, names in (
        (("numpy",), {"ndarray": "class ndarray", "dtype": "dtype"}),
        (
            ("numpy.core.multiarray", "numpy._core.multiarray"),
            {"_reconstruct": "array", "scalar": "scalar"},
        ),
        (("numpy.core.numeric", "numpy._core.numeric"), {"_frombuffer": "buffer"}),
        (("copyreg", "copy_reg"), {"_reconstructor": "instance"}),
        (
            ("builtins", "__builtin__"),
            {"object": "object", "dict": "dict", "set": "list", "frozenset": "list"}
            | {"bytes": "bytes", "bytearray": "bytes"},
        ),
        (("collections",), {"OrderedDict": "dict"}),
        (("_codecs",), {"encode": "bytes"}),  # how Python 3 writes bytes in protocol 2
        (("chumpy", "chumpy.ch"), {"Ch": "chumpy"}),
        (("chumpy", "chumpy.reordering"), {"Select": "select"}),
        *(
            (
                (f"scipy.sparse.{format}", f"scipy.sparse._{format}", "scipy.sparse"),
                {f"{format}_matrix": format, f"{format}_array": format},
            )
            for format in SPARSE
        ),
    )
    for module in modules
    for name, kind in names.items()
}
"""(module, name) in a pickle -> what stands for it here; whatever is not listed is refused."""


class Refused(ValueError):
    """Why a file is not read, without the file's name and a full stop."""


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names."""

    kind: str


class Pairs:
    """A dict as it was written: keys are not hashed, as that can take for ever.

    Args:
        first: lists or tuples of a key and its value, of which an OrderedDict is made.
    """

    def __init__(self, first: list | tuple = ()):
        self.items: list[tuple] = []
        self._first = first
        self._named: dict[str, Any] | None = None

    def add(self, flat: list) -> "Pairs":
        """Append keys and values that take turns."""
        self.items += zip(flat[::2], flat[1::2], strict=True)
        return self

    def pairs(self) -> tuple[tuple, ...]:
        """Return all keys and values."""
        return (*self._first, *self.items)

    def named(self) -> dict[str, Any]:
        """Return the values under keys that are texts; call it when all are there."""
        if self._named is None:
            self._named = {key: value for key, value in self.pairs() if isinstance(key, str)}
        return self._named


@dataclass(eq=False)
class Made:
    """A call that a pickle asks for, written down."""

    kind: str
    args: tuple = ()
    state: Any = None
    pairs: Pairs = field(default_factory=Pairs)

    def add(self, flat: list) -> None:
        """Append entries: old versions of scipy's dok_matrix were dicts."""
        self.pairs.add(flat)


def make(name, args: tuple):
    """Return what stands for a call. Nothing is copied, as a file can call thousands of times."""
    if not isinstance(name, Name) or not isinstance(args, tuple):
        raise Refused("it calls what is no function")
    if name.kind in ("list", "dict"):
        content = args[0] if args and isinstance(args[0], list) else []
        return content if name.kind == "list" else Pairs(content)
    if name.kind == "instance" and args and isinstance(args[0], Name):
        made = Made(args[0].kind)
        if len(args) > 2 and isinstance(args[2], Pairs):
            made.pairs = args[2]
        return made
    return Made(name.kind, args)

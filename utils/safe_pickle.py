"""Reads pickles of arrays, also those made with chumpy and scipy.sparse, without running any code.

SMPL's body files and 3DPW's sequences are such pickles, written by Python 2.
"""

import pickle
from pathlib import Path

import numpy as np

from smpler.utils.paths import display


def read_array_pickle(path: Path):
    """Read a pickle of arrays, numbers, strings, lists and dicts; nothing in it is executed.

    Values of chumpy and scipy.sparse are returned as holders, which `to_array` turns into arrays.

    Raises:
        ValueError: it holds anything else, or is broken.
    """
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a broken pickle can raise anything
        reason = error or type(error).__name__
        raise ValueError(f"{display(path)} was not read: {reason}.") from error


def to_array(value) -> np.ndarray:
    """Return a value of such a pickle as a dense array."""
    if isinstance(value, _Holder):
        return value.array()
    return value.toarray() if hasattr(value, "toarray") else np.asarray(value)  # scipy.sparse


class _Holder:
    """Replaces a class that a pickle names: keeps the state, runs nothing."""

    def __init__(self, *args, **kwargs):
        self.state = {}

    def __setstate__(self, state):
        self.state = state


class _Chumpy(_Holder):
    """chumpy.ch.Ch: its value is the array `x`."""

    def array(self) -> np.ndarray:
        return to_array(self.state["x"])


class _ChumpySelect(_Holder):
    """chumpy.reordering.Select: entries `idxs` of the flattened array `a`."""

    def array(self) -> np.ndarray:
        chosen = to_array(self.state["a"]).ravel()[to_array(self.state["idxs"])]
        return chosen.reshape(self.state.get("preferred_shape", chosen.shape))


class _SparseMatrix(_Holder):
    """A compressed scipy.sparse matrix of any scipy version."""

    class_name = "csc_array"

    def array(self) -> np.ndarray:
        import scipy.sparse  # here, because most bodies need it not and start sooner without

        parts = [to_array(self.state[key]) for key in ("data", "indices", "indptr")]
        shape = self.state.get("_shape", self.state.get("shape"))
        return getattr(scipy.sparse, self.class_name)(tuple(parts), shape=shape).toarray()


class _SparseRowMatrix(_SparseMatrix):
    class_name = "csr_array"


_NUMPY_NAMES = {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"}
_PLAIN_NAMES = {  # copy_reg and __builtin__ are what Python 2 called them
    (module, name)
    for modules, names in (
        (("copyreg", "copy_reg"), ("_reconstructor",)),
        (("builtins", "__builtin__"), ("object", "set", "frozenset", "bytearray")),
        (("collections",), ("OrderedDict",)),
    )
    for module in modules
    for name in names
}
_HOLDERS = {
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy", "Select"): _ChumpySelect,
    ("scipy.sparse", "csc_matrix"): _SparseMatrix,
    ("scipy.sparse", "csc_array"): _SparseMatrix,
    ("scipy.sparse", "csr_matrix"): _SparseRowMatrix,
    ("scipy.sparse", "csr_array"): _SparseRowMatrix,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, chumpy values and sparse matrices, and refuses everything else."""

    def find_class(self, module: str, name: str):
        for (package, class_name), holder in _HOLDERS.items():
            if name == class_name and (module == package or module.startswith(package + ".")):
                return holder
        if module.split(".")[0] == "numpy" and name in _NUMPY_NAMES:
            return super().find_class(module, name)
        if (module, name) in _PLAIN_NAMES:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return _encode_latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Replaces `_codecs.encode`, with which pickles hold bytes as latin1 text."""
    return text.encode("latin1")

import pickle
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.sparse

from smpler.utils import safe_pickle
from smpler.utils.files import pickled_values
from smpler.utils.files.pickled_calls import SPARSE
from smpler.utils.safe_pickle import read_array_pickle
from tests.utils.files.damage import damaged

PROTOCOLS = range(6)


@pytest.fixture
def read(tmp_path):
    """Write bytes, or the pickle of a value under "x", and read the file."""

    def write_and_read(content, protocol: int = 2):
        plain = content if isinstance(content, bytes) else pickle.dumps({"x": content}, protocol)
        (tmp_path / "some.pkl").write_bytes(plain)
        return read_array_pickle(tmp_path / "some.pkl")

    return write_and_read


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n((I1\ntS'O'\nC\x08AAAAAAAAtR.",  # a pointer of the file's choice
        b"(dS'x'\ncnumpy\nndarray\n((I1\ntS'O'\nC\x08AAAAAAAAtRs.",
        b"cnumpy.f2py.__main__\ndtype\n.",  # imported a module, and so ran it
        b"(dS'x'\ncnumpy.f2py.__main__\ndtype\ns.",
    ],
    ids=["pointers", "pointers in a dict", "import", "import in a dict"],
)
def test_attacks_end_in_one_sentence(content, tmp_path):
    """In a process of its own, as these took over or killed the program."""
    (tmp_path / "evil.pkl").write_bytes(content)
    program = (
        "import sys; from pathlib import Path; from smpler.utils import safe_pickle\n"
        "try: print(safe_pickle.read_array_pickle(Path(sys.argv[1])))\n"
        "except ValueError as error: print('refused:', error)\n"
        "assert 'numpy.f2py' not in sys.modules"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "evil.pkl"], capture_output=True, text=True
    )
    assert ran.returncode == 0, (ran.returncode, ran.stderr[-300:])
    assert ran.stdout.startswith("refused:") and ran.stdout.count("\n") == 1, ran.stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_come_back_as_they_were(read, protocol):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3, 4))
    arrays = [matrix.astype(kind) for kind in pickled_values.NUMERIC]
    arrays += [matrix.astype(">f4"), matrix.astype(">i8"), np.asfortranarray(matrix), matrix[::2]]
    arrays += [np.zeros((0, 3)), np.array(3.0), np.float64(0.1), np.int32(-5), np.bool_(True)]
    back = read(arrays, protocol)["x"]
    for array, found in zip(arrays, back["x"] if isinstance(back, dict) else back, strict=True):
        assert np.array_equal(found, array) and np.shape(found) == np.shape(array), array
        assert getattr(found, "dtype", array.dtype) == array.dtype.newbyteorder("=")
    plain = [1, -(2**40), 0.5, True, None, "text", b"bytes", (1, [2]), {"k": {}}, bytearray(b"ab")]
    assert read(plain, protocol)["x"] == plain
    assert sorted(read({1, 2}, protocol)["x"]) == [1, 2]


@pytest.mark.parametrize("format", SPARSE)
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_sparse_matrices_become_dense(read, format, kind):
    dense = np.random.default_rng(0).random((6, 8)).round(1)
    dense[dense < 0.6] = 0
    for values in (dense, (10 * dense).astype(np.int32), np.zeros((3, 2))):
        sparse = getattr(scipy.sparse, f"{format}_{kind}")(values)
        for protocol in PROTOCOLS:
            assert np.array_equal(read(sparse, protocol)["x"], values), protocol


def test_sparse_matrices_of_old_scipy_are_read(read):
    """Old modules, `shape` for `_shape`, row and col for coords; a dok_matrix was a dict."""
    dense = np.array([[0, 1.5, 0], [2, 0, 0]])
    coo = scipy.sparse.coo_matrix(dense)

    def old(format: str, attributes: bytes, entries: bytes = b"") -> bytes:
        name = f"cscipy.sparse.{format}\n{format}_matrix\n".encode()
        return b"(dS'x'\n" + name + b")\x81" + entries + attributes + b"bs."

    attributes = pickle.dumps({"shape": (2, 3), "row": coo.row, "col": coo.col, "data": coo.data})
    assert np.array_equal(read(old("coo", attributes[2:-1]))["x"], dense)
    entries = b"(I0\nI1\ntF1.5\ns(I1\nI0\ntF2\ns"
    assert np.array_equal(read(old("dok", b"(dS'_shape'\n(I2\nI3\nts", entries))["x"], dense)


def csc(**changes) -> bytes:
    """A csc_matrix whose parts do not fit, which scipy would follow into foreign memory."""
    matrix = scipy.sparse.csc_matrix(np.eye(3))
    for name, value in changes.items():
        setattr(matrix, name, value)
    return pickle.dumps({"x": matrix})


DIAGONALS = scipy.sparse.dia_matrix((np.ones((1, 10**5)), [0]), (10**5, 100))
DIAGONALS.offsets = np.zeros(10**6, np.int8)
LAUGHS = b"(lp0\n0" + b"".join(
    b"(" + b"g%d\n" % level * 9 + b"lp%d\n0" % (level + 1) for level in range(20)
)
FLOATS = b"cnumpy\ndtype\n(S'f8'\ntR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"(dS'x'\n" + b"(l" * 100 + b"a" * 99 + b"s.", "nested more than 32 deep"),
        (b"(d" + b")" + b"\x85" * 100_000 + b"I1\ns.", None),  # hashing that overflows the stack
        (b"(dS'x'\n(lp0\ng0\nas.", "a list that holds itself"),
        (LAUGHS + b"(dS'x'\ng20\ns.", "more than 134,217,728 numbers"),
        (b"\x96" + struct.pack("<Q", 2**62) + b"ab", "is damaged"),
        (b"\x8e" + struct.pack("<Q", 2**62) + b"ab", "is damaged"),
        (b"(dS'x'\nL" + b"9" * 400 + b"L\ns.", "an integer of more than 64 bits"),
        (csc(indices=np.array([0, 1, 10**9])), "names place 1000000000 of 3"),
        (csc(indices=np.array([0, -1, 2])), "names place 2 of 3"),
        (csc(indptr=np.array([0, 2, 1, 10**9])), "indices that do not fit"),
        (csc(indptr=np.array([0, 2, 1, 3], np.uint32)), "indices that do not fit"),
        (csc(indices=np.array([0])), "indices that do not fit"),
        (csc(data=np.array([1.0])), "more places than values"),
        (DIAGONALS, "more diagonals than offsets"),
        (b"(dS'x'\ncnumpy\nndarray\ns.", "something that is no array"),
        (csc(_shape=(10**6, 10**6)), "more than 134,217,728 numbers"),
        (b"(dS'x'\n" + b"cnumpy._core.numeric\n_frombuffer\n(C\x08AAAAAAAA" + FLOATS
         + b"(I99999999\ntS'C'\ntRs.", "8 bytes, which its shape"),
        (b"(dS'x'\n" + b"cnumpy._core.numeric\n_frombuffer\n(C\x08AAAAAAAA"
         + FLOATS.replace(b"f8", b"O") + b"(I1\ntS'C'\ntRs.", "array of objects that is no list"),
        (b"(dS'x'\n" + b"cnumpy._core.numeric\n_frombuffer\n(C\x08AAAAAAAA"
         + FLOATS.replace(b"f8", b"V8") + b"(I1\ntS'C'\ntRs.", "of type 'V8'; only numbers"),
        (b"cbuiltins\ndict\n(dS'__init__'\nI1\nsb.", "changes what is not an array"),
        (b"(lI1\naI0\n(tR.", None),
        (b"\x82\x01.", "objects that are not in the file"),
        (b"S'id'\nQ.", "objects that are not in the file"),
        (b"(lI1\na.", "holds a list, not a dict"),
        (b"\x8c\x03o\ns\x8c\x06system\x93.", r"asks for o\\ns.system, which is not an array"),
        (b"(dS'x'\ncos\nsystem\ns.", "asks for os.system, which is not an array"),
        (b"(dS'x'\n(l(cbuiltins\nlist\n.", "is not an array"),
        (b"", "is damaged"),
        (b"hello world", "is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_array_is_refused_in_one_sentence(read, content, message):
    start = time.process_time()
    if message is None:  # nothing of it is wanted: a key that is no text
        try:
            assert read(content) == {}
        except ValueError:
            pass
    else:
        with pytest.raises(ValueError, match=message) as caught:
            read(content)
        text = str(caught.value)
        assert "some.pkl was not read: " in text and text.endswith(".") and "\n" not in text
    assert time.process_time() - start < 3


def test_a_text_that_is_copied_again_and_again_is_refused(read, monkeypatch):
    monkeypatch.setattr(pickled_values, "MAX_NUMBERS", 10_000)
    calls = b"S'" + b"A" * 9000 + b"'\np0\n0c_codecs\nencode\np1\n0(dS'x'\n("
    with pytest.raises(ValueError, match="more than 10,000 numbers"):
        read(calls + b"g1\n(g0\ntR" * 100 + b"ls.")


def test_fields_that_are_not_wanted_are_not_rebuilt(tmp_path):
    path = tmp_path / "some.pkl"
    path.write_bytes(pickle.dumps({"x": 1, "y": np.array([{}], dtype=object)}))
    assert read_array_pickle(path, {"x"}) == {"x": 1}


def test_a_file_that_is_too_large_is_not_read(read, tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_OPCODES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 entries"):
        read(b"N" * 1001)
    monkeypatch.setattr(safe_pickle, "MAX_BYTES", 100)
    (tmp_path / "some.pkl").write_bytes(pickle.dumps({"x": np.zeros(100)}))
    with pytest.raises(ValueError, match="GiB, more than"):
        read_array_pickle(tmp_path / "some.pkl")
    with pytest.raises(FileNotFoundError, match="none.pkl is missing"):
        read_array_pickle(tmp_path / "none.pkl")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_damaged_pickles_give_a_dict_or_one_sentence(tmp_path, protocol):
    values = {
        "v": np.arange(12.0).reshape(3, 4),
        "s": scipy.sparse.csc_matrix(np.eye(3)),
        "l": scipy.sparse.lil_matrix(np.eye(3)),
        "f": [1, 2.5, "text", {"k": (1, 2)}],
    }
    path, start = tmp_path / "some.pkl", time.process_time()
    for content in damaged(pickle.dumps(values, protocol), count=150, seed=protocol):
        path.write_bytes(content)
        try:
            assert isinstance(read_array_pickle(path), dict)
        except ValueError as error:
            assert "some.pkl was not read" in str(error) and "\n" not in str(error), content
    assert time.process_time() - start < 20

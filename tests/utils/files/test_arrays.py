import errno
import io
import time
import zipfile

import numpy as np
import pytest

from smpler.utils.files import arrays
from smpler.utils.files.arrays import npz_names, read_npy, read_npz, read_numbers
from tests.utils.files.damage import damaged


def npz(save=np.savez, **values) -> bytes:
    file = io.BytesIO()
    save(file, **values)
    return file.getvalue()


def npy(value) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def npy_saying(old: bytes, new: bytes) -> bytes:
    """Three numbers under another header of the same length."""
    more = len(new) - len(old)
    content = npy(np.zeros(3)).replace(old, new)
    return content.replace(b" " * more + b"\n", b"\n") if more > 0 else content


def archive_of(member: bytes, method=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", member)
    return file.getvalue()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(path, save):
    rng = np.random.default_rng(0)
    values = {kind: rng.normal(size=(3, 4)).astype(kind) for kind in ("f2", ">f4", "f8", "i8", "?")}
    values |= {"columns": np.asfortranarray(values["f8"]), "empty": np.zeros((0, 3), np.int32)}
    values |= {"text": np.array(["a", "bcd"]), "bytes": np.array([b"ab"]), "one": np.array(3.0)}
    values |= {"no text": np.array("")}
    path.write_bytes(npz(save, **values))
    back = read_npz(path)
    assert npz_names(path) == list(back) == list(values)
    for name, value in values.items():
        assert back[name].dtype == value.dtype and np.array_equal(back[name], value), name
        path.write_bytes(npy(value))
        assert np.array_equal(read_npy(path), value), name
    assert back["f8"].flags.writeable and back["f8"].flags.c_contiguous


def test_only_the_arrays_that_are_wanted_are_read(path):
    path.write_bytes(npz(x=np.arange(3), evil=np.array([{}], dtype=object)))
    assert read_npz(path, ("x", "absent"))["x"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="an array of object is neither numbers nor texts"):
        read_npz(path)


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (npy_saying(b"(3,)", b"(10**9,)"), "it is damaged"),
        (npy_saying(b"(3,)", b"(999999999,)"), "more than 2 GiB"),
        (npy_saying(b"(3,)", b"(9999, -3999)"), "has the shape"),
        (npy_saying(b"(3,)", b"(2,)"), "16 bytes is named where 24 are stored"),
        (npy_saying(b"(3,)", b"(4,)"), "32 bytes is named where 24 are stored"),
        (npy_saying(b"<f8'", b"|O8'"), "neither numbers nor texts"),
        (npy_saying(b"<f8'", b"|V8'"), "neither numbers nor texts"),
        (npy_saying(b"(3,)", b"('',"), "it is damaged"),  # numpy: TokenError
        (npy_saying(b"NUMPY\x01", b"NUMPY\x09"), "version"),
        (npy(np.zeros(3))[:-1], "24 bytes is named where 23 are stored"),
        (npy(np.zeros(3))[:9], "it is damaged"),
        (b"", "it is damaged"),
    ],
)
def test_a_false_header_is_refused_before_memory_is_taken(path, member, reason):
    for content, read in ((archive_of(member), read_npz), (member, read_npy)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason) as caught:
            read(path)
        assert "some.npz is no" in str(caught.value) and "\n" not in str(caught.value)


def test_what_numpy_does_not_pack_is_refused(path):
    path.write_bytes(archive_of(npy(np.zeros(3)), zipfile.ZIP_LZMA))
    with pytest.raises(ValueError, match="'x.npy' is not packed as numpy packs"):
        read_npz(path)
    content = archive_of(npy(np.arange(3.0)))
    path.write_bytes(content.replace(np.float64(2).tobytes(), np.float64(-2).tobytes()))
    with pytest.raises(ValueError, match="Bad CRC-32"):
        read_npz(path)


def test_all_arrays_together_are_limited(path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_BYTES", 100)
    path.write_bytes(npz(x=np.zeros(10), y=np.zeros(10)))
    assert len(read_npz(path, {"x"})["x"]) == 10
    with pytest.raises(ValueError, match="its arrays take more than"):
        read_npz(path)


def test_a_missing_file_is_said_to_be_missing(path):
    for read in (read_npz, read_npy, npz_names):
        with pytest.raises(FileNotFoundError, match="some.npz is missing"):
            read(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, None])
def test_damaged_files_give_their_arrays_or_one_sentence(path, save, recwarn):
    """Checksums find what changed an npz; an npy has none, and may give other numbers."""
    values = {"x": np.arange(12.0).reshape(3, 4), "t": np.array(["a", "bc"])}
    content = npz(save, **values) if save else npy(values["x"])
    start = time.process_time()
    recwarn.clear()
    for changed in damaged(content, count=250, seed=1):
        path.write_bytes(changed)
        try:
            back = read_npz(path) if save else {"x": read_npy(path)}
        except ValueError as error:
            assert "some.npz is no" in str(error) and "\n" not in str(error), changed
            continue
        for name in values.keys() & back.keys() if save else ():
            assert np.array_equal(back[name], values[name]), changed
    assert time.process_time() - start < 20 and not recwarn


def test_numbers_of_known_shapes_are_finite_float64(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones((2, 3), np.int8), b=np.ones(2, np.float32), names=np.array(["x", "y"]))
    found = read_numbers(path, {"a": ("n", 3), "b": ("n",)}, texts={"names": ("n",)})
    assert found["a"].dtype == found["b"].dtype == np.float64 and found["names"][1] == "y"


ODD = {
    "missing": ({}, "it has no 'a'"),
    "shape": ({"a": np.ones((2, 4))}, r"'a' is of shape \(2, 4\), not \(n, 3\)"),
    "empty": ({"a": np.ones((0, 3))}, r"'a' is of shape \(0, 3\)"),
    "lengths": ({"a": np.ones((3, 3)), "b": np.ones(2)}, r"'b' is of shape \(2,\), not \(n\)"),
    "nan": ({"a": np.full((2, 3), np.nan), "b": np.ones(2)}, "'a' has a value that is not finite"),
    "texts": ({"a": np.full((2, 3), "x"), "b": np.ones(2)}, "'a' holds no numbers"),
}


@pytest.mark.parametrize("name", ODD)
def test_arrays_of_other_shapes_or_values_are_refused_in_one_sentence(name, tmp_path):
    arrays, said = ODD[name]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=f"x.npz cannot be used: {said}.*; get it again"):
        read_numbers(tmp_path / "x.npz", {"a": ("n", 3), "b": ("n",)})


def test_a_file_that_may_not_be_read_is_an_error_of_the_system(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "x.npz").write_bytes(b"PK")
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(OSError, match=r"x\.npz could not be read: Permission denied\.$"):
        read_npz(tmp_path / "x.npz")

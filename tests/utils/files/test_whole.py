import os

import pytest

from smpler.utils.files.whole import write_bytes_whole, write_whole


def test_a_file_is_written_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.npz"
    write_bytes_whole(path, b"first")
    write_whole(path, lambda file: (file.write(b"sec"), file.write(b"ond")))
    assert path.read_bytes() == b"second" and os.listdir(tmp_path) == ["a.npz"]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    write_bytes_whole(path, b"old")

    def fail(file):
        file.write(b"half of the n")
        assert path.read_bytes() == b"old"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_whole(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.npz"]

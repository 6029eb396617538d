import os
import subprocess
import sys

import pytest

from smpler.utils.files.whole import (
    part_of,
    replacing,
    replacing_set,
    write_bytes_whole,
    write_whole,
)
from tests.training.disk import full_disk


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


def test_parts_of_killed_processes_are_cleared_and_no_others(tmp_path):
    path = tmp_path / "a.npz"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = part_of(path).name
    left = tmp_path / mine.replace(f"-{os.getpid()}.", f"-{ended.pid}.")
    folder = left.with_name("b" + left.name)
    running = left.with_name(mine.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
    elsewhere = left.with_name(f"a.npz.00000000-{ended.pid}.part")
    own = left.with_name("chapter.part")
    folder.mkdir()
    for file in (left, folder / "x", running, elsewhere, own):
        file.write_bytes(b"half")
    write_bytes_whole(path, b"new")
    assert set(tmp_path.iterdir()) == {path, running, elsewhere, own}


def test_a_folder_appears_whole(tmp_path):
    with replacing(tmp_path / "set") as part:
        part.mkdir()
        (part / "a").write_bytes(b"1")
        assert not (tmp_path / "set").exists()
    assert (tmp_path / "set" / "a").read_bytes() == b"1" and len(os.listdir(tmp_path)) == 1


def test_an_error_inside_a_folder_names_its_file_once(tmp_path):
    with (
        pytest.raises(OSError) as caught,
        full_disk(1000),
        replacing(tmp_path / "set") as part,
    ):
        part.mkdir()
        write_bytes_whole(part / "a", b"1" * 100_000)
    assert str(caught.value).count("could not be written") == 1 and "/a could" in str(caught.value)
    assert not os.listdir(tmp_path)


def test_a_set_appears_together_and_the_older_one_goes(tmp_path):
    for name in ("a_out", "a_0", "a_1", "b"):
        (tmp_path / name).write_bytes(b"old")
    with replacing_set(tmp_path / "a_out", [tmp_path / "a_1", tmp_path / "a_9"]) as part:
        write_bytes_whole(part / "a_out", b"new")
        write_bytes_whole(part / "a_0", b"new")
        assert (tmp_path / "a_0").read_bytes() == b"old"
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"a_out": b"new", "a_0": b"new", "b": b"old"}


def test_an_error_in_a_set_names_the_files_place_and_leaves_the_older_one(tmp_path):
    (tmp_path / "a_out").write_bytes(b"old")
    with (
        pytest.raises(OSError) as caught,
        full_disk(1000),
        replacing_set(tmp_path / "a_out") as part,
    ):
        write_bytes_whole(part / "a_0", b"1" * 100_000)
    assert str(caught.value) == f"{tmp_path / 'a_0'} could not be written: File too large."
    assert [path.name for path in tmp_path.iterdir()] == ["a_out"]

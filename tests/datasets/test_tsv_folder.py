import base64
import errno
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from unittest.mock import patch

import pytest

from smpler.datasets.tsv import TsvDataset, TsvWriter, write_composite
from smpler.utils.files.whole import part_of
from tests.fuzz.faults import Fault, Killed, each_operation, full_disks, kills
from tests.support.tsv_data import jpeg, smooth_image, table
from tests.training.disk import full_disk

IMAGES = [jpeg(smooth_image(8, 8, seed)) for seed in range(3)]


def samples(first: int, num: int) -> list[tuple]:
    """Key, image, size and label; one generation of a set differs from another in all of them."""
    return [(f"{n}.jpg", IMAGES[n % 3], (n, 8), {"n": n}) for n in range(first, first + num)]


OLD, NEW = samples(0, 3), samples(10, 2)


def write(path, generation=NEW) -> None:
    with TsvWriter(path) as writer:
        for sample in generation:
            writer.add(*sample)


def write_flat(path, generation=OLD) -> None:
    """Tables beside the yaml, as the writer's older versions put them."""
    tables = {"img": "", "hw": "", "label": "", "linelist": ""}
    for row, (key, image, (height, width), label) in enumerate(generation):
        tables["img"] += f"{key}\t{base64.b64encode(image).decode()}\n"
        tables["hw"] += f'{key}\t[{{"height": {height}, "width": {width}}}]\n'
        tables["label"] += f"{key}\t{json.dumps([label])}\n"
        tables["linelist"] += f"{row}\n"
    for name, text in tables.items():
        path.with_suffix(f".{name}.tsv").write_text(text)
        path.with_suffix(f".{name}.lineidx").write_text("")
    path.write_text("".join(f"{name}: {path.stem}.{name}.tsv\n" for name in tables))


def read(path) -> list[tuple] | None:
    if not path.exists():
        return None
    data = TsvDataset(path)
    return [(*data.image_bytes(i), data.size(i), data.label(i)) for i in range(len(data))]


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


BEFORE = {
    "nothing": lambda path: None,
    "an older set": lambda path: write(path, OLD),
    "an older version's set": write_flat,
    "the same set": write,
}


ENDED = 2**22 + 1
"""No process of Linux has this number: the largest is 2^22."""


def killed_at(number: int, work) -> bool:
    """Do some work as a process that is killed at its n-th operation on files; say whether it was.

    Nothing that it tries afterwards, to clean up, is done.
    """
    with patch.object(os, "getpid", lambda: ENDED), suppress(Killed):
        with each_operation(Fault(number, "kill", every_write=True)):
            work()
        return False
    return True


OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in BEFORE if n != "an older version's set"]


@pytest.fixture(params=["an older version's set", *OTHERS])
def before(request, tmp_path):
    """A folder in which the new set is to be written, and what is there before."""
    folder = tmp_path / "before"
    folder.mkdir()
    BEFORE[request.param](folder / "train.yaml")
    return folder


def copies(before):
    """Yield number after number, each with a copy of the folder; the numbers end with the loop."""
    for number in itertools.count(1):
        folder = before.with_name(str(number))
        shutil.copytree(before, folder)
        yield number, folder / "train.yaml"


def test_a_writer_killed_at_any_operation_leaves_the_old_set_or_the_new_one(before):
    old, seen = read(before / "train.yaml"), []
    for number, path in copies(before):
        was_killed = killed_at(number, lambda path=path: write(path))
        seen.append(read(path))
        write(path)
        assert read(path) == NEW
        left = names(path.parent) - {"train.yaml", table(path, "img").parent.name}
        assert not left, f"killed at operation {number}, left after the next write: {left}"
        if not was_killed:
            break
    changed = seen.index(NEW)
    assert seen == [old] * changed + [NEW] * (len(seen) - changed), "mixed, or half of a set"
    assert number > 30, f"{number} operations"


@pytest.mark.slow
def test_a_process_that_is_killed_in_fact_does_the_same(before):
    path = before / "train.yaml"
    old, seen = read(path), []
    kills(before, lambda: write(path), lambda files: seen.append(read(path)), in_children=True)
    assert len(seen) > 30 and all(found in (old, NEW) for found in seen)
    assert old in seen and seen[-1] == NEW


def test_a_full_disk_at_any_write_is_one_sentence_and_the_old_set_lives(before):
    path = before / "train.yaml"
    assert full_disks(before, lambda: write(path), every_write=True) > 25
    assert read(path) == NEW


@pytest.mark.parametrize("end", [".yaml", ".tables-[0-9a-f]{12}"])
def test_a_rename_that_fails_is_one_sentence_and_the_old_set_lives(end, tmp_path, monkeypatch):
    path, rename = tmp_path / "train.yaml", os.replace
    write(path, OLD)
    there = names(tmp_path)

    def replace(source, place):
        if re.search(f"{end}$", str(place)):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, place)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match=r"train\.yaml could not be written: No space left on device"):
        write(path)
    assert names(tmp_path) == there and read(path) == OLD


def test_a_disk_that_fills_up_is_one_sentence(tmp_path):
    write(tmp_path / "train.yaml", OLD)
    there = names(tmp_path)
    with (
        pytest.raises(OSError, match=r"train\.yaml could not be written: File too large\."),
        full_disk(20_000),
        TsvWriter(tmp_path / "train.yaml") as writer,
    ):
        for number in range(1000):
            writer.add(str(number), IMAGES[0], (8, 8), {})
    assert number < 100 and names(tmp_path) == there and read(tmp_path / "train.yaml") == OLD


@pytest.mark.parametrize(
    "name", ["tä ble.yaml", "[x]*?.yaml", 'it\'s "q": #1.yaml', ".yaml", "set", "null.yml", "~"]
)
def test_any_printable_name_will_do(name, tmp_path):
    for generation in (OLD, NEW, OLD):
        write(tmp_path / name, generation)
        assert read(tmp_path / name) == generation and len(names(tmp_path)) == 2


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\udcff.yaml", "\x1b[31m.yaml"])
def test_a_name_that_yaml_cannot_hold_is_refused_at_once(name, tmp_path):
    with pytest.raises(ValueError, match="holds control characters or is no UTF-8. Rename it"):
        TsvWriter(tmp_path / name).__enter__()
    (tmp_path / name).mkdir()
    write(tmp_path / name / "x.yaml")
    with pytest.raises(ValueError, match="holds control characters or is no UTF-8. Rename it"):
        write_composite(tmp_path / "mix.yaml", [tmp_path / name / "x.yaml"])
    assert names(tmp_path) == {name} and read(tmp_path / name / "x.yaml") == NEW


def test_the_same_samples_give_the_same_files(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.yaml")
    first, second = (tmp_path / name / "train.yaml" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    folders = [table(path, "img").parent for path in (first, second)]
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()


def test_damaged_tables_are_mended_by_writing_them_again(tmp_path):
    path = tmp_path / "train.yaml"
    for _ in range(3):
        write(path)
        assert read(path) == NEW and len(names(tmp_path)) == 2
        with table(path, "label").open("r+b") as file:
            file.write(b"X")


def test_tables_that_another_yaml_names_stay(tmp_path):
    """Who keeps an older set by renaming its yaml, keeps it."""
    for generation, write_old in ((OLD, write), (samples(20, 2), write_flat)):
        write_old(tmp_path / "train.yaml", generation)
        os.rename(tmp_path / "train.yaml", tmp_path / f"kept{generation[0][0]}.yaml")
        write(tmp_path / "train.yaml")
    assert read(tmp_path / "kept0.jpg.yaml") == OLD
    assert read(tmp_path / "kept20.jpg.yaml") == samples(20, 2)
    assert read(tmp_path / "train.yaml") == NEW


def test_only_tables_of_ours_are_removed(tmp_path):
    path = tmp_path / "train.yaml"
    write_flat(path)
    own = tmp_path / "own.label.tsv"
    os.rename(path.with_suffix(".label.tsv"), own)
    path.write_text(path.read_text().replace("train.label", "own.label"))
    others = {"train.tables-mine", "train.tables-0123456789ab.zip", "val.tables-0123456789ab",
              "train.tables", "strain.tables-0123456789ab"}  # fmt: skip
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "train.tables-ba9876543210").symlink_to(tmp_path / "train.tables")
    write(path)
    ours = {"train.yaml", table(path, "img").parent.name}
    assert names(tmp_path) - ours == others | {
        "own.label.tsv", "train.label.lineidx", "train.tables-ba9876543210",
    }  # fmt: skip


def test_a_yaml_that_cannot_be_read_protects_the_folders(tmp_path):
    write(tmp_path / "train.yaml", OLD)
    kept = table(tmp_path / "train.yaml", "img").parent
    (tmp_path / "broken.yaml").write_text(f"[: !!bool {kept.name}/img.tsv")
    write(tmp_path / "train.yaml")
    assert kept.is_dir() and read(tmp_path / "train.yaml") == NEW


def test_two_writers_of_one_set_are_one_too_many(tmp_path):
    path = tmp_path / "train.yaml"
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = part_of(tmp_path / "train.tables").name
    part = tmp_path / mine.replace(f"-{os.getpid()}.", f"-{other.pid}.")
    part.mkdir()
    with pytest.raises(ValueError, match=f"train.yaml is being written by process {other.pid}"):
        write(path)
    assert names(tmp_path) == {part.name}
    other.communicate(b"\n")
    part.rmdir()
    write(path)
    assert read(path) == NEW


def test_a_set_named_like_a_folder_is_refused_at_once(tmp_path):
    (tmp_path / "train.yaml").mkdir()
    with pytest.raises(
        OSError, match="train.yaml could not be written: it is a folder, pipe or device"
    ):
        TsvWriter(tmp_path / "train.yaml").__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="x.yaml could not be written: File exists"):
        TsvWriter(tmp_path / "file/x.yaml").__enter__()


def mixed(tmp_path, write_source):
    sources = [tmp_path / name / "train.yaml" for name in "ab"]
    for number, path in enumerate(sources):
        path.parent.mkdir()
        write_source(path, samples(10 * number, 3))
    assert write_composite(tmp_path / "mix/train.yaml", sources) == [3, 3]
    return tmp_path / "mix/train.yaml", sources


@pytest.mark.parametrize("write_source", [write, write_flat])
def test_a_mixed_set_of_a_rewritten_source_says_so(write_source, tmp_path):
    path, sources = mixed(tmp_path, write_source)
    assert read(path) == samples(0, 3) + samples(10, 3)
    write(sources[1], samples(10, 3))
    if write_source is write:
        assert read(path) == samples(0, 3) + samples(10, 3), "the same content"
    write(sources[1], samples(20, 5))
    with pytest.raises(FileNotFoundError, match=r"/b/.*img.*missing.*combine_datasets"):
        TsvDataset(path)
    assert write_composite(path, sources) == [3, 5]
    assert read(path) == samples(0, 3) + samples(20, 5) and len(names(path.parent)) == 2


def test_a_mixed_set_is_replaced_by_one_rename(tmp_path):
    path, sources = mixed(tmp_path, write)
    old, new = read(path), samples(10, 3)
    seen = []
    for number, copy in copies(path.parent):
        was_killed = killed_at(number, lambda copy=copy: write_composite(copy, sources[1:]))
        seen.append(read(copy))
        if not was_killed:
            break
    changed = seen.index(new)
    assert seen == [old] * changed + [new] * (len(seen) - changed) and number > 10

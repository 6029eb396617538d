import base64
import logging
import os
import pickle

import numpy as np
import pytest

from scripts import combine_datasets
from smpler.datasets.tsv import TsvDataset, TsvWriter, write_composite
from smpler.datasets.tsv_file import BadSampleError, TsvFile
from tests.support.tsv_data import jpeg, replace_row, smooth_image, write_random_set

IMAGES = [jpeg(smooth_image(24, 32, seed)) for seed in range(3)]


def write_by_hand(folder):
    """A single set, byte by byte, without the writer."""
    rows = [f"k{i}\textra\t".encode() + base64.b64encode(data) for i, data in enumerate(IMAGES)]
    (folder / "a.img.tsv").write_bytes(b"\n".join(rows) + b"\n")
    (folder / "a.hw.tsv").write_bytes(b'k0\t[{"height": 24, "width": 32}]\nk1\t24 32\r\nk2\t7 9')
    (folder / "a.label.tsv").write_bytes(b'k0\t[{"n": 0}]\nk1\t[{"n": 1}]\nk2\t{"n": 2}\n')
    (folder / "a.linelist.tsv").write_bytes(b"2\n0\n1\n")
    (folder / "a.yaml").write_text(
        f"img: a.img.tsv\nhw: a.hw.tsv\nlabel: {folder}/a.label.tsv\nlinelist: a.linelist.tsv\n"
    )
    return folder / "a.yaml"


def test_a_single_yaml_is_read_in_the_order_of_its_linelist(tmp_path):
    data = TsvDataset(write_by_hand(tmp_path))
    assert [data.key(i) for i in range(len(data))] == ["k2", "k0", "k1"]
    assert [data.label(i)["n"] for i in range(3)] == [2, 0, 1]
    assert [data.image_bytes(i) for i in range(3)] == [(f"k{i}", IMAGES[i]) for i in (2, 0, 1)], (
        "the image is in the last column"
    )


def test_both_formats_of_sizes_are_read(tmp_path):
    data = TsvDataset(write_by_hand(tmp_path))
    assert [data.size(i) for i in range(3)] == [(7, 9), (24, 32), (24, 32)]


def test_a_composite_yaml_finds_source_and_row(tmp_path):
    paths = [write_random_set(tmp_path / name / "train.yaml", 3, seed=7 * i)
             for i, name in enumerate("ab")]  # fmt: skip
    write_composite(tmp_path / "mix/train.yaml", paths)
    (tmp_path / "mix/train.linelist.tsv").write_text("1\t2\n0\t1\n1\t0\n")
    mixed, sources = TsvDataset(tmp_path / "mix/train.yaml"), [TsvDataset(p) for p in paths]
    assert len(mixed) == 3
    for index, (source, row) in enumerate([(1, 2), (0, 1), (1, 0)]):
        assert mixed.locate(index) == (source, row)
        assert mixed.key(index) == sources[source].key(row)
        assert mixed.label(index) == sources[source].label(row)
        assert mixed.image_bytes(index) == sources[source].image_bytes(row)


def test_what_was_written_is_read_back(tmp_path):
    label = {"center": np.array([1.5, 2.5]), "scale": 0.1, "has_smpl": 0}
    with TsvWriter(tmp_path / "new/train.yaml") as writer:
        for number, image in enumerate(IMAGES):
            writer.add(f"folder/{number}.jpg", image, (24, 32), label | {"n": number})
    data = TsvDataset(tmp_path / "new/train.yaml")
    assert [data.label(i)["n"] for i in range(len(data))] == [0, 1, 2]
    assert data.label(0)["center"] == [1.5, 2.5] and data.size(2) == (24, 32)
    assert data.image_bytes(1) == ("folder/1.jpg", IMAGES[1])
    names = {path.name for path in (tmp_path / "new").iterdir()}
    tables = [f"train.{name}.{end}" for name in ("img", "hw", "label", "linelist")
              for end in ("tsv", "lineidx")]  # fmt: skip
    assert names == {*tables, "train.yaml"}


def test_the_written_index_is_the_one_that_is_built_when_missing(tmp_path):
    path = write_random_set(tmp_path / "train.yaml", 5)
    for index in tmp_path.glob("*.lineidx"):
        written = index.read_bytes()
        index.unlink()
        assert len(TsvFile(index.with_suffix(".tsv"))) == 5
        assert index.read_bytes() == written, index.name
    assert len(TsvDataset(path)) == 5


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), TsvWriter(tmp_path / "train.yaml") as writer:
        writer.add("a", IMAGES[0], (24, 32), {})
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_no_obstacle(tmp_path, monkeypatch):
    path = write_by_hand(tmp_path)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    data = TsvDataset(path)
    assert data.label(1)["n"] == 0
    assert not list(tmp_path.glob("*.lineidx")) and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("stale", ["0\n5\n", "0\n3\n9\n", "", "7\n", "0\n14\n999999\n"])
def test_a_stale_index_is_made_anew(stale, tmp_path, caplog):
    path = write_by_hand(tmp_path)
    (tmp_path / "a.label.lineidx").write_text(stale)
    with caplog.at_level(logging.WARNING):
        assert [TsvDataset(path).label(i)["n"] for i in range(3)] == [2, 0, 1]
    assert "a.label.lineidx" in caplog.text


def test_a_data_set_travels_to_workers_without_its_maps(tmp_path):
    data = TsvDataset(write_random_set(tmp_path / "train.yaml"))
    before = data.label(3)
    pickled = pickle.dumps(data)
    assert len(pickled) < 5000, f"{len(pickled)} bytes"
    assert pickle.loads(pickled).label(3) == before


def test_without_a_linelist_every_row_counts(tmp_path):
    path = write_by_hand(tmp_path)
    path.write_text(path.read_text().replace("linelist: a.linelist.tsv\n", ""))
    assert [TsvDataset(path).key(i) for i in range(3)] == ["k0", "k1", "k2"]


def test_a_truncated_image_is_named_by_file_and_row(tmp_path):
    path = write_by_hand(tmp_path)
    whole = base64.b64encode(IMAGES[1])
    for length in range(0, len(whole), 7):
        replace_row(tmp_path / "a.img.tsv", 1, b"k1\t" + whole[:length])
        with pytest.raises(BadSampleError, match=r"a\.img\.tsv row 1: "):
            TsvDataset(path).image_bytes(2)


def test_a_thumbnail_does_not_pass_for_the_end_of_a_photo(tmp_path):
    path = write_by_hand(tmp_path)
    exif = b"\xff\xe1" + (len(IMAGES[0]) + 2).to_bytes(2, "big") + IMAGES[0]
    photo = IMAGES[1][:2] + exif + IMAGES[1][2:]
    for data, whole in ((photo, True), (photo[:-10], False)):
        replace_row(tmp_path / "a.img.tsv", 0, b"k0\t" + base64.b64encode(data))
        if whole:
            assert TsvDataset(path).image_bytes(1)[1] == data
        else:
            with pytest.raises(BadSampleError, match="cut off"):
                TsvDataset(path).image_bytes(1)


@pytest.mark.parametrize(
    "text", [b'[{"n": 1}', b"", b"[]", b"[1]", b'[{"n": 1}, {"n": 2}]', b"\xff"]
)
def test_a_broken_label_is_named_by_file_and_row(text, tmp_path):
    path = write_by_hand(tmp_path)
    replace_row(tmp_path / "a.label.tsv", 1, b"k1\t" + text)
    with pytest.raises(BadSampleError, match=r"a\.label\.tsv row 1: "):
        TsvDataset(path).label(2)


def test_a_linelist_of_another_set_is_said(tmp_path):
    path = write_by_hand(tmp_path)
    (tmp_path / "a.linelist.tsv").write_text("0\n17\n")
    with pytest.raises(BadSampleError, match="row 17: the file has 3 rows"):
        TsvDataset(path).label(1)
    (tmp_path / "a.linelist.tsv").write_text("3\t0\n")
    with pytest.raises(ValueError, match="source 3, but .* names 1"):
        TsvDataset(path)
    (tmp_path / "a.linelist.tsv").write_text("0\nx\n")
    with pytest.raises(ValueError, match="linelist.tsv holds more than row numbers"):
        TsvDataset(path)


def test_missing_files_are_named_with_the_next_step(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml is missing.*link_data"):
        TsvDataset(tmp_path / "nowhere.yaml")
    path = write_by_hand(tmp_path)
    (tmp_path / "a.img.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="a.img.tsv: missing.*README"):
        TsvDataset(path)


def test_a_key_with_a_tab_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tab"), TsvWriter(tmp_path / "x.yaml") as writer:
        writer.add("a\tb", IMAGES[0], (24, 32), {})


def test_sets_are_combined_by_a_command(tmp_path, capsys):
    paths = [str(write_random_set(tmp_path / n / "train.yaml", i + 1)) for i, n in enumerate("ab")]
    out = tmp_path / "mix/train.yaml"
    assert combine_datasets.main([*paths, "--out", str(out)]) == 0
    assert "mix/train.yaml: 3 samples" in capsys.readouterr().out
    assert [TsvDataset(out).locate(index) for index in range(3)] == [(0, 0), (1, 0), (1, 1)]
    assert combine_datasets.main([str(tmp_path / "none.yaml"), "--out", str(out)]) == 2
    assert "none.yaml is missing" in capsys.readouterr().err
    assert combine_datasets.main([str(out), "--out", str(tmp_path / "again.yaml")]) == 2
    assert "is composite itself" in capsys.readouterr().err

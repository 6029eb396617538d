import base64
import logging
import os
import pickle

import numpy as np
import pytest

from scripts import combine_datasets
from smpler.datasets import tsv, tsv_file
from smpler.datasets.tsv import TsvDataset, TsvWriter, write_composite
from smpler.datasets.tsv_file import BadSampleError, TsvFile
from tests.support.tsv_data import jpeg, replace_row, smooth_image, table, write_random_set

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
    table(tmp_path / "mix/train.yaml", "linelist").write_text("1\t2\n0\t1\n1\t0\n")
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
    (folder,) = (tmp_path / "new").glob("train.tables-*")
    assert set((tmp_path / "new").iterdir()) == {folder, tmp_path / "new/train.yaml"}
    names = {path.name for path in folder.iterdir()}
    assert names == {f"{name}.{end}" for name in ("img", "hw", "label", "linelist")
                     for end in ("tsv", "lineidx")}  # fmt: skip


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


BAD_YAMLS = {
    "a number as table": (b"img: 5\n", "names no 'img' table"),
    "a number among tables": (b"img: [a.img.tsv, 5]\n", "names 5 as 'img' table, not a file"),
    "a number as linelist": (b"linelist: 5\n", "names 5 as 'linelist' table, not a file"),
    "a list as linelist": (b"linelist: [a, b]\n", r"names \['a', 'b'\] as 'linelist' table, not"),
    "nothing as table": (b"label: ''\n", "names '' as 'label' table, not a file"),
    "a tag": (b"img: !!bool x\n", r"broken yaml \(line 1: the tag .* is not followed"),
    "deep": (b"img: " + b"[" * 5000, "broken yaml"),
    "a bomb": (b"x: &x [a, a]\ny: [*x, *x]\n", r"line 2: the alias \*x is not followed"),
    "an index as table": (b"img: a.img.lineidx\n", "'a.img.lineidx' as 'img' table, .* index"),
    "an index in capitals": (b"hw: a.hw.LineIdx\n", "'a.hw.LineIdx' as 'hw' table, .* index"),
    "the yaml twice": (b"img: [a.img.tsv, a.img.tsv]\n", "2 img, 1 label and 1 hw tables"),
    "no hw for one": (b"img: [a.img.tsv, a.img.tsv]\nlabel: [a.label.tsv, a.label.tsv]\n",
                      "2 img, 2 label and 1 hw tables"),
    "rows without sources": (b"img: [a.img.tsv, a.img.tsv]\nlabel: [a.label.tsv, a.label.tsv]\n"
                             b"hw: [a.hw.tsv, a.hw.tsv]\n", "must be SOURCE TAB ROW"),
    "no dict": (b"- a\n- b\n", "names no tables"),
    "a folder": (b"img: .\n", "missing, or no regular file"),
    "a pipe": (b"label: pipe\n", "missing, or no regular file"),
    "a device": (b"linelist: /dev/zero\n", "missing, or no regular file"),
    "a long name": (b"img: " + b"x" * 5000 + b"\n", "missing, or no regular file"),
    "escape codes": (b'img: "\\e[31m.tsv"\n', r"\\x1b\[31m.tsv: missing, or no regular file"),
    "a zero byte": (b'img: "a\\0b"\n', r"a\\x00b: missing, or no regular file"),
    "no yaml": (b"\x00\x01", "broken yaml"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_YAMLS)
def test_a_yaml_of_another_kind_is_one_sentence_and_nothing_is_written(kind, tmp_path):
    text, message = BAD_YAMLS[kind]
    path = write_by_hand(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.img.lineidx").write_bytes(b"0\n")
    rest = [x for x in path.read_bytes().split(b"\n") if x[: x.find(b":") + 1] not in text]
    path.write_bytes(text + b"\n".join(rest if text[:1].isalpha() else []))
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        TsvDataset(path)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}


BAD_NUMBERS = {
    "400 digits": b"0\n" + b"9" * 400 + b"\n",
    "5000 digits": b"9" * 5000,
    "20 digits": b"99999999999999999999\n",
    "negative": b"0\n-1\n",
    "fraction": b"0.5\n",
    "three columns": b"0\t1\t2\n",
    "one in two columns": b"0\t1\n2\n0\t0\n1\t1\n3",
    "two in one column": b"0\n0\t1\n",
    "nan": b"nan\n",
    "no text": b"\xff\xfe\x1b[31m",
    "zeros": bytes(100),
}


@pytest.mark.parametrize("kind", BAD_NUMBERS)
def test_a_linelist_of_other_things_is_one_sentence(kind, tmp_path):
    path = write_by_hand(tmp_path)
    (tmp_path / "a.linelist.tsv").write_bytes(BAD_NUMBERS[kind])
    with pytest.raises(
        ValueError, match="linelist.tsv holds more than row numbers: line "
    ) as caught:
        TsvDataset(path)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


@pytest.mark.parametrize("kind", BAD_NUMBERS)
def test_a_file_that_is_no_index_is_left_alone(kind, tmp_path, caplog):
    path = write_by_hand(tmp_path)
    index = tmp_path / "a.label.lineidx"
    index.write_bytes(BAD_NUMBERS[kind])
    with caplog.at_level(logging.WARNING):
        assert [TsvDataset(path).label(i)["n"] for i in range(3)] == [2, 0, 1]
    assert index.read_bytes() == BAD_NUMBERS[kind]
    assert "Rows of a.label.tsv are counted instead." in caplog.text


def test_an_index_named_as_table_is_never_overwritten(tmp_path):
    index = tmp_path / "a.lineidx"
    index.write_bytes(b"k\tv\nk\tw\n")
    assert len(TsvFile(index)) == 2 and index.read_bytes() == b"k\tv\nk\tw\n"
    (tmp_path / "b.tsv").write_bytes(b"k\tv\n")
    (tmp_path / "b.lineidx").symlink_to("b.tsv")
    assert len(TsvFile(tmp_path / "b.tsv")) == 1 and (tmp_path / "b.lineidx").is_symlink()


@pytest.mark.parametrize("size", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_rows_are_found_across_chunks(size, monkeypatch):
    monkeypatch.setattr(tsv_file, "CHUNK", 2**16)
    content = np.random.default_rng(size).choice([10, 10, 65], size).astype(np.uint8).tobytes()
    starts = [0, *(i + 1 for i, byte in enumerate(content) if byte == 10)]
    assert tsv_file.find_rows(content).tolist() == [start for start in starts if start < size]
    assert tsv_file.find_rows(b"\n" * size).tolist() == list(range(size))


DEEP = b"[" * 100_000 + b"]" * 100_000
BAD_SIZES = [
    b'[{"height": 9' + b"9" * 400 + b', "width": 3}]', b"9" * 400 + b" 3", b"9" * 5000 + b" 1",
    b'[{"height": -1, "width": 3}]', b"-1 3", b'[{"height": 1.5, "width": 3}]', b"1.5 3",
    b'[{"height": true, "width": 3}]', b'[{"height": "5", "width": 3}]', b'{"height": 3}', b"[]",
    b"[5]", b"7", b"1 2 3", DEEP, b"[" * 900 + b"]" * 900, b"\xff 3", b"NaN NaN",
    b'{"height": NaN, "width": 3}', b"",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD_SIZES)))
def test_a_size_of_another_kind_is_named_by_file_and_row(number, tmp_path):
    path = write_by_hand(tmp_path)
    replace_row(tmp_path / "a.hw.tsv", 1, b"k1\t" + BAD_SIZES[number])
    with pytest.raises(
        BadSampleError, match=r"a\.hw\.tsv row 1: no height and width in "
    ) as caught:
        TsvDataset(path).size(2)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


BAD_LABELS = [
    DEEP, b'{"a":' * 100_000, b'[{"n": ' + b"9" * 5000 + b"}]", b'[{"n": 1, "n": 2}]',
    "[{}]".encode("utf-16-le"), b'[{"n": "\xff"}]', b"[[{}]]", b"nan", b" " * 2**21,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD_LABELS)))
def test_a_label_of_another_kind_is_named_by_file_and_row(number, tmp_path):
    path = write_by_hand(tmp_path)
    replace_row(tmp_path / "a.label.tsv", 1, b"k1\t" + BAD_LABELS[number])
    with pytest.raises(BadSampleError, match=r"a\.label\.tsv row 1: ") as caught:
        TsvDataset(path).label(2)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_an_endless_image_or_key_is_not_read(tmp_path, monkeypatch):
    path = write_by_hand(tmp_path)
    monkeypatch.setattr(tsv, "MAX_IMAGE", 2**16)
    replace_row(tmp_path / "a.img.tsv", 1, b"k1\t" + b"A" * 2**17)
    with pytest.raises(BadSampleError, match="row 1: its value has 131,072 bytes, more than"):
        TsvDataset(path).image_bytes(2)
    replace_row(tmp_path / "a.img.tsv", 1, b"k" * 2**17 + b"\tA")
    assert len(TsvDataset(path).key(2)) == tsv_file.MAX_KEY


def test_tables_that_go_while_they_are_read_are_one_sentence(tmp_path):
    path = write_random_set(tmp_path / "train.yaml")
    data = TsvDataset(path)
    write_random_set(path, 2, seed=1)
    with pytest.raises(FileNotFoundError, match="is gone: was the data set written anew"):
        data.label(0)


@pytest.mark.parametrize("key", ["a\tb", "a\nb", "a\rb", "a\x1b[31mb", "a\udcffb", "a\u2028b"])
def test_a_key_with_a_sign_of_control_is_refused(key, tmp_path):
    with pytest.raises(ValueError, match="The key .* holds a tab, a line break or"):  # noqa: SIM117
        with TsvWriter(tmp_path / "x.yaml") as writer:
            writer.add(key, IMAGES[0], (24, 32), {})
    assert not list(tmp_path.iterdir())

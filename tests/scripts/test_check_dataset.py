import os
import subprocess

import cv2
import numpy as np
import pytest

from scripts import check_dataset, link_data
from smpler.utils.paths import ROOT, datasets_root
from tests.support.tsv_data import replace_row, table, write_random_set


def test_a_good_set_is_counted_and_drawn(tmp_path, capsys):
    path = write_random_set(tmp_path / "train.yaml", 5, has_3d_joints=0)
    sheet = tmp_path / "sheet.png"
    assert check_dataset.main([str(path), "--sheet", str(sheet), "--num", "3"]) == 0
    printed = capsys.readouterr().out
    for part in ("5 samples of 1 source", "2D 5, 3D 0, SMPL 5", "5 female", "broken rows: 0"):
        assert part in printed, printed
    assert "crop side [px]: 320 to 320" in printed
    assert cv2.imread(str(sheet)).shape == (224, 3 * 224, 3)


def test_keypoints_at_the_end_of_the_world_are_not_drawn(tmp_path):
    path = write_random_set(tmp_path / "train.yaml", 2)
    for value in (1e5, 1e38):
        write_random_set(path, 2, **{"2d_joints": [[value, -value, 1.0]] * 24})
        assert check_dataset.main([str(path), "--sheet", str(tmp_path / "sheet.png")]) == 0


def test_broken_rows_are_named_by_file_and_row(tmp_path, capsys):
    path = write_random_set(tmp_path / "train.yaml", 5)
    replace_row(table(path, "label"), 1, b"k\t[{")
    replace_row(table(path, "img"), 3, b"k\t/9j/4AAQ")
    assert check_dataset.main([str(path), "--num_workers", "2"]) == 1
    printed = capsys.readouterr().out
    assert "broken rows: 2" in printed
    assert "/label.tsv row 1: broken JSON" in printed
    assert "/img.tsv row 3: the image is cut off" in printed


def test_suspicious_labels_are_reported(tmp_path, capsys):
    upright = [np.pi, 0, 0] + [0] * 69
    path = write_random_set(tmp_path / "good.yaml", 3, pose=upright, has_3d_joints=0)
    check_dataset.main([str(path)])
    assert "look:" not in capsys.readouterr().out
    path = write_random_set(
        tmp_path / "bad.yaml", 3, pose=[0] * 72, center=[5000, 5000], has_3d_joints=0
    )
    replace_row(table(path, "hw"), 0, b"other\t1 1")
    rows = table(path, "label").read_bytes().split(b"\n")
    replace_row(table(path, "label"), 0, rows[0].replace(b"bad/0", b"bad/1"))
    check_dataset.main([str(path)])
    printed = capsys.readouterr().out
    assert "look: 3 of 3 have the head below the ankles or the trunk upside down" in printed
    assert "look: 3 of 3 have less than half of their keypoints inside the crop" in printed
    assert "look: 3 of 3 show nothing" in printed
    assert "look: 1 of 3 have another key" in printed


def test_a_missing_set_ends_in_one_line(tmp_path, capsys):
    assert check_dataset.main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml is missing" in capsys.readouterr().err


@pytest.fixture
def places(tmp_path, monkeypatch):
    store, root = tmp_path / "store", tmp_path / "root"
    for name in ("human3.6m", "3dpw", "unrelated"):
        (store / name).mkdir(parents=True)
    monkeypatch.setenv("SMPLER_DATASETS", str(root))
    assert datasets_root() == root
    return store, root


def test_known_folders_are_linked_and_missing_ones_listed(places, capsys):
    store, root = places
    for repetition in range(2):
        assert link_data.main([str(store)]) == 1
        printed = capsys.readouterr().out
        assert printed.count("missing: ") == len(link_data.KNOWN) - 2
        assert ("already linked" in printed) == (repetition == 1)
    assert {path.name for path in root.iterdir()} == {"human3.6m", "3dpw"}
    assert (root / "3dpw").resolve() == (store / "3dpw").resolve()


def test_links_are_renewed_and_folders_kept(places, tmp_path):
    store, root = places
    (root / "3dpw").mkdir(parents=True)
    (root / "human3.6m").symlink_to(tmp_path / "gone")
    link_data.main([str(store)])
    assert not (root / "3dpw").is_symlink()
    assert (root / "human3.6m").resolve() == (store / "human3.6m").resolve()


def test_nothing_is_ever_nested(places, capsys):
    _, root = places
    (root / "inner").mkdir(parents=True)
    for store in (root, root / "inner", root.parent):
        assert link_data.main([str(store)]) == 2
        assert "lie in one another" in capsys.readouterr().err
    assert link_data.main(["/nowhere"]) == 2


def download(tool: str, folder, body: str, *names: str) -> subprocess.CompletedProcess:
    """Run a download script with a stand-in for wget or azcopy."""
    fake = folder / "bin" / tool
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f"#!/bin/sh\n{body}\n")
    fake.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{fake.parent}:{os.environ['PATH']}",
        "SMPLER_DATASETS": str(folder / "data"),
        "SMPLER_DOWNLOAD_DELAY": "0",
    }
    script = ROOT / f"scripts/download_datasets_{tool}.sh"
    return subprocess.run(
        ["bash", script, *names], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("tool", ["wget", "azcopy"])
def test_a_dead_host_is_reported_with_advice(tool, tmp_path):
    done = download(tool, tmp_path, "exit 8", "3dpw")
    assert done.returncode == 1
    assert "409 Public access is not permitted" in done.stderr
    assert "3dpw.tar was not downloaded. See datasets/README.md" in done.stderr


@pytest.mark.parametrize("tool", ["wget", "azcopy"])
def test_what_is_downloaded_is_unpacked_once(tool, tmp_path):
    body = (
        'case "$*" in *human3.6m.tar*) ;; *) exit 9 ;; esac\n'
        'mkdir -p "$SMPLER_DATASETS/human3.6m.source/human3.6m" && cd "$SMPLER_DATASETS" &&\n'
        "echo x > human3.6m.source/human3.6m/valid.yaml &&\n"
        "tar -cf human3.6m.tar -C human3.6m.source human3.6m && rm -r human3.6m.source"
    )
    done = download(tool, tmp_path, body, "human3.6m")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["human3.6m"]
    assert (tmp_path / "data/human3.6m/valid.yaml").is_file()
    done = download(tool, tmp_path, "exit 8", "human3.6m")
    assert done.returncode == 0 and "there already" in done.stdout

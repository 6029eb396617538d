"""Many photos and clips: batches, shares of processes, what is done already, wrong flags."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from smpler import clips, command, stills
from smpler.models.predictor import Predictor
from smpler.utils.image import read_image, write_image
from smpler.utils.paths import SAMPLES
from smpler.video.drawing import encode


def run(*arguments):
    return command.demo([str(x) for x in arguments])


@pytest.fixture
def folder(tmp_path):
    """Two photos and a clip of three frames, all of one woman."""
    photo = read_image(SAMPLES / "im01.png")
    small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        write_image(folder / f"{name}.png", small)
    with open(folder / "c.mp4", "wb") as file:
        encode([small] * 3, 6.0, file)
    return folder


def test_a_folder_of_photos_and_clips_is_done_once(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(folder, "--out_dir", out, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split(":")[0]).name for line in lines] == ["a.png", "b.png", "c.mp4"]
    assert "1 person: 1 from 0.0 to 0.5 s, quality" in lines[2], lines
    names = {path.name for path in out.iterdir()}
    assert {"a_0.npz", "b_out.png", "c_track1.npz", "c_track1.bvh", "c.glb", "c_out.mp4"} <= names
    with np.load(out / "c_track1.npz") as track, np.load(out / "a_0.npz") as photo:
        assert track["frames"].tolist() == [0, 1, 2]
        joints = track["joints_2d"][1] - photo["joints_2d"]
        assert np.linalg.norm(joints, axis=1).max() < 0.1 * photo["box"][3]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(folder, "--out_dir", out, "--device", "cpu", "--skip_done") == 0
    assert capsys.readouterr().out.count("done before") == 3
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def test_people_of_several_photos_are_estimated_together_with_the_same_results(
    folder, tmp_path, monkeypatch
):
    together = []
    results = Predictor.results

    def counted(self, found):
        if found:
            together.append(len(found))
        return results(self, found)

    monkeypatch.setattr(Predictor, "results", counted)
    photos = [folder / "a.png", folder / "b.png"]
    assert run(*photos, "--out_dir", tmp_path / "both", "--device", "cpu") == 0
    assert run(*photos, "--out_dir", tmp_path / "one", "--device", "cpu", "--batch", 1) == 0
    assert together == [2, 1, 1]
    for name in ("a_0", "b_0"):
        both, one = (np.load(tmp_path / x / f"{name}.npz") for x in ("both", "one"))
        assert np.abs(both["joints_3d"] - one["joints_3d"]).max() < 1e-3
        assert np.abs(both["joints_2d"] - one["joints_2d"]).max() < 0.5


def test_a_bad_photo_does_not_take_those_of_its_batch_along(folder, tmp_path, capsys):
    (folder / "b.png").write_bytes(b"damaged")
    photos = [folder / "a.png", folder / "b.png", SAMPLES / "im01.png"]
    assert run(*photos, "--out_dir", tmp_path / "out", "--device", "cpu") == 2
    printed = capsys.readouterr()
    assert "a.png: 1 person" in printed.out and "im01.png: 1 person" in printed.out
    assert "b.png" in printed.err and "1 of 3 photos were not done." in printed.err


def test_large_photos_do_not_wait_for_a_batch(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stills, "MAX_WAITING", 1000)
    together = []
    monkeypatch.setattr(
        Predictor, "results", lambda self, found: together.append(len(found)) or [[] for _ in found]
    )
    assert run(folder / "a.png", folder / "b.png", "--out_dir", tmp_path, "--device", "cpu") == 0
    assert [n for n in together if n] == [1, 1]


def test_each_process_has_its_share_and_together_they_have_all(folder, monkeypatch):
    shares = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        jobs = command.find_jobs(command.parse_arguments([str(folder)]))
        shares.append([job.name for job in jobs])
    assert shares == [["a", "c"], ["b"]]
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.device_count", lambda: 2)
        assert str(command.choose_device("cuda")) == "cuda:1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--start", "3", "--stop", "2"), "--stop 2 is not after --start 3"),
        (("--every", "0"), "'0' is not a whole number from 1"),
        (("--fps", "0"), "'0' is not from 0.1 to 1000 frames a second"),
        (("--webcam", "0", "x.png"), "--webcam takes its own pictures"),
        (("--webcam", "0", "--resume"), "--webcam records anew"),
        (("--batch", "0"), "'0' is not a whole number from 1"),
    ],
)
def test_wrong_flags_are_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


def test_flags_of_clips_without_a_clip_are_refused(folder, tmp_path, capsys):
    assert run(folder / "a.png", "--meshes", "--out_dir", tmp_path) == 2
    assert "--meshes is for clips, but no video" in capsys.readouterr().err
    assert run(folder / "c.mp4", "--bbox", "1,2,30,40", "--out_dir", tmp_path) == 2
    assert "--bbox is for photos" in capsys.readouterr().err


def test_a_broken_clip_is_one_sentence_and_the_others_are_done(folder, tmp_path, capsys):
    content = (folder / "c.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(content[:200])
    clips_only = [folder / "broken.mp4", folder / "c.mp4"]
    assert run(*clips_only, "--out_dir", tmp_path / "out", "--device", "cpu") == 2
    printed = capsys.readouterr()
    assert "broken.mp4: no frame of this video can be read" in printed.err
    assert "c.mp4: 1 person" in printed.out and "1 of 2 photos and clips" in printed.err


def test_a_folder_with_a_frame_rate_is_one_clip(folder, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        shutil.copy(folder / "a.png", frames / f"{number}.png")
    jobs = command.find_jobs(command.parse_arguments([str(frames), "--fps", "6"]))
    assert [(job.name, job.is_clip) for job in jobs] == [("frames", True)]


def test_ctrl_c_says_how_to_go_on(folder, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(clips, "process_clip", stopped)
    assert run(folder / "c.mp4", "--out_dir", tmp_path / "out", "--device", "cpu") == 2
    assert "c.mp4: stopped; the same command with --resume goes on" in capsys.readouterr().err

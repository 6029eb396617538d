"""A clip from beginning to end: what is written, and that a run that broke off can go on."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from smpler.models.detectors.shipped import Detectors
from smpler.models.predictor import Predictor
from smpler.utils.image import write_image
from smpler.video import clip as module
from smpler.video import drawing, watch
from smpler.video.clip import ClipOptions, process_clip
from smpler.video.reader import Part, open_folder
from tests.support.tiny_model import tiny_model
from tests.video.stage import PICTURE, Stage, to_the_left, to_the_right

COUNT = 24
PLAIN = ClipOptions()
SHORT = ClipOptions(part=Part(stop=0.2))


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames") / "street"
    folder.mkdir()
    for number in range(COUNT):
        write_image(folder / f"{number:03d}.png", PICTURE)
    return folder


class Filmed(Stage):
    """A stage whose time goes on with each frame that is read."""

    def watch(self, monkeypatch):
        read = module.used_frames

        def counted(*arguments, **more):
            for frame in read(*arguments, **more):
                self.time = frame.time
                yield frame

        monkeypatch.setattr(watch, "used_frames", counted)
        monkeypatch.setattr(watch, "read_ahead", iter)


def predictor_on(stage, monkeypatch):
    stage.watch(monkeypatch)
    return Predictor(tiny_model(monkeypatch), stage, stage)


def run(frames, folder, monkeypatch, *ways, options=PLAIN, progress=lambda *_: None):
    predictor = predictor_on(Filmed(*(ways or (to_the_right, to_the_left))), monkeypatch)
    clip = open_folder(frames, 30.0)
    return process_clip(clip, predictor, folder, "street", options, progress)


def test_everybody_has_files_and_all_have_one_scene_and_one_video(frames, tmp_path, monkeypatch):
    result = run(frames, tmp_path / "out", monkeypatch)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    people = [f"street_track{n}.{kind}" for n in (1, 2) for kind in ("bvh", "npz")]
    assert names == sorted(["street.glb", "street_out.mp4", *people])
    assert sorted(path.name for path in result.written) == names
    with np.load(tmp_path / "out" / "street_track2.npz") as track:
        assert track["frames"].tolist() == list(range(COUNT))
        assert track["is_seen"].all() and track["betas"].shape == (10,)
        assert set(track["fit"].tolist()) == {"off"}  # as the predictor does not fit
        assert str(track["video"]) == "street" and track["fps"] == 30
        assert {"poses", "trans", "gender", "mocap_framerate"} <= set(track.files)
        hips = track["box"][:, 0] + track["box"][:, 2] / 2
    assert np.all(np.diff(hips) < 0)  # the second one goes to the left
    assert not result.notes


def test_a_predictor_that_fits_brings_motions_onto_the_landmarks(frames, tmp_path, monkeypatch):
    predictor = predictor_on(Filmed(to_the_right), monkeypatch)
    predictor.fit, predictor.lift = True, False
    options = ClipOptions(Part(stop=0.3), video=False)
    (track,) = process_clip(open_folder(frames, 30.0), predictor, tmp_path, None, options).tracks
    assert set(track.fit) <= {"applied", "refused"} and track.joints_std is None


def test_a_clip_asks_for_the_landmarks_of_clips(frames, tmp_path, monkeypatch):
    asked = []
    landmarks = Detectors.landmarks

    def spied(self, quick=False):
        asked.append(quick)
        return landmarks(self, quick)

    monkeypatch.setattr(Detectors, "landmarks", spied)
    predictor = predictor_on(Filmed(to_the_right), monkeypatch)
    predictor.fit, predictor.lift = True, False
    process_clip(open_folder(frames, 30.0), predictor, tmp_path, None, replace(SHORT, video=False))
    assert asked and all(asked)


def test_a_run_with_another_landmark_network_is_another_run(frames, monkeypatch):
    clip, model = open_folder(frames, 30.0), tiny_model(monkeypatch)
    view = module.View("street", (100, 100), 30.0, 140.0, "diagonal")
    default, full, heavy = (
        module._identity(clip, Predictor(model, landmarks=size), view, PLAIN)
        for size in (None, "full", "heavy")
    )
    assert default == full != heavy


def test_a_broken_run_goes_on_to_the_same_result(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "CHUNK", 8)
    monkeypatch.setattr(drawing, "SEGMENT", 8)
    run(frames, tmp_path / "whole", monkeypatch)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}

    class Killed(BaseException):
        pass

    for stage, stop in (("looking", 19), ("drawing", 17)):
        seen = []

        def progress(name, done, total, stage=stage, stop=stop):
            if (name, done) == (stage, stop):
                raise Killed

        folder = tmp_path / f"{stage}{stop}"
        with pytest.raises(Killed):
            run(frames, folder, monkeypatch, progress=progress)
        looked = module.watch

        def counted(*arguments, looked=looked, seen=seen):
            for frame, people in looked(*arguments):
                seen.append(frame is not None)
                yield frame, people

        with monkeypatch.context() as patch:
            patch.setattr(module, "watch", counted)
            run(frames, folder, monkeypatch, options=ClipOptions(resume=True))
        known = {"looking": 16, "drawing": 24}[stage]
        assert seen.count(False) == known and len(seen) == COUNT
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert found == expected, (stage, stop)


def test_what_another_run_left_is_not_gone_on_with(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "CHUNK", 8)
    options = ClipOptions(video=False)
    run(frames, tmp_path, monkeypatch, options=options, progress=stop_at("looking", 20))
    other = ClipOptions(part=Part(every=2), video=False, resume=True)
    result = run(frames, tmp_path, monkeypatch, options=other)
    assert [len(track.frames) for track in result.tracks] == [12, 12]


def stop_at(stage, number):
    """Leave a run behind as a kill would."""

    def progress(name, done, _):
        if (name, done) == (stage, number):
            raise KeyboardInterrupt

    return progress


@pytest.fixture(autouse=True)
def _interrupted(monkeypatch):
    """A run that is stopped returns nothing."""
    plain = process_clip

    def caught(*arguments):
        try:
            return plain(*arguments)
        except KeyboardInterrupt:
            return None

    monkeypatch.setattr(sys.modules[__name__], "process_clip", caught)


def test_meshes_are_written_when_they_are_asked_for(frames, tmp_path, monkeypatch):
    options = ClipOptions(part=Part(stop=0.4), meshes=True, video=False)
    run(frames, tmp_path, monkeypatch, options=options)
    with np.load(tmp_path / "street_track1.npz") as track:
        assert track["vertices"].shape == (12, 20, 3) and track["faces"].ndim == 2


def test_of_many_people_those_who_are_seen_most_of_are_kept(frames, tmp_path, monkeypatch):
    def passing(time):
        return (450, 60) if 0.1 <= time else None

    options = ClipOptions(Part(stop=0.4), max_people=2, video=False)
    ways = (to_the_right, to_the_left, passing)
    result = run(frames, tmp_path, monkeypatch, *ways, options=options)
    assert [len(track.frames) for track in result.tracks] == [12, 12]
    options = replace(options, max_people=20)
    assert len(run(frames, tmp_path, monkeypatch, *ways, options=options).tracks) == 3


def test_someone_who_is_hardly_seen_is_nobody_and_nobody_leaves_no_files(
    frames, tmp_path, monkeypatch
):
    def glimpse(time):
        return (450, 200) if 0.3 <= time < 0.5 else None

    with pytest.warns(UserWarning, match="street: nobody was found"):
        result = run(frames, tmp_path, monkeypatch, glimpse)
    assert result.tracks == [] and list(tmp_path.iterdir()) == []


def test_without_pyav_the_numbers_are_written_and_a_sentence_says_so(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "can_encode", lambda: False)
    result = run(frames, tmp_path, monkeypatch, options=SHORT)
    (note,) = result.notes
    assert "PyAV is not installed" in note and "--resume" in note
    assert (tmp_path / "street_track1.npz").is_file() and not list(tmp_path.glob("*.mp4"))
    monkeypatch.setattr(module, "can_encode", lambda: True)
    run(frames, tmp_path, monkeypatch, options=replace(SHORT, resume=True))
    assert (tmp_path / "street_out.mp4").is_file() and not (tmp_path / "street_work").exists()


def test_a_part_without_frames_is_refused(frames, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="street: no frame lies between --start 9 and --stop the"):
        run(frames, tmp_path, monkeypatch, options=ClipOptions(part=Part(start=9.0)))


def test_chunks_say_what_they_depend_on(frames, tmp_path, monkeypatch):
    run(frames, tmp_path, monkeypatch, options=SHORT, progress=stop_at("moving", 1))
    with np.load(tmp_path / "street_work" / "seen_00000.npz") as chunk:
        identity = json.loads(str(chunk["identity"]))
    assert identity["clip"] == "street" and identity["fps"] == 30

"""Each writer, killed at each of its operations on files, and with a full disk at each write."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smpler.apps.results import find_results
from smpler.models.weights.quantized import read_quantized, write_quantized
from smpler.training.checkpoint import load_checkpoint, save_atomically
from smpler.training.report import Evaluation
from smpler.utils.drawing.visualize import palette
from smpler.utils.export import PersonResult, save_people
from smpler.utils.files.whole import write_bytes_whole, write_whole
from smpler.utils.image import PngWriter, read_image
from smpler.video.drawing import encode
from smpler.video.reader import open_video
from smpler.video.track_result import save_tracks
from tests.fuzz.faults import Files, files_of, full_disks, kills, lay
from tests.support.clips import walking_track
from tests.support.results import made_person, person_arrays

Write = Callable[[Path, int], object]
"""Writes version 0 or 1 into a folder."""


def person(number: int, version: int) -> PersonResult:
    arrays = {key: value for key, value in person_arrays(version).items() if value.ndim}
    fields = ("image_size", "translation", "vertices", "faces", "joints_3d")
    changes = {name: arrays[name] for name in fields}
    absent = dict.fromkeys(("joints_std", "keypoints_3d", "keypoints_2d"))
    return made_person(version, image="photo.png", person=number, **changes, **absent)


def photo_results(folder: Path, version: int) -> None:
    """Two people at first, then one."""
    photo = np.full((12, 16, 3), 40 + version, np.uint8)
    people = [person(number, version) for number in range(2 - version)]
    save_people(people, photo, folder, "photo")


def clip_results(tiny_body) -> Write:
    def write(folder: Path, version: int) -> None:
        tracks = [
            replace(walking_track(tiny_body, 3, track=number), quality=np.full(3, 0.1 * version))
            for number in range(1, 3 - version)
        ]
        rigs = [tiny_body.rig(track.betas) for track in tracks]
        save_tracks(folder, "clip", tracks, rigs, palette(len(tracks)))
        if version == 0:
            write_bytes_whole(folder / "clip_out.mp4", b"a video")

    return write


def released_weights(folder: Path, version: int) -> None:
    state = {"a": torch.full((40, 40), 1.0 + version), "b": torch.zeros(3)}
    write_quantized(folder / "weights.safetensors", state, {"config": {"version": version}})


def checkpoint(folder: Path, version: int) -> None:
    content = {"model": {"a": torch.full((40, 40), 1.0 + version)}, "step": version}
    save_atomically(content, folder / "last.pt", folder / f"epoch_{version:03d}.pt")


def evaluation(folder: Path, version: int) -> None:
    count = 3 + version
    errors = {
        "index": np.arange(count),
        "key": np.array([f"image {number}" for number in range(count)]),
        "is_finite": np.ones(count, bool),
        "mpjpe": np.full(count, 0.1 * (1 + version)),
    }
    measured = {f"has_{name}": np.ones(count, bool) for name in ("keypoints_3d", "smpl")}
    protocol = {"name": "3dpw", "rule": "all"}
    Evaluation(errors | measured, protocol, {"weights": "w"}).save(folder, "eval")
    if version == 0:
        write_bytes_whole(folder / "eval_worst.png", b"a picture")


def picture(folder: Path, version: int) -> None:
    with PngWriter(folder / "large.png", 5, 40) as writer:
        for strip in range(4):
            writer.write(np.full((10, 5, 3), strip + version, np.uint8))


def read_people(folder: Path) -> None:
    if (folder / "photo_0.npz").is_file():
        find_results([folder / "photo"])
    if (folder / "photo_out.png").is_file():
        assert read_image(folder / "photo_out.png").shape == (12, 32, 3)


def read_clip(folder: Path) -> None:
    if (folder / "clip_track1.npz").is_file():
        find_results([folder / "clip"])


WRITERS = {
    "photo": (photo_results, "photo_out.png", read_people),
    "clip": (None, "clip.glb", read_clip),
    "evaluation": (evaluation, "eval.json", lambda folder: None),
    "weights": (
        released_weights,
        None,
        lambda folder: read_quantized(folder / "weights.safetensors"),
    ),
    "checkpoint": (checkpoint, None, lambda folder: load_checkpoint(folder / "last.pt")),
    "picture": (picture, None, lambda folder: read_image(folder / "large.png")),
}
"""Name -> writer; the file by which its set of files is judged, None if each counts for itself; a
reader of what is there."""


def same(found: Files, expected: Files) -> bool:
    """Compare files; safetensors writes a header's entries in any order."""
    both = [
        {name: sorted(x[name]) if name.endswith(".safetensors") else x[name] for name in x}
        for x in (found, expected)
    ]
    return both[0] == both[1]


@pytest.fixture(params=WRITERS)
def prepared(request, tmp_path, tiny_body, monkeypatch):
    """A folder with version 0, the writer of version 1, its check, and the full sets of files."""
    write, mark, read = WRITERS[request.param]
    write = write or clip_results(tiny_body)
    sets = []
    side = np.zeros((3, 3, 3), np.uint8)  # drawing is not what is tested
    monkeypatch.setattr("smpler.utils.export.side_view", lambda *_, **__: side)
    monkeypatch.setattr("smpler.utils.drawing.overlay.draw_bodies", lambda photo, *_: photo)
    for version in (0, 1):
        lay(tmp_path / "results", {})
        write(tmp_path / "results", version)
        sets.append(files_of(tmp_path / "results"))
    lay(tmp_path / "results", sets[0])
    old, new = sets
    if mark is None:  # what is not of the set stays
        new = old | new

    known = set()

    def check(found: Files) -> None:
        for name, content in found.items():
            fits = any(same({name: content}, {name: x[name]}) for x in (old, new) if name in x)
            assert fits, f"{name} is neither old nor new"
        if mark is not None:
            is_old, is_new = (
                all(x.get(name) == content for name, content in found.items()) for x in sets
            )
            assert is_old or is_new, f"old and new ones are mixed: {sorted(found)}"
            if mark in found:
                assert found in sets, f"{mark} stands beside {sorted(found)}"
        if (state := frozenset(found.items())) not in known:
            known.add(state)
            read(tmp_path / "results")

    return tmp_path / "results", lambda: write(tmp_path / "results", 1), check, new


def test_a_kill_leaves_old_or_new_files_and_never_both(prepared):
    folder, write, check, new = prepared
    count = kills(folder, write, check, in_children=False)
    assert same(files_of(folder), new) and count >= 4, count
    print(f"{count} kills")


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_behind_that_the_next_does_not_clear(prepared):
    folder, write, check, new = prepared
    count = kills(folder, write, check, in_children=True)
    assert same(files_of(folder), new) and count >= 4, count
    print(f"{count} killed processes")


@pytest.mark.parametrize(
    "every_write", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["first", "every"]
)
def test_a_full_disk_is_a_sentence_and_the_older_files_live(every_write, prepared):
    folder, write, _, new = prepared
    count = full_disks(folder, write, every_write)
    assert same(files_of(folder), new) and count >= 3, count
    print(f"{count} full disks")


def test_a_full_disk_in_a_video_is_a_sentence_and_the_older_video_lives(tmp_path):
    pictures = [np.full((32, 48, 3), 20 * number, np.uint8) for number in range(3)]
    lay(tmp_path / "clip", {"out.mp4": b"older"})

    def write() -> None:
        write_whole(tmp_path / "clip" / "out.mp4", lambda file: encode(pictures, 10.0, file))

    count = full_disks(tmp_path / "clip", write)
    assert open_video(tmp_path / "clip" / "out.mp4").fps == 10 and count >= 3, count

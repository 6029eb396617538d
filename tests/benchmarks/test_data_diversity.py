import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks import data_diversity
from smpler.datasets.engine import stream as engine_stream
from smpler.models.body import open_body
from tests.support.standin_wardrobe import wardrobe


@pytest.fixture
def small_wardrobe(monkeypatch):
    clothes = wardrobe(open_body())
    monkeypatch.setattr(engine_stream, "load_wardrobe", lambda: clothes)


def test_the_benchmark_finds_different_people_and_draws_them(small_wardrobe, tmp_path):
    picture, numbers = tmp_path / "plot.png", tmp_path / "numbers.json"
    flags = ["--num=60", "--images=4", "--num_workers=0"]
    assert data_diversity.main([*flags, f"--out={picture}", f"--json={numbers}"]) == 0
    result = json.loads(numbers.read_text())
    assert result["samples"] == 60 and result["images"] == 4
    assert result["labels that occur twice"] == result["pictures that occur twice"] == 0
    assert 1.4 < result["height [m]"]["p5"] < result["height [m]"]["p95"] < 2.1
    assert 15 < result["BMI [kg/m2]"]["median"] < 35
    assert cv2.imread(str(picture)).std() > 10


def test_repeated_labels_and_pictures_are_counted():
    rng = np.random.default_rng(0)
    drawn = {
        "pose": rng.normal(0, 0.3, (6, 24, 3)),
        "betas": rng.normal(size=(6, 10)),
        "camera": rng.normal(size=(6, 4)),
    }
    fresh = data_diversity.uniqueness(drawn, np.array(list("abcdef")))
    assert fresh["labels that occur twice"] == fresh["pictures that occur twice"] == 0
    for values in drawn.values():
        values[5] = values[2]
    found = data_diversity.uniqueness(drawn, np.array(list("abcdea")))
    assert found["labels that occur twice"] == found["pictures that occur twice"] == 1
    assert found["rms angle between the two most alike poses [degrees]"] < 0.1


def test_heights_and_masses_are_those_of_the_mesh():
    body = open_body()
    measured = data_diversity.measure(body, np.zeros((1, 10)))
    assert measured["height"][0] == pytest.approx(np.ptp(body.v_template[:, 1]), abs=1e-6)
    corners = body.v_template[body.faces].astype(np.float64)
    volume = np.linalg.det(corners).sum() / 6
    mass = measured["bmi"][0] * measured["height"][0] ** 2
    assert mass == pytest.approx(data_diversity.DENSITY * volume, rel=1e-4)
    assert 45 < mass < 90


def test_the_nearest_pose_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    poses, others = rng.normal(0, 0.8, (5, 24, 3)), rng.normal(0, 0.8, (7, 24, 3))
    expected = []
    for pose in poses:
        gaps = []
        for other in others:
            joints = range(1, 24)  # the root, where the body leans, does not count
            turns = [
                Rotation.from_rotvec(pose[j]).inv() * Rotation.from_rotvec(other[j]) for j in joints
            ]
            gaps.append(np.sqrt(np.mean([turn.magnitude() ** 2 for turn in turns])))
        expected.append(np.rad2deg(min(gaps)))
    found = data_diversity.nearest_angle(poses, others)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    moved = others.copy()
    moved[:, 0] += 1
    assert data_diversity.nearest_angle(moved, others).max() < 0.1, "only the root differs"


def test_recorded_poses_are_covered_or_far_by_source(small_wardrobe, tmp_path, capsys):
    pose = np.zeros((4, 24, 3), np.float32)
    pose[:2, 1:, 0] = 2.0  # nobody can do that
    source = np.array(["odd", "odd", "odd", "upright"])
    np.savez(tmp_path / "poses.npz", pose=pose, source=source)
    drawn = np.zeros((3, 24, 3))
    result = data_diversity.coverage(*data_diversity.read_poses(tmp_path / "poses.npz"), drawn)
    assert list(result.values()) == pytest.approx([0.5, 2 / 3, 0], abs=1e-3), result
    flags = ["--num=4", "--images=1", "--num_workers=0", "--pose_version=1"]
    numbers = tmp_path / "numbers.json"
    poses = f"--poses={tmp_path / 'poses.npz'}"
    assert data_diversity.main([*flags, poses, f"--json={numbers}"]) == 0
    named = [name for name in json.loads(numbers.read_text()) if "recorded" in name]
    assert named == list(result), named
    np.savez(tmp_path / "bad.npz", other=pose)
    assert data_diversity.main([*flags, f"--poses={tmp_path / 'bad.npz'}"]) == 2
    assert "holds no recorded poses" in capsys.readouterr().err

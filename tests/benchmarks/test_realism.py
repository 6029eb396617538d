import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import realism
from benchmarks.judges.landmarks import LandmarkJudge, errors_in_torsos, pck, torso_length
from smpler.models.backbones.blazepose import INPUT_SIDE
from smpler.models.detectors import Landmarks
from smpler.models.detectors.landmarks import (
    CIRCLE,
    LANDMARK_NUMBERS,
    SEEN,
    SEEN_KEYPOINTS,
    view_matrix,
)
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import KEYPOINT_NAMES

SEEN_LANDMARKS = [LANDMARK_NUMBERS[name] for name in SEEN]
STANDING = {"Shoulder": (20, 60), "Elbow": (35, 95), "Wrist": (40, 125), "Hip": (12, 120)}
STANDING |= {"Knee": (14, 165), "Ankle": (15, 210)}

SEEN_LANDMARKS = [LANDMARK_NUMBERS[name] for name in SEEN]


def standing() -> np.ndarray:
    """(12, 2) pixels of someone who faces the camera: the left is at larger x."""
    side = {"L": 1, "R": -1}
    return np.array(
        [[112 + side[n[0]] * STANDING[n[2:]][0], STANDING[n[2:]][1]] for n in SEEN], float
    )


def sample(keypoints: np.ndarray, alone: bool = True, hidden: tuple = ()) -> dict:
    places = np.ones((14, 3), np.float32)
    places[SEEN_KEYPOINTS, :2] = keypoints / CROP_SIZE * 2 - 1
    visible = np.array([name not in hidden for name in KEYPOINT_NAMES])
    return {
        "image": torch.zeros(3, CROP_SIZE, CROP_SIZE),
        "keypoints_2d": torch.from_numpy(places),
        "visible": torch.from_numpy(visible),
        "alone": alone,
    }


def judge_that_says(keypoints: np.ndarray | None):
    person = None if keypoints is None else Landmarks(keypoints, np.ones(12), 1.0)
    return SimpleNamespace(
        follow=lambda image, hip, up, radius: person, find=lambda image, near: None
    )


def test_left_landmarks_are_odd_and_right_ones_follow():
    for name in SEEN:
        assert LANDMARK_NUMBERS[name] % 2 == (name[0] == "L"), name
    assert len(set(SEEN_LANDMARKS)) == 12 and max(SEEN_LANDMARKS) == 28


def test_the_view_is_centred_and_turned_upright():
    center, up, side = np.array([100.0, 50]), np.array([30.0, 0]), 80.0  # someone lying
    view = view_matrix(center, up, side)
    seen = view[:, :2] @ np.stack([center, center + [40, 0], center + [0, 40]]).T + view[:, 2:]
    middle = INPUT_SIDE / 2
    assert np.allclose(seen.T, [[middle, middle], [middle, 0], [INPUT_SIDE, middle]])


def test_landmarks_come_back_to_their_places_in_the_picture():
    """Each view is answered with the landmarks that really are there."""
    truth = np.random.default_rng(0).uniform(60, 160, (39, 2))
    views = []

    def run(crop):
        view = views[-1]
        values = np.zeros((39, 5))
        values[:, :2] = truth @ view[:, :2].T + view[:, 2]
        return values, 0.9

    def remember(*arguments):
        views.append(view_matrix(*arguments))
        return views[-1]

    judge = LandmarkJudge.__new__(LandmarkJudge)
    judge._run = run
    detection = SimpleNamespace(
        box=(0, 0, 150, 150), hip_center=(110, 120), shoulder_center=(100, 70)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smpler.models.detectors.landmarks.view_matrix", remember)
        person = judge.look(np.zeros((224, 224, 3), np.uint8), detection)
    assert np.allclose(person.keypoints, truth[SEEN_LANDMARKS], atol=1e-6)
    assert len(views) == 2
    second = views[1][:, :2] @ truth[CIRCLE] + views[1][:, 2]
    assert abs(second[0] - INPUT_SIDE / 2) < 1e-6, "the second view has the circle's point on top"


def test_errors_are_in_torso_lengths():
    labels = standing()
    torso = torso_length(labels)
    assert torso == pytest.approx(np.hypot(32, 60))
    moved = labels + [0.1 * torso, 0]
    moved[0] = labels[0] + [0, 0.3 * torso]
    errors = errors_in_torsos(Landmarks(moved, np.ones(12), 1.0), labels, CROP_SIZE)
    assert errors == pytest.approx([0.3] + [0.1] * 11)
    assert pck(errors[None], np.ones((1, 12), bool)) == pytest.approx(11 / 12)
    assert pck(errors[None], np.arange(12)[None] > 0) == 1


def test_a_torso_seen_from_above_does_not_shrink_to_nothing():
    labels = np.full((12, 2), 100.0)
    errors = errors_in_torsos(Landmarks(labels + [5, 0], np.ones(12), 1.0), labels, CROP_SIZE)
    assert errors == pytest.approx(np.full(12, 0.2))


def test_whom_the_judge_sees_elsewhere_is_not_found():
    labels = standing()
    near = realism.give_verdict(judge_that_says(labels + 4), sample(labels))
    far = realism.give_verdict(judge_that_says(labels + 100), sample(labels))
    assert near.errors.max() < 0.1 and far.errors is None
    assert realism.give_verdict(judge_that_says(None), sample(labels)).errors is None


def test_the_judge_gets_the_persons_place_and_detection_counts_apart():
    labels = standing()
    places = []
    judge = judge_that_says(labels)
    judge.follow = lambda image, *place: places.append(place)
    judge.find = lambda image, near: Landmarks(labels, np.ones(12), 1.0)
    verdict = realism.give_verdict(judge, sample(labels))
    assert verdict.errors is None and verdict.detected
    ((hip, up, radius),) = places
    assert np.allclose(hip, [112, 120]) and np.allclose(up, [0, -60])
    assert radius == pytest.approx(realism.REACH_BEYOND_JOINTS * np.hypot(15, 90)), radius
    result = realism.summarize([verdict])
    assert result["found"] == 0 and result["detected"] == 1


def test_shares_are_of_those_who_count():
    labels = standing()
    wrong = labels.copy()
    wrong[SEEN.index("L_Wrist")] += 60
    upside_down = labels * (1, -1) + (0, CROP_SIZE)
    verdicts = [
        realism.give_verdict(judge_that_says(said), crop)
        for said, crop in (
            (labels, sample(labels)),
            (wrong, sample(labels)),
            (None, sample(upside_down)),
            (None, sample(labels, alone=False)),
            (wrong, sample(labels, hidden=("L_Wrist",))),
        )
    ]
    result = realism.summarize(verdicts)
    assert [result[f"people{s}"] for s in ("", "_of_upright", "_of_all")] == [3, 2, 5]
    assert result["found"] == pytest.approx(2 / 3) and result["found_of_upright"] == 1
    assert result["found_of_all"] == pytest.approx(3 / 5)
    assert result["pck"] == pytest.approx(23 / 24) and result["pck_Wrist"] == pytest.approx(3 / 4)
    assert result["pck_of_all"] == pytest.approx(34 / 35), "a hidden wrist does not count"


def test_without_the_interpreter_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert realism.main(["--num", "1"]) == 2
    assert "requirements-assets.txt" in capsys.readouterr().err

"""Landmarks are found where people were estimated to be, and followed."""

import numpy as np
import pytest
import torch

from smpler.models import fitting
from smpler.models.detectors import Landmarks
from smpler.models.detectors.landmarks import SEEN, BlazePoseLandmarkDetector
from smpler.models.fitting import fit_to_photo, points_2d
from smpler.models.predictor import Predictor
from smpler.models.weights.checkpoint import load_model
from smpler.utils.image import CropWindow, read_image
from smpler.utils.joints import KEYPOINT_NAMES, SMPL_NAMES
from smpler.utils.paths import SAMPLES
from tests.support.samples import TORSO, WOMAN
from tests.support.standing import FITTED, smpl, standing

__all__ = ["smpl"]  # a fixture

JOINTS = [SMPL_NAMES.index(name) for name in SEEN]


@pytest.fixture(scope="module")
def detector() -> BlazePoseLandmarkDetector:
    return BlazePoseLandmarkDetector.load()


def test_landmarks_outside_the_photo_do_not_count(smpl, monkeypatch):
    before, given = standing(smpl, people=1), []
    detector = BlazePoseLandmarkDetector()
    places = np.full((15, 2), 100.0)
    places[[2, 13]] = [[-3.0, 50.0], [50.0, 224.0]]
    detector.find = lambda *_: Landmarks(places, np.ones(15), 1.0)

    def fit(smpl, estimate, evidence):
        given.append(evidence)
        return estimate

    monkeypatch.setattr(fitting, "fit_to_landmarks", fit)
    photo = np.zeros((224, 224, 3), np.uint8)
    fit_to_photo(smpl, before, photo, [CropWindow(0, 0, 224, 224)], detector)
    assert np.flatnonzero(given[0].weights[0] == 0).tolist() == [2, 13]


def test_who_is_not_found_stays_as_estimated(smpl):
    before = standing(smpl)
    detector = BlazePoseLandmarkDetector()
    detector.find = lambda *_: None
    window = CropWindow(0, 0, 224, 224)
    photo = np.zeros((224, 224, 3), np.uint8)
    after = fit_to_photo(smpl, before, photo, [window] * 2, detector)
    assert (after.vertices - before.vertices).abs().max() < 1e-6


def test_each_person_gets_their_own_landmarks(smpl):
    before = standing(smpl)
    windows = [CropWindow(0, 0, 224, 224), CropWindow(300, 50, 448, 448)]
    seen = []

    def find(photo, hip, up, radius):
        number = len(seen)
        seen.append((hip, up, radius))
        places = windows[number].to_photo(points_2d(before, FITTED)[number].numpy() + [0.1, 0])
        return Landmarks(places, np.ones(15), 1.0)

    detector = BlazePoseLandmarkDetector()
    detector.find = find
    photo = np.zeros((500, 800, 3), np.uint8)
    after = fit_to_photo(smpl, before, photo, windows, detector)
    moved = (after.joints_2d - before.joints_2d)[:, JOINTS].mean(dim=1)
    assert (moved - moved.new_tensor([0.1, 0])).abs().max() < 0.03, moved
    for (hip, up, radius), window in zip(seen, windows, strict=True):
        middle = np.array([window.x + window.width / 2, window.y + window.height / 2])
        assert np.abs(hip - middle).max() < 0.2 * window.width
        assert up[1] < 0 and 0.2 * window.width < radius < window.width


@pytest.mark.parametrize("inference", [True, False])
def test_the_released_model_and_the_fit_meet_a_walks_stride(detector, inference):
    """The network alone makes the stride half as wide."""
    photo, window = (
        read_image(SAMPLES / "im01.png"),
        CropWindow.for_box((160.0, 110.0, 250.0, 430.0)),
    )
    model, errors = load_model(), {}
    for landmarks in (None, detector):
        with torch.inference_mode(inference):
            predictor = Predictor(model, landmark_detector=landmarks, mirror=True)
            estimate = predictor.estimate(photo, [window])
        found = window.to_photo(estimate.keypoints_2d[0].double().numpy())
        errors[landmarks] = {
            name: np.linalg.norm(found[KEYPOINT_NAMES.index(name)] - place) / TORSO
            for name, place in WOMAN.items()
        }
    assert np.mean(list(errors[detector].values())) < 0.12, errors[detector]
    assert max(errors[detector].values()) < 0.25, errors[detector]
    assert np.mean(list(errors[None].values())) > 0.15, errors[None]

"""Accelerations of motions that are known in some frames only."""

import numpy as np
import pytest
import torch

from benchmarks.multiview.motion import Case, Truth, measured
from smpler.models.detectors.landmarks import SEEN
from smpler.video.person import Track

FPS, COUNT, FIRST = 60.0, 100, 7
HIPS = [SEEN.index(f"{side}_Hip") for side in "LR"]
KNOWN = {
    "all": np.arange(COUNT),
    "gaps": np.r_[0:29, 30:34, 35, 38, 40, 51, 55:57, 81, 86:88, 89:100],
}
"""The second: in which frames of the clip for choosing all joints are known."""


def moving(acceleration: float) -> torch.Tensor:
    """Someone whose hips start to walk, with this acceleration, and whose joints drift evenly."""
    random = np.random.default_rng(0)
    seconds = np.arange(COUNT)[:, None, None] / FPS
    start, speed = random.normal(size=(2, len(SEEN), 3))
    joints = start + speed * seconds
    joints -= joints[:, HIPS].mean(axis=1, keepdims=True)
    place = np.array([acceleration, 0, 0]) * seconds**2 / 2
    return torch.from_numpy(joints + place + np.array([0, 0, 5.0]))


def case(known: np.ndarray, joints: torch.Tensor) -> Case:
    """Someone whom a track has from frame FIRST on, and whose joints are known in some frames."""
    track = Track(np.arange(FIRST, FIRST + COUNT), np.ones(COUNT, bool), {})
    truth = Truth(known + FIRST, joints[known].numpy(), [])
    return Case(truth, track, None, None, FPS)


@pytest.mark.parametrize("known", KNOWN)
def test_a_steady_motion_has_its_own_acceleration_whatever_frames_are_known(known):
    joints = moving(3.0)
    numbers = measured([case(KNOWN[known], joints)], [joints])
    assert numbers["mpjpe"] < 1e-6, numbers
    assert abs(numbers["place"] - 3) < 1e-6, numbers
    assert numbers["acceleration"] < 1e-6, numbers
    for name in ("acceleration-error", "acceleration-true"):
        assert numbers[name] < 0.2, (name, numbers)  # the filter knows nothing beyond the ends


def test_frames_that_are_not_known_count_in_no_error():
    joints, known = moving(0.0), KNOWN["gaps"]
    found = joints.clone()
    found[np.setdiff1d(np.arange(COUNT), known)] += 1
    numbers = measured([case(known, joints)], [found])
    assert numbers["mpjpe"] < 1e-6 and numbers["place"] < 1e-6, numbers


def test_every_frame_of_all_cameras_counts_once():
    steady, shaking = moving(3.0), moving(3.0)
    shaking[:, :, 1] += torch.arange(COUNT)[:, None] % 2 / FPS**2  # 2 m/s^2 to and fro
    few = np.arange(27)  # 25 accelerations, beside 98
    numbers = measured([case(few, shaking), case(KNOWN["all"], steady)], [shaking, steady])
    expected = (25 * np.hypot(3, 2) + 98 * 3) / 123
    assert abs(numbers["place"] - expected) < 1e-6, numbers


def test_without_a_run_of_known_frames_nothing_is_measured():
    joints = moving(0.0)
    with pytest.raises(ValueError, match="10 frames in a row.* of the 50 known frames"):
        measured([case(np.arange(0, COUNT, 2), joints)], [joints])

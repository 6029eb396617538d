from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.upright import SETS, Subject, chosen, people_of, posture, to_landmarks
from smpler.models.body import open_body
from smpler.models.detectors import Detection
from smpler.models.fitting import Evidence, points_2d
from smpler.models.placement import Pinhole, place
from smpler.models.smpl import SMPL
from smpler.utils.image import CropWindow
from smpler.utils.joints import KEYPOINT_NAMES

IMAGE = np.zeros((100, 200, 3), np.uint8)


def test_nobody_is_in_both_sets():
    people = [
        {
            (photo.source.name, corners)
            for subject in subjects
            for photo in subject.in_wheels
            for corners in photo.people
        }
        | {photo for subject in subjects for photo in subject.in_folder}
        for subjects in SETS.values()
    ]
    assert all(people) and not people[0] & people[1]


def test_who_is_at_a_place_is_taken_the_largest_first():
    boxes = [(0.0, 0.0, 20.0, 20.0), (100.0, 0.0, 10.0, 40.0), (95.0, 10.0, 40.0, 60.0)]
    found = [Detection(box, 1.0) for box in boxes]
    (person,) = chosen(IMAGE, found, (90, 0, 60, 100))
    assert person.box == boxes[2] and person.others == (boxes[0], boxes[1])
    assert list(chosen(IMAGE, found, (150, 0, 50, 100))) == []


def test_a_body_that_falls_towards_the_camera_is_measured():
    keypoints = torch.zeros(2, 14, 3, dtype=torch.float64)
    for number, name in enumerate(KEYPOINT_NAMES):
        heights = {"Ankle": 0.0, "Knee": 0.5, "Hip": 1.0}
        keypoints[:, number, 1] = -heights.get(name.rpartition("_")[2], 1.5)
    keypoints[1, KEYPOINT_NAMES.index("Neck")] = torch.tensor([0, -1.0, -1.0])
    numbers = posture(keypoints)
    expected = {"people": 2, "lean": 22.5, "depth": 22.5, "away": -22.5, "sideways": 0, "knees": 0}
    assert numbers == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def people():
    smpl = SMPL(open_body())
    rotmat, betas = torch.eye(3).expand(2, 24, 3, 3), torch.zeros(2, 10)
    estimate = smpl.estimate(rotmat, betas, torch.tensor([[0.9, 0.0, 0.0]]).expand(2, 3))
    pinhole = Pinhole.of([CropWindow(0, 0, 100, 100)] * 2, (200, 100), 224.0)
    return place(smpl, estimate, pinhole, turn=False)


def test_distances_to_landmarks_are_in_percent_of_the_crop_and_of_those_that_count(people):
    names = ("L_Knee", "R_Knee", "Nose")
    places = points_2d(people, names)
    places[0, 0, 0] += 0.04  # of a crop that is 2 wide
    places[:, 1] += 9
    weights = torch.tensor([[1.0, 0.0, 0.5], [0.7, 0.0, 0.0]])
    answer = SimpleNamespace(
        people=people, seen=SimpleNamespace(evidence=Evidence(names, places, weights))
    )
    found = to_landmarks([answer, answer])
    assert found.keys() == {"L_Knee", "Nose"}
    assert found["L_Knee"]["count"] == 4 and found["Nose"]["count"] == 2
    assert found["L_Knee"]["median"] == pytest.approx(1.0, abs=1e-3)
    assert found["L_Knee"]["95 %"] == pytest.approx(2.0, abs=1e-3)


def test_a_photo_that_is_missing_or_another_of_that_name_is_refused(tmp_path):
    subject = Subject("somebody", in_folder=(("im.png", "0" * 64),))
    predictor = SimpleNamespace(load_person_detector=lambda: None)
    with pytest.raises(FileNotFoundError, match="im.png is missing; give --photos"):
        list(people_of(subject, predictor, None, tmp_path))
    (tmp_path / "im.png").write_bytes(b"no")
    with pytest.raises(ValueError, match="another photo"):
        list(people_of(subject, predictor, None, tmp_path))
    assert list(people_of(subject, predictor, None, None)) == []

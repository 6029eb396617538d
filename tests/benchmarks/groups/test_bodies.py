"""Bodies of rendered groups, beside the truth."""

from types import SimpleNamespace

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import torch

from benchmarks.groups import bodies
from benchmarks.groups.bodies import BodyError, body_errors
from benchmarks.groups.matching import Target, match
from benchmarks.groups.scenes import GroupPictures
from smpler.models.detectors import Detection
from smpler.models.predictor import Predictor
from smpler.utils.metrics import HIPS

SMALL_GROUPS = (13, 25)


@pytest.fixture(scope="module")
def pictures():
    rendered = GroupPictures(seed=0)
    return [rendered[number] for number in SMALL_GROUPS]


def test_with_exifs_focal_length_people_stand_at_their_distance(pictures, tmp_path):
    """The camera of the rendering, written into the file; nobody's height is known."""
    predictor, ratios = Predictor.load(device="cpu"), []
    for number, picture in enumerate(pictures):
        height, width = picture.image.shape[:2]
        lens = picture.focal / np.hypot(width, height) * np.hypot(36, 24)
        exif = PIL.Image.Exif()
        exif.get_ifd(PIL.ExifTags.IFD.Exif)[PIL.ExifTags.Base.FocalLengthIn35mmFilm] = round(lens)
        path = tmp_path / f"{number}.jpg"
        PIL.Image.fromarray(picture.image).save(path, quality=95, exif=exif)
        people = predictor(path)
        assert {person.focal_length_source for person in people} == {"exif"}
        targets = [Target(person.box) for person in picture.people if person.box]
        shown = [person for person in picture.people if person.box]
        found = [Detection(tuple(person.box.tolist()), person.box_score) for person in people]
        for ours, known in match(found, targets).hits:
            placed = people[ours].keypoints_3d + people[ours].translation
            depth = shown[known].keypoints[HIPS, 2].mean()
            ratios.append(placed[HIPS, 2].mean() / depth)
    assert len(ratios) >= 4
    assert np.median(np.abs(np.array(ratios) - 1)) < 0.1, ratios


class Truth:
    """A predictor that answers with the labels, moved and turned."""

    def __init__(self, people, farther=1.0):
        self.people, self.farther, self.given = people, farther, None

    def look(self, image, windows, boxes, focal_length):
        self.given = focal_length
        keypoints = torch.from_numpy(np.stack([person.keypoints for person in self.people]))
        depth = keypoints[:, HIPS, 2].mean(dim=1)
        shift = torch.stack([0 * depth, 0 * depth, (self.farther - 1) * depth], dim=1)
        estimate = SimpleNamespace(keypoints_3d=keypoints)
        return SimpleNamespace(
            people=SimpleNamespace(estimate=estimate, translation=shift),
            quality=torch.linspace(0, 1, len(self.people)),
            fit=["applied"] * len(self.people),
        )


def test_the_truth_has_no_errors_and_is_as_far_away_as_it_is_put(pictures):
    picture = pictures[0]
    people = sorted((p for p in picture.people if p.box), key=lambda p: -p.box[2] * p.box[3])
    targets = [Target(person.box) for person in people]
    detections = [Detection(person.box, 0.9) for person in people]
    size = (picture.image.shape[1], picture.image.shape[0])
    order = bodies.prominence(detections, size)
    predictor = Truth([people[number] for number in order], farther=1.2)
    found = body_errors(predictor, picture.image, 777.0, detections, targets, people)
    assert len(found) == len(people) and predictor.given == 777.0
    for error in found:
        assert error.mpjpe < 1e-6 and error.pa_mpjpe < 1e-6
        assert error.distance == pytest.approx(1.2)
    assert body_errors(predictor, picture.image, 777.0, [], targets, people) == []


def test_the_summary_says_how_quality_ranks_people():
    errors = [BodyError(10.0 * n, 5.0 * n, 1 + 0.01 * n, 1 - n / 10, "applied") for n in range(10)]
    numbers = bodies.summary(errors)
    assert numbers["quality_rank_correlation"] == pytest.approx(1)
    assert numbers["mpjpe_mm"] == pytest.approx(45) and numbers["people"] == 10
    assert numbers["low_quality_share"] == pytest.approx(0.3)  # n of 7, 8 and 9
    assert numbers["low_quality_mpjpe_mm"] == pytest.approx(80)
    assert numbers["median_distance_error"] == pytest.approx(0.045)
    assert numbers["fit applied"] == 10

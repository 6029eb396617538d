"""A predictor's detectors: what was given, else the shipped ones, loaded when needed."""

import numpy as np
import pytest
import torch

from smpler.models.detectors import Landmarks
from smpler.models.detectors.shipped import Detectors

CPU = torch.device("cpu")


class Sees:
    """A landmark detector that sees everybody."""

    names = ("Nose",)

    def find(self, image, hip, up, radius):
        return Landmarks(hip[None], np.ones(1), 1.0)


class Nobody:
    """A detector of people that sees none."""

    def detect(self, image, score_threshold=0.5, max_people=None):
        return []


@pytest.mark.parametrize(
    ("size", "photos", "clips"),
    [(None, "heavy", "full"), ("full", "full", "full"), ("heavy", "heavy", "heavy")],
)
def test_each_kind_of_picture_has_its_network(size, photos, clips):
    """Whoever may be there at all is always shown to the small one; none is loaded twice."""
    detectors = Detectors(CPU, size=size)
    assert (detectors.landmark_size(False), detectors.landmark_size(True)) == (photos, clips)
    of_photos, of_clips = (detectors.landmarks(is_clip) for is_clip in (False, True))
    for detector, name in (
        (of_photos, photos),
        (of_clips, clips),
        (detectors.for_search(), "full"),
    ):
        assert (detector.network.refinement is not None) == (name == "heavy")
    assert detectors.landmarks() is of_photos and (of_clips is of_photos) == (photos == clips)
    assert (detectors.for_search() is of_clips) == (clips == "full")


def test_what_is_given_does_everything():
    people, landmarks = Nobody(), Sees()
    detectors = Detectors(CPU, people, landmarks)
    assert detectors.people() is people
    assert detectors.landmarks() is detectors.landmarks(True) is detectors.for_search() is landmarks

"""A predictor's detectors: what was given, else the shipped ones, loaded when needed."""

import numpy as np
import pytest
import torch

from smpler.models.detectors import Landmarks, shipped
from smpler.models.detectors.landmarks import BlazePoseLandmarkDetector
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
    of_photos, of_clips = (detectors.landmarks(quick) for quick in (False, True))
    for detector, name in (
        (of_photos, photos),
        (of_clips, clips),
        (detectors.for_search(), "full"),
    ):
        assert (detector.network.refinement is not None) == (name == "heavy")
    assert detectors.landmarks() is of_photos and (of_clips is of_photos) == (photos == clips)
    assert (detectors.for_search() is of_clips) == (clips == "full")


def test_networks_are_loaded_when_they_are_first_asked(monkeypatch):
    loaded = []
    load = BlazePoseLandmarkDetector.load

    def counted(path=None, device="cpu", size="full", two_looks=True):
        loaded.append(size)
        return load(path, device, size, two_looks)

    monkeypatch.setattr(BlazePoseLandmarkDetector, "load", counted)
    detectors = Detectors(CPU)
    people = detectors.people()
    assert people is detectors.people() and not loaded
    assert people.landmarks() is people.landmarks() is detectors.for_search()
    detectors.landmarks(), detectors.landmarks(quick=True), detectors.landmarks()
    assert loaded == ["full", "heavy"]


def test_a_fast_backend_is_for_those_who_look_at_people(monkeypatch):
    """Exporting takes seconds, which a few boxes that may hold a person are not worth."""
    fast = []

    def with_fast_looks(detector):
        fast.append(detector)
        return detector

    monkeypatch.setattr(shipped, "with_fast_looks", with_fast_looks)
    detectors = Detectors(CPU, backend="onnxruntime")
    searches = detectors.for_search()
    assert not fast
    photos, clips = (detectors.landmarks(quick) for quick in (False, True))
    assert fast == [photos, clips] and searches not in fast
    assert detectors.for_search() is clips, "it is there already"
    assert detectors.landmarks() is photos and len(fast) == 2


def test_there_are_no_other_sizes():
    for size in ("lite", ""):
        with pytest.raises(ValueError, match=f"landmarks is '{size}'; choose one of full, heavy."):
            Detectors(CPU, size=size)


def test_what_is_given_does_everything():
    people, landmarks = Nobody(), Sees()
    detectors = Detectors(CPU, people, landmarks)
    assert detectors.people() is people
    assert detectors.landmarks() is detectors.landmarks(True) is detectors.for_search() is landmarks

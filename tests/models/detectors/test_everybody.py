"""Who is taken of those whom two detectors see."""

import numpy as np

from benchmarks.groups.scenes import GroupPictures
from smpler.models.detectors import Detection, Landmarks
from smpler.models.detectors.everybody import EverybodyDetector
from smpler.utils.image import read_image
from smpler.utils.paths import SAMPLES
from tests.support.samples import empty_scene


class Seer:
    def __init__(self, *people: tuple[float, ...]):
        self.people, self.looks = [Detection(p[:4], p[4]) for p in people], 0

    def detect(self, image, score_threshold=0.5, max_people=None):
        self.looks += 1
        return self.people


def found(
    group: Seer, close_up: Seer, size=(1280, 720), landmarks=None, **arguments
) -> list[tuple]:
    photo = np.zeros((size[1], size[0], 3), np.uint8)
    detector = EverybodyDetector(group, close_up, lambda: landmarks or Recogniser(True))
    return [p.box for p in detector.detect(photo, **arguments)]


class Recogniser:
    """A landmark detector that sees everybody or nobody, and keeps what it was shown."""

    names = ()

    def __init__(self, sees: bool):
        self.sees, self.shown = sees, []

    def find(self, image, hip, up, radius):
        self.shown.append((image, hip, up, radius))
        return Landmarks(np.zeros((0, 2)), np.zeros(0), 1.0) if self.sees else None


SMALL, LARGE = (100.0, 100.0, 90.0, 200.0, 0.6), (500.0, 20.0, 400.0, 690.0, 0.7)


def test_whom_either_detector_sees_is_taken():
    beside = (900.0, 100.0, 200.0, 200.0, 0.5)
    assert found(Seer(SMALL), Seer(beside)) == [SMALL[:4], beside[:4]]
    assert found(Seer(), Seer(SMALL)) == [SMALL[:4]]
    assert found(Seer(), Seer()) == []


def test_whom_one_detector_doubts_or_the_other_alone_sees_must_be_recognised():
    doubtful = (100.0, 100.0, 90.0, 200.0, 0.4)
    alone = (900.0, 100.0, 200.0, 200.0, 0.9)
    recognises, does_not = Recogniser(True), Recogniser(False)
    everybody = [LARGE[:4], doubtful[:4], alone[:4]]
    assert sorted(found(Seer(LARGE, doubtful), Seer(alone), landmarks=recognises)) == sorted(
        everybody
    )
    assert found(Seer(LARGE, doubtful), Seer(alone), landmarks=does_not) == [LARGE[:4]]
    assert len(does_not.shown) == 2, "who is certain is not looked at"
    image, hip, up, radius = does_not.shown[0]
    assert radius == 100 and up.tolist() == [0, -1]
    assert np.abs(hip - [145 - 0, 200 - 40]).max() < 1.5  # in the part that begins at (0, 40)


def test_who_is_too_small_to_be_estimated_is_left_out():
    few_pixels, enough = (10.0, 10.0, 20.0, 63.0, 0.9), (50.0, 10.0, 20.0, 64.0, 0.8)
    assert found(Seer(few_pixels, enough), Seer()) == [enough[:4]]
    assert found(Seer(enough), Seer((500.0, 10.0, 63.0, 63.0, 0.9))) == [enough[:4]]
    assert found(Seer(few_pixels, enough), Seer(), size=(2560, 1440)) == []
    lying = (200.0, 10.0, 70.0, 20.0, 0.8)
    assert found(Seer(lying), Seer()) == [lying[:4]]


def test_whom_both_detectors_see_is_one_person_in_the_groups_box():
    same, part = (400.0, -100.0, 800.0, 800.0, 0.9), (520.0, 30.0, 300.0, 300.0, 0.99)
    for seen_again in (same, part):
        assert found(Seer(LARGE), Seer(seen_again)) == [LARGE[:4]]
    touching = (0.0, 0.0, 650.0, 650.0, 0.65)
    assert found(Seer(LARGE), Seer(touching)) == [LARGE[:4], touching[:4]]


def test_the_best_score_comes_first_and_the_number_is_bounded():
    assert found(Seer(SMALL, LARGE), Seer()) == [LARGE[:4], SMALL[:4]]
    assert found(Seer(SMALL, LARGE), Seer(), max_people=1) == [LARGE[:4]]


def test_an_adult_behind_a_child_is_another_person():
    child, adult = (500.0, 400.0, 70.0, 200.0, 0.8), (200.0, 0.0, 700.0, 700.0, 0.9)
    assert sorted(found(Seer(child), Seer(adult))) == sorted([child[:4], adult[:4]])


def test_whom_the_first_detector_doubts_wrongly_the_second_one_still_finds():
    doubtful, square = (400.0, 0.0, 300.0, 600.0, 0.4), (250.0, -50.0, 700.0, 700.0, 0.9)

    class SecondLook(Recogniser):
        def find(self, *look):
            return super().find(*look) if look[-1] > 320 else None  # the square alone

    assert found(Seer(doubtful), Seer(square), landmarks=SecondLook(True)) == [square[:4]]


def test_the_shipped_detectors_find_everybody_in_the_samples():
    detector = EverybodyDetector.load()
    counts = {path.name: len(detector.detect(read_image(path))) for path in SAMPLES.glob("im0*")}
    expected = dict.fromkeys(counts, 1) | {"im02.jpg": 2}
    assert counts == expected


def test_empty_rooms_and_landscapes_are_empty():
    """Each alone was taken for a person by a detector: a room, a meadow, a square."""
    pictures, detector = GroupPictures(seed=7), EverybodyDetector.load()
    for number in (8, 30, 32):
        assert detector.detect(empty_scene(pictures, number)) == [], number

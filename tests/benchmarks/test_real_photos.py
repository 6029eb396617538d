"""The judge's people."""

import numpy as np

from benchmarks.real_photos import seen_once
from smpler.models.detectors import Detection, Landmarks


def test_a_person_whom_the_judge_sees_twice_counts_once():
    places = np.random.default_rng(0).uniform(0, 100, (12, 2))
    first = Detection((0.0, 0.0, 100.0, 100.0), 0.9), Landmarks(places, np.ones(12), 1.0)
    again = Detection((10.0, 5.0, 90.0, 90.0), 0.6), Landmarks(places + 3, np.ones(12), 1.0)
    other = Detection((80.0, 0.0, 100.0, 100.0), 0.7), Landmarks(places + 80, np.ones(12), 1.0)
    assert seen_once([first, again, other]) == [first, other]

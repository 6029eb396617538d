"""The judge's people."""

import numpy as np
import pytest

from benchmarks import real_photos
from benchmarks.real_photos import seen_once
from smpler.models.detectors import Detection, Landmarks


def test_a_person_whom_the_judge_sees_twice_counts_once():
    places = np.random.default_rng(0).uniform(0, 100, (12, 2))
    first = Detection((0.0, 0.0, 100.0, 100.0), 0.9), Landmarks(places, np.ones(12), 1.0)
    again = Detection((10.0, 5.0, 90.0, 90.0), 0.6), Landmarks(places + 3, np.ones(12), 1.0)
    other = Detection((80.0, 0.0, 100.0, 100.0), 0.7), Landmarks(places + 80, np.ones(12), 1.0)
    assert seen_once([first, again, other]) == [first, other]


def test_wrong_photos_and_videos_are_noticed_before_the_first_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="no photo"):
        real_photos.photos_of(tmp_path)
    (tmp_path / "page.whl").write_text("<html>")
    with pytest.raises(ValueError, match="page.whl is no wheel"):
        real_photos.video_frames(3, tmp_path / "page.whl")

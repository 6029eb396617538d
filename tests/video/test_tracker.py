"""People keep their numbers: when they cross, when they are lost for a moment, after a restart."""

import numpy as np
import pytest

from smpler.video.tracker import MAX_GAP, Tracker, assigned
from tests.video.stage import FPS, PICTURE, Stage, to_the_left, to_the_right


def run(stage, seconds, tracker=None, start=0):
    """The track of each person's hips, frame by frame: {track: {frame: x}}."""
    tracker = tracker or Tracker(stage, stage, FPS)
    found = {}
    for frame in range(start, start + round(seconds * FPS)):
        stage.time = frame / FPS
        for sighting in tracker.step(PICTURE):
            found.setdefault(sighting.track, {})[frame] = float(sighting.landmarks.hip[0])
    return found, tracker


def test_people_who_cross_keep_their_numbers():
    found, _ = run(Stage(to_the_right, to_the_left), 3.5)
    assert sorted(found) == [0, 1]
    for track, way in ((0, to_the_right), (1, to_the_left)):
        assert len(found[track]) == 105
        assert all(abs(x - way(frame / FPS)[0]) < 1 for frame, x in found[track].items())


@pytest.mark.parametrize(("gap", "tracks"), [(0.6, 1), (MAX_GAP + 0.5, 2)])
def test_who_is_lost_for_a_moment_is_the_same_afterwards(gap, tracks):
    def way(time):
        return None if 1 <= time < 1 + gap else (200 + 60 * time, 200)

    found, _ = run(Stage(way), 3.2)
    assert len(found) == tracks
    if tracks == 1:
        frames = np.array(sorted(found[0]))
        assert np.diff(frames).max() <= round(gap * FPS) + 7


def test_who_comes_back_far_away_or_much_larger_is_someone_else():
    def jumping(time):
        return None if 1 <= time < 1.3 else (150 if time < 1 else 780, 200)

    found, _ = run(Stage(jumping), 2.5)
    assert len(found) == 2


def test_a_box_in_which_no_landmarks_are_seen_is_nobody():
    found, _ = run(Stage(to_the_right, lambda time: (600, 200), hidden=(1,)), 1)
    assert list(found) == [0]


def test_who_is_no_longer_detected_is_given_up():
    """Landmarks alone can follow a coat on a hook."""
    stage = Stage(lambda time: (300, 200), detects=lambda time: time < 0.5)
    found, _ = run(stage, 3)
    assert len(found) == 1 and 1.0 < max(found[0]) / FPS < 2.0


def test_two_people_never_have_the_same_body():
    """One goes behind the other, whose landmarks are seen for both, and comes out again."""

    def behind(time):
        return None if 0.8 <= time < 1.2 else (200 + 250 * time, 202)

    found, _ = run(Stage(lambda time: (450, 200), behind), 2.5)
    for frame in range(75):
        places = [hips[frame] for hips in found.values() if frame in hips]
        assert len(places) == len(set(places))
    assert len(found) == 2, {track: (min(x), max(x)) for track, x in found.items()}


def test_boxes_follow_the_detector_and_scale_with_the_person():
    stage = Stage(to_the_right)
    tracker = Tracker(stage, stage, FPS)
    for frame in range(8):
        stage.time = frame / FPS
        (sighting,) = tracker.step(PICTURE)
        (detected,) = stage.detect(None)
        assert np.abs(np.subtract(sighting.box, detected.box)).max() < 1.5, frame


def test_a_restored_tracker_goes_on_as_if_nothing_had_been():
    def behind(time):
        return None if 0.8 <= time < 1.2 else (200 + 250 * time, 202)

    def stage():
        return Stage(lambda time: (450, 200), behind)

    whole, _ = run(stage(), 2.5)
    first, tracker = run(stage(), 1.0)
    other = stage()
    again = Tracker(other, other, FPS)
    again.restore(tracker.state())
    second, _ = run(other, 1.5, again, start=30)
    joined = {track: first.get(track, {}) | second.get(track, {}) for track in first | second}
    assert joined == whole


def test_nobody_can_be_restored():
    stage = Stage(lambda time: None)
    tracker = Tracker(stage, stage, FPS)
    tracker.step(PICTURE)
    again = Tracker(stage, stage, FPS)
    again.restore(tracker.state())
    assert again.frame == 0 and again.everybody == []


def test_assignment_is_the_cheapest_of_all():
    costs = np.array([[1.0, 2.0], [1.1, 9.0]])
    assert assigned(costs) == [(0, 1), (1, 0)]
    assert assigned(np.zeros((0, 3))) == []

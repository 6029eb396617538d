"""Two people before four cameras: whose views are whose."""

import numpy as np
import pytest

from benchmarks.multiview.people import disagreement, follow, match
from benchmarks.multiview.views import triangulated
from tests.benchmarks.multiview.synthetic import cameras, joints, view

HERE, THERE = np.array([-0.5, 0.1, 0.2]), np.array([0.6, -0.2, 0.1])


@pytest.fixture(scope="module")
def two():
    """Joints of two people of half a size, a metre apart."""
    return 0.5 * joints(3) + HERE, 0.5 * joints(4) + THERE


def test_two_people_are_matched_whatever_the_order_of_their_views(two):
    seen, orders = cameras(), ((0, 1), (1, 0), (1, 0), (0, 1))
    looks = [
        [view(camera, two[number]) for number in order]
        for camera, order in zip(seen, orders, strict=True)
    ]
    people = match(looks, seen)
    assert len(people) == 2
    for person in people:
        found, _ = triangulated(person.views, seen)
        away = [np.abs(found - points).max() for points in two]
        assert min(away) < 1e-4 and max(away) > 0.3, away
    mixed = [looks[0][0], looks[1][0], looks[2][0], looks[3][0]]
    assert disagreement(mixed, seen) > 100


def test_a_view_of_somebody_else_is_left_out_and_two_cameras_are_not_enough(two):
    seen = cameras()
    looks = [[view(camera, two[0])] for camera in seen[:3]] + [[view(seen[3], two[1])]]
    (person,) = match(looks, seen)
    assert [v is not None for v in person.views] == [True, True, True, False]
    assert match([looks[0], looks[1], [], looks[3]], seen) == []


def test_who_stays_at_a_place_is_followed(two):
    seen = cameras()
    both = [[view(camera, points) for points in two] for camera in seen]
    alone = [[view(camera, two[1])] for camera in seen]  # the one who is followed has left
    looks = [[a, b[::-1], c] for a, b, c in zip(both, both, alone, strict=True)]
    hips = two[0][[2, 3]].mean(axis=0)  # the middle of both
    videos = follow(looks, seen, hips[:2])
    for video, first in zip(videos, both, strict=True):
        assert video == [first[0], first[0], None]

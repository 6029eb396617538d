"""Triangulation, on cameras and points that are known."""

from dataclasses import replace

import cv2
import numpy as np

from benchmarks.multiview.views import (
    find_offsets,
    in_step,
    known_views,
    thigh_spread,
    triangulated,
)
from tests.benchmarks.multiview.synthetic import cameras, joints, view


def test_points_seen_by_all_come_out_where_they_are():
    points, seen = joints(0), cameras()
    found, errors = triangulated([view(camera, points) for camera in seen], seen)
    assert np.abs(found - points).max() < 1e-4 and errors.max() < 0.1
    rays = seen[2].see(points)
    assert np.abs(rays[:, :2] / rays[:, 2:] - view(seen[2], points).rays).max() < 1e-4


def test_a_camera_that_is_wrong_is_left_out_and_one_that_is_blind_not_missed():
    points, seen = joints(1), cameras()
    looks = [view(camera, points) for camera in seen]
    looks[1].rays[3] += 0.2
    looks[2].visible[5] = 0
    found, errors = triangulated(looks, seen)
    assert np.abs(found - points).max() < 1e-4 and errors.max() < 0.1
    looks[0].visible[5] = 0  # two are left
    found, errors = triangulated([*looks[:3], None], seen)
    assert np.isnan(found).all(axis=1).tolist() == np.isnan(errors).tolist()
    assert np.isnan(found[5]).all() and not np.isnan(found[4]).any()


def test_a_camera_that_was_turned_is_put_right_and_the_others_stay():
    path = np.cumsum(np.random.default_rng(2).normal(0, 0.08, (12, 1, 3)), axis=0)
    moments, seen = [joints(2) + step for step in path], cameras()
    videos = [[view(camera, points) for points in moments] for camera in seen]
    same, offsets = in_step(videos, seen, 1)
    assert offsets == [0] * 4 and all(a is b for a, b in zip(same, seen, strict=True))
    turn = cv2.Rodrigues(np.array([0.01, -0.02, 0.005]))[0]
    calibrated = [*seen[:2], replace(seen[2], rotation=turn @ seen[2].rotation), seen[3]]
    right, offsets = in_step(videos, calibrated, 1)
    assert offsets == [0] * 4
    assert np.abs(right[2].rotation - seen[2].rotation).max() < 1e-4
    assert np.abs(right[2].translation - seen[2].translation).max() < 1e-3
    assert [a is b for a, b in zip(right, calibrated, strict=True)] == [True, True, False, True]


def test_late_cameras_are_found_out_and_views_come_with_their_own_joints():
    path = np.cumsum(np.random.default_rng(2).normal(0, 0.05, (17, 1, 3)), axis=0)
    moments, seen, late = [joints(2) + step for step in path], cameras(), [0, 2, -1, 0]
    videos = [
        [view(camera, moments[np.clip(n - by, 0, 16)]) for n in range(17)]
        for camera, by in zip(seen, late, strict=True)
    ]
    assert find_offsets(videos, seen, 2) == late
    cases = list(known_views(videos, seen, late))
    assert len(cases) > 24
    for case in cases:
        rays = case.joints[:, :2] / case.joints[:, 2:]
        assert np.abs(rays - case.view.rays).max() < 1e-3
        assert case.view in videos[seen.index(case.camera)]
    assert thigh_spread(cases) < 1e-3
    assert len(list(known_views(videos, seen, late, every=1))) > 1.7 * len(cases)

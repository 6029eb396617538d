"""Splines keep what is smooth, drop what shakes, and go on over gaps."""

import numpy as np
import pytest
from scipy.interpolate import BSpline

from smpler.video.splines import DEGREE, Spline


def test_a_cubic_is_kept_whatever_the_weights():
    x = np.linspace(-1, 1, 40)
    cubic = np.stack([1 + x, x**2, x**3 - x], axis=1)
    weights = np.random.default_rng(0).uniform(0.1, 2, 40)
    # the stiffness pulls towards straight lines, a little
    assert np.abs(Spline.over(40, 4.0).fitted(cubic, weights) - cubic).max() < 3e-3


@pytest.mark.parametrize(("count", "spacing"), [(1, 4.0), (2, 4.0), (5, 4.0), (31, 3.75)])
def test_any_number_of_frames_has_a_spline(count, spacing):
    values = np.arange(count, dtype=float)[:, None]
    found = Spline.over(count, spacing).fitted(values, np.ones(count))
    assert found.shape == (count, 1) and np.abs(found - values).max() < 1e-6


def test_it_is_the_least_squares_curve():
    """The same by dense matrices, without the stiffness."""
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=(50, 3)), rng.uniform(0.5, 2, 50)
    spline = Spline.over(50, 7.0)
    pieces, length = 7, 7.0
    knots = length * np.arange(-DEGREE, pieces + DEGREE + 1)
    basis = BSpline.design_matrix(np.arange(50.0), knots, DEGREE).toarray()
    root = np.sqrt(weights)[:, None]
    dense = basis @ np.linalg.lstsq(root * basis, root * values, rcond=None)[0]
    assert np.abs(spline.fitted(values, weights) - dense).max() < 2e-2


def test_shaking_is_dropped_and_slow_motion_is_not():
    times = np.arange(120) / 30
    slow, fast = np.sin(2 * np.pi * 1.0 * times), np.sin(2 * np.pi * 10.0 * times)
    spline = Spline.over(120, 30 / 8)
    kept = spline.fitted(np.stack([slow, fast], axis=1), np.ones(120))
    assert np.abs(kept[:, 0] - slow).max() < 0.02
    assert np.abs(kept[10:-10, 1]).max() < 0.15


def test_a_gap_is_bridged_without_a_jump():
    times = np.arange(60, dtype=float)
    weights = ((times < 20) | (times >= 45)).astype(float)
    values = np.where(weights > 0, 0.1 * times, 1e3)[:, None]
    found = Spline.over(60, 4.0).fitted(values, weights)
    assert np.abs(found[:, 0] - 0.1 * times).max() < 0.05

import numpy as np
import pytest
from scipy.optimize import least_squares

from smpler.utils.camera import (
    MIN_DEPTH,
    default_focal_length,
    project_pinhole,
    solve_translation,
)

SIZE = (1080, 1920)
CENTER = np.array(SIZE) / 2
FOCAL = default_focal_length(SIZE)


def someone(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return joints about their own origin, and where they stand."""
    rng = np.random.default_rng(seed)
    place = np.array([*rng.uniform(-2, 2, 2), rng.uniform(1.5, 12)])
    return rng.normal(0, [0.3, 0.5, 0.25], (24, 3)).clip(-1, 1), place


@pytest.mark.parametrize("seed", range(8))
def test_projected_joints_give_their_translation_back(seed):
    points, place = someone(seed)
    pixels = project_pinhole(points + place, FOCAL, CENTER)
    error = np.abs(solve_translation(points, pixels, FOCAL, CENTER) - place).max()
    assert error < 1e-9, error


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_the_translation_is_scipys_least_squares(seed, weighted):
    points, place = someone(seed)
    pixels = project_pinhole(points + place, FOCAL, CENTER)
    pixels += np.random.default_rng(seed).normal(0, 40, pixels.shape)
    weights = np.random.default_rng(seed).random(24) if weighted else None
    ours = solve_translation(points, pixels, FOCAL, CENTER, weights)

    def residuals(translation):
        placed = points + translation
        away = FOCAL * placed[:, :2] / placed[:, 2:] + CENTER - pixels
        return (away if weights is None else np.sqrt(weights)[:, None] * away).ravel()

    scipys = least_squares(residuals, place, xtol=1e-15, ftol=1e-15, gtol=1e-15).x
    error = np.abs(ours - scipys).max()
    assert error < 1e-6, (ours, scipys)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_the_start_of_the_search_does_not_matter_at_any_distance(scale):
    """A lens so long that depth is hardly seen, and one so wide that everything is near."""
    points, place = someone(3)
    place = place * [1, 1, scale]
    place[2] = max(place[2], MIN_DEPTH - points[:, 2].min())
    focal = FOCAL * scale
    pixels = project_pinhole(points + place, focal, CENTER)
    found = solve_translation(points, pixels, focal, CENTER)
    error = np.abs(project_pinhole(points + found, focal, CENTER) - pixels).max()
    assert error < 1e-6, error


def test_nobody_is_placed_behind_the_camera():
    """Someone of whom a part would be behind it, and a mirror image, which no place explains."""
    points, place = someone(0)
    place[2] = 0.1 - points[:, 2].min()
    near = solve_translation(points, project_pinhole(points + place, FOCAL, CENTER), FOCAL, CENTER)
    assert (points + near)[:, 2].min() == pytest.approx(MIN_DEPTH)
    turned = CENTER - 20 * (project_pinhole(points + someone(0)[1], FOCAL, CENTER) - CENTER)
    found = solve_translation(points, turned, FOCAL, CENTER)
    assert np.isfinite(found).all() and (points + found)[:, 2].min() >= MIN_DEPTH


def test_one_place_for_all_pixels_is_far_away_but_finite():
    points, _ = someone(0)
    found = solve_translation(points, np.tile(CENTER, (24, 1)), FOCAL, CENTER)
    assert np.isfinite(found).all() and (points + found)[:, 2].min() >= MIN_DEPTH

"""The full-image camera: one pinhole for everybody in a photo.

Frame of everything 3D: the camera's, metres, x right, y down, z away from the camera. Photo pixels:
x right, y down, (0, 0) is the photo's top-left corner.
"""

import numpy as np
from jaxtyping import Float, Float64

MIN_DEPTH, MAX_DEPTH = 0.3, 1e4
"""Range of the distance between the camera and the nearest joint of a body, metres."""
MAX_STEPS = 100
"""Of the translation's solver; it needs about five."""


def project_pinhole(
    points: Float[np.ndarray, "*n 3"],
    focal_length: float,
    principal_point: Float[np.ndarray, "2"],
) -> Float64[np.ndarray, "*n 2"]:
    """Perspective projection by the full-image camera.

    Args:
        points: camera frame, metres; z above 0.
        focal_length: pixels.
        principal_point: where the optical axis meets the photo, pixels.

    Returns:
        Photo pixels, x right, y down.
    """
    points = np.asarray(points, np.float64)
    return focal_length * points[..., :2] / points[..., 2:] + principal_point


def solve_translation(
    points: Float[np.ndarray, "n 3"],
    pixels: Float[np.ndarray, "n 2"],
    focal_length: float,
    principal_point: Float[np.ndarray, "2"],
    weights: Float[np.ndarray, "n"] | None = None,
) -> Float64[np.ndarray, "3"]:
    """Translation that puts a body where the full-image camera sees it, by least squares.

    Minimises the sum of the squared distances in pixels between `pixels` and the projections of
    `points + translation`. The algebraic error, which is linear in the translation, gives the
    start; Levenberg's and Marquardt's steps (Marquardt, J. SIAM 11(2), 1963) do the rest. The
    nearest point stays between MIN_DEPTH and MAX_DEPTH.

    Args:
        points: of the body, camera frame, metres, n >= 2; not all at one place.
        pixels: where they are in the photo.
        focal_length: pixels.
        principal_point: pixels.
        weights: of the squared distances, at least two of them above 0; None: all are 1.

    Returns:
        (x, y, z) metres, to be added to points in the camera's frame.
    """
    points = np.asarray(points, np.float64)
    rays = (np.asarray(pixels, np.float64) - principal_point) / focal_length  # x / z, y / z
    limits = np.array([MIN_DEPTH, MAX_DEPTH]) - points[:, 2].min()
    roots = np.ones((len(points), 1)) if weights is None else np.sqrt(weights)[:, None]
    # x + tx = ray * (z + tz), two rows a point
    rows = np.zeros((len(points), 2, 3))
    rows[:, [0, 1], [0, 1]] = 1
    rows[:, :, 2] = -rays
    sides = rays * points[:, 2:] - points[:, :2]
    rows, sides = roots[..., None] * rows, roots * sides
    start, *_ = np.linalg.lstsq(rows.reshape(-1, 3), sides.ravel(), rcond=None)
    if not limits[0] < start[2] < limits[1]:
        start = _sideways(points, rays, roots, start[2].clip(*limits))
    solved = _descend(points, rays, roots, start, limits)
    return _sideways(points, rays, roots, solved[2]) if solved[2] in limits else solved


def _descend(
    points: Float64[np.ndarray, "n 3"],
    rays: Float64[np.ndarray, "n 2"],
    roots: Float64[np.ndarray, "n 1"],
    start: Float64[np.ndarray, "3"],
    limits: Float64[np.ndarray, "2"],
) -> Float64[np.ndarray, "3"]:
    """Levenberg-Marquardt steps on the error in the image; z stays within limits.

    Args:
        points: of the body, metres.
        rays: where they are in the photo, x / z and y / z.
        roots: of the weights of the squared distances.
        start: of the translation.
        limits: of its z.
    """

    def error(translation: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "n 2"]:
        placed = points + translation
        return roots * (placed[:, :2] / placed[:, 2:] - rays)

    translation, damping = start, 1e-4
    value = np.square(error(translation)).sum()
    for _ in range(MAX_STEPS):
        placed = points + translation
        jacobian = np.zeros((len(points), 2, 3))
        jacobian[:, [0, 1], [0, 1]] = 1 / placed[:, 2:]
        jacobian[:, :, 2] = -placed[:, :2] / placed[:, 2:] ** 2
        jacobian = (roots[..., None] * jacobian).reshape(-1, 3)
        normal = jacobian.T @ jacobian
        normal[np.diag_indices(3)] *= 1 + damping
        step = np.linalg.solve(normal, jacobian.T @ error(translation).ravel())
        candidate = translation - step
        candidate[2] = candidate[2].clip(*limits)
        better = np.square(error(candidate)).sum()
        if better > value:
            damping *= 10
            continue
        translation, value, damping = candidate, better, damping / 10
        if np.abs(step).max() < 1e-12 * max(1.0, float(np.abs(translation).max())):
            break
    return translation


def _sideways(
    points: Float64[np.ndarray, "n 3"],
    rays: Float64[np.ndarray, "n 2"],
    roots: Float64[np.ndarray, "n 1"],
    depth: float,
) -> Float64[np.ndarray, "3"]:
    """Least squares for x and y of a translation whose z is known; see `_descend`."""
    distance = points[:, 2:] + depth
    weights = (roots / distance) ** 2
    shift = (weights * (rays * distance - points[:, :2])).sum(axis=0) / weights.sum()
    return np.append(shift, depth)


def default_focal_length(image_size: tuple[int, int]) -> float:
    """Focal length in pixels when nothing is known: the photo's diagonal, a view of 53 degrees.

    The choice of CLIFF (Li et al., ECCV 2022).
    """
    return float(np.hypot(*image_size))

"""Simple rigid objects as layers: they stand in the way, or people sit on them.

Frame: y up.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.layers import NUM_WEIGHTS, RIGID, Mesh
from smpler.utils.joints import NUM_BETAS


def object_meshes() -> dict[str, Mesh]:
    """Return a box, a cylinder and a ball that fill the unit cube round the origin, y up."""
    return {"box": _box(), "cylinder": _cylinder(), "ball": _ball()}


def _rigid(
    corners: Float[np.ndarray, "f 3 3"], uv: Float[np.ndarray, "f 3 2"], smooth: bool
) -> Mesh:
    """Make a mesh that joint 0 alone moves.

    Args:
        corners: of each triangle.
        uv: of the same corners.
        smooth: triangles that meet share vertices, and so normals.
    """
    vertices, faces = corners.reshape(-1, 3), np.arange(3 * len(corners))
    if smooth:
        rounded = np.round(vertices, 6)
        vertices, faces = np.unique(rounded, axis=0, return_inverse=True)
    count = len(vertices)
    weights = np.zeros((count, NUM_WEIGHTS))
    weights[:, 0] = 1
    return Mesh(
        vertices,
        np.zeros((count, 3, NUM_BETAS)),
        np.zeros((count, NUM_WEIGHTS), int),
        weights,
        np.full(count, RIGID),
        faces.reshape(-1, 3),
        uv,
    )


def _grid(rows: int, columns: int) -> Float[np.ndarray, "f 3 2"]:
    """Return a grid's triangles in [0, 1], u right, v down, in which they run counter-clockwise."""
    v, u = np.mgrid[:rows, :columns].reshape(2, -1, 1)
    corner = [np.concatenate([u + du, v + dv], 1) / [columns, rows] for du, dv in _SQUARE]
    a, b, c, d = corner
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


_SQUARE = ((0, 0), (0, 1), (1, 1), (1, 0))


def _box() -> Mesh:
    uv = _grid(1, 1)
    front = np.concatenate([uv[..., :1] - 0.5, 0.5 - uv[..., 1:], np.full((2, 3, 1), 0.5)], axis=2)
    turns = [(0, 0), (0, 90), (0, 180), (0, 270), (90, 0), (-90, 0)]
    sides = [front @ Rotation.from_euler("xy", turn, degrees=True).as_matrix().T for turn in turns]
    return _rigid(np.concatenate(sides), np.tile(uv, (6, 1, 1)), smooth=False)


def _cylinder(segments: int = 24) -> Mesh:
    uv = _grid(1, segments)
    angle = 2 * np.pi * uv[..., 0]
    side = np.stack([0.5 * np.sin(angle), 0.5 - uv[..., 1], 0.5 * np.cos(angle)], axis=2)
    turn = 2 * np.pi * (np.arange(segments)[:, None] + [0, 1]) / segments
    rim = np.stack([0.5 * np.sin(turn), np.full_like(turn, 0.5), 0.5 * np.cos(turn)], axis=2)
    middle = np.tile([0, 0.5, 0], (segments, 1, 1))
    lid = np.concatenate([middle, rim], axis=1)
    floor = lid[:, ::-1] * [1, -1, 1]
    flat = np.concatenate([lid, floor])
    return _rigid(
        np.concatenate([side, flat]), np.concatenate([uv, flat[..., [0, 2]] + 0.5]), smooth=False
    )


def _ball(rows: int = 12, columns: int = 24) -> Mesh:
    uv = _grid(rows, columns)
    around, down = 2 * np.pi * uv[..., 0], np.pi * uv[..., 1]
    flat = np.sin(down)
    corners = np.stack([flat * np.sin(around), np.cos(down), flat * np.cos(around)], axis=2) / 2
    return _rigid(corners, uv, smooth=True)

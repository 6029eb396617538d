"""Where a posed body's mass is, and whether what it stands on can carry it.

Metres, in the frame of `smpler.datasets.engine.poses.anatomy`.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.poses import self_collision
from smpler.utils.joints import SMPL_NAMES

# Share of the body's mass at each joint, of limbs for one side (after Winter, Biomechanics, 2009).
MASS = {
    "Pelvis": 0.16, "Spine2": 0.16, "Spine3": 0.18, "Head": 0.08, "Shoulder": 0.02, "Elbow": 0.02,
    "Wrist": 0.015, "Hip": 0.06, "Knee": 0.075, "Ankle": 0.02,
}  # fmt: skip
_MASS = np.array([MASS.get(name, MASS.get(name[2:], 0.0)) for name in SMPL_NAMES])
_MASS /= _MASS.sum()
_ANKLES, _TOES = (
    [SMPL_NAMES.index(f"{side}_{name}") for side in "LR"] for name in ("Ankle", "Foot")
)
NEAR_GROUND = 0.1
"""Parts that are at most this much above the lowest one may carry the body [m]."""


def balancing_turn(joints: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Return the turn that brings the centre of mass above the feet, above all the lower one."""
    feet = 0.5 * (joints[:, _ANKLES] + joints[:, _TOES])
    weight = np.exp(-(feet[..., 1] - feet[..., 1].min(axis=1, keepdims=True)) / 0.1)
    support = (feet * (weight / weight.sum(axis=1, keepdims=True))[..., None]).sum(axis=1)
    x, y, z = (np.tensordot(joints, _MASS, (1, 0)) - support).T
    axis = np.stack([-np.arctan2(z, y), 0 * y, np.arctan2(x, y)], axis=1)
    return Rotation.from_rotvec(axis).as_matrix()


def overhang(
    joints: Float[np.ndarray, "n 24 3"], ends: Float[np.ndarray, "n k 2 3"]
) -> Float[np.ndarray, "n"]:
    """Return how far the centre of mass is beside the parts near the ground [m]; 0: above them.

    Args:
        joints: of the posed skeleton.
        ends: of its capsules, see `self_collision.capsule_ends`.
    """
    bottom = self_collision.bottoms(ends)
    near = (bottom < bottom.min(axis=(1, 2), keepdims=True) + NEAR_GROUND)[..., None]
    level = ends[..., [0, 2]]
    low = np.where(near, level, np.inf).min(axis=(1, 2))
    high = np.where(near, level, -np.inf).max(axis=(1, 2))
    center = np.tensordot(joints, _MASS, (1, 0))[:, [0, 2]]
    return np.linalg.norm(np.maximum(0, np.maximum(low - center, center - high)), axis=1)

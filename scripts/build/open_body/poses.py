"""Random poses within anatomical limits, each joint drawn on its own, to fit correctives to."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from scripts.build.open_body.symmetry import MIRRORED_JOINTS
from smpler.utils.joints import SMPL_NAMES

# Degrees (lowest, relaxed, highest) about x (bending), y (turning), z (sideways); left side.
# Applied in the order x, z, y about the parent's axes, so that an arm first rolls, then rises.
LIMITS = {
    "L_Hip": ((-130, -12, 30), (-30, 5, 45), (-20, 4, 55)),
    "Spine": ((-12, 3, 30), (-22, 0, 22), (-16, 0, 16)),
    "L_Knee": ((0, 15, 140), (-8, 0, 8), (0, 0, 0)),
    "L_Ankle": ((-30, 0, 35), (-15, 0, 15), (-15, 0, 15)),
    "L_Foot": ((-30, -4, 12), (0, 0, 0), (0, 0, 0)),
    "Neck": ((-20, 2, 25), (-35, 0, 35), (-15, 0, 15)),
    "Head": ((-20, 2, 25), (-35, 0, 35), (-15, 0, 15)),
    "L_Collar": ((0, 0, 0), (-15, 0, 12), (-12, -6, 24)),
    "L_Shoulder": ((-60, 8, 70), (-110, -8, 45), (-82, -60, 78)),
    "L_Elbow": ((-60, 0, 60), (-145, -22, 0), (0, 0, 0)),
    "L_Wrist": ((-50, 0, 50), (-25, 0, 25), (-55, -4, 55)),
    "L_Hand": ((-8, 0, 8), (-8, 0, 8), (-35, -12, 10)),
}


def random_poses(count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 24 3"]:
    """Draw axis-angle poses without global rotation, from relaxed to the limits of each joint."""
    pose = np.zeros((count, len(SMPL_NAMES), 3))
    for joint, name in enumerate(SMPL_NAMES[1:], start=1):
        limits = np.array(LIMITS[name.rstrip("123").replace("R_", "L_")], dtype=np.float64)
        low, relaxed, high = limits.T
        strength = np.sqrt(rng.random((count, 1)))  # how far this joint goes in this pose
        angles = relaxed + strength * (rng.uniform(low, high, (count, 3)) - relaxed)
        pose[:, joint] = Rotation.from_euler("xzy", angles[:, [0, 2, 1]], degrees=True).as_rotvec()
        if name.startswith("R_"):
            pose[:, joint] *= (1, -1, -1)
    return pose


def mirror_pose(pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 24 3"]:
    """Swap left and right."""
    return pose[:, MIRRORED_JOINTS] * (1, -1, -1)


def standing_pose() -> Float[np.ndarray, "24 3"]:
    """Stand relaxed, arms beside the body, upright and facing a camera: x right, y down, z away.

    Entry 0 turns the body's rest frame (y up, z forward) into the camera's.
    """
    degrees = {
        "L_Shoulder": (8, -8, -68),
        "L_Elbow": (0, -16, 0),
        "L_Collar": (0, 0, -5),
        "L_Hip": (-2, 4, -1.5),
        "L_Knee": (4, 0, 0),
        "L_Ankle": (-2, 0, 1.5),
        "L_Hand": (0, 0, -12),
    }
    pose = np.zeros((1, len(SMPL_NAMES), 3))
    for name, angles in degrees.items():
        turn = Rotation.from_euler("xzy", np.array(angles)[[0, 2, 1]], degrees=True)
        pose[0, SMPL_NAMES.index(name)] = turn.as_rotvec()
    pose += mirror_pose(pose)
    pose[0, 0] = (np.pi, 0, 0)
    return pose[0]

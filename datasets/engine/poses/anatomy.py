"""What a human body can do: joint limits, the posed skeleton, what touches what.

Frame of this and of every pose here: x to the body's left, y up, z forward, metres; rotations are
relative to SMPL's T-pose. A joint's rotation is written as three angles (x, y, z): the swing of
its bone, the shortest turn that brings the bone's axis to its direction, and the twist about that
axis. Swing and twist have no singularity but a bone folded back onto its parent, so that limits
are plain intervals. Angles are those of the left side; the right side's are mirrored.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from smpler.utils.joints import NUM_JOINTS, SMPL_NAMES, SMPL_PARENTS, mirrored


def _generations() -> list[tuple[list[int], list[int]]]:
    """List the joints by their distance from the root, with their parents."""
    known, generations = [0], []
    while children := [j for j in range(1, NUM_JOINTS) if SMPL_PARENTS[j] in known]:
        known = children
        generations.append((children, [SMPL_PARENTS[child] for child in children]))
    return generations


_GENERATIONS = _generations()
MIRRORED = list(mirrored(SMPL_NAMES))
REFLECT = np.array([1.0, -1.0, -1.0])
"""What mirroring left and right does to an axis-angle vector."""

# Degrees about x, y and z, left side. x: bending (hips and spine forward is -, + / knees +),
# y and z as the axes say; of a leg or the spine y is the twist, of an arm x.
LIMITS = {
    "Spine": ((-25, 34), (-25, 25), (-18, 18)),
    "Neck": ((-28, 30), (-42, 42), (-20, 20)),
    "Head": ((-28, 30), (-42, 42), (-20, 20)),
    "L_Hip": ((-135, 35), (-35, 72), (-28, 65)),
    "L_Knee": ((-2, 152), (-12, 12), (-6, 6)),
    "L_Ankle": ((-35, 48), (-20, 20), (-20, 20)),
    "L_Foot": ((-45, 20), (0, 0), (0, 0)),
    "L_Collar": ((-12, 12), (-34, 26), (-16, 44)),
    "L_Shoulder": ((-95, 90), (-135, 75), (-96, 115)),
    "L_Elbow": ((-80, 80), (-152, 4), (-8, 8)),
    "L_Wrist": ((-45, 45), (-32, 32), (-70, 70)),
    "L_Hand": ((-14, 14), (-15, 15), (-82, 30)),
}
ARM_JOINTS = ("Collar", "Shoulder", "Elbow", "Wrist", "Hand")


def _of_each_joint(table: dict) -> list:
    """List the table's entries in the order of the joints; the root has none."""
    return [table[name.rstrip("123").replace("R_", "L_")] for name in SMPL_NAMES[1:]]


_SIDE = np.array([REFLECT if name.startswith("R_") else np.ones(3) for name in SMPL_NAMES])
_TWIST_AXIS = np.array([0 if name[2:] in ARM_JOINTS else 1 for name in SMPL_NAMES])
_IS_TWIST = np.eye(3)[_TWIST_AXIS]
_SHOULDERS, _ELBOWS = (
    [SMPL_NAMES.index(f"{side}_{name}") for side in "LR"] for name in ("Shoulder", "Elbow")
)
_CHEST = SMPL_NAMES.index("Spine3")
_LOW, _HIGH = np.moveaxis(np.array(_of_each_joint(LIMITS), dtype=np.float64), 2, 0)


def pose_from_angles(angles: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 24 3"]:
    """Turn swing and twist [degrees, left side's convention] into axis-angle [radians]."""
    radians = np.deg2rad(angles * _SIDE)
    twist = Rotation.from_rotvec((radians * _IS_TWIST).reshape(-1, 3))
    swing = Rotation.from_rotvec((radians * (1 - _IS_TWIST)).reshape(-1, 3))
    return (swing * twist).as_rotvec().reshape(angles.shape)


def angles_from_pose(pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 24 3"]:
    """Turn axis-angle [radians] into swing and twist [degrees, left side's convention]."""
    rotation = Rotation.from_rotvec(pose.reshape(-1, 3))
    quaternion = rotation.as_quat(canonical=True).reshape(*pose.shape[:2], 4)  # x, y, z, w
    along = (quaternion[..., :3] * _IS_TWIST).sum(-1)
    half = np.arctan2(along, quaternion[..., 3])
    twist = 2 * half[..., None] * _IS_TWIST
    swing = rotation * Rotation.from_rotvec(twist.reshape(-1, 3)).inv()
    return np.rad2deg(swing.as_rotvec().reshape(pose.shape) + twist) * _SIDE


def clip_angles(angles: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 24 3"]:
    """Bring every joint but the root within its limits [degrees]."""
    clipped = angles.copy()
    clipped[:, 1:] = angles[:, 1:].clip(_LOW, _HIGH)
    return clipped


def clip_to_limits(pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 24 3"]:
    """Bring every joint but the root within its limits; what is within stays, to rounding."""
    clipped = pose_from_angles(clip_angles(angles_from_pose(pose)))
    clipped[:, 0] = pose[:, 0]
    return clipped


def within_reach(direction: Float[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
    """Say where an upper arm can point (outwards, up, forward in the chest's frame).

    It reaches back less the higher it is, and across the chest only in front of it.
    """
    outwards, up, forward = np.moveaxis(direction, -1, 0)
    return (forward > -0.68 + 0.3 * up) & (outwards > -0.25 - 0.6 * forward.clip(0))


def upper_arm_directions(
    joints: Float[np.ndarray, "n 24 3"], rotations: Float[np.ndarray, "n 24 3 3"]
) -> Float[np.ndarray, "n 2 3"]:
    """Return where the posed upper arms, left and right, point in the chest's frame.

    Outwards, up, forward.
    """
    arms = joints[:, _ELBOWS] - joints[:, _SHOULDERS]
    arms = arms / np.linalg.norm(arms, axis=2, keepdims=True)
    # (n, 2, 3) @ (n, 3, 3): rows times R are R.T times the vectors; outwards is -x on the right
    return (arms @ rotations[:, _CHEST]) * np.array([[1, 1, 1], [-1, 1, 1]])


def mirror_pose(pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 24 3"]:
    """Swap left and right; the root's tilt is mirrored too."""
    return pose[:, MIRRORED] * REFLECT


def remove_heading(rotation: Rotation) -> Rotation:
    """Turn a body about the vertical until its rotation has no twist about it.

    What is left is the tilt: upright is the identity, whatever way the body faced.
    """
    quaternion = rotation.as_quat(canonical=True)
    heading = 2 * np.arctan2(quaternion[..., 1], quaternion[..., 3])
    return Rotation.from_rotvec(-heading[..., None] * [0.0, 1.0, 0.0]) * rotation


def forward_kinematics(
    pose: Float[np.ndarray, "n 24 3"], rest_joints: Float[np.ndarray, "24 3"]
) -> tuple[Float[np.ndarray, "n 24 3"], Float[np.ndarray, "n 24 3 3"]]:
    """Pose the skeleton, its root in place.

    Returns:
        Joints [m], and the rotation of each joint from the T-pose.
    """
    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, NUM_JOINTS, 3, 3)
    rotations, joints = local.copy(), np.empty_like(pose)
    joints[:, 0] = rest_joints[0]
    for children, parents in _GENERATIONS:  # at once, all joints that are equally far from the root
        bones = (rest_joints[children] - rest_joints[parents])[..., None]  # (k, 3, 1)
        rotations[:, children] = rotations[:, parents] @ local[:, children]
        joints[:, children] = joints[:, parents] + (rotations[:, parents] @ bones)[..., 0]
    return joints, rotations

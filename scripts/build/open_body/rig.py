"""From MakeHuman's rig of 104 bones in A-pose to SMPL's 24 joints in T-pose."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from scripts.build.open_body.makehuman import People, Rig
from smpler.utils.joints import SMPL_NAMES

DUAL_SHARE = 0.3
"""How much of dual-quaternion skinning is mixed into linear blending: it keeps the volume of
twisted limbs, but puffs up the deltoids when it is all there is."""

# SMPL joint -> bones whose heads it is a weighted mean of; the right side mirrors the left.
JOINT_FROM_HEADS = {
    "Pelvis": {"root": 0.4, "spine04": 0.6},  # 6 cm above the hips, where SMPL has it
    "Spine1": {"spine04": 0.5, "spine03": 0.5},
    "Spine2": {"spine02": 1},
    "Spine3": {"spine01": 1},
    "Neck": {"neck01": 1},
    "Head": {"neck03": 0.7, "head": 0.3},
    "L_Hip": {"upperleg01.L": 1},
    "L_Knee": {"lowerleg01.L": 1},
    "L_Ankle": {"foot.L": 1},
    "L_Foot": {f"toe{i}-1.L": 0.25 for i in (1, 2, 3, 4)},
    "L_Collar": {"clavicle.L": 0.5, "shoulder01.L": 0.5},
    "L_Shoulder": {"upperarm01.L": 1},
    "L_Elbow": {"lowerarm01.L": 1},
    "L_Wrist": {"wrist.L": 1},
    "L_Hand": {f"finger{i}-1.L": 1 / 3 for i in (2, 3, 4)},
}

# Start of a bone's name -> SMPL joints that take over its skinning weight; the longest start wins.
JOINTS_OF_BONE = {
    "root": {"Pelvis": 1},
    "pelvis": {"Pelvis": 1},
    "spine05": {"Pelvis": 1},
    "spine04": {"Pelvis": 0.5, "Spine1": 0.5},
    "spine03": {"Spine1": 1},
    "spine02": {"Spine2": 1},
    "spine01": {"Spine3": 1},
    "neck": {"Neck": 1},
    "neck03": {"Neck": 0.4, "Head": 0.6},
    "head": {"Head": 1},
    "eye": {"Head": 1},
    "upperleg": {"L_Hip": 1},
    "lowerleg": {"L_Knee": 1},
    "foot": {"L_Ankle": 1},
    "toe": {"L_Foot": 1},
    "clavicle": {"L_Collar": 1},
    "shoulder": {"L_Collar": 1},
    "upperarm": {"L_Shoulder": 1},
    "lowerarm": {"L_Elbow": 1},
    "wrist": {"L_Wrist": 1},
    "metacarpal": {"L_Wrist": 1},
    "finger": {"L_Hand": 1},
    "finger1-1": {"L_Wrist": 0.6, "L_Hand": 0.4},  # the ball of the thumb is half palm
}

# Where the left limbs point in the T-pose (x left, y up, z forward).
UPPER_ARM, FOREARM, HAND = (1, -0.03, -0.05), (1, 0, 0.03), (1, -0.06, 0)
THIGH, SHIN = (0.055, -1, 0), (-0.005, -1, -0.075)


def joint_matrix(rig: Rig) -> Float[np.ndarray, "24 b"]:
    """Weights that make SMPL's 24 joints from the bones' heads."""
    matrix = np.zeros((len(SMPL_NAMES), len(rig.bones)))
    for joint, heads in JOINT_FROM_HEADS.items():
        for bone, weight in heads.items():
            matrix[SMPL_NAMES.index(joint), rig.bones.index(bone)] = weight
            right = joint.replace("L_", "R_"), bone.replace(".L", ".R")
            matrix[SMPL_NAMES.index(right[0]), rig.bones.index(right[1])] = weight
    return matrix


def merge_matrix(rig: Rig) -> Float[np.ndarray, "b 24"]:
    """Shares in which the joints take over each bone's skinning weight; rows sum to 1."""
    matrix = np.zeros((len(rig.bones), len(SMPL_NAMES)))
    for row, bone in zip(matrix, rig.bones, strict=True):
        start = max((s for s in JOINTS_OF_BONE if bone.startswith(s)), key=len)
        for joint, share in JOINTS_OF_BONE[start].items():
            row[SMPL_NAMES.index(joint.replace("L_", "R_") if bone.endswith(".R") else joint)] = (
                share
            )
    return matrix


def merged_weights(rig: Rig) -> Float[np.ndarray, "v 24"]:
    """Skinning weights of SMPL's joints: at most four a vertex, rows sum to 1."""
    weights = rig.weights @ merge_matrix(rig)
    fifth = np.sort(weights, axis=1)[:, -5:-4]
    weights = np.where(weights > fifth + 1e-6, weights, 0)  # a tie drops both: left and right
    return weights / weights.sum(axis=1, keepdims=True)


def to_tpose(
    rig: Rig, people: People
) -> tuple[Float[np.ndarray, "n v 3"], Float[np.ndarray, "n b 3"]]:
    """Bring everyone to the T-pose, pelvis at the origin.

    Returns:
        Vertices (float32) and heads of the bones.
    """
    rotations = tpose_rotations(rig, people.heads)
    heads, translations = follow_chain(rig, people.heads, rotations)
    pelvis = (joint_matrix(rig) @ heads)[:, :1]
    vertices = np.empty_like(people.vertices)
    for i, rest in enumerate(people.vertices):
        vertices[i] = skin(rig, rest, rotations[i], translations[i]) - pelvis[i]
    return vertices, heads - pelvis


def tpose_rotations(rig: Rig, heads: Float[np.ndarray, "n b 3"]) -> Float[np.ndarray, "n b 3 3"]:
    """World rotation of every bone that takes the A-pose to the T-pose: palms down, feet parallel.

    Bodies are symmetric: the right side's rotations mirror the left's.
    """
    rotations = np.tile(np.eye(3), (*heads.shape[:2], 1, 1))
    mirror = np.diag([-1.0, 1, 1])
    for start, rotation in _left_rotations(rig, heads).items():
        for i, bone in enumerate(rig.bones):
            if bone.startswith(start) and bone.endswith(".L"):
                rotations[:, i] = rotation.as_matrix()
                right = rig.bones.index(bone.replace(".L", ".R"))
                rotations[:, right] = mirror @ rotations[:, i] @ mirror
    return rotations


def _left_rotations(rig: Rig, heads: Float[np.ndarray, "n b 3"]) -> dict[str, Rotation]:
    """Rotations of the left limbs by the start of their bones' names."""

    def bone(start: str, end: str) -> np.ndarray:
        return rig.head_of(heads, end) - rig.head_of(heads, start)

    clavicle, shoulder = Rotation.from_euler("z", [[4], [8]], degrees=True)  # raised with the arm
    arm = _aim(shoulder, bone("upperarm01.L", "lowerarm01.L"), UPPER_ARM)
    forearm = _aim(arm, bone("lowerarm01.L", "wrist.L"), FOREARM)
    hand = _aim(forearm, bone("wrist.L", "finger3-1.L"), HAND)
    across = hand.apply(bone("finger5-1.L", "finger2-1.L"))  # from little finger to index: +z
    palm_down = np.outer(np.arctan2(across[:, 1], across[:, 2]), [1, 0, 0])
    hand = Rotation.from_rotvec(palm_down) * hand
    thigh = _aim(Rotation.identity(), bone("upperleg01.L", "lowerleg01.L"), THIGH)
    shin = _aim(thigh, bone("lowerleg01.L", "foot.L"), SHIN)
    foot = Rotation.from_euler("y", 6, degrees=True)
    return {
        "clavicle": clavicle,
        "shoulder": shoulder,
        "upperarm": arm,
        "lowerarm01": Rotation.from_rotvec(0.15 * palm_down) * forearm,
        "lowerarm02": Rotation.from_rotvec(0.5 * palm_down) * forearm,
        **{start: hand for start in ("wrist", "finger", "metacarpal")},
        "upperleg": thigh,
        "lowerleg": shin,
        **{start: foot for start in ("foot", "toe")},
    }


def _aim(start: Rotation, bone: Float[np.ndarray, "n 3"], direction: tuple) -> Rotation:
    """Rotate by `start`, then the shortest way that makes the bone point in the direction."""
    bone, direction = start.apply(bone), np.array(direction, dtype=np.float64)
    axis = np.cross(bone, direction)
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(length, (bone * direction).sum(-1, keepdims=True))
    return Rotation.from_rotvec(axis / length * angle) * start


def follow_chain(
    rig: Rig, heads: Float[np.ndarray, "n b 3"], rotations: Float[np.ndarray, "n b 3 3"]
) -> tuple[Float[np.ndarray, "n b 3"], Float[np.ndarray, "n b 3"]]:
    """Turn the bones about their heads, children following.

    Returns:
        The new heads, and translations t such that a point x of a bone goes to R x + t.
    """
    translations = np.zeros_like(heads)
    posed = heads.copy()
    for i, parent in enumerate(rig.parents):
        if parent >= 0:
            moved = (rotations[:, parent] @ heads[:, i, :, None])[..., 0]
            posed[:, i] = moved + translations[:, parent]
        translations[:, i] = posed[:, i] - (rotations[:, i] @ heads[:, i, :, None])[..., 0]
    return posed, translations


def skin(
    rig: Rig,
    vertices: Float[np.ndarray, "v 3"],
    rotations: Float[np.ndarray, "b 3 3"],
    translations: Float[np.ndarray, "b 3"],
) -> Float[np.ndarray, "v 3"]:
    """Move one person's vertices with the bones: linear blending and a share of dual quaternions.

    Dual quaternions: Kavan et al., "Geometric Skinning with Approximate Dual Quaternion Blending",
    ACM Transactions on Graphics 2008.
    """
    blended = rig.weights @ np.concatenate([rotations.reshape(-1, 9), translations], axis=1)
    linear = (blended[:, :9].reshape(-1, 3, 3) @ vertices[..., None])[..., 0] + blended[:, 9:]
    return (1 - DUAL_SHARE) * linear + DUAL_SHARE * _skin_dual(
        rig, vertices, rotations, translations
    )


def _skin_dual(rig: Rig, vertices, rotations, translations) -> Float[np.ndarray, "v 3"]:
    """Dual-quaternion skinning; quaternions are (x, y, z, w)."""
    real = Rotation.from_matrix(rotations).as_quat()
    for i, parent in enumerate(rig.parents):  # q and -q are one rotation: take the parent's sign
        if parent >= 0 and real[i] @ real[parent] < 0:
            real[i] *= -1
    vector, scalar = real[:, :3], real[:, 3:]
    dual = 0.5 * np.concatenate(
        [
            scalar * translations + np.cross(translations, vector),
            -(translations * vector).sum(axis=1, keepdims=True),
        ],
        axis=1,
    )
    real, dual = rig.weights @ real, rig.weights @ dual
    norm = np.linalg.norm(real, axis=1, keepdims=True)
    real, dual = real / norm, dual / norm
    vector, scalar = real[:, :3], real[:, 3:]
    shift = scalar * dual[:, :3] - dual[:, 3:] * vector + np.cross(vector, dual[:, :3])
    return Rotation.from_quat(real).apply(vertices) + 2 * shift

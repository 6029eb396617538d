"""How deep a posed body runs through itself: the overlap of capsules about its skeleton.

The capsules are fitted to the open body's mean adult. Metres, in the frame of
`smpler.datasets.engine.poses.anatomy`.
"""

import numpy as np
from jaxtyping import Bool, Float

from smpler.utils.joints import SMPL_NAMES

# Capsule -> two ends (joint, offset in that joint's own frame) and the radius [m].
# Those of "L_" are mirrored for "R_".
CAPSULES = {
    "L_Trunk": (("Pelvis", (0.075, -0.05, 0.025)), ("Spine3", (0.065, 0.09, 0.045)), 0.098),
    "Shoulders": (("L_Collar", (0.05, 0, 0)), ("R_Collar", (-0.05, 0, 0)), 0.06),
    "Head": (("Head", (0, 0.02, 0.03)), ("Head", (0, 0.085, 0.045)), 0.085),
    "L_UpperArm": (("L_Shoulder", (0.13, 0, 0)), ("L_Elbow", (0, 0, 0)), 0.042),
    "L_Forearm": (("L_Elbow", (0.02, 0, 0)), ("L_Wrist", (0.0, 0, 0)), 0.035),
    "L_Palm": (("L_Wrist", (0.03, 0, 0)), ("L_Hand", (0.05, -0.01, 0)), 0.03),
    "L_Thigh": (("L_Hip", (0, -0.06, 0.01)), ("L_Knee", (0, 0, 0)), 0.07),
    "L_Shin": (("L_Knee", (0, -0.03, 0)), ("L_Ankle", (0, 0, 0)), 0.048),
    "L_Sole": (("L_Ankle", (0.01, -0.04, -0.02)), ("L_Foot", (0, 0, 0.02)), 0.035),
}
# Capsules that may not run through each other, and the same with sides swapped. Neighbours in the
# body may touch.
PAIRS = {
    "L_Forearm": ("L_Trunk", "R_Trunk", "Shoulders", "Head", "L_Thigh", "R_Thigh", "L_Shin",
                  "R_Shin", "R_UpperArm", "R_Forearm", "R_Palm"),
    "L_Palm": ("L_Trunk", "R_Trunk", "Shoulders", "Head", "L_Thigh", "R_Thigh", "L_Shin", "R_Shin",
               "L_Sole", "R_Sole", "R_UpperArm", "R_Palm"),
    "L_UpperArm": ("L_Trunk", "Head", "L_Thigh", "R_Thigh"),
    "L_Thigh": ("R_Shin", "R_Thigh", "R_Sole"),
    "L_Shin": ("R_Shin", "R_Sole", "L_Trunk", "R_Trunk"),
    "L_Sole": ("R_Sole", "L_Trunk"),
}  # fmt: skip
SOFT = 0.015
"""How deep flesh gives way [m]: a smaller overlap is a touch."""


def capsule_ends(
    joints: Float[np.ndarray, "n 24 3"], rotations: Float[np.ndarray, "n 24 3 3"]
) -> Float[np.ndarray, "n k 2 3"]:
    """Return both ends of every capsule's axis [m].

    Args:
        joints: of the posed skeleton.
        rotations: of each joint from the T-pose, as `anatomy.forward_kinematics` returns them.
    """
    # (n, k, 2, 3, 3) @ (k, 2, 3, 1) -> (n, k, 2, 3)
    offset = (rotations[:, _END_JOINTS] @ _END_OFFSETS[..., None])[..., 0]
    return joints[:, _END_JOINTS] + offset


def penetration(ends: Float[np.ndarray, "n k 2 3"]) -> Float[np.ndarray, "n"]:
    """Return how deep the worst pair of capsules overlaps [m]; negative: the smallest gap."""
    gap = _segment_distance(ends[:, _PAIRS[:, 0]], ends[:, _PAIRS[:, 1]]) - _REACH
    return -gap.min(axis=1)


def bottoms(ends: Float[np.ndarray, "n k 2 3"]) -> Float[np.ndarray, "n k 2"]:
    """Return the height of the lowest point about both ends of each capsule [m]."""
    return ends[..., 1] - _RADIUS[:, None]


def lowest(ends: Float[np.ndarray, "n k 2 3"]) -> Float[np.ndarray, "n k"]:
    """Return the height of each capsule's lowest point [m]."""
    return ends[..., 1].min(axis=2) - _RADIUS


def belongs_to(parts: tuple[str, ...]) -> Bool[np.ndarray, "k"]:
    """Say which capsules belong to some parts, left or right."""
    return np.array([name.removeprefix("L_").removeprefix("R_") in parts for name in _NAMES])


def _segment_distance(
    first: Float[np.ndarray, "n p 2 3"], second: Float[np.ndarray, "n p 2 3"]
) -> Float[np.ndarray, "n p"]:
    """Return segments' distances (Ericson, "Real-Time Collision Detection", 2005, sec. 5.1.9)."""
    d1, d2 = first[..., 1, :] - first[..., 0, :], second[..., 1, :] - second[..., 0, :]
    start = first[..., 0, :] - second[..., 0, :]
    a, e, b = (d1 * d1).sum(-1), (d2 * d2).sum(-1), (d1 * d2).sum(-1)
    c, f = (d1 * start).sum(-1), (d2 * start).sum(-1)
    s = ((b * f - c * e) / np.maximum(a * e - b * b, 1e-9)).clip(0, 1)
    t = ((b * s + f) / e).clip(0, 1)
    s = ((b * t - c) / a).clip(0, 1)
    between = start + s[..., None] * d1 - t[..., None] * d2
    return np.sqrt((between * between).sum(-1))


def _swap_side(name: str) -> str:
    return {"L_": "R_", "R_": "L_"}.get(name[:2], name[:2]) + name[2:]


def _both_sides() -> tuple[dict, list[tuple[str, str]]]:
    """Complete the tables with their mirror images."""
    capsules, pairs = {}, set()
    for name, (*ends, radius) in CAPSULES.items():
        right = [(_swap_side(joint), (-x, y, z)) for joint, (x, y, z) in ends]
        capsules |= {name: (*ends, radius)}
        if name != _swap_side(name):
            capsules |= {_swap_side(name): (*right, radius)}
    for first, others in PAIRS.items():
        for second in others:
            pairs.add(tuple(sorted((first, second))))
            pairs.add(tuple(sorted((_swap_side(first), _swap_side(second)))))
    return capsules, sorted(pairs)


_ALL, _NAMED_PAIRS = _both_sides()
_NAMES = list(_ALL)
_END_JOINTS = np.array([[SMPL_NAMES.index(joint) for joint, _ in _ALL[n][:2]] for n in _NAMES])
_END_OFFSETS = np.array([[offset for _, offset in _ALL[n][:2]] for n in _NAMES], dtype=np.float64)
_RADIUS = np.array([_ALL[name][2] for name in _NAMES])
_PAIRS = np.array([[_NAMES.index(name) for name in pair] for pair in _NAMED_PAIRS])
_REACH = _RADIUS[_PAIRS].sum(1)

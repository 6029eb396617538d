"""A skeleton's motion as a BVH file (Biovision Hierarchy), which animation programs read.

Centimetres, as is the custom, and y up.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from smpler.utils.rig import Motion, Rig

CENTIMETRES = 100
CHANNELS = "Zrotation Xrotation Yrotation"
"""Of each joint: rotation = Rz @ Rx @ Ry, degrees."""
ROOT_CHANNELS = f"Xposition Yposition Zposition {CHANNELS}"


def bvh(rig: Rig, motion: Motion, fps: float) -> str:
    """Return a motion as the text of a BVH file.

    The root's OFFSET is zero and its positions are whole, so that programs that add the two and
    programs that do not agree.

    Args:
        rig: its joints at rest make the hierarchy.
        motion: of this rig.
        fps: frames a second.
    """
    children: list[list[int]] = [[] for _ in rig.parents]
    for joint, parent in list(enumerate(rig.parents))[1:]:
        children[parent].append(joint)
    angles = np.degrees(euler_zxy(motion.rotations))[:, _in_order(children)]
    rows = np.concatenate([motion.root * CENTIMETRES, angles.reshape(len(angles), -1)], axis=1)
    lines = ["HIERARCHY", *_block(rig, children, 0), "MOTION"]
    lines += [f"Frames: {len(rows)}", f"Frame Time: {1 / fps:.9f}"]
    row_format = " ".join(["%.6f"] * rows.shape[1])
    lines += [row_format % tuple(row) for row in rows.tolist()]
    return "\n".join(lines) + "\n"


def euler_zxy(rotmat: Float[np.ndarray, "t n 3 3"]) -> Float64[np.ndarray, "t n 3"]:
    """Return angles z, x, y [radians] with rotmat = Rz @ Rx @ Ry, continuous in time.

    Of the two triples that give a rotation, the one nearer to the frame before is taken; angles may
    exceed half a turn.
    """
    rotmat = rotmat.astype(np.float64)
    locked = np.hypot(rotmat[..., 2, 0], rotmat[..., 2, 2]) < 1e-7  # any y does: z makes up for it
    y = np.where(locked, 0.0, np.arctan2(-rotmat[..., 2, 0], rotmat[..., 2, 2]))
    one, other = _with_y(rotmat, y), _with_y(rotmat, y + math.pi)
    angles = one.copy()
    for frame in range(1, len(angles)):
        before = angles[frame - 1]
        near, far = (_nearest_turn(triple[frame], before) for triple in (one, other))
        keep = np.abs(near - before).sum(axis=-1) <= np.abs(far - before).sum(axis=-1)
        angles[frame] = np.where(keep[:, None], near, far)
    return angles


def _with_y(
    rotmat: Float64[np.ndarray, "*n 3 3"], y: Float64[np.ndarray, "*n"]
) -> Float64[np.ndarray, "*n 3"]:
    """Return z, x, y when y is known: rotmat @ Ry(-y) = Rz @ Rx."""
    cosine, sine = np.cos(y), np.sin(y)
    first, last = rotmat[..., 0], rotmat[..., 2]
    column = first * cosine[..., None] + last * sine[..., None]  # the first of rotmat @ Ry(-y)
    z = np.arctan2(column[..., 1], column[..., 0])
    third = last[..., 2] * cosine - first[..., 2] * sine
    x = np.arctan2(rotmat[..., 2, 1], third)
    return np.stack([z, x, y], axis=-1)


def _nearest_turn(
    angles: Float64[np.ndarray, "n 3"], before: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n 3"]:
    """Return the same angles, whole turns added, as near as can be to others."""
    return angles + math.tau * np.round((before - angles) / math.tau)


def _in_order(children: Sequence[Sequence[int]], joint: int = 0) -> list[int]:
    """Return joints as the blocks name them, which is how the file's rows go through them."""
    below = [_in_order(children, child) for child in children[joint]]
    return [joint, *itertools.chain.from_iterable(below)]


def _block(rig: Rig, children: Sequence[Sequence[int]], joint: int) -> list[str]:
    """Return a joint with all below it; the End Site of a leaf is the middle of what it moves."""
    parent = rig.parents[joint]
    offset = np.zeros(3) if parent < 0 else rig.joints[joint] - rig.joints[parent]
    kind, channels = ("ROOT", f"6 {ROOT_CHANNELS}") if parent < 0 else ("JOINT", f"3 {CHANNELS}")
    inner = [f"OFFSET {_triple(offset)}", f"CHANNELS {channels}"]
    for child in children[joint]:
        inner += _block(rig, children, child)
    if not children[joint]:
        weights = rig.dense_weights[:, joint]
        middle = weights @ (rig.vertices - rig.joints[joint]) / max(weights.sum(), 1e-9)
        inner += ["End Site", "{", f"  OFFSET {_triple(middle)}", "}"]
    return [f"{kind} {rig.names[joint]}", "{", *(f"  {line}" for line in inner), "}"]


def _triple(place: Float[np.ndarray, "3"]) -> str:
    return " ".join(f"{value:.6f}" for value in (place * CENTIMETRES).tolist())

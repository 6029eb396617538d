"""The annotation of one person, read from METRO's TSV labels and checked.

A label is a dict: `center` [x, y] px, `scale` = side of the box / 200, `2d_joints` 24 x 3 (px,
visibility), `3d_joints` 24 x 4 (metres, confidence), `pose` 72, `betas` 10, `gender`, and
`has_2d_joints`, `has_3d_joints`, `has_smpl` (0 or 1). Joints may be nested in one more list. An
entry whose flag is 0 may be left out.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from smpler.datasets.tsv_file import BadSampleError
from smpler.utils.files.text import shown
from smpler.utils.joints import ANNOTATION_NAMES, NUM_BETAS, NUM_JOINTS

NUM_ANNOTATED, NUM_POSE = len(ANNOTATION_NAMES), 3 * NUM_JOINTS
LARGEST = float(np.finfo(np.float32).max)
MAX_CENTER = 1e6
"""Pixels from a photo's corner; no photo has as many in a row."""
MAX_SCALE = 100.0
"""A box of 20,000 pixels: a larger one is a mistake, and its crop would fill the memory."""

GENDERS = {None: 0, "": 0, "n": 0, "neutral": 0, "m": 1, "male": 1, "f": 2, "female": 2}
"""Gender of a label -> 0 neutral or unknown, 1 male, 2 female."""


@dataclass(frozen=True, eq=False)
class Label:
    """An annotation in photo pixels and in the camera's frame (x right, y down, z away)."""

    center: Float[np.ndarray, "2"]
    """Middle of the person's box, px."""
    scale: float
    """Side of the square box / 200, px."""
    joints_2d: Float[np.ndarray, "24 3"]
    """x, y in px, confidence; zeros if not annotated."""
    joints_3d: Float[np.ndarray, "24 4"]
    """x, y, z in metres, confidence."""
    pose: Float[np.ndarray, "72"]
    """Axis-angle, radians."""
    betas: Float[np.ndarray, "10"]
    has_2d: bool
    has_3d: bool
    has_smpl: bool
    gender: int
    """0 neutral or unknown, 1 male, 2 female."""

    @classmethod
    def parse(cls, label: dict, where: str) -> "Label":
        """Check a label and convert it to arrays.

        Args:
            label: as METRO's tables hold it.
            where: file and row, for errors.

        Raises:
            BadSampleError: an entry is missing, has a wrong count, or holds a number that is not
                finite in float32, the type of a batch.
        """
        has = {name: _flag(label, name, where) for name in ("2d_joints", "3d_joints", "smpl")}
        center = _numbers(label, "center", (2,), True, where)
        if np.abs(center).max() > MAX_CENTER:
            raise BadSampleError(
                f"{where}: center is {center[0]:g}, {center[1]:g}, which is in no photo."
            )
        scale = float(_numbers(label, "scale", (), True, where))
        if not 0 < scale <= MAX_SCALE:
            raise BadSampleError(f"{where}: scale is {scale:g}, not in (0, {MAX_SCALE:g}].")
        gender = label.get("gender")
        if not isinstance(gender, str | None) or gender not in GENDERS:
            raise BadSampleError(f"{where}: gender is {shown(gender)}, not m, f or n.")
        joints_2d, joints_3d = (NUM_ANNOTATED, 3), (NUM_ANNOTATED, 4)
        return cls(
            center=center,
            scale=scale,
            joints_2d=_numbers(label, "2d_joints", joints_2d, has["2d_joints"], where),
            joints_3d=_numbers(label, "3d_joints", joints_3d, has["3d_joints"], where),
            pose=_numbers(label, "pose", (NUM_POSE,), has["smpl"], where),
            betas=_numbers(label, "betas", (NUM_BETAS,), has["smpl"], where),
            has_2d=has["2d_joints"],
            has_3d=has["3d_joints"],
            has_smpl=has["smpl"],
            gender=GENDERS[gender],
        )


def _flag(label: dict, name: str, where: str) -> bool:
    flag = label.get(f"has_{name}", 0)
    flag = flag[0] if isinstance(flag, list) and len(flag) == 1 else flag
    if not isinstance(flag, int | float) or flag not in (0, 1):
        raise BadSampleError(f"{where}: has_{name} is {shown(flag)}, not 0 or 1.")
    return bool(flag)


def _numbers(
    label: dict, name: str, shape: tuple[int, ...], needed: bool, where: str
) -> np.ndarray:
    """Return an entry as float64; zeros if it is neither needed nor usable."""
    count = math.prod(shape)
    try:
        values = np.array(label[name], dtype=np.float64).ravel()
        reason = ""
        if values.size != count:
            reason = f"{name} has {values.size} numbers instead of {count}"
        elif not np.isfinite(values).all():
            reason = f"{name} holds {values[~np.isfinite(values)][0]:g}"
        elif np.abs(values).max() > LARGEST:
            reason = f"{name} holds {values[np.abs(values) > LARGEST][0]:g}, too large for float32"
    except KeyError:
        reason = f"{name} is missing"
    except (ValueError, TypeError, OverflowError):
        reason = f"{name} is no array of {count} numbers"
    if not reason:
        return values.reshape(shape)
    if needed:
        raise BadSampleError(f"{where}: {reason}.")
    return np.zeros(shape)

"""Poses from the user's own motion capture: AMASS's npz files (Mahmood et al., ICCV 2019).

AMASS's world has z up; poses come out in the frame of `smpler.datasets.engine.poses.anatomy`,
heading removed.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.poses.anatomy import remove_heading
from smpler.utils.files.arrays import npz_names, read_npz
from smpler.utils.files.text import one_line
from smpler.utils.joints import NUM_JOINTS
from smpler.utils.paths import display

RATE_NAMES = ("mocap_framerate", "mocap_frame_rate")
WIDTHS = (72, 156, 165)
"""Numbers per frame of SMPL, SMPL-H and SMPL-X; the first 22 joints are the same in all."""
NUM_BODY_JOINTS = 22
LARGEST_ANGLE = 4 * np.pi
"""Largest number in a pose [radians]; a larger one is no axis-angle."""
UNUSABLE, ADVICE = "is no usable AMASS file", "download it again or take it out"
TO_Y_UP = Rotation.from_euler("x", -90, degrees=True)


def load_amass(source: Path, frames_per_second: float = 6.0) -> Float[np.ndarray, "n 24 3"]:
    """Read an npz file, or every one below a folder, thinned out to a frame rate.

    Files below a folder that hold no `poses` (AMASS's `shape.npz`, ...) are left out.

    Returns:
        Axis-angle [radians], float32; the hands of SMPL-H and SMPL-X are made flat.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a file is damaged or not AMASS's, or the folder holds none.
    """
    source = Path(source)
    if source.is_file():
        return read_amass(source, frames_per_second)
    if not source.is_dir():
        raise FileNotFoundError(f"{display(source)}: no such AMASS file or folder; check the path.")
    files = [path for path in sorted(source.rglob("*.npz")) if _holds_poses(path)]
    if not files:
        raise ValueError(
            f"{display(source)} holds no npz with `poses`; unpack AMASS's archives into it."
        )
    return np.concatenate([read_amass(path, frames_per_second) for path in files])


def read_amass(path: Path, frames_per_second: float) -> Float[np.ndarray, "n 24 3"]:
    """Read one file, see `load_amass`."""
    arrays = read_npz(path, ("poses", *RATE_NAMES), UNUSABLE, ADVICE)
    if "poses" not in arrays:
        names = one_line(", ".join(npz_names(path)) or "nothing")
        raise _unusable(path, f"it holds {names}, but no `poses`")
    given = [arrays[name] for name in RATE_NAMES if name in arrays]
    rates = [float(rate.item()) for rate in given if rate.size == 1 and rate.dtype.kind in "iuf"]
    if not rates or not 0 < rates[0] < np.inf:
        raise _unusable(path, f"it has no positive `{RATE_NAMES[0]}`")
    poses = arrays["poses"]
    if (
        poses.dtype.kind not in "iuf"
        or poses.ndim != 2
        or poses.shape[1] not in WIDTHS
        or not len(poses)
    ):
        raise _unusable(
            path, f"`poses` is {poses.shape}, not (frames, {' or '.join(map(str, WIDTHS))})"
        )
    step = max(1, round(rates[0] / frames_per_second))
    # (n, WIDTHS) -> (n, joints, 3) -> (n, 24, 3)
    body = poses[::step].reshape(len(poses[::step]), -1, 3).astype(np.float64)[:, :NUM_JOINTS]
    if not np.isfinite(body).all() or np.abs(body).max() > LARGEST_ANGLE:
        raise _unusable(path, "`poses` holds numbers that are no rotations in radians")
    if poses.shape[1] != WIDTHS[0]:
        body[:, NUM_BODY_JOINTS:] = 0  # those are a jaw, an eye or a finger there
    tilt = remove_heading(TO_Y_UP * Rotation.from_rotvec(body[:, 0]))
    body[:, 0] = tilt.as_rotvec()
    return body.astype(np.float32)


def _holds_poses(path: Path) -> bool:
    """Return False only for an intact file that holds something else."""
    try:
        return "poses" in npz_names(path)
    except ValueError:
        return True


def _unusable(path: Path, reason: str) -> ValueError:
    return ValueError(f"{display(path)} {UNUSABLE}: {reason}; {ADVICE}.")

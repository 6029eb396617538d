"""Poses drawn from statistics of motion capture: a mixture of Gaussians over joint angles.

The statistics are means and spreads of groups of some hundred recorded poses; no recorded pose is
stored. `python -m scripts.build.pose_statistics` computes them.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.poses import anatomy
from smpler.datasets.engine.poses.draft import SIDES, Draft
from smpler.utils.files.arrays import read_numbers
from smpler.utils.joints import SMPL_NAMES
from smpler.utils.paths import META_DATA, display

STATISTICS = META_DATA / "pose_statistics.npz"
JOINTS = [number for number, name in enumerate(SMPL_NAMES) if number and "Hand" not in name]
"""The joints of the statistics. Hands are not recorded, and are drawn relaxed."""
NUM_NUMBERS = 3 * len(JOINTS) + 2
"""Numbers of a pose [degrees]: the joints' angles about x, y and z, the body's tilt about x and z.
"""
FLOOR_TILT = 60.0
"""A body whose tilt [degrees] is larger lies, crawls, rolls, tumbles or stands on its hands."""
SHAPES: dict[str, tuple[int | str, ...]] = {
    "weight": ("k",), "floor": ("k",), "mean": ("k", NUM_NUMBERS), "rest": ("k", NUM_NUMBERS),
    "directions": ("k", NUM_NUMBERS, "r"),
}  # fmt: skip
FLATTENING = 0.7
"""Groups are drawn by their frequency to this power: rare ones more often than in recordings."""


class CapturedPoses:
    """Draws poses as motion capture shows them; limits and self-collision are not yet checked.

    Args:
        path: npz file of a mixture of k Gaussians, each with r principal directions: `weight` (k),
            `mean` (k, NUM_NUMBERS), `directions` (k, NUM_NUMBERS, r), `rest` (k, NUM_NUMBERS), the
            standard deviation of what the directions leave, in degrees, and `floor` (k), whether
            it is of poses on the floor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another kind.
    """

    def __init__(self, path: Path = STATISTICS):
        read = read_numbers(path, SHAPES)
        if (read["weight"] < 0).any() or (read["rest"] < 0).any():
            raise ValueError(f"{display(path)} has a weight or spread below 0; get it again.")
        for floor in (False, True):
            if not read["weight"][(read["floor"] == 1) == floor].any():
                where = "on the floor" if floor else "above the floor"
                raise ValueError(f"{display(path)} has no poses {where}; get it again.")
        self.mean, self.directions, self.rest = read["mean"], read["directions"], read["rest"]
        self._share = read["weight"] ** FLATTENING
        self._floor = read["floor"] == 1

    def draw(
        self, count: int, rng: np.random.Generator, floor: bool = False
    ) -> Float[np.ndarray, "n 24 3"]:
        """Draw poses within the joints' limits, axis-angle [radians].

        Args:
            floor: draw from the groups on the floor, see `FLOOR_TILT`; else from the others.
        """
        share = np.where(self._floor == floor, self._share, 0)
        group = rng.choice(len(share), count, p=share / share.sum())
        along = rng.standard_normal((count, self.directions.shape[2])).clip(-2.5, 2.5)
        own = rng.standard_normal((count, NUM_NUMBERS)).clip(-2.5, 2.5)
        numbers = self.mean[group] + self.rest[group] * own
        numbers += (self.directions[group] @ along[..., None])[..., 0]
        draft = Draft(count, rng)
        draft.angles[:, JOINTS] = numbers[:, :-2].reshape(count, len(JOINTS), 3)
        for side in SIDES:
            draft.hand(side)
        pose = anatomy.pose_from_angles(anatomy.clip_angles(draft.angles))
        tilt = np.deg2rad(numbers[:, [-2, -2, -1]]) * [1, 0, 1]
        pose[:, 0] = anatomy.remove_heading(Rotation.from_rotvec(tilt)).as_rotvec()
        return pose


def on_floor(numbers: Float[np.ndarray, "n {NUM_NUMBERS}"]) -> Bool[np.ndarray, "n"]:
    """Say which poses are on the floor, see `FLOOR_TILT`."""
    return np.linalg.norm(numbers[:, -2:], axis=1) > FLOOR_TILT


def numbers_of(pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n {NUM_NUMBERS}"]:
    """Return the numbers [degrees] of poses, brought within the limits; see `NUM_NUMBERS`."""
    angles = anatomy.clip_angles(anatomy.angles_from_pose(pose))[:, JOINTS]
    tilt = anatomy.remove_heading(Rotation.from_rotvec(pose[:, 0])).as_rotvec()[:, [0, 2]]
    return np.concatenate([angles.reshape(len(pose), -1), np.rad2deg(tilt)], axis=1)

"""Poses that the lifter learns from: motion capture, and the data engine's sampler."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from smpler.datasets.engine.poses.amass import load_amass
from smpler.datasets.engine.poses.sampler import PoseSampler
from smpler.utils.joints import NUM_JOINTS
from smpler.utils.paths import display, require

CAPTURED_SHARE = 0.5
"""Share of motion capture among the poses."""
HELD_OUT = 20
"""One clip of so many is kept for the validation."""


def read_poses(
    path: Path,
) -> tuple[Float[np.ndarray, "n 24 3"], Float[np.ndarray, "m 24 3"]]:
    """Read motion capture; return what is learned from, and what is kept for the validation.

    Args:
        path: npz with `pose` (n, 24, 3), axis-angle of SMPL's joints in radians, y up and z ahead,
            heading removed, and optionally `clip` (n,), names; or a file or folder of AMASS.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no poses.
    """
    clips = None
    if require(path).suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            pose = archive["pose"] if "pose" in archive.files else load_amass(path)
            clips = archive["clip"] if "clip" in archive.files else None
    else:
        pose = load_amass(path)
    if pose.ndim != 3 or pose.shape[1:] != (NUM_JOINTS, 3) or not np.isfinite(pose).all():
        raise ValueError(
            f"{display(path)}: `pose` is {pose.shape}; finite numbers (n, 24, 3) were expected."
        )
    # frames that follow one another are alike, so that whole clips are kept
    clips = np.arange(len(pose)) // 100 if clips is None else clips
    kept = np.array([_is_kept(str(clip)) for clip in clips])
    if kept.all() or not kept.any():
        kept = np.arange(len(pose)) % HELD_OUT == 0
    return pose[~kept].astype(np.float32), pose[kept].astype(np.float32)


def _is_kept(clip: str) -> bool:
    return int(hashlib.sha256(clip.encode()).hexdigest(), 16) % HELD_OUT == 0


class MixedPoses:
    """Draws poses of motion capture and of the sampler.

    Args:
        captured: poses of motion capture.
        sampler: the data engine's.
    """

    def __init__(self, captured: Float[np.ndarray, "n 24 3"], sampler: PoseSampler):
        self.captured, self.sampler = captured, sampler

    def sample(self, rng: np.random.Generator) -> Float[np.ndarray, "24 3"]:
        """Draw one."""
        if rng.random() < CAPTURED_SHARE:
            return self.captured[rng.integers(len(self.captured))].astype(np.float64)
        return self.sampler.sample(rng)


def read_several(
    paths: Sequence[Path],
) -> tuple[Float[np.ndarray, "n 24 3"], Float[np.ndarray, "m 24 3"]]:
    """Read several files as one, see `read_poses`."""
    parts = [read_poses(path) for path in paths]
    learned, kept = (np.concatenate(part) for part in zip(*parts, strict=True))
    return learned, kept

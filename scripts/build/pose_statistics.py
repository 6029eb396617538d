"""Build meta_data/pose_statistics.npz, the statistics of motion capture that the engine draws from.

`python -m scripts.build.pose_statistics --poses FILE.npz` fits a mixture of Gaussians, each with a
few principal directions (mixture of factor analysers, Ghahramani and Hinton, 1996), to the joint
angles of FILE and their mirror images; poses on the floor are fitted apart. FILE holds `pose`
(n, 24, 3), axis-angle [radians] in the frame of `smpler.datasets.engine.poses.anatomy`, and, for
`--half`, `clip` (n,), names of the recordings. The poses themselves are not stored; NOTICE says
which ones the shipped file is from.
"""

import argparse
import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from smpler.datasets.engine.poses import anatomy
from smpler.datasets.engine.poses.captured import STATISTICS, numbers_of, on_floor
from smpler.utils.files.arrays import read_npz
from smpler.utils.files.whole import write_whole
from smpler.utils.flags import Parser, input_file, output_file, positive, program, whole
from smpler.utils.paths import display

FLOOR = 3.0
"""Least standard deviation of every number [degrees]."""
LEAST = 40
"""Groups of fewer poses, with their mirror images of twice as many, are given up."""
SHRINKAGE = 30
"""Poses without correlations that every group's covariance is averaged with."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of k Gaussians over d numbers, each with r principal directions."""

    weight: Float[np.ndarray, "k"]
    mean: Float[np.ndarray, "k d"]
    directions: Float[np.ndarray, "k d r"]
    rest: Float[np.ndarray, "k d"]
    """Standard deviation of what the directions leave."""

    def log_density(self, numbers: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Return the logarithm of each Gaussian's weighted density, up to a constant."""
        columns = []
        for weight, mean, directions, rest in zip(
            self.weight, self.mean, self.directions, self.rest, strict=True
        ):
            root = np.linalg.cholesky(directions @ directions.T + np.diag(rest**2))
            whitened = np.linalg.solve(root, (numbers - mean).T)
            columns.append(
                np.log(weight) - np.log(np.diag(root)).sum() - 0.5 * (whitened**2).sum(axis=0)
            )
        return np.stack(columns, axis=1)


@program
def main(argv: list[str] | None = None) -> int:
    """Write the statistics; return 0, or 2 with one sentence."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--poses", type=input_file, required=True, help="npz file of motion capture")
    add("--half", action="store_true", help="leave out every second recording, to measure on it")
    add("--groups", type=positive, default=40, help="Gaussians of poses that are upright")
    add("--floor_groups", type=positive, default=5, help="Gaussians of poses on the floor")
    add("--directions", type=positive, default=12, help="of each Gaussian")
    add("--steps", type=positive, default=30, help="of expectation maximisation")
    add("--seed", type=whole, default=0)
    add("--out", type=output_file, default=STATISTICS)
    args = parser.parse_args(argv)
    pose = read_poses(args.poses, args.half)
    numbers = numbers_of(np.concatenate([pose, anatomy.mirror_pose(pose)]))
    floor = on_floor(numbers)
    parts = []
    for chosen, groups in ((~floor, args.groups), (floor, args.floor_groups)):
        part = fit(numbers[chosen], groups, args.directions, args.steps, args.seed)
        parts.append(replace(part, weight=part.weight * chosen.mean()))
    weight, mean, directions, rest = (
        np.concatenate([getattr(part, name) for part in parts]).astype(np.float16)
        for name in vars(parts[0])
    )
    is_floor = np.repeat([False, True], [len(part.weight) for part in parts])
    arrays = {"floor": is_floor, "weight": weight, "mean": mean}
    arrays |= {"directions": directions, "rest": rest}
    write_whole(args.out, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    print(
        f"{display(args.out)}: {args.out.stat().st_size // 1000} kB from {len(pose)} poses; the "
        f"smallest group stands for {len(pose) * weight.min():.0f} of them."
    )
    return 0


def read_poses(path: Path, half: bool) -> Float[np.ndarray, "n 24 3"]:
    """Return a file's poses, axis-angle [radians]; of the recordings, all or every second one.

    Raises:
        ValueError: it holds no poses, or does not name their recordings.
    """
    arrays = read_npz(path, ("pose", "clip"), "cannot be read")
    pose, clip = arrays.get("pose", np.empty(0)), arrays.get("clip", np.empty(0))
    if pose.dtype.kind != "f" or pose.shape[1:] != (24, 3) or not np.isfinite(pose).all():
        raise ValueError(f"{display(path)}: `pose` is not (n, 24, 3), finite numbers.")
    if half and (clip.shape != pose.shape[:1] or clip.dtype.kind != "U"):
        raise ValueError(f"{display(path)}: `clip` is not one name for each pose.")
    return (pose[is_even(clip)] if half else pose).astype(np.float64)


def is_even(clips: np.ndarray) -> Bool[np.ndarray, "n"]:
    """Say which recordings belong to the first half, by a hash of their names."""
    return np.array([hashlib.sha256(name.encode()).digest()[0] % 2 == 0 for name in clips.tolist()])


def fit(
    numbers: Float[np.ndarray, "n d"], groups: int, directions: int, steps: int, seed: int
) -> Mixture:
    """Fit a mixture by expectation maximisation, starting from k-means."""
    share = np.eye(groups)[_k_means(numbers, groups, np.random.default_rng(seed))]
    for _ in tqdm(range(steps), desc="fit"):
        total = share.sum(axis=0)
        if total.min() < 2 * LEAST:  # one at a time, as the others take over its poses
            share = np.delete(share, total.argmin(), axis=1)
        mixture = maximise(numbers, share, directions)
        log_density = mixture.log_density(numbers)
        share = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
    return mixture  # from the shares of the last step but one: none of its groups is too small


def maximise(
    numbers: Float[np.ndarray, "n d"], share: Float[np.ndarray, "n k"], directions: int
) -> Mixture:
    """Return the Gaussians of groups, given how much of each row belongs to each group."""
    total = share.sum(axis=0)
    parts = []
    for amount, row in zip(total, share.T, strict=True):
        mean = row @ numbers / amount
        apart = numbers - mean
        covariance = (row[:, None] * apart).T @ apart
        variance = np.diag(covariance) / amount
        covariance = (covariance + SHRINKAGE * np.diag(variance)) / (amount + SHRINKAGE)
        size, axes = np.linalg.eigh(covariance)  # in rising order
        main = axes[:, -directions:] * np.sqrt(size[-directions:].clip(0))
        rest = (np.diag(covariance) - (main**2).sum(axis=1)).clip(0) + FLOOR**2
        parts.append((mean, main, np.sqrt(rest)))
    return Mixture(total / total.sum(), *(np.stack(part) for part in zip(*parts, strict=True)))


def _k_means(numbers: Float[np.ndarray, "n d"], groups: int, rng: np.random.Generator):
    """Return the group of each row (Arthur and Vassilvitskii's start, SODA 2007)."""
    centers = numbers[[rng.integers(len(numbers))]]
    while len(centers) < groups:
        gap = _squared_distances(numbers, centers).min(axis=1).clip(0)
        centers = np.append(centers, numbers[[rng.choice(len(numbers), p=gap / gap.sum())]], axis=0)
    for _ in range(20):
        group = _squared_distances(numbers, centers).argmin(axis=1)
        for number in np.unique(group):
            centers[number] = numbers[group == number].mean(axis=0)
    return group


def _squared_distances(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, "n k"]:
    return (first**2).sum(1)[:, None] - 2 * first @ second.T + (second**2).sum(1)


if __name__ == "__main__":
    sys.exit(main())

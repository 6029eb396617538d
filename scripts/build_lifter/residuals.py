"""How landmark detectors err: rendered people, of whom everything is known, are shown to them.

Nothing that is learned from these pictures is of their pixels: only where landmarks lie on a body,
how far off they are, and how visible they are taken to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scripts.build_lifter.poses import MixedPoses
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.models.body import open_body
from smpler.models.detectors.landmarks import LANDMARK_NAMES, BlazePoseLandmarkDetector
from smpler.models.detectors.search import PERSON_PER_SKELETON
from smpler.models.landmark_points import FRAMES, TRUNK, Sight, landmark_points, sight, turned
from smpler.models.smpl import SMPL
from smpler.utils.joints import SMPL_NAMES, mirrored

START_SPREAD = 0.08
"""How far off the place is where the detector looks first, by the person's radius."""
SURE = 0.5
"""Visibility from which on a landmark says where it lies on the body."""
FAR_OFF = 0.05
"""Distance at which landmarks say little of that, metres."""
NUM_STEPS = 30
"""Of the least squares for the places on the body."""
SWAP_RATIO = 0.6
"""Left and right of a person are exchanged if the error is then at most this share."""
LIMBS = [number for number, name in enumerate(LANDMARK_NAMES) if number >= TRUNK[0]]
"""The landmarks below the face."""
FARTHEST = 0.5
"""Errors count no more than this for that, sizes of the person."""
PARTS = 3
"""A rendered person is looked for in one of so many parts of them, so that it is not always the one
whose pose is most alike."""
DEPTH_SHARE = 0.5
"""Weight of a landmark's depth in the likeness of poses, relative to x and y."""
MIRRORED = list(mirrored(LANDMARK_NAMES))
_HIPS, _SHOULDERS = (
    [SMPL_NAMES.index(f"{side}_{part}") for side in "LR"] for part in ("Hip", "Shoulder")
)


@dataclass(frozen=True)
class Looks:
    """What detectors see of rendered people; a person is there once for each detector."""

    rotmat: Float[Tensor, "n 24 3 3"]
    """The first in the camera's frame."""
    betas: Float[Tensor, "n 10"]
    root: Float[Tensor, "n 3"]
    """Place of the first joint, camera frame, metres."""
    slopes: Float[Tensor, "n 33 2"]
    """x / z and y / z of the landmarks."""
    visibility: Float[Tensor, "n 33"]
    """[0, 1]; 0 outside the photo."""


class Crops(Dataset):
    """Rendered people as the detectors see them; sample i depends on seed and i alone.

    Args:
        poses: of the people.
        sizes: of the detectors, see `BlazePoseLandmarkDetector.load`.
        count: how many people.
        seed: of the stream.
    """

    def __init__(self, poses: MixedPoses, sizes: Sequence[str], count: int, seed: int):
        self.stream = SyntheticPeople(open_body(), poses=poses, seed=seed, augment=False)
        self.detectors = [BlazePoseLandmarkDetector.load(size=size) for size in sizes]
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[dict[str, np.ndarray]]:
        """Return what each detector sees; nothing of one that sees nobody."""
        scene, sample = self.stream.scene(index), self.stream.sample(index)
        actor, framing = scene.actors[0], scene.framing
        image = (255 * sample["image"]).round().byte().permute(1, 2, 0).contiguous().numpy()
        joints = framing.project(actor.joints)
        hip, shoulders = joints[_HIPS].mean(axis=0), joints[_SHOULDERS].mean(axis=0)
        radius = PERSON_PER_SKELETON * np.linalg.norm(joints - hip, axis=1).max()
        rng = np.random.default_rng([self.seed, index])
        start = hip + START_SPREAD * radius * rng.standard_normal(2)
        extent = float(radius * np.exp(START_SPREAD * rng.standard_normal()))
        found = []
        for detector in self.detectors:
            seen = detector.find(image, start, shoulders - hip, extent)
            if seen is None:
                continue
            values = {
                "rotmat": actor.rotmat,
                "betas": actor.betas,
                "root": actor.joints[0],
                "slopes": (seen.keypoints - framing.center) / framing.focal,
                "visibility": seen.visibility * framing.inside(seen.keypoints),
            }
            found.append({name: value.astype(np.float32) for name, value in values.items()})
        return found


def look_at_people(
    poses: MixedPoses, sizes: Sequence[str], count: int, seed: int, num_workers: int
) -> Looks:
    """Render people and look at each with every detector; seconds a person on a CPU core."""
    crops = Crops(poses, sizes, count, seed)
    # numbers as they are: shared tensors would each keep a file open
    loader = DataLoader(crops, batch_size=None, num_workers=num_workers, collate_fn=_unchanged)
    rows = [row for rows in tqdm(loader, desc="rendered people", disable=None) for row in rows]
    names = [field.name for field in fields(Looks)]
    return Looks(**{name: torch.stack([torch.as_tensor(r[name]) for r in rows]) for name in names})


def _unchanged(rows: list) -> list:
    return rows


def fit_offsets(smpl: SMPL, looks: Looks) -> Float[Tensor, "33 3"]:
    """Return where landmarks lie on the body, see `landmark_points`: iterated least squares.

    Left and right ones are mirror images.
    """
    joints, rotations = posed(smpl, looks)
    of_frames = rotations[:, FRAMES]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    offsets = torch.zeros(len(LANDMARK_NAMES), 3)
    for _ in range(NUM_STEPS):
        points = landmark_points(joints, rotations, offsets)
        x, y, z = points.unbind(-1)
        away = looks.slopes - points[..., :2] / z[..., None]
        zero = torch.zeros_like(z)
        jacobian = torch.stack([1 / z, zero, -x / z**2, zero, 1 / z, -y / z**2], dim=-1)
        jacobian = jacobian.unflatten(-1, (2, 3)) @ of_frames  # (n, 33, 2, 3)
        metres = away.norm(dim=-1) * z
        weights = looks.visibility * (looks.visibility >= SURE) * z**2
        weights = weights / (1 + (metres / FAR_OFF).square()).square()
        normal = torch.einsum("nl,nlka,nlkb->lab", weights, jacobian, jacobian)
        right = torch.einsum("nl,nlka,nlk->la", weights, jacobian, away)
        normal = normal + flip[:, None] * normal[MIRRORED] * flip
        right = right + right[MIRRORED] * flip
        offsets = offsets + torch.linalg.solve(normal, right[..., None])[..., 0]
    return offsets


def posed(smpl: SMPL, looks: Looks) -> tuple[Float[Tensor, "n 24 3"], Float[Tensor, "n 24 3 3"]]:
    """Return joints in the camera's frame, metres, and each joint's rotation from the rest pose."""
    joints, transforms = smpl.skeleton(looks.rotmat, looks.betas)
    return joints + (looks.root - joints[:, 0])[:, None], transforms[..., :3]


@dataclass(frozen=True)
class Residuals:
    """Errors of landmarks by the pose in which they were made."""

    poses: Float[Tensor, "n 99"]
    """What poses are compared by, see `likeness`."""
    errors: Float[Tensor, "n 33 2"]
    """Seen less true, in sizes of the person."""
    visibility: Float[Tensor, "n 33"]

    def alike(self, poses: Float[Tensor, "b 99"], generator: torch.Generator) -> Int[Tensor, "b"]:
        """Return the numbers of the poses that are most alike among a part drawn anew."""
        part = torch.randperm(len(self.poses), generator=generator)[::PARTS]
        return part[torch.cdist(poses, self.poses[part]).argmin(dim=1)]


def residuals_of(smpl: SMPL, looks: Looks, offsets: Float[Tensor, "33 3"]) -> Residuals:
    """Return the errors of people and of their mirror images.

    Left and right are exchanged where the detector saw a front for a back: the predictor finds that
    by the network's answer.
    """
    points = landmark_points(*posed(smpl, looks), offsets)
    slopes = points[..., :2] / points[..., 2:]
    everywhere = torch.ones_like(looks.visibility)
    true, turn = sight(slopes, everywhere, everywhere)
    places, seen = turned(slopes, turn), turned(looks.slopes, turn)
    errors, exchanged = ((x - places) / true.size[:, None, None] for x in (seen, seen[:, MIRRORED]))
    cost, exchanged_cost = (
        x[:, LIMBS].norm(dim=-1).clamp(max=FARTHEST).mean(dim=1) for x in (errors, exchanged)
    )
    whose = exchanged_cost < SWAP_RATIO * cost
    errors = torch.where(whose[:, None, None], exchanged, errors)
    visibility = looks.visibility
    visibility = torch.where(whose[:, None], visibility[:, MIRRORED], visibility)
    trunk = points[:, TRUNK].mean(dim=1)
    depth = ((points - trunk[:, None]) @ turn)[..., 2] / (true.size * trunk[:, 2])[:, None]
    flip = torch.tensor([-1.0, 1.0])
    return Residuals(
        torch.cat([likeness(true, depth), likeness(true.mirrored(), depth[:, MIRRORED])]),
        torch.cat([errors, errors[:, MIRRORED] * flip]),
        torch.cat([visibility, visibility[:, MIRRORED]]),
    )


def likeness(seen: Sight, depth: Float[Tensor, "n 33"]) -> Float[Tensor, "n 99"]:
    """Return what poses are compared by: where landmarks are, in sizes of the person.

    Args:
        seen: the true landmarks.
        depth: of each, behind the trunk's middle, in sizes.
    """
    return torch.cat([seen.points.flatten(1), DEPTH_SHARE * depth], dim=1)

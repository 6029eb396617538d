"""Endless pairs of landmarks and bodies, without a picture.

A pose, the open body, a camera drawn at random; the landmarks are where the body has them, moved as
they were on the rendered person whose pose is most alike. Everything is in the frame of the ray
through the trunk's middle, which the lifter works in: x right, y down, z away.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scripts.build_lifter.poses import CAPTURED_SHARE
from scripts.build_lifter.residuals import MIRRORED, Residuals, likeness
from smpler.datasets.engine.poses import anatomy
from smpler.models.detectors.landmarks import LANDMARK_NAMES
from smpler.models.landmark_points import TRUNK, along_axis, landmark_points
from smpler.models.smpl import SMPL
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.joints import NUM_BETAS, NUM_JOINTS, SMPL_NAMES

STRAIGHTENED_SHARE, CALMED_SHARE = 0.7, 0.4
"""How often the knees of upright bodies are straightened, and their trunks: captured poses were
chosen to be unlike each other, while people mostly stand upright with straight knees."""
WHOLLY = 1.5
"""A knee loses this times the root of a random share of its bend, but never more than all."""
IN_LINE = -0.08
"""Rotation of the knee, radians, at which hip, knee and ankle of the open body lie most nearly in
line: a leg that is straight. At rest the body's knees are bent by 5 degrees."""
BENT, TILTED = 1.2, 1.0
"""Knees that are bent farther, and bodies tilted farther, stay as they are, radians."""
OTHER_ARMS_SHARE = 0.1
"""How often a pose gets the arms of another one."""
POSE_NOISE = 0.07
"""Largest standard deviation of the noise of rotations, radians about each axis."""
MAX_BETA = 2.5
LEVEL_SHARE = 0.45
"""How often somebody is photographed from about the height of the person's middle, or a little
above; the others, from anywhere."""
LEVEL, ANYWHERE = (0.05, 0.14), (0.15, 0.40)
"""Mean and standard deviation of the angle by which one looks down at people, radians."""
AIM_SPREAD = 0.05
"""Cameras point somewhere between the horizon and the person, and are off by so much, radians."""
SIDE_SPREAD = 0.2
"""People are so far to the side, radians."""
WIDEST = 0.6
"""No person is farther than this from the optical axis, radians."""
ROLL, TURNED_ROLL, TURNED_SHARE = 0.035, 0.25, 0.35
"""Standard deviation of a camera's roll, radians; that of a turned one, and how many are turned."""
DISTANCE, DISTANCE_SPREAD, DISTANCES = 4.0, 0.5, (1.3, 15.0)
"""Median distance, metres; standard deviation of its logarithm; its limits."""
NEAREST = 0.5
"""No landmark is nearer to the camera, metres."""
FOCAL_SPREAD = 0.2
"""Standard deviation of the logarithm of the focal length that is assumed over the true one."""
FACE_SPREAD, LEG_SPREAD, ARM_SPREAD = (
    (0.006, 0.006, 0.006),
    (0.008, 0.024, 0.012),
    (0.02, 0.008, 0.008),
)
"""Standard deviations of where landmarks lie on a body, metres at rest (x left, y up, z ahead): of
real people, proportions are not the open body's, nor are their landmarks where rendered people have
them. A leg that seems 2 % short would otherwise be taken to be bent by 25 degrees."""
LEG_LENGTH, LEG_LENGTH_SPREAD = -0.06, 0.04
"""Mean and standard deviation of the logarithm of how long legs seem, over the body's: detectors
see real people's hips lower than rendered people's, so that their legs are shorter."""
ERROR_RANGE = (0.5, 1.2)
"""Their landmarks' errors are multiplied by something in between."""
PART_UNKNOWN, ONE_UNKNOWN = 0.2, 0.01
"""How often a part of the body is unknown, and how often any landmark."""
_ARMS = [
    SMPL_NAMES.index(f"{side}_{name}")
    for side in "LR"
    for name in ("Collar", "Shoulder", "Elbow", "Wrist")
]
_TRUNK_JOINTS = [SMPL_NAMES.index(name) for name in ("Pelvis", "Spine1", "Spine2", "Spine3")]
_LOWER = ("Ankle", "Heel", "FootIndex")
_HAND = ("Wrist", "Pinky", "Index", "Thumb")
_FACE = LANDMARK_NAMES[: TRUNK[0]]
_OF_ARM = ("Elbow", *_HAND)


def _spread_of(name: str) -> tuple[float, float, float]:
    """Return how far a landmark's place on the body varies."""
    if name in _FACE:
        return FACE_SPREAD
    return ARM_SPREAD if name[2:] in _OF_ARM else LEG_SPREAD


OFFSET_SPREAD = torch.tensor([_spread_of(name) for name in LANDMARK_NAMES])
_PARTS = (
    *(
        tuple(f"{side}_{name}" for side in "LR" for name in names)
        for names in (_LOWER, ("Knee", *_LOWER), ("Hip", "Knee", *_LOWER))
    ),
    *(
        tuple(f"{side}_{name}" for name in names)
        for side in "LR"
        for names in (_HAND, ("Elbow", *_HAND), ("Knee", *_LOWER))
    ),
    _FACE,
)
PARTS = torch.tensor([[float(name in part) for name in LANDMARK_NAMES] for part in _PARTS])
"""(parts, 33): what is unknown together."""
AXES = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""About which cameras roll and look down, and people turn."""


@dataclass(frozen=True)
class Pairs:
    """A batch to learn from."""

    features: Float[Tensor, "b 135"]
    """The lifter's input."""
    rotmat: Float[Tensor, "b 24 3 3"]
    betas: Float[Tensor, "b 10"]
    joints: Float[Tensor, "b 24 3"]


class PairMaker:
    """Makes pairs; the same seed gives the same ones.

    Args:
        smpl: the open body.
        captured: poses of motion capture.
        drawn: poses of the sampler.
        residuals: of landmarks.
        offsets: see `landmark_points`.
        seed: of everything drawn.
    """

    def __init__(
        self,
        smpl: SMPL,
        captured: Float[np.ndarray, "n 24 3"],
        drawn: Float[np.ndarray, "m 24 3"],
        residuals: Residuals,
        offsets: Float[Tensor, "33 3"],
        seed: int,
    ):
        self.smpl, self.residuals, self.offsets = smpl, residuals, offsets
        self.captured, self.drawn = (torch.from_numpy(x).float() for x in (captured, drawn))
        self.seed, self.generator = seed, torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def pairs(self, count: int) -> Pairs:
        """Return pairs to train with."""
        return self._seen(self._poses(count))

    @torch.no_grad()
    def pairs_of(self, pose: Float[np.ndarray, "n 24 3"], count: int) -> Pairs:
        """Return pairs of given poses, to validate with."""
        rotmat = axis_angle_to_rotmat(self._mirrored(self._some(torch.from_numpy(pose), count)))
        return self._seen(rotmat)

    def _poses(self, count: int) -> Float[Tensor, "n 24 3 3"]:
        captured = round(count * CAPTURED_SHARE)
        pose = self._mirrored(
            torch.cat(
                [self._some(self.captured, captured), self._some(self.drawn, count - captured)]
            )
        )
        share = (WHOLLY * self._uniform(count, 2).sqrt()).clamp(max=1)
        pose = straightened(pose, share, self._uniform(count) < STRAIGHTENED_SHARE)
        pose = calmed(pose, self._uniform(count), self._uniform(count) < CALMED_SHARE)
        order = torch.randperm(count, generator=self.generator)
        gets_arms = self._uniform(count) < OTHER_ARMS_SHARE
        for joint in _ARMS:
            pose[:, joint] = torch.where(gets_arms[:, None], pose[order, joint], pose[:, joint])
        noise = (
            POSE_NOISE * self._uniform(count)[:, None, None] * self._normal(count, NUM_JOINTS, 3)
        )
        return axis_angle_to_rotmat(pose) @ axis_angle_to_rotmat(noise)

    def _seen(self, rotmat: Float[Tensor, "n 24 3 3"]) -> Pairs:
        """Look at people; the rotation of their first joints is their tilt."""
        count = len(rotmat)
        ray, to_camera = self._cameras(count)
        root = to_camera @ rotmat[:, 0]
        rotmat = torch.cat([root[:, None], rotmat[:, 1:]], dim=1)
        betas = self._normal(count, NUM_BETAS).clamp(-MAX_BETA, MAX_BETA)
        joints, transforms = self.smpl.skeleton(rotmat, betas)
        points = landmark_points(joints, transforms[..., :3], self._offsets(count))
        factor = (LEG_LENGTH + LEG_LENGTH_SPREAD * self._normal(count)).exp()
        points = with_scaled_legs(points, factor)
        points = points - points[:, TRUNK].mean(dim=1, keepdim=True)
        distance = DISTANCE * (DISTANCE_SPREAD * self._normal(count)).exp()
        distance = distance.clamp(*DISTANCES).maximum(NEAREST - points[..., 2].amin(dim=1))
        assumed = (FOCAL_SPREAD * self._normal(count)).exp()[:, None]
        slopes = points[..., :2] / (points[..., 2:] + distance[:, None, None]) / assumed[..., None]
        everywhere = torch.ones(slopes.shape[:2])
        true = along_axis(slopes, everywhere, everywhere, ray)
        depth = points[..., 2] / (true.size * assumed[:, 0] * distance)[:, None]
        chosen = self.residuals.alike(likeness(true, depth), self.generator)
        low, high = ERROR_RANGE
        factor = (low + (high - low) * self._uniform(count)) * true.size
        slopes = slopes + factor[:, None, None] * self.residuals.errors[chosen]
        seen = along_axis(
            slopes, self.residuals.visibility[chosen], self._known(count), ray / assumed
        )
        return Pairs(seen.features(), rotmat, betas, joints)

    def _offsets(self, count: int) -> Float[Tensor, "n 33 3"]:
        """Draw where detectors see each person's landmarks on the body; both sides alike."""
        errors = OFFSET_SPREAD * self._normal(count, len(LANDMARK_NAMES), 3)
        mirror_image = errors[:, MIRRORED] * torch.tensor([-1.0, 1.0, 1.0])
        return self.offsets + (errors + mirror_image) / 2**0.5

    def _cameras(self, count: int) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 3 3"]]:
        """Return where people are in the photo, and how they are turned.

        Returns:
            x / z and y / z of the directions to people; the rotations from a world whose y is up,
            people's heading being 0, to the frames of these rays.
        """
        is_level = self._uniform(count) < LEVEL_SHARE
        level, anywhere = (
            mean + spread * self._normal(count) for mean, spread in (LEVEL, ANYWHERE)
        )
        down = torch.where(is_level, level, anywhere).clamp(-1.0, 1.4)
        aim = self._uniform(count) * down + AIM_SPREAD * self._normal(count)
        below, aside = (
            angle.clamp(-WIDEST, WIDEST)
            for angle in (down - aim, SIDE_SPREAD * self._normal(count))
        )
        is_turned = self._uniform(count) < TURNED_SHARE
        roll = torch.where(is_turned, TURNED_ROLL, ROLL) * self._normal(count)
        heading = 2 * math.pi * self._uniform(count)
        turns = torch.stack([roll, down, heading], dim=1)[..., None] * AXES  # (n, 3 turns, 3)
        roll, down, heading = axis_angle_to_rotmat(turns).unbind(1)
        flipped = roll @ down * torch.tensor([1.0, -1.0, -1.0])  # y up to y down, z ahead to away
        return torch.stack([aside.tan(), below.tan()], dim=1), flipped @ heading

    def _known(self, count: int) -> Float[Tensor, "n 33"]:
        unknown = PARTS[self._below(len(PARTS), count)]
        unknown = unknown * (self._uniform(count) < PART_UNKNOWN)[:, None]
        one = self._uniform(count, len(LANDMARK_NAMES)) < ONE_UNKNOWN
        return (1 - unknown) * ~one

    def _mirrored(self, pose: Float[Tensor, "n 24 3"]) -> Float[Tensor, "n 24 3"]:
        """Mirror every second pose."""
        mirror = self._uniform(len(pose)) < 0.5
        reflect = pose.new_tensor(anatomy.REFLECT)
        return torch.where(mirror[:, None, None], pose[:, anatomy.MIRRORED] * reflect, pose)

    def _some(self, poses: Float[Tensor, "m 24 3"], count: int) -> Float[Tensor, "n 24 3"]:
        return poses[self._below(len(poses), count)]

    def _below(self, limit: int, count: int) -> Tensor:
        return torch.randint(limit, (count,), generator=self.generator)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


def straightened(
    pose: Float[Tensor, "n 24 3"], share: Float[Tensor, "n 2"], whose: Bool[Tensor, "n"]
) -> Float[Tensor, "n 24 3"]:
    """Straighten the knees of upright bodies; hips and ankles follow, so that feet stay level.

    Args:
        pose: axis-angle, radians, y up and z ahead.
        share: of the left and the right knee's bend beyond a straight leg that is taken away.
        whose: the others stay as they are.
    """
    pose = pose.clone()
    upright = whose & (pose[:, 0].norm(dim=-1) < TILTED)
    for side, part in zip("LR", share.unbind(1), strict=True):
        hip, knee, ankle = (SMPL_NAMES.index(f"{side}_{n}") for n in ("Hip", "Knee", "Ankle"))
        bend = pose[:, knee, 0]
        part = part * (upright & (bend < BENT))
        lost = part * (bend - IN_LINE)
        # the thigh is brought back by half of what the shin comes forward
        pose[:, [hip, ankle], 0] += (lost / 2)[:, None]
        pose[:, knee, 0] -= lost
        pose[:, knee, 1:] *= (1 - part)[:, None]
    return pose


def with_scaled_legs(
    points: Float[Tensor, "n 33 3"], factor: Float[Tensor, "n"]
) -> Float[Tensor, "n 33 3"]:
    """Make legs longer or shorter from the hips on; feet keep their size.

    Args:
        points: landmarks, metres.
        factor: length of thighs and shins over what it was.
    """
    points = points.clone()
    by = (factor - 1)[:, None]
    for side in "LR":
        hip, knee, *foot = (LANDMARK_NAMES.index(f"{side}_{n}") for n in ("Hip", "Knee", *_LOWER))
        of_thigh = by * (points[:, knee] - points[:, hip])
        of_shin = by * (points[:, foot[0]] - points[:, knee])
        points[:, knee] += of_thigh
        points[:, foot] += (of_thigh + of_shin)[:, None]
    return points


def calmed(
    pose: Float[Tensor, "n 24 3"], share: Float[Tensor, "n"], whose: Bool[Tensor, "n"]
) -> Float[Tensor, "n 24 3"]:
    """Bring the trunks of upright bodies towards the vertical.

    Args:
        pose: axis-angle, radians, y up and z ahead.
        share: of the tilt, and of the spine's rotations, that is kept.
        whose: the others stay as they are.
    """
    pose = pose.clone()
    upright = whose & (pose[:, 0].norm(dim=-1) < TILTED)
    pose[:, _TRUNK_JOINTS] *= torch.where(upright, share, 1.0)[:, None, None]
    return pose

"""What is known of the people of a photo, and how good it is."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smpler import __version__
from smpler.models.body import Body
from smpler.models.fitting import Fit, points_2d
from smpler.models.observation import Observation, confidence
from smpler.models.placement import Group, Placement
from smpler.utils.camera import project_pinhole
from smpler.utils.export import SCHEMA, PersonResult
from smpler.utils.geometry import rotmat_to_axis_angle
from smpler.utils.image import Box, CropWindow
from smpler.utils.joints import KEYPOINT_NAMES, SMPL_NAMES

FARTHEST, UNSEEN, HALF = 0.3, 0.15, 0.1
"""Distances from which `qualities` are made, crop coordinates; chosen on the rendered groups' half
A."""
UNSURE = 0.15
"""Expected error of joints, metres, that makes a quality of 0.5 by itself; chosen on open/1 and on
the choosing clip of `benchmarks.multiview`."""
LOW_QUALITY = 0.35
"""Below it, an answer is said to be of low quality. On the rendered groups' half A these are 8 % of
the people, with a mean error of 207 mm; that of the others is 94 mm."""


@dataclass(frozen=True)
class Answer:
    """What is known of some people of a photo."""

    people: Placement
    seen: Observation
    fit: Sequence[str]
    """Of each person, see `PersonResult.fit`."""
    quality: Float[Tensor, "b"]
    """See `qualities`."""
    scatter: Float[Tensor, "b 24"] | None = None
    """See `Prior.joints`."""

    def residuals(self) -> Float[Tensor, "b"]:
        """Return how far the bodies' points are from the landmarks, crop coordinates.

        The root mean square over the landmarks that count; NaN for people without any.
        """
        evidence = self.seen.evidence
        away = (points_2d(self.people, evidence.names) - evidence.places).square().sum(dim=-1)
        counts = evidence.weights > 0
        return ((away * counts).sum(dim=1) / counts.sum(dim=1)).sqrt()


def qualities(
    before: Placement, seen: Observation, joints: Float[Tensor, "b 24"] | None = None
) -> Float[Tensor, "b"]:
    """Return how well bodies are likely to be right, [0, 1].

    Two networks that never saw each other's answers are seldom wrong in the same way: a body is the
    better the nearer the points of the network's own answer are to the landmarks. A landmark that
    does not count is taken to be UNSEEN away. 1 is perfect agreement, 0.5 a mean distance of HALF.
    Both may be wrong about what landmarks cannot tell, which the lifter's expected errors say.
    `benchmarks.groups` measures how well this ranks people by their error.

    Args:
        before: the network's answer, before the fit.
        seen: of the same people.
        joints: their expected errors, see `Prior`; NaN for people of whom they are not known.
    """
    evidence = seen.evidence
    away = torch.linalg.vector_norm(points_2d(before, evidence.names) - evidence.places, dim=-1)
    weights = evidence.weights
    mean = (weights * away.clamp(max=FARTHEST) + (1 - weights) * UNSEEN).mean(dim=1)
    mean = torch.where(seen.presence > 0, mean, FARTHEST)
    unlike = (mean / HALF).square()
    if joints is not None:
        # the first joint is where the others are measured from
        unlike = unlike + (joints[:, 1:].mean(dim=1) / UNSURE).square().nan_to_num()
    return 1 / (1 + unlike)


def fit_states(fit: Fit, seen: Observation) -> list[str]:
    """Return what became of each person's fit, see `PersonResult.fit`."""
    has_any = (seen.evidence.weights > 0).any(dim=1)
    return [
        ("applied" if applied else "refused") if has else "no landmarks"
        for applied, has in zip(fit.is_applied.tolist(), has_any.tolist(), strict=True)
    ]


class PersonBox(NamedTuple):
    """Where a person is, and who says so."""

    box: Box
    source: str
    """`detector`, `given`, or `photo` when nobody was found in a crop that shows one person."""
    score: float


@dataclass(frozen=True, eq=False)
class Found:
    """Whom a photo shows."""

    name: str
    """What results call the photo."""
    group: Group
    people: Sequence[PersonBox]
    """Of the group, in its order."""
    focal_length_source: str
    """See `PersonResult`."""


class Weights(NamedTuple):
    """Which weights a network has; see `PersonResult`."""

    name: str
    sha256: str


def results_of(
    answer: Answer, first: int, photo: Found, body: Body, weights: Weights
) -> list[PersonResult]:
    """Return the results of the people of a photo.

    Args:
        answer: of people, those of the photo among them.
        first: row of the photo's first person in the answer.
        photo: whom it shows.
        body: that was posed.
        weights: of the network.
    """
    group, size = photo.group, np.array(photo.group.image.shape[1::-1])
    return [
        PersonResult(
            schema=SCHEMA,
            version=__version__,
            image=photo.name,
            image_size=size,
            person=number,
            box=np.array(person.box),
            box_source=person.source,
            box_score=person.score,
            crop=np.array(astuple(window)),
            body=body.name,
            body_sha256=body.sha256,
            weights=weights.name,
            weights_sha256=weights.sha256,
            focal_length_source=photo.focal_length_source,
            faces=body.faces,
            rig=body.rig(answer.people.estimate.betas[first + number].float().cpu().numpy(), False),
            **numbers_of(answer, first + number, window, group.focal_length, size / 2),
        )
        for number, (person, window) in enumerate(zip(photo.people, group.windows, strict=True))
    ]


def numbers_of(
    answer: Answer,
    number: int,
    window: CropWindow,
    focal_length: float,
    principal_point: Float[np.ndarray, "2"],
) -> dict:
    """Return what `PersonResult` says of the pose, place, camera and quality of one person.

    Args:
        answer: of some people.
        number: whose.
        window: of the crop.
        focal_length: of the photo, pixels.
        principal_point: of the photo, pixels.
    """

    def of_person(batch: Tensor) -> np.ndarray:
        return batch[number].float().cpu().numpy()

    estimate = answer.people.estimate
    assert estimate.vertices is not None
    rotmat, joints = of_person(estimate.rotmat), of_person(estimate.joints)
    translation = of_person(answer.people.translation)
    keypoints = None if estimate.keypoints_3d is None else of_person(estimate.keypoints_3d)

    def in_photo(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        return project_pinhole(points + translation, focal_length, principal_point)

    residual = answer.residuals()[number].item() * window.width / 2
    scatter = None if answer.scatter is None else of_person(answer.scatter)
    return {
        "quality": answer.quality[number].item(),
        "fit": answer.fit[number],
        "fit_residual": residual if np.isfinite(residual) else None,
        "pose": rotmat_to_axis_angle(rotmat).reshape(-1).astype(np.float32),
        "rotmat": rotmat,
        "betas": of_person(estimate.betas),
        "cam": of_person(estimate.cam),
        "focal_length": focal_length,
        "principal_point": principal_point,
        "translation": translation,
        "vertices": of_person(estimate.vertices),
        "joints_3d": joints,
        "joints_2d": in_photo(joints),
        "joints_confidence": of_person(confidence(answer.seen, SMPL_NAMES)),
        "joints_std": None if scatter is None or np.isnan(scatter).any() else scatter,
        "joint_names": SMPL_NAMES,
        "keypoints_3d": keypoints,
        "keypoints_2d": None if keypoints is None else in_photo(keypoints),
        "keypoints_confidence": of_person(confidence(answer.seen, KEYPOINT_NAMES)),
        "keypoint_names": KEYPOINT_NAMES,
    }

"""Bring an estimated body onto landmarks seen in the photo, with as little change as possible.

A network that regresses a body from pixels answers with a likely pose, whose limbs lie near those
in the photo, but not on them. As in SMPLify (Bogo et al., "Keep it SMPL", ECCV 2016) the body is
moved until its joints lie on the landmarks; the prior is the network's own answer. Depth, shape,
hands and feet, of which landmarks say nothing, stay as they are as far as possible. Bodies are
seen by the pinhole of the whole photo.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from smpler.models.placement import Pinhole, Placement, see, with_pinhole
from smpler.models.smpl import SMPL, Estimate
from smpler.utils.camera import project_pinhole, solve_translation
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.joints import SMPL_NAMES, SMPL_PARENTS, mirrored

NUM_STEPS = 50
LEARNING_RATE = 0.05
"""Of Adam's first step, on angles in radians and on the camera; it falls to nothing as a cosine."""
MOMENTS = (0.7, 0.9)
"""Adam's betas: shorter memories than usual, as there are few steps."""
SMALL_GRADIENT = 1.0
"""Adam's epsilon: below it, steps shrink with the gradient, so that rounding is not followed. With
the usual moments and epsilon, a body that needs no change moves by 2 cm; with these, by 0.5 mm."""
LANDMARK_SCATTER = 0.05
"""How far off landmarks are taken to be, crop coordinates in [-1, 1]: 6 of 224 pixels. This and the
next five were chosen by `benchmarks.multiview` and by MoveNet on photos, see the model card."""
OUTLIER = 5.0
"""Landmarks so many scatters away hardly pull any more."""
ROTATION_SCATTER = 0.3
"""How far off the network's rotations are taken to be, radians."""
ROOT_SCATTER = 0.1
"""The same of the whole body's: landmarks would tilt it to make it shorter or longer."""
DEPTH_SCATTER = 0.2
"""The same of a joint's depth behind the pelvis, metres: a limb shall turn in the image first."""
PLACE_SCATTER = 0.1
"""The same of the place: of the distance from the camera relative, of shifts in metres."""
MISFIT = 3.0
"""Landmarks that no likely body reaches are wrong: people whose pull stays above this, in the mean
over the visible ones, stay as estimated. Of 250 people in photos and videos it is 1.3 at most, 2.6
of one who jumps, but 5 of one whose left and right landmarks were exchanged, and 8 of one seen
through three others."""
MIN_LANDMARKS = 4
"""A person of whom fewer count is not moved to them as a whole."""
NUM_REWEIGHTINGS = 5
"""Of the landmarks, when people are moved to them as a whole."""
SWAP_RATIO = 0.5
"""Left and right landmarks are swapped if the swapped ones cost at most this share of the cost."""
FACE_IN_HEAD = {
    "Nose": (0.0, 0.03, 0.13),
    "L_Ear": (0.07, 0.04, 0.02),
    "R_Ear": (-0.07, 0.04, 0.02),
}
"""Points of the face from the head's joint, metres, in the head's frame at rest (x left, y up, z
ahead); the open body's."""
POINT_NAMES = (*SMPL_NAMES, *FACE_IN_HEAD)
"""The points whose landmarks the fit can follow."""
_TO_HEAD = [SMPL_NAMES.index("Head")]
while _TO_HEAD[0]:
    _TO_HEAD.insert(0, SMPL_PARENTS[_TO_HEAD[0]])


@dataclass(frozen=True)
class Evidence:
    """Landmarks of some people, as seen in their crops; L landmarks of `POINT_NAMES`."""

    names: tuple[str, ...]
    places: Float[Tensor, "b l 2"]
    """Crop coordinates, [-1, 1] from edge to edge."""
    weights: Float[Tensor, "b l"]
    """How much each counts, [0, 1]; a person with nothing but zeros stays as estimated."""


class Fit(NamedTuple):
    """Bodies brought onto landmarks."""

    placement: Placement
    is_applied: Bool[Tensor, "b"]
    """Whose body reaches the landmarks; the others stay as estimated."""


@dataclass(frozen=True)
class Prior:
    """People before their landmarks are followed, and how far off they may be.

    The scatters are standard deviations.
    """

    people: Placement
    rotation: Float[Tensor, "b 24"]
    """Of each joint's own rotation, radians about each axis."""
    depth: Float[Tensor, "b 24"]
    """Of each joint's depth behind the pelvis, metres."""
    betas: Float[Tensor, "b 10"]
    """Of the shape coefficients; 0 keeps the shape."""
    joints: Float[Tensor, "b 24"] | None = None
    """Expected distance of each joint relative to the first from where it is, metres, root mean
    square; NaN for people of whom it is not known."""

    @classmethod
    def of_network(cls, people: Placement) -> "Prior":
        """Return the prior that a network's answer is, which says nothing of its own errors."""
        joints = people.estimate.joints[..., 0]
        rotation = torch.full_like(joints, ROTATION_SCATTER)
        rotation[:, 0] = ROOT_SCATTER
        betas = torch.zeros_like(people.estimate.betas)
        return cls(people, rotation, torch.full_like(joints, DEPTH_SCATTER), betas)


@dataclass(frozen=True)
class Change:
    """What the fit changes; each person's in a row."""

    turn: Float[Tensor, "b 24 3"]
    """Axis-angle of the rotation after each joint's own, radians."""
    place: Float[Tensor, "b 3"]
    """Logarithm of how much nearer people come, along the ray from the camera, then the shift in x
    and y, metres."""
    betas: Float[Tensor, "b 10"]
    """Of the shape, in the prior's scatters."""

    @classmethod
    def none_of(cls, people: Placement) -> "Change":
        """Return the change that leaves people as they are, as variables of a minimisation."""
        estimate = people.estimate
        parts = (estimate.joints, people.translation, estimate.betas)
        return cls(*(torch.zeros_like(part).requires_grad_() for part in parts))


def fit_to_landmarks(smpl: SMPL, prior: Prior, evidence: Evidence) -> Fit:
    """Return the people with rotations, shapes and places changed.

    They are moved to where they lie on the landmarks best, and from there `energy` is minimised.

    A person whose body does not reach the landmarks (MISFIT) stays as the prior says, and so does
    one of whom no landmark counts.

    Args:
        smpl: the body.
        prior: the people before.
        evidence: of the same people.
    """
    before = prior.people
    with torch.inference_mode(False), torch.enable_grad():
        # copies, as what was made in inference mode has no place in a gradient
        rotmat, betas = before.estimate.rotmat.clone(), before.estimate.betas.clone()
        pinhole = Pinhole(before.pinhole.focal.clone(), before.pinhole.center.clone())
        place = before.translation.clone()
        evidence = replace(
            evidence, places=evidence.places.clone(), weights=evidence.weights.clone()
        )
        start = placed_on(see(smpl, rotmat, betas, place, pinhole, "skeleton"), evidence)
        scatters = (prior.rotation.clone(), prior.depth.clone(), prior.betas.clone())
        start = Prior(start, *scatters)
        change = Change.none_of(start.people)
        variables = [change.turn, change.place, change.betas]
        minimise(lambda: energy(smpl, start, change, evidence).sum(), variables)
    with torch.no_grad():
        after = changed(smpl, start, change, "skeleton")
        fits = misfit(after, evidence) < MISFIT * evidence.weights.sum(dim=1)
        rotmat = torch.where(fits[:, None, None, None], after.estimate.rotmat, rotmat)
        betas = torch.where(fits[:, None], after.estimate.betas, betas)
        place = torch.where(fits[:, None], after.translation, place)
        return Fit(see(smpl, rotmat, betas, place, pinhole, "mesh"), fits)


def minimise(value: Callable[[], Float[Tensor, ""]], variables: list[Tensor]) -> None:
    """Change variables in place by steps of Adam (Kingma, Ba, ICLR 2015), at a rate that falls.

    torch.optim's would import torch's compiler, which takes longer than fitting ten people.
    """
    first, second = MOMENTS
    means, squares = ([torch.zeros_like(x) for x in variables] for _ in range(2))
    for step in range(1, NUM_STEPS + 1):
        rate = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - 1) / NUM_STEPS))
        gradients = torch.autograd.grad(value(), variables)
        with torch.no_grad():
            for x, gradient, mean, square in zip(variables, gradients, means, squares, strict=True):
                mean.lerp_(gradient, 1 - first)
                square.lerp_(gradient.square(), 1 - second)
                scale = (square / (1 - second**step)).sqrt() + SMALL_GRADIENT
                x -= rate * mean / (1 - first**step) / scale


def energy(smpl: SMPL, prior: Prior, change: Change, evidence: Evidence) -> Float[Tensor, "b"]:
    """Return what is minimised for each person: landmarks' pull, and every change by its scatter.

    Args:
        smpl: the body.
        prior: the people before.
        change: of them.
        evidence: of the same people.
    """
    return cost(changed(smpl, prior, change, "skeleton"), prior, change, evidence)


def cost(after: Placement, prior: Prior, change: Change, evidence: Evidence) -> Float[Tensor, "b"]:
    """Return the energy of people `after` a change."""
    joints = [placement.estimate.joints for placement in (after, prior.people)]
    depths = [x[..., 2] - x[:, :1, 2] for x in joints]
    return (
        misfit(after, evidence)
        + (change.turn / prior.rotation[..., None]).square().sum(dim=(1, 2))
        + ((depths[0] - depths[1]) / prior.depth).square().sum(dim=1)
        + (change.place / PLACE_SCATTER).square().sum(dim=1)
        + change.betas.square().sum(dim=1)
    )


def misfit(people: Placement, evidence: Evidence) -> Float[Tensor, "b"]:
    """Return what the landmarks cost each person, in squared scatters."""
    difference = points_2d(people, evidence.names) - evidence.places  # (b, l, 2)
    return (evidence.weights * pull(difference)).sum(dim=1)


def points_2d(people: Placement, names: Sequence[str]) -> Float[Tensor, "b l 2"]:
    """Return where people have points of `POINT_NAMES`, crop coordinates."""
    return people.pinhole.project(points_3d(people.estimate, names), people.translation)


def points_3d(estimate: Estimate, names: Sequence[str]) -> Float[Tensor, "b l 3"]:
    """Return bodies' points of `POINT_NAMES`, metres, in the estimate's frame."""
    turned = estimate.rotmat[:, _TO_HEAD[0]]
    for joint in _TO_HEAD[1:]:  # (b, 3, 3) each: the head's rotation in the camera's frame
        turned = turned @ estimate.rotmat[:, joint]
    offsets = turned.new_tensor(list(FACE_IN_HEAD.values()))
    face = offsets @ turned.mT + estimate.joints[:, _TO_HEAD[-1:]]  # (b, 3 points, 3)
    points = torch.cat([estimate.joints, face], dim=1)
    return points[:, [POINT_NAMES.index(name) for name in names]]


def placed_on(people: Placement, evidence: Evidence) -> Placement:
    """Move people, without a turn, to where their points lie on the landmarks best.

    Iteratively reweighted least squares of what the landmarks cost (`pull`). Who has fewer than
    MIN_LANDMARKS stays.
    """
    enough = ((evidence.weights > 0).sum(dim=1) >= MIN_LANDMARKS).tolist()
    pinhole = people.pinhole
    of_each = (points_3d(people.estimate, evidence.names), pinhole.slopes(evidence.places))
    of_each = (*of_each, evidence.weights, pinhole.focal[:, None])
    of_each = (x.detach().cpu().double().numpy() for x in of_each)
    translation = people.translation.clone()
    for number, (has_enough, *of_one) in enumerate(zip(enough, *of_each, strict=True)):
        if not has_enough:
            continue
        points, slopes, weights, focal = of_one
        solved, factors = np.zeros(3), np.ones_like(weights)
        for _ in range(NUM_REWEIGHTINGS):
            solved = solve_translation(points, slopes, 1.0, np.zeros(2), weights * factors)
            away = focal * (project_pinhole(points + solved, 1.0, np.zeros(2)) - slopes)
            distance = np.square(away).sum(axis=1) / (LANDMARK_SCATTER * OUTLIER) ** 2
            factors = 1 / (1 + distance) ** 2  # the derivative of `pull`
        translation[number] = torch.from_numpy(solved).to(translation)
    return with_pinhole(people.estimate, translation, people.pinhole)


def pull(difference: Float[Tensor, "b l 2"]) -> Float[Tensor, "b l"]:
    """Return what landmarks cost by their distance from the joints, in squared scatters.

    Geman and McClure's function: the square at first, at rest near OUTLIER squared in the end.
    """
    distance = difference.square().sum(dim=-1) / LANDMARK_SCATTER**2
    return distance / (1 + distance / OUTLIER**2)


def changed(smpl: SMPL, prior: Prior, change: Change, parts: str) -> Placement:
    """Return people after a change; `parts` as in `SMPL.estimate`."""
    before = prior.people
    rotmat = before.estimate.rotmat @ axis_angle_to_rotmat(change.turn)
    translation = before.translation * (-change.place[:, :1]).exp()
    translation = translation + F.pad(change.place[:, 1:], (0, 1))
    betas = before.estimate.betas + change.betas * prior.betas
    return see(smpl, rotmat, betas, translation, before.pinhole, parts)


def are_swapped(people: Placement, evidence: Evidence) -> Bool[Tensor, "b"]:
    """Say whose left and right landmarks are swapped: the two networks see opposite sides.

    Against the light a front looks like a back. Then the landmarks are right places under wrong
    names, and would turn the body inside out.
    """
    return misfit(people, with_swapped_sides(evidence)) < SWAP_RATIO * misfit(people, evidence)


def with_swapped_sides(evidence: Evidence) -> Evidence:
    """Return landmarks of which the left and right ones have changed places."""
    order = list(mirrored(evidence.names))
    return replace(evidence, places=evidence.places[:, order], weights=evidence.weights[:, order])

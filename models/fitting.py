"""Bring an estimated body onto landmarks seen in the photo, with as little change as possible.

A network that regresses a body from pixels answers with a likely pose, whose limbs lie near those
in the photo, but not on them. As in SMPLify (Bogo et al., "Keep it SMPL", ECCV 2016) the body is
moved until its joints lie on the landmarks; the prior is the network's own answer. Depth, shape,
hands and feet, of which landmarks say nothing, stay as they are as far as possible.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from smpler.models.detectors import LandmarkDetector
from smpler.models.smpl import SMPL, Estimate
from smpler.utils.geometry import axis_angle_to_rotmat, project
from smpler.utils.image import CropWindow
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
CAMERA_SCATTER = 0.1
"""The same of the camera: of its scale relative, of its shifts in metres."""
MISFIT = 1.8
"""Landmarks that no body near the network's reaches are wrong: whose pull stays above this, in the
mean over the visible ones, stays as estimated. Of 170 people in photos it was 1.4 at most, but 2.3
of one whose legs were guessed to be where her arms are."""
SWAP_RATIO = 0.5
"""Left and right landmarks are swapped if the swapped ones cost at most this share of the cost."""
PERSON_PER_SKELETON = 1.1
"""Radius of the circle round the whole person by that round SMPL's joints, hands and feet among
them."""
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
_HIPS, _SHOULDERS = (
    [SMPL_NAMES.index(f"{side}_{part}") for side in "LR"] for part in ("Hip", "Shoulder")
)


@dataclass(frozen=True)
class Evidence:
    """Landmarks of some people, as seen in their crops; L landmarks of `POINT_NAMES`."""

    names: tuple[str, ...]
    places: Float[Tensor, "b l 2"]
    """Crop coordinates, [-1, 1] from edge to edge."""
    weights: Float[Tensor, "b l"]
    """How much each counts, [0, 1]; a person with nothing but zeros stays as estimated."""


def fit_to_photo(
    smpl: SMPL,
    estimate: Estimate,
    photo: UInt8[np.ndarray, "h w 3"],
    windows: list[CropWindow],
    detector: LandmarkDetector,
) -> Estimate:
    """Bring people onto the landmarks that are found where they were estimated to be.

    Args:
        photo: RGB.
        windows: of the estimates' crops.
        detector: of the landmarks; a person whom it does not find stays as estimated. Landmarks
            count by their visibility, and not at all outside the photo.
    """
    known = [number for number, name in enumerate(detector.names) if name in POINT_NAMES]
    places = estimate.joints_2d.new_zeros(len(windows), len(known), 2)
    weights = estimate.joints_2d.new_zeros(len(windows), len(known))
    for number, window in enumerate(windows):
        joints = window.to_photo(estimate.joints_2d[number].cpu().double().numpy())
        hip, shoulders = joints[_HIPS].mean(axis=0), joints[_SHOULDERS].mean(axis=0)
        radius = PERSON_PER_SKELETON * np.linalg.norm(joints - hip, axis=1).max()
        found = detector.find(photo, hip, shoulders - hip, float(radius))
        if found is not None:
            pixels, visibility = found.keypoints[known], found.visibility[known]
            inside = ((pixels >= 0) & (pixels < photo.shape[1::-1])).all(axis=1)
            places[number] = torch.from_numpy(window.to_crop(pixels)).float()
            weights[number] = torch.from_numpy(visibility * inside).float()
    evidence = Evidence(tuple(detector.names[number] for number in known), places, weights)
    return fit_to_landmarks(smpl, estimate, with_the_estimates_sides(estimate, evidence))


def fit_to_landmarks(
    smpl: SMPL,
    estimate: Estimate,
    evidence: Evidence,
) -> Estimate:
    """Return the estimates with rotations and cameras changed; `energy` is minimised.

    A person whose body does not reach the landmarks (MISFIT) stays as estimated.

    Args:
        smpl: the body.
        estimate: `rotmat`, `betas` and `cam` are needed.
        evidence: of the same people.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # copies, as what was made in inference mode has no place in a gradient
        rotmat, betas, cam = (getattr(estimate, x).clone() for x in ("rotmat", "betas", "cam"))
        evidence = replace(
            evidence, places=evidence.places.clone(), weights=evidence.weights.clone()
        )
        before = smpl.estimate(rotmat, betas, cam, "skeleton")
        turn = torch.zeros_like(before.joints).requires_grad_()
        change = torch.zeros_like(cam).requires_grad_()
        minimise(lambda: energy(smpl, before, turn, change, evidence).sum(), [turn, change])
    with torch.no_grad():
        after = changed(smpl, before, turn, change, "skeleton")
        fits = (misfit(after, evidence) < MISFIT * evidence.weights.sum(dim=1))[:, None]
        turn, change = torch.where(fits[..., None], turn, 0), torch.where(fits, change, 0)
        return changed(smpl, before, turn, change, "mesh")


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


def energy(
    smpl: SMPL,
    before: Estimate,
    turn: Float[Tensor, "b 24 3"],
    change: Float[Tensor, "b 3"],
    evidence: Evidence,
) -> Float[Tensor, "b"]:
    """Return what is minimised for each person: landmarks' pull, and every change by its scatter.

    Args:
        before: the network's answer; rotations, betas, camera, joints.
        turn: axis-angle of the rotation after each joint's own, radians.
        change: of the camera: of its scale's logarithm, then of its shifts.
    """
    after = changed(smpl, before, turn, change, "skeleton")
    depths = [x.joints[..., 2] - x.joints[:, :1, 2] for x in (after, before)]
    return (
        misfit(after, evidence)
        + (turn[:, 0] / ROOT_SCATTER).square().sum(dim=1)
        + (turn[:, 1:] / ROTATION_SCATTER).square().sum(dim=(1, 2))
        + ((depths[0] - depths[1]) / DEPTH_SCATTER).square().sum(dim=1)
        + (change / CAMERA_SCATTER).square().sum(dim=1)
    )


def misfit(estimate: Estimate, evidence: Evidence) -> Float[Tensor, "b"]:
    """Return what the landmarks cost each person, in squared scatters."""
    difference = points_2d(estimate, evidence.names) - evidence.places  # (b, l, 2)
    return (evidence.weights * pull(difference)).sum(dim=1)


def points_2d(estimate: Estimate, names: Sequence[str]) -> Float[Tensor, "b l 2"]:
    """Return where an estimate has points of `POINT_NAMES`, crop coordinates."""
    turned = estimate.rotmat[:, _TO_HEAD[0]]
    for joint in _TO_HEAD[1:]:  # (b, 3, 3) each: the head's rotation in the camera's frame
        turned = turned @ estimate.rotmat[:, joint]
    offsets = turned.new_tensor(list(FACE_IN_HEAD.values()))
    face = offsets @ turned.mT + estimate.joints[:, _TO_HEAD[-1:]]  # (b, 3 points, 3)
    points = torch.cat([estimate.joints_2d, project(face, estimate.cam)], dim=1)
    return points[:, [POINT_NAMES.index(name) for name in names]]


def pull(difference: Float[Tensor, "b l 2"]) -> Float[Tensor, "b l"]:
    """Return what landmarks cost by their distance from the joints, in squared scatters.

    Geman and McClure's function: the square at first, at rest near OUTLIER squared in the end.
    """
    distance = difference.square().sum(dim=-1) / LANDMARK_SCATTER**2
    return distance / (1 + distance / OUTLIER**2)


def changed(
    smpl: SMPL,
    before: Estimate,
    turn: Float[Tensor, "b 24 3"],
    change: Float[Tensor, "b 3"],
    parts: str,
) -> Estimate:
    """Return the estimate after the changes, see `energy`; `parts` as in `SMPL.estimate`."""
    scale, shift = before.cam.split([1, 2], dim=1)
    cam = torch.cat([scale * change[:, :1].exp(), shift + change[:, 1:]], dim=1)
    return smpl.estimate(before.rotmat @ axis_angle_to_rotmat(turn), before.betas, cam, parts)


def with_the_estimates_sides(estimate: Estimate, evidence: Evidence) -> Evidence:
    """Swap left and right landmarks of people whom the two networks see from opposite sides.

    Against the light a front looks like a back. Then the landmarks are right places under wrong
    names, and would turn the body inside out.
    """
    places = evidence.places
    other = places[:, list(mirrored(evidence.names))]
    as_given, swapped = (
        misfit(estimate, replace(evidence, places=candidate)) for candidate in (places, other)
    )
    is_swapped = (swapped < SWAP_RATIO * as_given)[:, None, None]  # (b, 1, 1)
    return replace(evidence, places=torch.where(is_swapped, other, places))

"""Bring an estimated body onto landmarks seen in the photo, changing it as little as may be.

A network that regresses a body answers with what is likely, and its limbs end beside those in the
picture. As in SMPLify (Bogo et al., "Keep it SMPL", ECCV 2016) the body is moved until its joints
lie on the landmarks; the prior is the network's own answer. What the landmarks do not tell stays as
well as it can: depth, shape, hands and feet.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from smpler.models.detectors.landmarks import FACE, SEEN, LandmarkDetector
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
SURELY = 0.5
"""Left and right are swapped if that costs at most so much of what they cost as they are."""
PERSON_PER_SKELETON = 1.1
"""Radius of the circle round the whole person by that round SMPL's joints, hands and feet among
them."""
FITTED = (*SEEN, *FACE)
"""What landmarks are followed of."""
FACE_IN_HEAD = ((0.0, 0.03, 0.13), (0.07, 0.04, 0.02), (-0.07, 0.04, 0.02))
"""Nose and ears from the head's joint, metres, in the head's frame at rest (x left, y up, z ahead);
the open body's."""
_JOINTS = [SMPL_NAMES.index(name) for name in SEEN]
_TO_HEAD = [SMPL_NAMES.index("Head")]
while _TO_HEAD[0]:
    _TO_HEAD.insert(0, SMPL_PARENTS[_TO_HEAD[0]])
_HIPS, _SHOULDERS = (
    [SMPL_NAMES.index(f"{side}_{part}") for side in "LR"] for part in ("Hip", "Shoulder")
)


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
        detector: of the landmarks; who is not found by it stays as estimated. Landmarks count as
            much as it is sure to see them, and not at all outside the photo.
    """
    places = estimate.joints_2d.new_zeros(len(windows), len(FITTED), 2)
    weights = estimate.joints_2d.new_zeros(len(windows), len(FITTED))
    for number, window in enumerate(windows):
        joints = window.to_photo(estimate.joints_2d[number].double().cpu().numpy())
        hip, shoulders = joints[_HIPS].mean(axis=0), joints[_SHOULDERS].mean(axis=0)
        radius = PERSON_PER_SKELETON * np.linalg.norm(joints - hip, axis=1).max()
        found = detector.find(photo, hip, shoulders - hip, radius)
        if found is not None:
            told = np.concatenate([found.keypoints, found.face])
            places[number] = torch.from_numpy(window.to_crop(told))
            seen = np.concatenate([found.visibility, found.face_visibility])
            inside = ((told >= 0) & (told < photo.shape[1::-1])).all(axis=1)
            weights[number] = torch.from_numpy(seen * inside)
    places = with_the_estimates_sides(estimate, places, weights)
    return fit_to_landmarks(smpl, estimate, places, weights)


def fit_to_landmarks(
    smpl: SMPL,
    estimate: Estimate,
    places: Float[Tensor, "b 15 2"],
    weights: Float[Tensor, "b 15"],
) -> Estimate:
    """Return the estimates with rotations and cameras changed; `energy` is minimised.

    Who cannot be brought onto the landmarks (MISFIT) stays as estimated.

    Args:
        estimate: `rotmat`, `betas` and `cam` are needed.
        places: of FITTED, crop coordinates in [-1, 1].
        weights: of each landmark in [0, 1]; a person with nothing but zeros stays as estimated.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # copies, as what was made in inference mode has no place in a gradient
        rotmat, betas, cam = (getattr(estimate, x).clone() for x in ("rotmat", "betas", "cam"))
        places, weights = places.clone(), weights.clone()
        before = smpl.estimate(rotmat, betas, cam, "skeleton")
        turn = torch.zeros_like(before.joints).requires_grad_()
        change = torch.zeros_like(cam).requires_grad_()
        minimise(lambda: energy(smpl, before, turn, change, places, weights).sum(), [turn, change])
    with torch.no_grad():
        after = changed(smpl, before, turn, change, "skeleton")
        left = (weights * pull(points_2d(after) - places)).sum(dim=1)
        fits = (left < MISFIT * weights.sum(dim=1))[:, None]
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
    places: Float[Tensor, "b 15 2"],
    weights: Float[Tensor, "b 15"],
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
        (weights * pull(points_2d(after) - places)).sum(dim=1)
        + (turn[:, 0] / ROOT_SCATTER).square().sum(dim=1)
        + (turn[:, 1:] / ROTATION_SCATTER).square().sum(dim=(1, 2))
        + ((depths[0] - depths[1]) / DEPTH_SCATTER).square().sum(dim=1)
        + (change / CAMERA_SCATTER).square().sum(dim=1)
    )


def points_2d(estimate: Estimate) -> Float[Tensor, "b 15 2"]:
    """Return where an estimate has FITTED, crop coordinates."""
    turned = estimate.rotmat[:, _TO_HEAD[0]]
    for joint in _TO_HEAD[1:]:
        turned = turned @ estimate.rotmat[:, joint]
    face = turned.new_tensor(FACE_IN_HEAD) @ turned.mT + estimate.joints[:, _TO_HEAD[-1:]]
    return torch.cat([estimate.joints_2d[:, _JOINTS], project(face, estimate.cam)], dim=1)


def pull(difference: Float[Tensor, "b 15 2"]) -> Float[Tensor, "b 15"]:
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


def with_the_estimates_sides(
    estimate: Estimate, places: Float[Tensor, "b 15 2"], weights: Float[Tensor, "b 15"]
) -> Float[Tensor, "b 15 2"]:
    """Swap left and right landmarks of people whom the two networks see from opposite sides.

    Against the light a front looks like a back. Then the landmarks are right places under wrong
    names, and would turn the body inside out.
    """
    other = places[:, list(mirrored(FITTED))]
    as_told, swapped = (
        (weights * pull(points_2d(estimate) - x)).sum(dim=1) for x in (places, other)
    )
    return torch.where((swapped < SURELY * as_told)[:, None, None], other, places)

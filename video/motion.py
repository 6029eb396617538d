"""From what is seen of a person in each frame to one motion: smooth in time, of one shape.

As `smpler.models.fitting` brings a body onto the landmarks of one photo, here a person is brought
onto those of all frames of a window at once. What changes, rotations and place, is a cubic B-spline
in time, added to a start that is one itself: the motion cannot shake faster than its knots allow,
and nothing lags. Over gaps the splines go on as smoothly as they can.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smpler.models.fitting import (
    MISFIT,
    Change,
    Evidence,
    Prior,
    changed,
    cost,
    fit_to_landmarks,
    minimise,
    misfit,
    placed_on,
)
from smpler.models.placement import Pinhole, Placement, see
from smpler.models.smpl import SMPL
from smpler.utils.geometry import nearest_rotation
from smpler.video.feet import sliding, standing
from smpler.video.splines import Spline

KNOTS_PER_SECOND = 10.0
"""Of the splines of rotations and of the place in the picture."""
DEPTH_KNOTS_PER_SECOND = 2.0
"""Of the distance from the camera, of which landmarks say little: it may not shake with them."""
WINDOW, OVERLAP = 96, 24
"""Frames that are brought onto their landmarks together, and how many two windows share."""
SHAPE_FRAMES = 48
"""From so many frames, spread over the clip, the shape is found."""


@dataclass(frozen=True)
class Settings:
    """How a motion is found."""

    knots_per_second: float = KNOTS_PER_SECOND
    depth_knots_per_second: float = DEPTH_KNOTS_PER_SECOND
    fit: bool = True
    """Bring it onto the landmarks; otherwise the people given are smoothed only."""


@dataclass(frozen=True, eq=False)
class Splines:
    """The curves over the frames of a clip."""

    motion: Spline
    depth: Spline
    """Of the logarithm of the distance from the camera."""


@dataclass(frozen=True, eq=False)
class Course:
    """A person through some frames."""

    people: Placement
    """A row a frame, bodies without vertices."""
    fit: list[str]
    """Of each frame, see `PersonResult.fit`."""


def course_of(
    smpl: SMPL,
    prior: Prior,
    evidence: Evidence,
    is_seen: Bool[Tensor, "t"],
    fps: float,
    settings: Settings,
) -> Course:
    """Return the motion of a person.

    Args:
        smpl: the body.
        prior: the person in each frame, as far as is known without the other frames.
        evidence: the landmarks in each frame.
        is_seen: the other frames are bridged.
        fps: of the frames.
        settings: how it is found.
    """
    splines = Splines(
        Spline.over(len(is_seen), fps / settings.knots_per_second),
        Spline.over(len(is_seen), fps / settings.depth_knots_per_second),
    )
    if not settings.fit:
        betas = prior.people.estimate.betas[is_seen].mean(dim=0)
        start = smooth(smpl, of_shape(smpl, prior, betas), is_seen, splines)
        return Course(start.people, ["off"] * len(is_seen))
    prior = of_shape(smpl, prior, shape_of(smpl, prior, evidence, is_seen))
    prior = replace(prior, people=placed_on(prior.people, evidence))
    has_any = (evidence.weights > 0).any(dim=1)
    people = followed(smpl, smooth(smpl, prior, is_seen, splines), evidence, splines, fps)
    with torch.no_grad():
        reaches = misfit(people, evidence) < MISFIT * evidence.weights.sum(dim=1)
    if not reaches[is_seen & has_any].all() and reaches.any():
        # landmarks that no likely body reaches are wrong; the other frames say what was there
        evidence = replace(evidence, weights=evidence.weights * reaches[:, None])
        start = smooth(smpl, prior, is_seen & reaches, splines)
        people = followed(smpl, start, evidence, splines, fps)
    states = [
        "no landmarks" if not has else "applied" if ok else "refused"
        for has, ok in zip(has_any.tolist(), reaches.tolist(), strict=True)
    ]
    return Course(people, states)


def shape_of(
    smpl: SMPL, prior: Prior, evidence: Evidence, is_seen: Bool[Tensor, "t"]
) -> Float[Tensor, "10"]:
    """Return the shape of a person: the mean over frames that are fitted one by one."""
    rows = torch.nonzero(is_seen)[:, 0]
    count = min(SHAPE_FRAMES, len(rows))
    rows = rows[torch.linspace(0, len(rows) - 1, count).round().long().to(rows.device)]
    some = replace(evidence, places=evidence.places[rows], weights=evidence.weights[rows])
    fit = fit_to_landmarks(smpl, prior_rows(prior, rows), some)
    betas = fit.placement.estimate.betas
    return betas[fit.is_applied].mean(dim=0) if fit.is_applied.any() else betas.mean(dim=0)


def of_shape(smpl: SMPL, prior: Prior, betas: Float[Tensor, "10"]) -> Prior:
    """Return a prior whose people all have one shape, which is certain."""
    people = prior.people
    same = betas.expand(len(people.translation), -1).clone()
    people = posed(smpl, people, people.estimate.rotmat, same, people.translation)
    return replace(prior, people=people, betas=torch.zeros_like(prior.betas))


def smooth(smpl: SMPL, prior: Prior, is_known: Bool[Tensor, "t"], splines: Splines) -> Prior:
    """Return a prior whose people move along splines.

    Rotations count by how well they are known, and are averaged as matrices. The first joint is
    smoothed where it is in the picture, and in its distance.
    """
    people, like = prior.people, prior.people.translation
    known = is_known.cpu().double().numpy()
    precision = prior.rotation.double().cpu().numpy() ** -2 * known[:, None]
    matrices = people.estimate.rotmat.double().cpu().numpy()
    columns = [
        splines.motion.fitted(matrices[:, joint].reshape(len(known), 9), precision[:, joint])
        for joint in range(matrices.shape[1])
    ]
    rotmat = torch.from_numpy(np.stack(columns, axis=1).reshape(matrices.shape))
    rotmat = nearest_rotation(rotmat).to(like)
    root = people.estimate.joints[:, 0]
    place = (root + people.translation).double().cpu().numpy()
    slopes = splines.motion.fitted(place[:, :2] / place[:, 2:], known)
    depth = np.exp(splines.depth.fitted(np.log(place[:, 2:]), known))
    place = np.concatenate([slopes * depth, depth], axis=1)
    translation = torch.from_numpy(place).to(like) - root
    people = posed(smpl, people, rotmat, people.estimate.betas, translation)
    return replace(prior, people=people)


def followed(
    smpl: SMPL, start: Prior, evidence: Evidence, splines: Splines, fps: float
) -> Placement:
    """Return a person brought onto the landmarks, window by window; standing feet stay.

    Where two windows meet, the first passes into the second linearly.
    """
    count = len(start.people.translation)
    rotmat = torch.zeros_like(start.people.estimate.rotmat)
    translation = torch.zeros_like(start.people.translation)
    feet = standing(start.people, evidence, splines.motion, fps)
    for first, last in windows(count):
        rows = torch.arange(first, last, device=translation.device)
        part = prior_rows(start, rows)
        some = replace(evidence, places=evidence.places[rows], weights=evidence.weights[rows])
        bases = (x.part(first, last) for x in (splines.motion, splines.depth))
        bases = (torch.from_numpy(basis).to(translation) for basis in bases)
        people = fit_window(smpl, part, some, feet[rows], fps, *bases)
        share = torch.ones(last - first).to(translation)
        ramp = (torch.arange(OVERLAP).to(translation) + 0.5) / OVERLAP
        if first:
            share[:OVERLAP] = ramp
        if last < count:
            share[-OVERLAP:] = 1 - ramp
        rotmat[first:last] += share[:, None, None, None] * people.estimate.rotmat
        translation[first:last] += share[:, None] * people.translation
    betas = start.people.estimate.betas
    return posed(smpl, start.people, nearest_rotation(rotmat), betas, translation)


def windows(count: int) -> Iterator[tuple[int, int]]:
    """Yield first frame and end of each window; the last is not much shorter than the others."""
    first = 0
    while True:
        last = first + WINDOW
        if last + WINDOW // 2 >= count:
            yield first, count
            return
        yield first, last
        first = last - OVERLAP


def fit_window(
    smpl: SMPL,
    start: Prior,
    evidence: Evidence,
    feet: Float[Tensor, "t 2"],
    fps: float,
    basis: Float[Tensor, "t k"],
    depth_basis: Float[Tensor, "t n"],
) -> Placement:
    """Return a person brought onto the landmarks of some frames.

    Args:
        smpl: the body.
        start: the person in each frame.
        evidence: the landmarks.
        feet: how surely each stands, see `standing`.
        fps: of the frames.
        basis: what each coefficient of the splines does to each frame.
        depth_basis: the same of those of the distance.
    """
    with torch.inference_mode(False), torch.enable_grad():
        start = copied(start)
        evidence = replace(
            evidence, places=evidence.places.clone(), weights=evidence.weights.clone()
        )
        number = basis.shape[1]
        turn = torch.zeros(number, *start.rotation.shape[1:], 3).to(basis).requires_grad_()
        shift = torch.zeros(number, 2).to(basis).requires_grad_()
        nearer = torch.zeros(depth_basis.shape[1], 1).to(basis).requires_grad_()
        same = torch.zeros_like(start.people.estimate.betas)

        def change() -> Change:
            of_frames = basis @ turn.flatten(1)
            place = torch.cat([depth_basis @ nearer, basis @ shift], dim=1)
            return Change(of_frames.view(-1, *turn.shape[1:]), place, same)

        def value() -> Float[Tensor, ""]:
            here = change()
            people = changed(smpl, start, here, "skeleton")
            return cost(people, start, here, evidence).sum() + sliding(people, feet, fps)

        minimise(value, [turn, shift, nearer])
    with torch.no_grad():
        return changed(smpl, start, change(), "skeleton")


def copied(prior: Prior) -> Prior:
    """Return a prior without a trace of inference mode, which has no place in a gradient."""
    people, estimate = prior.people, prior.people.estimate
    pinhole = Pinhole(people.pinhole.focal.clone(), people.pinhole.center.clone())
    rotmat, betas = estimate.rotmat.clone(), estimate.betas.clone()
    fields = {x: getattr(estimate, x) for x in ("joints", "cam", "joints_2d")}
    fields = {name: value.clone() for name, value in fields.items()}
    estimate = replace(estimate, rotmat=rotmat, betas=betas, **fields)
    people = Placement(estimate, people.translation.clone(), pinhole)
    return Prior(people, prior.rotation.clone(), prior.depth.clone(), prior.betas.clone())


def posed(
    smpl: SMPL,
    like: Placement,
    rotmat: Float[Tensor, "t 24 3 3"],
    betas: Float[Tensor, "t 10"],
    translation: Float[Tensor, "t 3"],
) -> Placement:
    """Return other bodies before the same cameras, without vertices."""
    with torch.no_grad():
        return see(smpl, rotmat, betas, translation, like.pinhole, "skeleton")


def rows_of(people: Placement, rows: Tensor | slice) -> Placement:
    """Return some of some people."""
    estimate = people.estimate
    some = {name: None if value is None else value[rows] for name, value in vars(estimate).items()}
    pinhole = Pinhole(people.pinhole.focal[rows], people.pinhole.center[rows])
    return Placement(replace(estimate, **some), people.translation[rows], pinhole)


def prior_rows(prior: Prior, rows: Tensor) -> Prior:
    """Return what is known of some of some people."""
    of_rows = (prior.rotation[rows], prior.depth[rows], prior.betas[rows])
    joints = None if prior.joints is None else prior.joints[rows]
    return Prior(rows_of(prior.people, rows), *of_rows, joints)

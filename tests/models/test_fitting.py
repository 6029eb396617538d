"""Bodies are brought onto landmarks; the energy's minimum against SciPy's."""

from dataclasses import astuple

import numpy as np
import scipy.optimize
import torch

from smpler.models import fitting
from smpler.models.body import open_body
from smpler.models.detectors.landmarks import FACE
from smpler.models.fitting import (
    Change,
    Evidence,
    Prior,
    changed,
    energy,
    fit_to_landmarks,
    placed_on,
    points_2d,
)
from smpler.models.placement import Pinhole, Placement, see
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.joints import ANNOTATION_NAMES, SMPL_NAMES, mirrored
from tests.support.standing import FITTED, everywhere, places_of, smpl, standing

__all__ = ["smpl"]  # a fixture


def fitted(smpl, before: Placement, evidence: Evidence) -> Placement:
    return fit_to_landmarks(smpl, Prior.of_network(before), evidence).placement


def turned(smpl, before: Placement, turn: torch.Tensor) -> Placement:
    change = Change(
        turn, torch.zeros_like(before.translation), torch.zeros_like(before.estimate.betas)
    )
    return changed(smpl, Prior.of_network(before), change, "mesh")


def test_landmarks_on_the_joints_change_nothing(smpl):
    before = standing(smpl)
    after = fitted(smpl, before, Evidence(FITTED, places_of(before), everywhere()))
    assert (after.estimate.vertices - before.estimate.vertices).norm(dim=-1).max() < 2e-3
    assert torch.equal(after.estimate.betas, before.estimate.betas)
    # nor does rounding grow any further
    after = fitted(smpl, before, Evidence(FITTED, places_of(before) + 1e-6, everywhere()))
    assert (after.estimate.vertices - before.estimate.vertices).norm(dim=-1).max() < 2e-3


def test_unseen_landmarks_change_nothing(smpl):
    before = standing(smpl)
    places = places_of(before) + 0.3
    places[1, 0] = torch.nan
    after = fitted(smpl, before, Evidence(FITTED, places, torch.zeros_like(everywhere())))
    assert (after.estimate.vertices - before.estimate.vertices).abs().max() < 1e-6


def test_a_landmark_pulls_as_much_as_it_is_seen(smpl):
    before = standing(smpl)
    wrist = FITTED.index("L_Wrist")
    places, moved = places_of(before), []
    places[:, wrist] += 0.1
    for weight in (0.0, 0.2, 1.0):
        weights = everywhere()
        weights[:, wrist] = weight
        after = fitted(smpl, before, Evidence(FITTED, places, weights))
        moved.append((points_2d(after, FITTED) - points_2d(before, FITTED))[:, wrist].norm(dim=-1))
    assert (moved[0] < 1e-3).all()
    assert (moved[1] > 0.01).all() and (moved[2] > 1.3 * moved[1]).all(), moved


def test_the_energy_is_the_sum_that_it_says(smpl):
    """Term by term, in a plain loop."""
    before, generator = standing(smpl), torch.Generator().manual_seed(5)
    turn = 0.2 * torch.randn(2, 24, 3, generator=generator, dtype=torch.float64)
    change = 0.1 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, len(FITTED), generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(2, len(FITTED), 2, generator=generator, dtype=torch.float64)
    places = places_of(before) + noise
    reshaping = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    scatters = (
        0.1 + torch.rand(2, count, generator=generator, dtype=torch.float64)
        for count in (24, 24, 10)
    )
    prior = Prior(before, *scatters)
    evidence = Evidence(FITTED, places, weights)
    found = energy(smpl, prior, Change(turn, change, reshaping), evidence)
    for person in range(2):
        rotmat = before.estimate.rotmat[person] @ axis_angle_to_rotmat(turn[person])
        nearer, *shift = change[person].tolist()
        translation = before.translation[person : person + 1] * np.exp(-nearer)
        translation = translation + translation.new_tensor([*shift, 0.0])
        pinhole = Pinhole(*(x[person : person + 1] for x in astuple(before.pinhole)))
        betas = before.estimate.betas[person] + reshaping[person] * prior.betas[person]
        after = see(smpl, rotmat[None], betas[None], translation, pinhole, "skeleton")
        expected = reshaping[person].square().sum().item()
        for number, place in enumerate(points_2d(after, FITTED)[0]):
            squared = ((place - places[person, number]) / fitting.LANDMARK_SCATTER) ** 2
            squared = squared.sum().item()
            robust = squared / (1 + squared / fitting.OUTLIER**2)
            expected += weights[person, number].item() * robust
        for joint in range(24):
            scatter = prior.rotation[person, joint]
            expected += (turn[person, joint] / scatter).square().sum().item()
            depth = after.estimate.joints[0, joint, 2] - after.estimate.joints[0, 0, 2]
            depth -= before.estimate.joints[person, joint, 2] - before.estimate.joints[person, 0, 2]
            expected += (depth / prior.depth[person, joint]).square().item()
        expected += (change[person] / fitting.PLACE_SCATTER).square().sum().item()
        assert abs(found[person].item() - expected) < 1e-9 * expected


def test_a_limb_that_is_elsewhere_is_brought_there_and_the_rest_stays(smpl):
    before = standing(smpl)
    turn = torch.zeros_like(before.estimate.joints)
    axis = before.estimate.rotmat.new_tensor([0.0, 0.0, 0.5])  # in the image, of the camera's frame
    shoulder = SMPL_NAMES.index("L_Shoulder")
    frame = before.estimate.rotmat[:, 0]
    for joint in ("Spine1", "Spine2", "Spine3", "L_Collar", "L_Shoulder"):
        frame = frame @ before.estimate.rotmat[:, SMPL_NAMES.index(joint)]
    turn[:, shoulder] = (frame.mT @ axis[:, None])[..., 0]
    target = turned(smpl, before, turn)
    after = fitted(smpl, before, Evidence(FITTED, places_of(target), everywhere()))
    wrist, ankle = (SMPL_NAMES.index(name) for name in ("L_Wrist", "R_Ankle"))
    was, now = (
        (x.estimate.joints_2d - target.estimate.joints_2d)[:, wrist].norm(dim=-1)
        for x in (before, after)
    )
    assert (was > 0.15).all() and (now < 0.25 * was).all(), (was, now)
    now = (after.estimate.joints - target.estimate.joints)[:, wrist].norm(dim=-1)  # in space too
    assert (
        now < 0.4 * (before.estimate.joints - target.estimate.joints)[:, wrist].norm(dim=-1)
    ).all()
    assert (after.estimate.joints - before.estimate.joints)[:, ankle].norm(dim=-1).max() < 0.02


def test_a_body_of_another_size_or_place_is_moved_there_as_a_whole(smpl):
    before = standing(smpl)
    nearer = before.translation.new_tensor([[0.3, -0.2, -0.9]])
    target = see(
        smpl,
        before.estimate.rotmat,
        before.estimate.betas,
        before.translation + nearer,
        before.pinhole,
        "mesh",
    )
    evidence = Evidence(FITTED, places_of(target), everywhere())
    found = placed_on(before, evidence).translation - before.translation
    assert (found - nearer).abs().max() < 1e-6, found
    after = fitted(smpl, before, evidence)
    assert (after.estimate.joints - target.estimate.joints).norm(dim=-1).max() < 0.01
    few = everywhere()
    few[:, 3:] = 0
    stays = placed_on(before, Evidence(FITTED, places_of(target), few))
    assert torch.equal(stays.translation, before.translation)


def test_one_wild_landmark_hardly_pulls(smpl):
    before = standing(smpl)
    places = places_of(before)
    places[..., 0] += 0.1  # all a little to the right, which must be followed
    places[:, FITTED.index("R_Ankle")] += 1.0
    after = fitted(smpl, before, Evidence(FITTED, places, everywhere()))
    moved = after.estimate.joints_2d - before.estimate.joints_2d
    assert (moved - moved.new_tensor([0.1, 0])).norm(dim=-1).max() < 0.03, moved


def test_the_minimum_is_found(smpl):
    """Adam's energy is at most a two-hundredth of what there was to gain above L-BFGS's."""
    before = standing(smpl, people=1)
    generator = torch.Generator().manual_seed(3)
    turn = torch.zeros_like(before.estimate.joints)
    for joint in ("L_Hip", "R_Knee", "L_Shoulder", "R_Elbow", "Neck"):
        turn[0, SMPL_NAMES.index(joint)] = 0.4 * torch.randn(3, generator=generator).double()
    target = turned(smpl, before, turn)
    noise = 0.03 * torch.randn(1, len(FITTED), 2, generator=generator, dtype=torch.float64)
    evidence = Evidence(FITTED, places_of(target) + noise, everywhere(1))

    def at(x: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(x).requires_grad_()
        change = Change(x[:72].view(1, 24, 3), x[None, 72:75], x[None, 75:])
        value = energy(smpl, Prior.of_network(before), change, evidence).sum()
        return value.item(), torch.autograd.grad(value, x)[0].numpy()

    before = placed_on(before, evidence)
    best = scipy.optimize.minimize(at, np.zeros(85), jac=True, method="L-BFGS-B", tol=1e-9)
    after = fitted(smpl, before, evidence)
    turn = before.estimate.rotmat.mT @ after.estimate.rotmat
    cosine = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    skew = torch.stack(
        [turn[..., 2, 1] - turn[..., 1, 2], turn[..., 0, 2] - turn[..., 2, 0],
         turn[..., 1, 0] - turn[..., 0, 1]], dim=-1,
    )  # fmt: skip
    angle = torch.arccos(cosine)
    vector = skew / 2 * (angle / torch.sin(angle).clamp(min=1e-12))[..., None]
    farther = after.translation[:, 2:] / before.translation[:, 2:]
    shift = after.translation[:, :2] - before.translation[:, :2] * farther
    found = np.concatenate([vector.flatten(), -farther.log()[0], shift[0], np.zeros(10)])
    start, ours = at(np.zeros(85))[0], at(found)[0]
    assert ours - best.fun < 0.005 * (start - best.fun), (start, ours, best.fun)


def test_the_face_is_where_the_open_body_has_it(smpl):
    """Nose and ears of a posed body, by the annotation's regressor, to two centimetres."""
    before = standing(smpl)
    regressor = torch.from_numpy(open_body().annotation_regressor).double()
    rows = [ANNOTATION_NAMES.index(name) for name in FACE]
    face = (regressor @ before.estimate.vertices)[:, rows]
    expected = before.pinhole.project(face, before.translation)
    scale = before.estimate.cam[:, :1]  # crop coordinates by metres
    error = (points_2d(before, FITTED)[:, -3:] - expected).norm(dim=-1) / scale
    assert error.max() < 0.02, error


def test_the_head_turns_to_where_the_face_is(smpl):
    before = standing(smpl)
    turn = torch.zeros_like(before.estimate.joints)
    turn[:, SMPL_NAMES.index("Head"), 1] = 0.7
    target = turned(smpl, before, turn)
    after = fitted(smpl, before, Evidence(FITTED, points_2d(target, FITTED), everywhere()))
    was, now = (
        (points_2d(x, FITTED) - points_2d(target, FITTED))[:, -3].norm(dim=-1)
        for x in (before, after)
    )
    assert (was > 0.03).all() and (now < 0.5 * was).all(), (was, now)


def test_landmarks_that_no_body_reaches_change_nothing(smpl):
    before = standing(smpl)
    places = places_of(before)
    upside_down = places * torch.tensor([1.0, -0.6])
    places[0] = upside_down[0]
    places[1, :, 0] += 0.1
    after = fitted(smpl, before, Evidence(FITTED, places, everywhere()))
    moved = (after.estimate.vertices - before.estimate.vertices).norm(dim=-1).amax(dim=1)
    assert moved[0] < 1e-6 and (after.translation - before.translation)[1].abs().max() > 0.05, moved


def test_steps_are_those_of_torchs_adam(monkeypatch):
    monkeypatch.setattr(fitting, "NUM_STEPS", 25)
    start = [torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([[1.0]]).double()]
    ours, theirs = ([x.clone().requires_grad_() for x in start] for _ in range(2))
    optimizer = torch.optim.Adam(
        theirs,
        fitting.LEARNING_RATE,
        betas=fitting.MOMENTS,
        eps=fitting.SMALL_GRADIENT,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25)

    def value(x):
        return (x[0].square() * torch.tensor([1.0, 30.0, 0.1])).sum() + (x[1] * x[0]).exp().sum()

    fitting.minimise(lambda: value(ours), ours)
    for _ in range(25):
        optimizer.zero_grad()
        value(theirs).backward()
        optimizer.step()
        schedule.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).abs().max() < 1e-9 and (a - before).abs().min() > 0.1


def test_sides_that_the_network_sees_the_other_way_round_are_swapped(smpl):
    before = standing(smpl)
    places = places_of(before)
    swapped = places[:, list(mirrored(FITTED))]
    swapped[1] = places[1]  # the second person's are as they should be
    evidence = Evidence(FITTED, swapped, everywhere())
    whose = fitting.are_swapped(before, evidence)
    assert whose.tolist() == [True, False]
    back = fitting.with_swapped_sides(evidence).places
    assert torch.equal(back[0], places[0]) and not torch.equal(back[1], places[1])

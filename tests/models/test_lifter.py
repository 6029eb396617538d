"""Landmarks are lifted to bodies: what changes nothing, what is mirrored, what is averaged."""

import math
from dataclasses import replace

import pytest
import torch

from smpler.models.body import open_body
from smpler.models.detectors.landmarks import LANDMARK_NAMES
from smpler.models.fitting import Evidence, with_swapped_sides
from smpler.models.landmark_points import (
    FRAMES,
    ORIGINS,
    TRUNK,
    landmark_points,
    sight,
    turned,
)
from smpler.models.lifter import (
    ANKLES,
    DEPTH_FACTOR,
    HIPS,
    KNEES,
    NETWORK_BETAS,
    NETWORK_ROOT,
    NETWORK_ROTATION,
    ROTATION_FACTOR,
    SHAPE_FACTOR,
    STRAIGHT,
    UPRIGHT,
    Lifted,
    Lifter,
    combined,
    straight_knees,
    upright,
)
from smpler.models.placement import Placement, see
from smpler.models.smpl import SMPL
from smpler.utils.geometry import axis_angle_to_rotmat, rotation_angle
from smpler.utils.joints import SMPL_NAMES, mirrored
from tests.support.standing import FITTED, everywhere, places_of, standing

ORDER = list(mirrored(LANDMARK_NAMES))
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def smpl() -> SMPL:
    return SMPL(open_body()).eval()


@pytest.fixture(scope="module")
def lifter() -> Lifter:
    return Lifter.load()


def random_slopes(people: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    places = torch.randn(people, 33, 2, generator=generator)
    return 0.1 * places + 0.3 * torch.randn(people, 1, 2, generator=generator)


def people_before_cameras(smpl: SMPL) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return landmarks' slopes, joints and rotations of upright people with an arm raised."""
    headings = torch.linspace(0, 2 * math.pi, 9)[:-1]
    pose = torch.zeros(len(headings), 24, 3)
    pose[:, 0] = torch.tensor([math.pi, 0.0, 0.0])
    pose[:, SMPL_NAMES.index("L_Shoulder"), 2] = -1.2
    pose[:, SMPL_NAMES.index("R_Shoulder"), 2] = -0.5
    rotmat = axis_angle_to_rotmat(pose)
    turn = axis_angle_to_rotmat(torch.stack([0 * headings, headings, 0 * headings], dim=1))
    rotmat[:, 0] = turn @ rotmat[:, 0]
    joints, transforms = smpl.skeleton(rotmat, torch.zeros(len(headings), 10))
    points = landmark_points(joints, transforms[..., :3], Lifter.load().offsets)
    points = points + torch.tensor([0.5, 0.2, 4.0])
    return points[..., :2] / points[..., 2:], joints, rotmat


def test_landmarks_are_carried_by_their_joints(smpl):
    """One at a time, in a plain loop."""
    generator = torch.Generator().manual_seed(1)
    rotmat = axis_angle_to_rotmat(torch.randn(2, 24, 3, generator=generator))
    joints, transforms = smpl.skeleton(rotmat, torch.randn(2, 10, generator=generator))
    offsets = torch.randn(33, 3, generator=generator)
    found = landmark_points(joints, transforms[..., :3], offsets)
    for person in range(2):
        for number in range(33):
            rotation = transforms[person, FRAMES[number], :, :3]
            expected = joints[person, ORIGINS[number]] + rotation @ offsets[number]
            assert torch.allclose(found[person, number], expected, atol=1e-6)
    carried = {name: SMPL_NAMES[ORIGINS[n]] for n, name in enumerate(LANDMARK_NAMES)}
    assert carried["L_Thumb"] == "L_Wrist" and carried["R_Mouth"] == "Head"
    assert all(carried[name] == name for name in carried if name in SMPL_NAMES)


def test_a_turned_camera_sees_the_same_along_the_ray():
    """The camera turns by a rotation that the ray takes along: points about it stay."""
    slopes, known = random_slopes(), torch.ones(3, 33)
    seen, turn = sight(slopes, known, known)
    assert torch.allclose(turned(slopes, turn)[:, TRUNK].mean(dim=1), torch.zeros(2), atol=0.05)
    again, _ = sight(turned(slopes, turn), known, known)
    assert torch.allclose(seen.points, again.points, atol=0.02)
    assert torch.allclose(seen.size, again.size, rtol=0.05)
    assert (again.ray.abs() < 0.05).all() and (seen.ray.abs() > 0.05).any()


def test_size_and_place_are_divided_out():
    slopes, known = random_slopes(), torch.ones(3, 33)
    near, _ = sight(0.02 * slopes, known, known)
    far, _ = sight(0.01 * slopes, known, known)
    assert torch.allclose(near.points, far.points, atol=1e-3)
    assert torch.allclose(near.size / far.size, torch.full((3,), 2.0), rtol=1e-2)
    assert torch.allclose(near.points.square().sum(dim=-1).mean(dim=1), torch.ones(3), atol=1e-5)


def test_what_is_unknown_does_not_matter(lifter):
    slopes, visibility, known = random_slopes(), torch.rand(3, 33), torch.ones(3, 33)
    known[:, 25:] = 0
    elsewhere, seen = slopes.clone(), visibility.clone()
    elsewhere[:, 25:], seen[:, 25:] = 7.0, 0.3
    plain, other = lifter(slopes, visibility, known), lifter(elsewhere, seen, known)
    for name, value in vars(plain).items():
        assert torch.equal(value, getattr(other, name)), name


def test_a_mirror_image_gives_the_mirror_image(lifter):
    slopes, visibility, known = random_slopes(), torch.rand(3, 33), torch.ones(3, 33)
    plain = lifter(slopes, visibility, known)
    other = lifter(slopes[:, ORDER] * FLIP[:2], visibility[:, ORDER], known)
    for name, value in vars(other.mirrored()).items():
        assert torch.allclose(value, getattr(plain, name), atol=2e-5), name
    for name, value in vars(plain.mirrored().mirrored()).items():
        assert torch.equal(value, getattr(plain, name)), name


def test_people_are_lifted_to_where_they_are(smpl, lifter):
    """Upright people with an arm raised, seen from all sides: to a few centimetres, and upright."""
    slopes, joints, rotmat = people_before_cameras(smpl)
    everywhere = torch.ones(slopes.shape[:2])
    lifted = lifter(slopes, everywhere, everywhere)
    assert torch.allclose(lifted.rotmat @ lifted.rotmat.mT, torch.eye(3), atol=1e-5)
    found = smpl.skeleton(lifted.rotmat, lifted.betas)[0]
    away = (found - found[:, :1] - joints + joints[:, :1]).norm(dim=-1).mean(dim=1)
    assert away.max() < 0.08, away
    turn = torch.rad2deg(rotation_angle(lifted.rotmat[:, 0], rotmat[:, 0]))
    assert turn.max() < 15, turn


def test_what_is_not_seen_is_less_certain(smpl, lifter):
    slopes, _, _ = people_before_cameras(smpl)
    everywhere = torch.ones(slopes.shape[:2])
    no_legs = everywhere.clone()
    legs = ("Knee", "Ankle", "Heel", "FootIndex")
    no_legs[:, [n for n, name in enumerate(LANDMARK_NAMES) if name[2:] in legs]] = 0
    ankle, head = (SMPL_NAMES.index(name) for name in ("L_Ankle", "Head"))
    seen, unseen = (
        lifter(slopes, x, x).joint_scatter.mean(dim=(0, 2)) for x in (everywhere, no_legs)
    )
    assert unseen[ankle] > 2 * seen[ankle] and unseen[head] < 1.5 * seen[head]


def lifted_like(people, scatter: float) -> Lifted:
    rotmat = people.estimate.rotmat @ axis_angle_to_rotmat(torch.full((2, 24, 3), 0.1).double())
    ones = torch.ones(2, 24).double()
    return Lifted(
        rotmat,
        people.estimate.betas + 1,
        scatter * ones,
        scatter * torch.stack([ones, ones], dim=-1),
        scatter * torch.ones(2, 10).double(),
    )


def on_them(people: Placement) -> Evidence:
    return Evidence(FITTED, places_of(people), everywhere(len(people.translation)))


def test_answers_are_averaged_by_what_they_are_known_to_be_off(smpl):
    smpl = SMPL(open_body()).double().eval()
    people, everybody = standing(smpl), torch.ones(2, dtype=torch.bool)
    seen = on_them(people)
    sure = combined(smpl, people, lifted_like(people, 1e-4), seen, everybody, keep_shape=False)
    lifted = lifted_like(people, 1e-4)
    assert rotation_angle(sure.people.estimate.rotmat, lifted.rotmat).max() < 1e-3
    assert (sure.people.estimate.betas - lifted.betas).abs().max() < 1e-3
    unsure = combined(smpl, people, lifted_like(people, 1e4), seen, everybody, keep_shape=False)
    # but for the whole body and the legs of people who may stand
    angle = rotation_angle(unsure.people.estimate.rotmat, people.estimate.rotmat)
    others = [n for n in range(1, 24) if n not in (*HIPS, *KNEES, *ANKLES)]
    assert angle[:, others].max() < 1e-3
    equal = combined(smpl, people, lifted_like(people, NETWORK_ROTATION), seen, everybody, False)
    angle = rotation_angle(equal.people.estimate.rotmat, people.estimate.rotmat)[:, others]
    assert torch.allclose(angle, torch.full_like(angle, 0.05 * 3**0.5), rtol=1e-2)
    # what is said of the errors, times what the fit makes of it
    of_both = (NETWORK_ROTATION**-2 + NETWORK_BETAS**-2) ** -0.5
    for scatter, expected in (
        (equal.rotation[:, 1:], ROTATION_FACTOR * NETWORK_ROTATION / 2**0.5),
        (equal.depth, DEPTH_FACTOR * NETWORK_ROTATION),
        (equal.betas, SHAPE_FACTOR * of_both),
    ):
        assert torch.allclose(scatter, torch.full_like(scatter, expected))


@pytest.mark.parametrize(
    ("axis", "angle", "right"),
    [(1, math.pi, "network"), (2, math.pi, "lifter"), (2, 0.3, "both")],
    ids=["a back for a front", "on the head", "nearly the same"],
)
def test_of_two_that_are_far_apart_one_is_taken(axis, angle, right):
    """Landmarks are those of the lifted bodies, whose limbs hang down beside a straight trunk."""
    smpl = SMPL(open_body()).double().eval()
    people = standing(smpl)
    rotmat = torch.eye(3).double().expand(2, 24, 3, 3).clone()
    rotmat[:, 0] = axis_angle_to_rotmat(torch.tensor([math.pi, 0, 0]).double())
    places = people.translation, people.pinhole
    people = see(smpl, rotmat, people.estimate.betas, *places, "mesh")
    turn = torch.zeros(3).double()
    turn[axis] = angle
    lifted = replace(lifted_like(people, NETWORK_ROOT), rotmat=rotmat.clone())
    lifted.rotmat[:, 0] = axis_angle_to_rotmat(turn) @ rotmat[:, 0]
    other = see(smpl, lifted.rotmat, people.estimate.betas, *places, "mesh")
    seen = on_them(other)
    if axis == 1:  # detectors that take a back for a front exchange left and right
        seen = with_swapped_sides(seen)
    prior = combined(smpl, people, lifted, seen, torch.ones(2, dtype=torch.bool), False)
    found = prior.people.estimate.rotmat[:, 0]
    from_network, from_lifter = (
        rotation_angle(found, x[:, 0]).max() for x in (rotmat, lifted.rotmat)
    )
    if right == "both":
        assert from_network == pytest.approx(0.15, abs=0.02) and from_lifter < 0.17
    else:
        near = from_network if right == "network" else from_lifter
        assert near < 0.05, (from_network, from_lifter)


def test_people_who_may_stand_upright_lean_less_in_depth_alone(smpl):
    """One leans by 0.2 away, one by 0.2 to the side, one by 1 away; one leans and crouches."""
    pose = torch.zeros(4, 24, 3)
    turns = torch.tensor([[0.2, 0.0, 0.0], [0.0, 0.0, 0.2], [1.0, 0.0, 0.0], [0.2, 0.0, 0.0]])
    pose[3, KNEES, 0] = 1.5
    rotmat = axis_angle_to_rotmat(pose)
    facing = axis_angle_to_rotmat(torch.tensor([math.pi, 0.0, 0.0]))
    rotmat[:, 0] = axis_angle_to_rotmat(turns) @ facing
    precise, everybody = torch.full((4, 24), UPRIGHT**-2), torch.ones(4, dtype=torch.bool)
    after = upright(smpl, rotmat, torch.zeros(4, 10), precise, everybody)
    turned_by = rotation_angle(after[:, 0], rotmat[:, 0])
    assert 0.03 < turned_by[0] < 0.1 and turned_by[1:].max() < 0.03, turned_by
    others = [n for n in range(1, 24) if n not in (*HIPS, *KNEES, *ANKLES)]
    assert torch.equal(after[:, others], rotmat[:, others])
    leaning = torch.eye(3).expand(4, 3, 3)
    lean = [rotation_angle(x[:, 0] @ facing.mT, leaning)[0] for x in (after, rotmat)]
    assert lean[0] < lean[1] - 0.03, lean


def test_a_leg_with_a_straight_knee_is_a_line_seen_from_aside(smpl):
    pose = torch.eye(3).repeat(1, 24, 1, 1)
    pose[:, KNEES] = straight_knees(smpl)
    joints = smpl.skeleton(pose, torch.zeros(1, 10))[0][0, :, 1:]  # up, and ahead
    thigh, shank = joints[KNEES] - joints[HIPS], joints[ANKLES] - joints[KNEES]
    assert torch.cosine_similarity(thigh, shank).min() > 1 - 1e-6
    angle = torch.rad2deg(rotation_angle(pose[:, KNEES], torch.eye(3).expand(1, 2, 3, 3)))
    assert angle.min() > 4 and angle.max() < 5.5, angle


def test_knees_of_people_who_may_stand_are_straightened(smpl):
    """Knees bent by 0.2, one by 0.2 and one by 1, both by 1; the last one also lies."""
    pose = torch.zeros(4, 24, 3)
    straight = -rotation_angle(straight_knees(smpl), torch.eye(3).expand(2, 3, 3))
    pose[:, KNEES, 0] = straight + torch.tensor([[0.2, 0.2], [0.2, 1.0], [1.0, 1.0], [0.2, 0.2]])
    pose[:, HIPS, 0], pose[:, ANKLES, 0] = -0.1, -0.1
    pose[:, 0] = torch.tensor([math.pi, 0.0, 0.0])
    pose[3, 0, 0] = math.pi / 2
    rotmat, betas = axis_angle_to_rotmat(pose), torch.zeros(4, 10)
    precise, everybody = torch.full((4, 24), STRAIGHT**-2), torch.ones(4, dtype=torch.bool)
    precise[:, 0] = 1e6  # the whole body stays
    after = upright(smpl, rotmat, betas, precise, everybody)
    bends = [
        rotation_angle(x[:, KNEES], straight_knees(smpl).expand(4, 2, 3, 3))
        for x in (rotmat, after)
    ]
    left = bends[1] / bends[0]
    assert 0.5 < left[0].min() and left[0].max() < 0.7, left
    assert left[1:].min() > 0.9, left
    (before, _), (now, turned) = (smpl.skeleton(x, betas) for x in (rotmat, after))
    assert (now - before)[0, ANKLES].norm(dim=-1).max() < 0.02
    feet = smpl.skeleton(rotmat, betas)[1][:, ANKLES, :, :3]
    assert rotation_angle(turned[:, ANKLES, :, :3], feet).max() < 2e-3
    nobody = upright(smpl, rotmat, betas, precise, ~everybody)
    assert torch.allclose(nobody, rotmat, atol=1e-5)


def test_a_knee_that_is_known_well_stays(smpl):
    """One knee is known well, the other is not; in float64; nobody at all is no mistake."""
    smpl = SMPL(open_body()).double().eval()
    pose = torch.zeros(1, 24, 3).double()
    pose[:, 0, 0], pose[:, KNEES, 0], pose[:, HIPS, 0] = math.pi, 0.15, -0.1
    rotmat, betas = axis_angle_to_rotmat(pose), torch.zeros(1, 10).double()
    precise = torch.full((1, 24), STRAIGHT**-2).double()
    precise[:, KNEES[1]] = 1e6
    everybody = torch.ones(1, dtype=torch.bool)
    after = upright(smpl, rotmat, betas, precise, everybody)
    turned = rotation_angle(after[0, KNEES], rotmat[0, KNEES])
    assert turned[0] > 0.05 and turned[1] < 1e-4, turned
    nobody = upright(smpl, rotmat[:0], betas[:0], precise[:0], everybody[:0])
    assert nobody.shape == (0, 24, 3, 3)


def test_a_body_that_the_lifter_does_not_know_keeps_the_networks_shape(smpl):
    smpl = SMPL(open_body()).double().eval()
    people, everybody = standing(smpl), torch.ones(2, dtype=torch.bool)
    lifted, seen = lifted_like(people, 1e-4), on_them(people)
    prior = combined(smpl, people, lifted, seen, everybody, keep_shape=True)
    assert torch.equal(prior.people.estimate.betas, people.estimate.betas)
    assert not prior.betas.any()


def test_whoever_is_not_recognised_stays_as_the_network_says(smpl):
    smpl = SMPL(open_body()).double().eval()
    people = standing(smpl)
    lifted = lifted_like(people, 1e-4)
    whose, seen = torch.tensor([True, False]), on_them(people)
    prior = combined(smpl, people, lifted, seen, whose, keep_shape=False)
    moved = rotation_angle(prior.people.estimate.rotmat, people.estimate.rotmat).amax(dim=1)
    assert moved[0] > 0.1 and moved[1] < 1e-6
    assert (prior.people.estimate.betas[1] - people.estimate.betas[1]).abs().max() < 1e-9


def test_seen_along_the_ray_has_no_nan_without_any_landmark(lifter):
    nobody = torch.zeros(1, 33)
    lifted = lifter(torch.zeros(1, 33, 2), nobody, nobody)
    assert all(value.isfinite().all() for value in vars(lifted).values())
    assert replace(lifted) is not lifted

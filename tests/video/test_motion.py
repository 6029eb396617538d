"""Motions are smooth, of one shape, nearer to the truth than single frames, and bridge gaps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smpler.models.body import open_body
from smpler.models.fitting import Evidence, Prior, fit_to_landmarks, points_2d
from smpler.models.observation import Observation, SeenLandmarks
from smpler.models.placement import Pinhole, Placement, see
from smpler.models.smpl import SMPL
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.image import CropWindow
from smpler.video.motion import OVERLAP, WINDOW, Settings, course_of, windows
from smpler.video.person import joined, joined_priors, other_sides, rows_of
from tests.support.clips import gait
from tests.support.standing import FITTED, FOCAL_LENGTH

FPS, COUNT = 30.0, 60
SIZE, WHOLE = (224, 224), CropWindow(0, 0, 224, 224)
NOISE = 0.02
"""Of the landmarks, crop coordinates: 2 of 224 pixels."""


@pytest.fixture(scope="module")
def smpl() -> SMPL:
    return SMPL(open_body())


@pytest.fixture(scope="module")
def walk(smpl) -> Placement:
    """Somebody who walks, as it is."""
    times = np.arange(COUNT) / FPS
    betas = torch.linspace(-1, 1, 10).expand(COUNT, -1)
    way = np.stack([0.2 * times - 0.2, 0 * times, 3.2 - 0.3 * times], axis=1)
    return placed(smpl, torch.from_numpy(gait(times)), betas, torch.from_numpy(way).float())


def placed(smpl, rotmat, betas, translation) -> Placement:
    pinhole = Pinhole.of([WHOLE] * len(rotmat), SIZE, FOCAL_LENGTH)
    with torch.no_grad():
        return see(smpl, rotmat, betas, translation, pinhole, "skeleton")


def seen_of(people: Placement, seed: int = 0) -> Evidence:
    """Landmarks that shake."""
    places = points_2d(people, FITTED)
    generator = torch.Generator().manual_seed(seed)
    noise = NOISE * torch.randn(places.shape, generator=generator)
    return Evidence(FITTED, places + noise, torch.ones(places.shape[:2]))


def guess_of(smpl, people: Placement, seed: int = 1) -> Prior:
    """What a network says of each frame: rotations and shapes that shake."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    count = len(people.translation)
    rotmat = people.estimate.rotmat @ axis_angle_to_rotmat(0.1 * normal(count, 24, 3))
    betas = people.estimate.betas + 0.3 * normal(count, 10)
    guess = placed(smpl, rotmat, betas, people.translation + 0.05 * normal(count, 3))
    prior = Prior.of_network(guess)
    return replace(prior, betas=torch.full_like(prior.betas, 0.5))


def errors(people: Placement, truth: Placement) -> torch.Tensor:
    """Mean distance of the joints in each frame, hips in one place, metres."""
    joints = [x.estimate.joints - x.estimate.joints[:, :1] for x in (people, truth)]
    return torch.linalg.vector_norm(joints[0] - joints[1], dim=-1).mean(dim=1)


def acceleration(people: Placement) -> float:
    joints = people.estimate.joints + people.translation[:, None]
    return float((joints[2:] - 2 * joints[1:-1] + joints[:-2]).norm(dim=-1).mean() * FPS**2)


def everywhere(count=COUNT) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


def test_a_motion_shakes_less_and_is_nearer_to_the_truth_than_single_frames(smpl, walk):
    prior, evidence = guess_of(smpl, walk), seen_of(walk)
    single = fit_to_landmarks(smpl, prior, evidence).placement
    course = course_of(smpl, prior, evidence, everywhere(), FPS, Settings())
    assert set(course.fit) == {"applied"}
    shaking = acceleration(single) - acceleration(walk)
    left = acceleration(course.people) - acceleration(walk)
    assert abs(left) < shaking / 5, (acceleration(walk), acceleration(single), left)
    before, after = (float(errors(x, walk).mean()) for x in (single, course.people))
    assert after < 0.7 * before, (before, after)
    betas = course.people.estimate.betas
    assert torch.equal(betas, betas[:1].expand_as(betas))
    away = (betas[0] - walk.estimate.betas[0]).abs().mean()
    assert away < (prior.people.estimate.betas - walk.estimate.betas).abs().mean()


def test_nothing_lags(smpl, walk):
    """Shifted in time, the motion is farther from the truth."""
    course = course_of(smpl, guess_of(smpl, walk), seen_of(walk), everywhere(), FPS, Settings())
    turns = course.people.estimate.joints, walk.estimate.joints
    costs = []
    for shift in range(-3, 4):
        moved = torch.roll(turns[0], shift, dims=0)[5:-5]
        costs.append(float((moved - turns[1][5:-5]).norm(dim=-1).mean()))
    assert int(np.argmin(costs)) == 3, costs


def test_a_gap_is_bridged(smpl, walk):
    prior, evidence, is_seen = guess_of(smpl, walk), seen_of(walk), everywhere()
    is_seen[25:35] = False
    weights = evidence.weights * is_seen[:, None]
    junk = torch.where(is_seen[:, None, None], evidence.places, 0.0)
    evidence = replace(evidence, places=junk, weights=weights)
    course = course_of(smpl, prior, evidence, is_seen, FPS, Settings())
    assert [x == "no landmarks" for x in course.fit] == (~is_seen).tolist()
    step = (course.people.translation[1:] - course.people.translation[:-1]).norm(dim=1)
    assert step.max() < 0.07, step
    assert errors(course.people, walk)[25:35].max() < 0.12


def test_landmarks_that_no_body_reaches_do_not_count(smpl, walk):
    prior, evidence = guess_of(smpl, walk), seen_of(walk)
    places = evidence.places.clone()
    generator = torch.Generator().manual_seed(3)
    places[20:24] = 2 * torch.rand(4, len(FITTED), 2, generator=generator) - 1  # anywhere
    course = course_of(smpl, prior, replace(evidence, places=places), everywhere(), FPS, Settings())
    assert [x for x in range(COUNT) if course.fit[x] == "refused"] == [20, 21, 22, 23]
    assert errors(course.people, walk)[19:25].max() < 0.12


def test_without_a_fit_the_people_are_smoothed_only(smpl, walk):
    prior = guess_of(smpl, walk)
    course = course_of(smpl, prior, seen_of(walk), everywhere(), FPS, Settings(fit=False))
    assert set(course.fit) == {"off"}
    before, after = (float(errors(x, walk).mean()) for x in (prior.people, course.people))
    assert after < 0.8 * before and acceleration(course.people) < acceleration(prior.people) / 3


def test_windows_cover_all_frames_and_share_some():
    for count in (1, 50, WINDOW, 2 * WINDOW, 500):
        found = list(windows(count))
        assert found[0][0] == 0 and found[-1][1] == count
        assert all(a[1] - b[0] == OVERLAP for a, b in zip(found, found[1:], strict=False))
        assert all(b - a >= min(count, 2 * OVERLAP) for a, b in found)


def test_windows_give_nearly_what_one_window_gives(smpl, walk, monkeypatch):
    prior, evidence = guess_of(smpl, walk), seen_of(walk)
    one = course_of(smpl, prior, evidence, everywhere(), FPS, Settings()).people
    monkeypatch.setattr("smpler.video.motion.WINDOW", 28)
    monkeypatch.setattr("smpler.video.motion.OVERLAP", 12)
    assert len(list(windows(COUNT))) > 2
    several = course_of(smpl, prior, evidence, everywhere(), FPS, Settings()).people
    assert errors(one, several).max() < 0.01
    assert (one.translation - several.translation).norm(dim=1).max() < 0.05


@pytest.mark.parametrize("swapped", [[], [7], range(10, 30), range(COUNT)])
def test_sides_are_those_that_go_best_together(smpl, walk, swapped):
    evidence = seen_of(walk)
    like = torch.ones(COUNT, len(FITTED))
    landmarks = SeenLandmarks(FITTED, evidence.places, like, like, like)
    is_swapped = torch.zeros(COUNT, dtype=torch.bool)
    is_swapped[list(swapped)] = True
    landmarks = landmarks.with_swapped_sides(is_swapped)
    seen = Observation(landmarks, {}, torch.ones(COUNT))
    assert torch.equal(other_sides(guess_of(smpl, walk).people, seen), is_swapped)


def test_parts_are_joined_to_the_whole(smpl, walk):
    prior = guess_of(smpl, walk)
    again = joined([rows_of(walk, slice(0, 10)), rows_of(walk, slice(10, COUNT))])
    assert torch.equal(again.estimate.joints, walk.estimate.joints)
    assert torch.equal(joined_priors([prior, prior]).rotation[COUNT:], prior.rotation)

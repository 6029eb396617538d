"""How good an answer is said to be."""

import pytest
import torch

from smpler.models.answers import FARTHEST, HALF, UNSEEN, UNSURE, Answer, fit_states, qualities
from smpler.models.fitting import Fit
from smpler.models.observation import Observation, SeenLandmarks
from tests.support.standing import FITTED, everywhere, places_of, smpl, standing

__all__ = ["smpl"]  # a fixture


def observed(people, away: float = 0.0, weight: float = 1.0, presence: float = 1.0) -> Observation:
    places = places_of(people)
    places[..., 0] += away
    weights = weight * everywhere()
    return seen_with(places, weights, presence)


def seen_with(places, weights, presence: float = 1.0) -> Observation:
    everybody = presence * torch.ones(len(weights)).double()
    landmarks = SeenLandmarks(FITTED, places, weights, weights, torch.ones_like(weights))
    return Observation(landmarks, {}, everybody)


def test_two_networks_that_agree_are_of_quality_1_and_a_stated_distance_halves_it(smpl):
    people = standing(smpl)
    assert torch.allclose(qualities(people, observed(people)), torch.ones(2).double())
    half = qualities(people, observed(people, away=HALF))
    assert torch.allclose(half, torch.full((2,), 0.5).double())


def test_quality_falls_with_the_distance_up_to_a_limit_and_with_what_is_hidden(smpl):
    people = standing(smpl)

    def value(**arguments) -> float:
        return qualities(people, observed(people, **arguments))[0].item()

    falling = [value(away=away) for away in (0.0, 0.02, 0.05, 0.1, 0.2, FARTHEST)]
    assert falling == sorted(falling, reverse=True) and len(set(falling)) == 6
    assert value(away=FARTHEST) == value(away=5.0)
    assert value(weight=1.0) > value(weight=0.6) > value(weight=0.0)
    assert value(weight=0.0) == pytest.approx(value(away=UNSEEN))
    assert value(presence=0.0) == pytest.approx(1 / (1 + (FARTHEST / HALF) ** 2))


def test_quality_falls_with_the_expected_error_of_joints_where_it_is_known(smpl):
    people = standing(smpl)
    seen, joints = observed(people), torch.full((2, 24), UNSURE).double()
    joints[:, 0] = 7.0  # the pelvis, where the others are measured from
    assert torch.allclose(qualities(people, seen, joints), torch.full((2,), 0.5).double())
    joints[1] = torch.nan
    assert torch.allclose(qualities(people, seen, joints), torch.tensor([0.5, 1.0]).double())
    both = qualities(people, observed(people, away=HALF), joints)
    assert torch.allclose(both, torch.tensor([1 / 3, 0.5]).double())


def test_the_residual_is_the_root_mean_square_over_what_counts(smpl):
    people = standing(smpl)
    seen = observed(people)
    seen.landmarks.places[0, :2, 1] += torch.tensor([0.3, 0.4])
    seen.landmarks.weights[0, 2:] = 0
    seen.landmarks.weights[1] = 0
    answer = Answer(people, seen, ["off"] * 2, qualities(people, seen))
    first, second = answer.residuals()
    assert first.item() == pytest.approx((0.125) ** 0.5) and second.isnan()


def test_the_state_of_the_fit_is_applied_refused_or_without_landmarks(smpl):
    people = standing(smpl, people=3)
    weights = everywhere(3)
    weights[2] = 0
    seen = seen_with(places_of(people), weights)
    fit = Fit(people, torch.tensor([True, False, False]))
    assert fit_states(fit, seen) == ["applied", "refused", "no landmarks"]
    everybody = fit._replace(is_applied=torch.ones_like(fit.is_applied))
    assert fit_states(everybody, seen) == ["applied", "applied", "no landmarks"]

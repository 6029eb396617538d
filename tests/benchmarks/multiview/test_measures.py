"""Measures of skeletons whose angles and errors are known."""

import cv2
import numpy as np
import pytest
import torch

from benchmarks.multiview.measures import (
    axis_errors_mm,
    errors_mm,
    knee_errors,
    lean_errors,
    measured,
    scatter_of_seen,
    scatter_ranks,
)
from smpler.models.detectors.landmarks import SEEN
from smpler.utils.joints import SMPL_NAMES
from tests.benchmarks.multiview.synthetic import joints

UP = torch.tensor([[0.0, -1.0, 0.0]], dtype=torch.float64)
HEIGHTS = {"Shoulder": 1.4, "Elbow": 1.1, "Wrist": 0.9, "Hip": 0.9, "Knee": 0.5, "Ankle": 0.1}


def rotation(degrees: float, axis: str) -> torch.Tensor:
    vector = np.deg2rad(degrees) * np.eye(3)["xyz".index(axis)]
    return torch.from_numpy(cv2.Rodrigues(vector)[0])


def standing(bend: float = 0.0) -> torch.Tensor:
    """Someone upright before a level camera, with the shanks turned backwards by an angle."""
    body = torch.zeros(1, len(SEEN), 3, dtype=torch.float64)
    for number, name in enumerate(SEEN):
        side, part = name.split("_")
        body[0, number] = torch.tensor([0.2 if side == "L" else -0.2, -HEIGHTS[part], 3.0])
    for side in "LR":
        knee, ankle = (SEEN.index(f"{side}_{part}") for part in ("Knee", "Ankle"))
        shank = body[0, ankle] - body[0, knee]
        body[0, ankle] = body[0, knee] + rotation(bend, "x") @ shank
    return body


def turned(body: torch.Tensor, degrees: float, axis: str) -> torch.Tensor:
    return body @ rotation(degrees, axis).T


# about x, y down: a positive turn takes what is up, -y, to -z, towards the camera
@pytest.mark.parametrize(
    ("axis", "degrees", "away", "sideways"),
    [("x", 12.0, -12.0, 0.0), ("x", -7.0, 7.0, 0.0), ("z", 9.0, 0.0, 9.0), ("y", 40.0, 0.0, 0.0)],
)
def test_the_lean_is_the_angle_by_which_a_body_was_turned(axis, degrees, away, sideways):
    errors = lean_errors(turned(standing(), degrees, axis), standing(), UP)
    expected = {
        "upright": 1,
        "lean": max(abs(away), sideways),
        "lean-depth": abs(away),
        "lean-away": away,
        "lean-sideways": sideways,
    }
    assert errors == pytest.approx(expected, abs=1e-6)


def test_the_lean_is_against_the_worlds_vertical():
    """A camera that looks down and is rolled sees the same lean."""
    camera = rotation(25.0, "x") @ rotation(20.0, "z")
    wrong, known = (body @ camera.T for body in (turned(standing(), 12.0, "x"), standing()))
    errors = lean_errors(wrong, known, UP @ camera.T)
    level = lean_errors(turned(standing(), 12.0, "x"), standing(), UP)
    assert errors["upright"] == 1 and errors["lean"] == pytest.approx(level["lean"], abs=1e-6)
    pitched = rotation(25.0, "x")  # which keeps the plane of the lean
    wrong, known = (body @ pitched.T for body in (turned(standing(), 12.0, "x"), standing()))
    assert lean_errors(wrong, known, UP @ pitched.T) == pytest.approx(level, abs=1e-6)


def test_only_upright_trunks_count():
    known = torch.cat([turned(standing(), angle, "z") for angle in (0.0, 29.0, 31.0, 90.0)])
    errors = lean_errors(known, known, UP.expand(4, 3))
    assert errors["upright"] == 2 and abs(errors["lean"]) < 1e-6
    assert np.isnan(lean_errors(known[2:], known[2:], UP.expand(2, 3))["lean"])


def test_knees_are_bent_by_the_shanks_turn():
    known = torch.cat([standing(10.0), standing(14.9), standing(50.0)])
    found = torch.cat([standing(30.0), standing(40.0), standing(47.0)])
    expected = {
        "knee": (20 + 25.1 + 3) / 3,
        "straight-knees": 4,
        "straight-knee": 35.0,
        "straight-knee-true": 12.45,
    }
    assert knee_errors(found, known) == pytest.approx(expected, abs=1e-6)


def test_axis_errors_are_relative_to_the_hips():
    shift, wrong = torch.tensor([[1, 2, 3], [0.01, 0.02, 0.06]], dtype=torch.float64)
    known, found = standing(), standing() + shift
    for side in "LR":
        found[0, SEEN.index(f"{side}_Wrist")] += wrong
    errors = axis_errors_mm(found, known)
    assert errors["Wrist"] == pytest.approx({"x": 10, "y": 20, "z": 60}, abs=1e-6)
    assert errors["Ankle"] == pytest.approx({"x": 0, "y": 0, "z": 0}, abs=1e-6)
    assert errors["all"]["z"] == pytest.approx(60 / np.sqrt(6), abs=1e-6)


def test_errors_are_of_centred_hips_of_scaled_and_of_aligned_joints():
    known = torch.from_numpy(joints(4))[None]
    errors = errors_mm(known + 0.3, known)
    assert errors["mpjpe"] < 1e-6 and errors["mpjpe-pa"] < 1e-6 and errors["3dpck"] == 100
    errors = errors_mm(1.2 * known, known)
    assert errors["mpjpe"] > 50 and errors["mpjpe-scaled"] < 1e-6
    errors = errors_mm(1.2 * known @ rotation(23.0, "y").T, known)
    assert errors["mpjpe"] > 50 and errors["mpjpe-scaled"] > 50 and errors["mpjpe-pa"] < 1e-6
    far = standing()
    far[0, SEEN.index("L_Wrist"), 2] += 0.151
    far[0, SEEN.index("R_Wrist"), 2] += 0.149
    assert errors_mm(far, standing())["3dpck"] == pytest.approx(100 * 11 / 12)


def test_scatters_rank_errors_and_come_only_from_who_says_them():
    random = torch.Generator().manual_seed(0)
    errors = torch.rand(40, 12, generator=random, dtype=torch.float64)
    hips = [SEEN.index("L_Hip"), SEEN.index("R_Hip")]
    known = standing().repeat(40, 1, 1)
    found = known.clone()
    found[..., 2] += errors
    found[:, hips[1], 2] = known[:, hips[1], 2] - errors[:, hips[0]]  # their middle stays
    true = (found - known).norm(dim=-1)
    for scatter, expected in ((true.square(), 1.0), (1 - true, -1.0)):
        ranks = scatter_ranks(scatter, found, known)
        assert ranks == pytest.approx(
            {"scatter-rank": expected, "scatter-rank-within": expected}, abs=1e-6
        )
    assert "scatter-rank" in measured(found, known, UP.expand(40, 3), true)
    assert "scatter-rank" not in measured(found, known, UP.expand(40, 3))
    chosen = scatter_of_seen(torch.arange(24.0)[None])[0]
    assert [SMPL_NAMES[int(number)] for number in chosen] == list(SEEN)

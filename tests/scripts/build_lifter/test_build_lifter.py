"""The lifter's builder: poses, residuals, pairs, losses, and the command as a whole."""

import math

import numpy as np
import pytest
import torch

from scripts.build_lifter import pairs as pairs_module
from scripts.build_lifter.__main__ import main
from scripts.build_lifter.pairs import (
    IN_LINE,
    PairMaker,
    calmed,
    straightened,
    with_scaled_legs,
)
from scripts.build_lifter.poses import MixedPoses, read_poses
from scripts.build_lifter.residuals import (
    Looks,
    Residuals,
    fit_offsets,
    look_at_people,
    posed,
    residuals_of,
)
from scripts.build_lifter.training import negative_log_likelihood
from smpler.datasets.engine.poses.sampler import PoseSampler
from smpler.models.body import open_body
from smpler.models.detectors.landmarks import LANDMARK_NAMES
from smpler.models.landmark_points import along_axis, landmark_points
from smpler.models.lifter import Lifted, Lifter
from smpler.models.smpl import SMPL
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.joints import SMPL_NAMES, mirrored

ORDER = list(mirrored(LANDMARK_NAMES))


@pytest.fixture(scope="module")
def smpl() -> SMPL:
    return SMPL(open_body()).eval()


LEG = ("Knee", "Ankle", "Heel", "FootIndex")


def known_offsets() -> torch.Tensor:
    offsets = 0.05 * torch.randn(33, 3, generator=torch.Generator().manual_seed(3))
    mirror_image = offsets[ORDER] * torch.tensor([-1.0, 1.0, 1.0])
    return (offsets + mirror_image) / 2


def looks_at(smpl: SMPL, offsets: torch.Tensor, people: int = 40, noise: float = 0.0) -> Looks:
    """People who are seen as they are, but for noise; every landmark is visible."""
    generator = torch.Generator().manual_seed(4)
    pose = 0.3 * torch.randn(people, 24, 3, generator=generator)
    pose[:, 0, 0] += math.pi
    rotmat = axis_angle_to_rotmat(pose)
    betas = torch.randn(people, 10, generator=generator)
    root = torch.randn(people, 3, generator=generator) * 0.5 + torch.tensor([0.0, 0.0, 4.0])
    visibility = torch.ones(people, 33)
    looks = Looks(rotmat, betas, root, torch.zeros(people, 33, 2), visibility)
    points = landmark_points(*posed(smpl, looks), offsets)
    slopes = points[..., :2] / points[..., 2:]
    slopes = slopes + noise * torch.randn(slopes.shape, generator=generator)
    return Looks(rotmat, betas, root, slopes, visibility)


def test_places_on_the_body_are_found(smpl):
    offsets = known_offsets()
    assert (fit_offsets(smpl, looks_at(smpl, offsets)) - offsets).abs().max() < 1e-4
    noisy = fit_offsets(smpl, looks_at(smpl, offsets, people=300, noise=0.003))
    assert (noisy - offsets).abs().max() < 0.01


def test_residuals_are_what_was_added(smpl):
    offsets = known_offsets()
    looks = looks_at(smpl, offsets)
    assert residuals_of(smpl, looks, offsets).errors.abs().max() < 1e-4
    wrist = LANDMARK_NAMES.index("L_Wrist")
    looks.slopes[5, wrist, 0] += 0.02
    errors = residuals_of(smpl, looks, offsets).errors
    other = LANDMARK_NAMES.index("R_Wrist")
    assert (errors[5, wrist, 0] > 0.05).all() and errors[5, other].abs().max() < 1e-4
    assert torch.isclose(errors[45, other, 0], -errors[5, wrist, 0], atol=1e-5)


def test_a_front_taken_for_a_back_has_its_sides_back(smpl):
    offsets = known_offsets()
    looks = looks_at(smpl, offsets)
    looks.slopes[3] = looks.slopes[3, ORDER]
    assert residuals_of(smpl, looks, offsets).errors.abs().max() < 1e-4


def test_errors_are_of_people_whose_poses_are_alike():
    """Of 30 poses on a line, those drawn are near, but not always the nearest."""
    poses = torch.arange(30.0)[:, None].expand(30, 99)
    residuals = Residuals(poses, torch.zeros(30, 33, 2), torch.ones(30, 33))
    generator = torch.Generator().manual_seed(0)
    asked = torch.full((1, 99), 14.2)
    found = [residuals.alike(asked, generator).item() for _ in range(200)]
    assert 0.2 < found.count(14) / 200 < 0.5 and np.abs(np.array(found) - 14).max() < 12, found


def maker_without_errors(smpl: SMPL, seed: int = 0) -> PairMaker:
    poses = 0.2 * np.random.default_rng(0).standard_normal((20, 24, 3)).astype(np.float32)
    nothing = Residuals(torch.zeros(4, 99), torch.zeros(4, 33, 2), torch.ones(4, 33))
    return PairMaker(smpl, poses, poses, nothing, known_offsets(), seed)


def test_pairs_are_of_the_body_that_they_say(smpl, monkeypatch):
    """Without errors of landmarks, features are those of the body's own points at some distance."""
    monkeypatch.setattr(pairs_module, "OFFSET_SPREAD", torch.zeros(33, 3))
    monkeypatch.setattr(pairs_module, "LEG_LENGTH", 0.0)
    monkeypatch.setattr(pairs_module, "LEG_LENGTH_SPREAD", 0.0)
    maker = maker_without_errors(smpl)
    pairs = maker.pairs(16)
    joints, transforms = smpl.skeleton(pairs.rotmat, pairs.betas)
    assert torch.allclose(joints, pairs.joints, atol=1e-6)
    points = landmark_points(joints, transforms[..., :3], maker.offsets)
    trunk = [LANDMARK_NAMES.index(f"{s}_{n}") for s in "LR" for n in ("Shoulder", "Hip")]
    points = points - points[:, trunk].mean(dim=1, keepdim=True)
    places = pairs.features[:, :132].unflatten(1, (33, 4))
    best = torch.full((16,), math.inf)
    for distance in torch.linspace(1.3, 15, 200):
        slopes = points[..., :2] / (points[..., 2:] + distance)
        seen = along_axis(slopes, places[..., 2], places[..., 3], torch.zeros(16, 2))
        away = (seen.points - places[..., :2]).norm(dim=-1).amax(dim=1)
        best = torch.minimum(best, away)
    assert best.max() < 0.02, best


def test_the_same_seed_makes_the_same_pairs(smpl):
    first, second, other = (maker_without_errors(smpl, seed).pairs(8) for seed in (0, 0, 1))
    assert torch.equal(first.features, second.features)
    assert not torch.equal(first.features, other.features)


def test_straightened_knees_leave_the_feet_level():
    pose = torch.zeros(2, 24, 3)
    hip, knee, ankle = (SMPL_NAMES.index(f"L_{n}") for n in ("Hip", "Knee", "Ankle"))
    pose[:, hip, 0], pose[:, knee, 0], pose[:, ankle, 0] = -0.3, 0.6, -0.3
    share = torch.tensor([[1.0, 0.5], [0.5, 0.0]])
    after = straightened(pose, share, torch.tensor([True, True]))
    assert after[0, knee, 0] == pytest.approx(IN_LINE)
    assert torch.allclose(after[:, [hip, knee, ankle], 0].sum(dim=1), torch.zeros(2), atol=1e-6)
    assert after[1, knee, 0] == pytest.approx((0.6 + IN_LINE) / 2)
    assert torch.equal(straightened(pose, share, torch.tensor([False, False])), pose)
    lying = pose.clone()
    lying[:, 0, 0] = -1.5
    assert torch.equal(straightened(lying, share, torch.tensor([True, True])), lying)


def test_a_straight_leg_is_nearly_a_line_on_the_open_body(smpl):
    """Of knees turned by -0.2 to 0.2, one turned by IN_LINE makes the straightest leg."""
    angles = torch.linspace(-0.2, 0.2, 41)
    pose = torch.zeros(len(angles), 24, 3)
    hip, knee, ankle = (SMPL_NAMES.index(f"L_{n}") for n in ("Hip", "Knee", "Ankle"))
    pose[:, knee, 0] = angles
    joints = smpl.skeleton(axis_angle_to_rotmat(pose), torch.zeros(len(angles), 10))[0]
    thigh, shin = joints[:, knee] - joints[:, hip], joints[:, ankle] - joints[:, knee]
    straightest = torch.cosine_similarity(thigh, shin, dim=1).argmax()
    assert angles[straightest].item() == pytest.approx(IN_LINE, abs=0.011)


def test_scaled_legs_scale_thighs_and_shins_and_nothing_else():
    points = torch.randn(2, 33, 3, generator=torch.Generator().manual_seed(0))
    after = with_scaled_legs(points, torch.tensor([0.9, 1.2]))
    hip, knee, ankle, heel, toes = (
        LANDMARK_NAMES.index(f"R_{n}") for n in ("Hip", "Knee", "Ankle", "Heel", "FootIndex")
    )
    for upper, lower in ((hip, knee), (knee, ankle)):
        before_it, after_it = (x[:, lower] - x[:, upper] for x in (points, after))
        assert torch.allclose(after_it, before_it * torch.tensor([[0.9], [1.2]]), atol=1e-6)
    for part in (heel, toes):
        before_it, after_it = (x[:, part] - x[:, ankle] for x in (points, after))
        assert torch.allclose(after_it, before_it, atol=1e-6)
    others = [n for n, name in enumerate(LANDMARK_NAMES) if name[2:] not in LEG]
    assert torch.equal(after[:, others], points[:, others])


def test_calmed_trunks_are_more_upright():
    pose = torch.full((3, 24, 3), 0.4)
    pose[2, 0] = 1.5  # lies
    after = calmed(pose, torch.tensor([0.5, 0.5, 0.5]), torch.tensor([True, False, True]))
    trunk = [SMPL_NAMES.index(name) for name in ("Pelvis", "Spine1", "Spine2", "Spine3")]
    assert (after[0, trunk] == 0.2).all() and torch.equal(after[1:], pose[1:])
    others = [joint for joint in range(24) if joint not in trunk]
    assert torch.equal(after[0, others], pose[0, others])


def test_the_true_scatter_is_the_likeliest(smpl):
    pairs = maker_without_errors(smpl).pairs(400)
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.randn(400, 24, 3, generator=generator)
    rotmat = pairs.rotmat @ axis_angle_to_rotmat(noise)
    away = 0.2 * torch.randn(400, 23, 3, generator=generator)
    betas_away = 0.2 * torch.randn(400, 10, generator=generator)

    def value(scatter: float) -> float:
        ones = torch.ones(400, 24)
        lifted = Lifted(
            rotmat,
            pairs.betas + betas_away,
            scatter * ones,
            scatter * torch.stack([ones, ones], dim=-1),
            scatter * torch.ones(400, 10),
        )
        return negative_log_likelihood(lifted, pairs, away, betas_away).item()

    values = {scatter: value(scatter) for scatter in (0.1, 0.15, 0.2, 0.25, 0.4)}
    assert min(values, key=lambda scatter: values[scatter]) == 0.2, values


def poses_file(folder, poses: int = 60):
    path = folder / "poses.npz"
    pose = 0.2 * np.random.default_rng(1).standard_normal((poses, 24, 3)).astype(np.float32)
    np.savez(path, pose=pose, clip=np.array([f"clip{number // 3}" for number in range(poses)]))
    return path


def test_whole_clips_are_held_out(tmp_path):
    learned, held_out = read_poses(poses_file(tmp_path, 600))
    assert len(learned) + len(held_out) == 600 and 0 < len(held_out) < 100
    assert len(held_out) % 3 == 0


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"pose": np.zeros((4, 23, 3))}, r"\(4, 23, 3\)"),
        ({"pose": np.full((4, 24, 3), np.nan)}, "finite"),
        ({"trans": np.zeros(3)}, "poses"),
    ],
)
def test_a_file_without_poses_is_one_sentence(tmp_path, capsys, arrays, says):
    path = tmp_path / "poses.npz"
    np.savez(path, **arrays)
    assert main(["--poses", str(path), "--out", str(tmp_path / "out.npz")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "poses.npz" in error, error
    with pytest.raises(ValueError, match=says):
        read_poses(path)


def test_the_same_command_writes_the_same_file_which_loads(smpl, tmp_path, capsys):
    looks = tmp_path / "looks.npz"
    seen = looks_at(smpl, known_offsets(), noise=0.003)
    np.savez(looks, **{name: value.numpy() for name, value in vars(seen).items()})
    contents = []
    for name in ("first.npz", "second.npz"):
        arguments = ["--poses", str(poses_file(tmp_path)), "--looks", str(looks)]
        arguments += ["--out", str(tmp_path / name), "--drawn", "10", "--networks", "2"]
        arguments += ["--width", "16", "--blocks", "1", "--steps", "3", "--batch", "8"]
        assert main([*arguments, "--threads", "1", "--bfloat16"]) == 0
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert "sha256" in capsys.readouterr().out
    lifter = Lifter.load(tmp_path / "first.npz")
    assert len(lifter.networks) == 2 and lifter.body_sha256 == open_body().sha256
    first, second = (network.widen.weight for network in lifter.networks)
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_rendered_people_are_looked_at():
    """The landmarks of two sizes lie within a few centimetres of where the body has them."""
    captured = np.zeros((5, 24, 3), np.float32)
    looks = look_at_people(MixedPoses(captured, PoseSampler()), ["full", "heavy"], 6, 77, 0)
    assert 8 <= len(looks.rotmat) <= 12
    smpl = SMPL(open_body()).eval()
    points = landmark_points(*posed(smpl, looks), Lifter.load().offsets)
    away = (looks.slopes - points[..., :2] / points[..., 2:]).norm(dim=-1) * points[..., 2]
    assert away[looks.visibility > 0.9].median() < 0.06

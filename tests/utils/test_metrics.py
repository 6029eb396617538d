import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from smpler.utils.metrics import align_by_similarity, mpjpe, mpve, pa_mpjpe


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def similar(points: torch.Tensor, seed: int) -> torch.Tensor:
    rotation = torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())
    return 1.7 * points @ rotation.T + torch.tensor([0.3, -2.0, 5.0]).double()


def test_pa_mpjpe_is_scipys_procrustes():
    predicted, target = random(50, 14, 3), random(50, 14, 3, seed=1)
    predicted[:25] = target[:25] + 0.1 * predicted[:25]
    found = pa_mpjpe(predicted, target)
    for p, t, error in zip(predicted.numpy(), target.numpy(), found.tolist(), strict=True):
        # scipy may reflect: where its best is a reflection, ours must be worse, never better
        standard_t, standard_p, _ = procrustes(t, p)
        scale = np.linalg.norm(t - t.mean(0))
        scipys = np.linalg.norm(standard_t - standard_p, axis=1).mean() * scale
        rotation = np.linalg.svd((t - t.mean(0)).T @ (p - p.mean(0)))
        if np.linalg.det(rotation[0] @ rotation[2]) > 0:
            assert abs(error - scipys) < 1e-12, (error, scipys)
        else:
            aligned = align_by_similarity(torch.from_numpy(p)[None], torch.from_numpy(t)[None])[0]
            ours = np.linalg.norm(aligned.numpy() - t)
            best = np.linalg.norm(standard_t - standard_p) * scale
            assert ours > best, (ours, best)


def test_pa_mpjpe_is_the_least_over_many_random_similarities():
    predicted, target = random(1, 14, 3), random(1, 14, 3, seed=1)
    best = (align_by_similarity(predicted, target) - target).square().sum().item()
    for seed in range(200):
        aligned = similar(align_by_similarity(predicted, target), seed)
        aligned = aligned - aligned.mean(dim=1, keepdim=True) + target.mean(dim=1, keepdim=True)
        assert (aligned - target).square().sum().item() > best


def test_pa_mpjpe_does_not_change_under_similarities_and_never_reflects():
    predicted, target = random(8, 14, 3), random(8, 14, 3, seed=1)
    change = (pa_mpjpe(similar(predicted, 3), target) - pa_mpjpe(predicted, target)).abs().max()
    assert change < 1e-12, change
    assert pa_mpjpe(similar(target, 4), target).max() < 1e-12
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0])
    assert pa_mpjpe(mirrored, target).min() > 0.05, "a mirror image must not count as the same"


def test_coinciding_points_have_an_error_and_no_nan():
    target = random(1, 14, 3)
    error = pa_mpjpe(torch.zeros(1, 14, 3).double(), target)
    expected = torch.linalg.vector_norm(target - target.mean(1, keepdim=True), dim=-1).mean()
    assert torch.allclose(error, expected), (error, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_spoils_its_own_sample_alone(value):
    predicted, target = random(3, 14, 3), random(3, 14, 3, seed=1)
    expected = pa_mpjpe(predicted, target)
    predicted[1, 4, 2] = value
    found = pa_mpjpe(predicted, target)
    assert found[[0, 2]].equal(expected[[0, 2]]) and not found[1].isfinite(), found


def test_mpjpe_is_centred_on_the_hips():
    target = random(3, 14, 3)
    moved = target + torch.tensor([1.0, 2.0, 3.0])
    assert mpjpe(moved, target).max() < 1e-12
    one_off = target.clone()
    one_off[:, 0, 0] += 0.14
    assert torch.allclose(mpjpe(one_off, target), torch.tensor(0.01).double())
    hip_off = target.clone()
    hip_off[:, 2, 0] += 0.14  # moves the centre by 0.07
    expected = (13 * 0.07 + 0.07) / 14
    assert torch.allclose(mpjpe(hip_off, target), torch.tensor(expected).double())


def test_mpve_is_centred_on_each_sides_pelvis():
    vertices = random(2, 30, 3)
    pelvis, shift = random(2, 3, seed=1), torch.tensor([0.5, 0.0, -1.0])
    assert mpve(vertices + shift, pelvis + shift, vertices, pelvis).max() < 1e-12
    error = mpve(vertices, pelvis + torch.tensor([0.3, 0.4, 0.0]), vertices, pelvis)
    assert torch.allclose(error, torch.tensor(0.5).double())

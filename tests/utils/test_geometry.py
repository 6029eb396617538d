import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from smpler.utils.geometry import (
    axis_angle_to_rotmat,
    nearest_rotation,
    project,
    rot6d_to_rotmat,
    rotation_angle,
    rotmat_to_axis_angle,
    rotmat_to_rot6d,
    vertex_normals,
)


def random_axis_angles(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64) * 2


def test_axis_angle_matches_scipy_also_at_and_near_zero():
    vectors = random_axis_angles(200)
    vectors[0] = 0
    vectors[1:50] *= 10.0 ** -torch.arange(1, 50, dtype=torch.float64)[:, None].clamp(max=12)
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    error = np.abs(axis_angle_to_rotmat(vectors).numpy() - expected).max()
    assert error < 1e-14, error


def test_axis_angle_has_a_gradient_at_zero_and_elsewhere():
    vectors = random_axis_angles(4)
    vectors[0] = 0
    assert torch.autograd.gradcheck(axis_angle_to_rotmat, vectors.requires_grad_())


def test_rot6d_gives_rotations():
    rot6d = torch.randn(100, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rotmat = rot6d_to_rotmat(rot6d)
    identity = torch.eye(3, dtype=torch.float64)
    orthogonal = (rotmat.mT @ rotmat - identity).abs().max().item()
    determinant = (torch.linalg.det(rotmat) - 1).abs().max().item()
    assert max(orthogonal, determinant) < 1e-12, (orthogonal, determinant)


def test_rot6d_of_a_rotation_gives_it_back():
    rotmat = axis_angle_to_rotmat(random_axis_angles(50))
    error = (rot6d_to_rotmat(rotmat_to_rot6d(rotmat)) - rotmat).abs().max().item()
    assert error < 1e-14, error


def test_rot6d_identity_is_stored_as_three_rows_of_two():
    rotmat = rot6d_to_rotmat(torch.tensor([[1.0, 0, 0, 1, 0, 0]]))
    assert torch.equal(rotmat[0], torch.eye(3))


def test_projection_shifts_in_metres_before_it_scales():
    points = torch.tensor([[[0.5, -0.25, 7.0]]])
    cam = torch.tensor([[0.8, 0.1, -0.05]])
    assert torch.allclose(project(points, cam), torch.tensor([[[0.48, -0.24]]]))


def test_rotmat_to_axis_angle_matches_scipy_also_near_zero_and_half_a_turn():
    vectors = random_axis_angles(400).numpy()
    vectors[0] = 0
    vectors[1:50] *= 10.0 ** -np.arange(1, 50)[:, None].clip(max=12)
    axes = vectors[50:100] / np.linalg.norm(vectors[50:100], axis=1, keepdims=True)
    vectors[50:100] = axes * (np.pi - 10.0 ** -np.arange(2, 52).clip(max=9))[:, None]
    rotation = Rotation.from_rotvec(vectors)
    ours = rotmat_to_axis_angle(rotation.as_matrix().reshape(20, 20, 3, 3)).reshape(400, 3)
    error = np.abs(ours - rotation.as_rotvec()).max()
    assert error < 1e-12, error


def test_half_a_turn_comes_back_as_the_same_rotation():
    half = np.pi * np.concatenate([np.eye(3), [[0.6, -0.8, 0], [0, 0.8, 0.6]]])
    matrices = Rotation.from_rotvec(half).as_matrix()
    ours = Rotation.from_rotvec(rotmat_to_axis_angle(matrices)).as_matrix()
    error = np.abs(ours - matrices).max()
    assert error < 1e-14, error


def test_normals_of_a_sphere_point_outwards():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    vertices = torch.from_numpy(np.asarray(sphere.vertices, np.float32))[None]
    normals = vertex_normals(vertices, torch.from_numpy(np.asarray(sphere.faces, np.int64)))
    error = (normals - vertices).abs().max().item()
    assert error < 0.02, error


def test_the_angle_between_rotations_is_scipys():
    generator = np.random.default_rng(3)
    first, second = (Rotation.random(50, random_state=generator) for _ in range(2))
    expected = (first.inv() * second).magnitude()
    pair = [torch.from_numpy(x.as_matrix()) for x in (first, second)]
    assert np.abs(rotation_angle(*pair).numpy() - expected).max() < 1e-9
    assert rotation_angle(pair[0], pair[0]).abs().max() < 1e-7
    half = Rotation.from_rotvec([0.0, np.pi, 0.0]).as_matrix()
    turned = pair[0] @ torch.from_numpy(half)
    assert (rotation_angle(pair[0], turned) - np.pi).abs().max() < 1e-7


def test_the_nearest_rotation_is_scipys_and_never_a_reflection():
    """SciPy aligns the axes with the matrix's columns, which is the same problem."""
    matrices = np.random.default_rng(4).standard_normal((20, 3, 3))
    found = nearest_rotation(torch.from_numpy(matrices)).numpy()
    for matrix, rotation in zip(matrices, found, strict=True):
        expected = Rotation.align_vectors(matrix.T, np.eye(3))[0].as_matrix()
        assert np.abs(rotation - expected).max() < 1e-6
        assert np.linalg.det(rotation) == pytest.approx(1)

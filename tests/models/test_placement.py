"""People are put before the camera of their photo as their crops show them."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from smpler.models.placement import Pinhole, place, rotation_from_axis
from smpler.utils.camera import project_pinhole, solve_translation
from smpler.utils.image import CropWindow
from tests.support.standing import smpl, standing

__all__ = ["smpl"]  # a fixture

SIZE, FOCAL_LENGTH = (1600, 900), 1400.0
WINDOWS = [CropWindow(100, 250, 400, 401), CropWindow(1250, 100, 600, 600)]


@pytest.fixture
def pinhole() -> Pinhole:
    return Pinhole.of(WINDOWS, SIZE, FOCAL_LENGTH)


def estimates(smpl):
    """What a network could say: seen by the crops' own cameras."""
    people = standing(smpl).estimate
    return smpl.estimate(people.rotmat, people.betas, people.cam, "mesh")


def test_the_pinhole_in_crop_coordinates_is_that_of_the_photo(smpl, pinhole):
    points = standing(smpl).estimate.joints
    translation = torch.tensor([[-1.5, 0.3, 4.0], [2.0, 0.0, 5.0]]).double()
    found = pinhole.to(points).project(points, translation).numpy()
    for number, window in enumerate(WINDOWS):
        placed = (points[number] + translation[number]).numpy()
        expected = project_pinhole(placed, FOCAL_LENGTH, np.array(SIZE) / 2)
        error = np.abs(window.to_photo(found[number]) - expected).max()
        assert error < 1e-3, error


def test_rays_lead_from_the_camera_to_the_middles_of_the_crops(pinhole):
    for ray, window in zip(pinhole.rays().double().numpy(), WINDOWS, strict=True):
        middle = [window.x + window.width / 2, window.y + window.height / 2]
        found = project_pinhole(ray, FOCAL_LENGTH, np.array(SIZE) / 2)
        assert np.abs(found - middle).max() < 1e-3 and np.linalg.norm(ray) == pytest.approx(1)


def test_the_rotation_to_a_ray_is_scipys_smallest(pinhole):
    rays = torch.cat([pinhole.rays(), torch.tensor([[0.0, 0.0, 1.0], [-0.6, 0.0, 0.8]])]).double()
    for rotation, ray in zip(rotation_from_axis(rays).numpy(), rays.numpy(), strict=True):
        turn = np.cross([0, 0, 1], ray)
        angle = np.arctan2(np.linalg.norm(turn), ray[2])
        expected = Rotation.from_rotvec(turn / max(np.linalg.norm(turn), 1e-12) * angle)
        assert np.abs(rotation - expected.as_matrix()).max() < 1e-7


def test_without_turning_the_networks_numbers_stay_and_joints_are_seen_by_the_pinhole(
    smpl, pinhole
):
    given = estimates(smpl)
    placed = place(smpl, given, pinhole, turn=False)
    for name in ("rotmat", "betas", "cam", "joints", "vertices", "keypoints_3d"):
        assert torch.equal(getattr(placed.estimate, name), getattr(given, name)), name
    middle = np.array(SIZE) / 2
    for number, window in enumerate(WINDOWS):
        joints = given.joints[number].numpy()
        pixels = window.to_photo(given.joints_2d[number].numpy())
        translation = solve_translation(joints, pixels, FOCAL_LENGTH, middle)
        assert np.abs(placed.translation[number].numpy() - translation).max() < 1e-4
        seen = window.to_photo(placed.estimate.joints_2d[number].numpy())
        expected = project_pinhole(joints + translation, FOCAL_LENGTH, middle)
        assert np.abs(seen - expected).max() < 0.01


def test_turning_shows_the_crops_view_of_a_person_at_the_photos_edge(smpl, pinhole):
    """Seen along the ray to the crop, the body is the one that the network described."""
    given = estimates(smpl)
    placed = place(smpl, given, pinhole, turn=True)
    rotation = rotation_from_axis(pinhole.rays().double())
    along_the_ray = placed.estimate.joints @ rotation  # the transposed rotation, of rows
    shape, expected = (x - x[:, :1] for x in (along_the_ray, given.joints))
    assert (shape - expected).abs().max() < 1e-6
    kept = (placed.estimate.joints_2d - given.joints_2d).norm(dim=-1).mean()
    straight = place(smpl, given, pinhole, turn=False).estimate
    assert kept < 0.1 and kept < (straight.joints_2d - given.joints_2d).norm(dim=-1).mean()


def test_the_crops_camera_agrees_with_the_pinhole_at_the_root(smpl, pinhole):
    placed = place(smpl, estimates(smpl), pinhole, turn=True).estimate
    scale, shift = placed.cam[:, :1], placed.cam[:, 1:]
    error = scale * (placed.joints[:, 0, :2] + shift) - placed.joints_2d[:, 0]
    assert error.abs().max() < 1e-6

"""People who stand about, for tests of the fit."""

import pytest
import torch

from smpler.models.body import open_body
from smpler.models.detectors.landmarks import FACE, SEEN
from smpler.models.fitting import points_2d
from smpler.models.placement import Pinhole, Placement, see
from smpler.models.smpl import SMPL
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.image import CropWindow

WINDOW, SIZE, FOCAL_LENGTH = CropWindow(0, 0, 224, 224), (224, 224), 300.0
FITTED = (*SEEN, *FACE)


@pytest.fixture(scope="session")
def smpl() -> SMPL:
    return SMPL(open_body()).double()


def standing(smpl: SMPL, seed: int = 0, people: int = 2) -> Placement:
    """People who stand about before a camera, upright in their crops, float64."""
    generator = torch.Generator().manual_seed(seed)
    angles = 0.3 * torch.randn(people, 24, 3, generator=generator, dtype=torch.float64)
    upright = axis_angle_to_rotmat(torch.tensor([torch.pi, 0, 0], dtype=torch.float64))
    rotmat = axis_angle_to_rotmat(angles)
    rotmat[:, 0] = upright @ rotmat[:, 0]
    betas = torch.randn(people, 10, generator=generator, dtype=torch.float64)
    translation = torch.tensor([[0.0, 0.1, 3.0]], dtype=torch.float64).expand(people, -1)
    pinhole = Pinhole.of([WINDOW] * people, SIZE, FOCAL_LENGTH).to(betas)
    return see(smpl, rotmat, betas, translation, pinhole, "mesh")


def places_of(people: Placement) -> torch.Tensor:
    return points_2d(people, FITTED).clone()


def everywhere(people: int = 2) -> torch.Tensor:
    return torch.ones(people, len(FITTED), dtype=torch.float64)

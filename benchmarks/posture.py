"""How people hold themselves: how far they lean, and how much their knees are bent."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from smpler.models.answers import Answer

IMAGE_UP = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
"""Upwards in the frame of a level camera."""


def leans(body: Float[Tensor, "b 3"], up: Float[Tensor, "b 3"]) -> Float[Tensor, "b 2"]:
    """Return how far bodies lean away from the camera, and to the picture's right; degrees.

    Each is the angle to the upward direction within the vertical plane through the optical axis, or
    within the one across it. 0 is upright; who falls towards the camera has a negative first angle.

    Args:
        body: from the ankles to the neck, camera frame, of any length.
        up: upwards in the camera's frame, of length 1; not along the optical axis.
    """
    axis = torch.zeros_like(up)
    axis[:, 2] = 1
    away = F.normalize(axis - (axis * up).sum(dim=1, keepdim=True) * up, dim=1)
    right = torch.linalg.cross(away, up)
    height = (body * up).sum(dim=1)
    parts = [(body * direction).sum(dim=1) for direction in (away, right)]
    return torch.stack([torch.rad2deg(torch.atan2(part, height)) for part in parts], dim=1)


def bends(
    hip: Float[Tensor, "*b 3"], knee: Float[Tensor, "*b 3"], ankle: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b"]:
    """Return how much knees are bent: the angle from thigh to shank, degrees; 0 is straight."""
    return angles(knee - hip, ankle - knee)


def angles(one: Float[Tensor, "*b 3"], other: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """Return the angles between directions, degrees."""
    across = torch.linalg.vector_norm(torch.linalg.cross(one, other), dim=-1)
    return torch.rad2deg(torch.atan2(across, (one * other).sum(dim=-1)))


def keypoints_of(answer: Answer) -> Float[Tensor, "b 14 3"]:
    """Return the keypoints of an answer, camera frame, metres; the body has a regressor of them."""
    keypoints = answer.people.estimate.keypoints_3d
    assert keypoints is not None
    return keypoints.double().cpu()

"""Where a detector's landmarks lie on a body, and how the lifter gets those that are seen.

On a body, each is carried by one of its joints. In a photo, they are seen along the ray through the
person's trunk, in units of the person's size, so that neither the place in the photo nor the
distance matters; both are given besides, for what they say of perspective and of the horizon.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from smpler.models.detectors.landmarks import LANDMARK_NAMES
from smpler.models.placement import rotation_from_axis
from smpler.utils.joints import SMPL_NAMES, mirrored

NUM_LANDMARKS = len(LANDMARK_NAMES)
TRUNK = [LANDMARK_NAMES.index(f"{side}_{name}") for name in ("Shoulder", "Hip") for side in "LR"]
"""The landmarks whose middle the person is seen along."""
OTHERS_SHARE = 0.02
"""Weight of the other landmarks in that middle: they count where the trunk is not known."""
CHANNELS = 4
"""Numbers of each landmark: x, y, visibility, and whether it is known."""
NUM_FEATURES = NUM_LANDMARKS * CHANNELS + 3
_ORDER = list(mirrored(LANDMARK_NAMES))

CARRIED_BY = {
    "Shoulder": ("Shoulder", "Collar"),
    "Elbow": ("Elbow", "Shoulder"),
    "Wrist": ("Wrist", "Elbow"),
    "Pinky": ("Wrist", "Wrist"),
    "Index": ("Wrist", "Wrist"),
    "Thumb": ("Wrist", "Wrist"),
    "Hip": ("Hip", "Pelvis"),
    "Knee": ("Knee", "Hip"),
    "Ankle": ("Ankle", "Knee"),
    "Heel": ("Ankle", "Ankle"),
    "FootIndex": ("Ankle", "Ankle"),
}
"""Near which of SMPL's joints a landmark lies, and which joint's rotation takes it along; those of
the face are at the head."""


def _numbers(place: int) -> list[int]:
    """Return the numbers of the joints that `CARRIED_BY` names at a place."""
    numbers = []
    for landmark in LANDMARK_NAMES:
        side, _, part = landmark.rpartition("_")
        name = CARRIED_BY[part][place] if part in CARRIED_BY else "Head"
        numbers.append(SMPL_NAMES.index(name if name in SMPL_NAMES else f"{side}_{name}"))
    return numbers


ORIGINS, FRAMES = (_numbers(place) for place in range(2))


def landmark_points(
    joints: Float[Tensor, "b 24 3"],
    rotations: Float[Tensor, "b 24 3 3"],
    offsets: Float[Tensor, "*p 33 3"],
) -> Float[Tensor, "b 33 3"]:
    """Return where a body has the landmarks, in the frame of its joints, metres.

    Args:
        joints: of the posed body, metres.
        rotations: of each joint from the rest pose.
        offsets: of the landmarks from their joints at rest, metres (x left, y up, z ahead), of each
            person or the same for all.
    """
    turned = rotations[:, FRAMES] @ offsets[..., None]
    return joints[:, ORIGINS] + turned[..., 0]


@dataclass(frozen=True)
class Sight:
    """Landmarks of some people as the lifter gets them."""

    points: Float[Tensor, "b 33 2"]
    """x / z and y / z about the trunk's middle, in units of `size`; x right, y down; 0 where
    unknown."""
    visibility: Float[Tensor, "b 33"]
    """[0, 1]; 0 where unknown."""
    known: Float[Tensor, "b 33"]
    """1 or 0: a landmark that may be another person's is unknown."""
    size: Float[Tensor, "b"]
    """Root mean square distance of the known landmarks from the middle, x / z."""
    ray: Float[Tensor, "b 2"]
    """Where the person is in the photo: x / z and y / z of the direction that is looked along."""

    def features(self) -> Float[Tensor, "b 135"]:
        """Return the network's input."""
        x, y = self.points.unbind(-1)
        of_each = torch.stack([x, y, self.visibility, self.known], dim=-1)
        return torch.cat([of_each.flatten(1), self.size.log()[:, None], self.ray], dim=1)

    def mirrored(self) -> "Sight":
        """Return what a mirror shows."""
        flip = self.points.new_tensor([-1.0, 1.0])
        points = self.points[:, _ORDER] * flip
        visibility, known = (x[:, _ORDER] for x in (self.visibility, self.known))
        return Sight(points, visibility, known, self.size, self.ray * flip)


def sight(
    slopes: Float[Tensor, "b 33 2"],
    visibility: Float[Tensor, "b 33"],
    known: Float[Tensor, "b 33"],
) -> tuple[Sight, Float[Tensor, "b 3 3"]]:
    """See landmarks along the ray through the person's trunk; arguments as of `Lifter`.

    Returns:
        The sight, and the rotations from the rays' frames to the camera's.
    """
    ray = _middle(slopes, known)
    turn = rotation_from_axis(F.normalize(F.pad(ray, (0, 1), value=1.0), dim=1))
    return along_axis(turned(slopes, turn), visibility, known, ray), turn


def turned(slopes: Float[Tensor, "b n 2"], turn: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b n 2"]:
    """Return x / z and y / z in other frames; the rotations are from these to the slopes' own."""
    directions = F.pad(slopes, (0, 1), value=1.0) @ turn  # rows times R are R.T times the vectors
    return directions[..., :2] / directions[..., 2:]


def along_axis(
    slopes: Float[Tensor, "b 33 2"],
    visibility: Float[Tensor, "b 33"],
    known: Float[Tensor, "b 33"],
    ray: Float[Tensor, "b 2"],
) -> Sight:
    """Return the sight of people who are on the optical axis; `ray` says where they were."""
    away = (slopes - _middle(slopes, known)[:, None]) * known[..., None]
    mean = away.square().sum(dim=(1, 2)) / known.sum(dim=1).clamp(min=1)
    size = mean.sqrt().clamp(min=1e-6)
    return Sight(away / size[:, None, None], visibility * known, known, size, ray)


def _middle(slopes: Float[Tensor, "b 33 2"], known: Float[Tensor, "b 33"]) -> Float[Tensor, "b 2"]:
    weights = OTHERS_SHARE * known
    weights[:, TRUNK] = known[:, TRUNK]
    total = weights.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return (weights[..., None] * slopes).sum(dim=1) / total

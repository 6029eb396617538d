"""Where a detector's landmarks lie on a body: each is carried by one of its joints."""

from jaxtyping import Float
from torch import Tensor

from smpler.models.detectors.landmarks import LANDMARK_NAMES
from smpler.utils.joints import SMPL_NAMES

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

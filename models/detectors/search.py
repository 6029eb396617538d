"""Where to look for a person's landmarks: where the joints were estimated to be, else in the box.

Each look is limited to the surroundings of the person's box, with other people made black.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from smpler.models.detectors import LandmarkDetector, Landmarks, Look, find_all
from smpler.utils.image import Box
from smpler.utils.isolation import isolated_part
from smpler.utils.joints import SMPL_NAMES

PERSON_PER_SKELETON = 1.1
"""Radius of the circle round the whole person by that round SMPL's joints, hands and feet among
them."""
_HIPS, _SHOULDERS = (
    [SMPL_NAMES.index(f"{side}_{part}") for side in "LR"] for part in ("Hip", "Shoulder")
)
Circle = tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"], float]
"""Middle of the hips [pixels], direction to the shoulders, and radius [pixels], see `Look`."""


@dataclass(frozen=True, eq=False)
class Search:
    """A person whose landmarks are looked for."""

    image: UInt8[np.ndarray, "h w 3"]
    """The photo, RGB."""
    box: Box
    """Of the person."""
    others: Sequence[Box]
    """Of other people, who are made black outside the person's own box."""
    hidden: Sequence[Box]
    """What is black even in the person's own box."""
    joints: Float[np.ndarray, "24 2"]
    """Where the person's joints are estimated to be, photo pixels."""


def search(searches: Sequence[Search], detector: LandmarkDetector) -> list[Landmarks | None]:
    """Look for people's landmarks where they were estimated to be, else in their whole boxes."""
    found: list[Landmarks | None] = [None] * len(searches)
    parts = [isolated_part(x.image, x.box, x.others, x.hidden) for x in searches]
    for starts in ([at_joints(x.joints) for x in searches], [at_box(x.box) for x in searches]):
        left = [row for row, landmarks in enumerate(found) if landmarks is None]
        looks = [look_in_part(*parts[row], starts[row]) for row in left]
        for row, landmarks in zip(left, find_all(detector, looks) if looks else [], strict=True):
            found[row] = None if landmarks is None else in_photo(landmarks, *parts[row][1:])
    return found


def at_joints(joints: Float[np.ndarray, "24 2"]) -> Circle:
    """Return the circle round a person by estimated joints."""
    hip, shoulders = joints[_HIPS].mean(axis=0), joints[_SHOULDERS].mean(axis=0)
    radius = PERSON_PER_SKELETON * np.linalg.norm(joints - hip, axis=1).max()
    return hip, shoulders - hip, float(radius)


def at_box(box: Box) -> Circle:
    """Return the circle in a person's box."""
    x, y, width, height = box
    return np.array([x + width / 2, y + height / 2]), np.array([0.0, -1.0]), max(width, height) / 2


def look_in_part(
    part: UInt8[np.ndarray, "i j 3"], corner: Float[np.ndarray, "2"], zoom: float, circle: Circle
) -> Look:
    """Return a look at a part of a photo, see `isolated_part`; the circle is in photo pixels."""
    hip, up, radius = circle
    return Look(part, zoom * (hip - corner), zoom * up, float(zoom * radius))


def in_photo(landmarks: Landmarks, corner: Float[np.ndarray, "2"], zoom: float) -> Landmarks:
    """Return landmarks of a part of a photo in photo pixels, see `isolated_part`."""
    hip, top = (
        None if point is None else point / zoom + corner for point in (landmarks.hip, landmarks.top)
    )
    return replace(landmarks, keypoints=landmarks.keypoints / zoom + corner, hip=hip, top=top)

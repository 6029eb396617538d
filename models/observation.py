"""What a landmark detector sees of each person in a photo, and how far it is to be trusted.

Each look is limited to the surroundings of the person's box, with other people made black. What is
then still seen far outside the box, or in another person's, counts nothing, nor does what is hidden
or outside the photo.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from smpler.models.detectors import LandmarkDetector, Landmarks
from smpler.models.fitting import (
    FACE_IN_HEAD,
    POINT_NAMES,
    Evidence,
    are_swapped,
)
from smpler.models.placement import Placement
from smpler.models.smpl import Estimate
from smpler.utils.image import Box, CropWindow, iou
from smpler.utils.isolation import grown, isolated_part
from smpler.utils.joints import SMPL_NAMES, mirrored

PERSON_PER_SKELETON = 1.1
"""Radius of the circle round the whole person by that round SMPL's joints, hands and feet among
them."""
OWN_MARGIN, FAR_MARGIN = 0.1, 0.3
"""Landmarks count up to so far from the person's box, longer sides of the box: the first in another
person's box, the second elsewhere, as boxes are sometimes too small."""
SAME_BODY = 0.15
"""Mean distance between two people's landmarks by the longer side of the smaller box, below which
both are of one body."""
MIN_VISIBILITY = 0.5
"""Landmarks that are less visible are taken to be hidden, and count nothing."""
CUT_MARGIN, CUT_VISIBILITY = 0.1, 0.9
"""Who reaches the photo's border may be cut off by it, and limbs outside are then seen squeezed in:
landmarks so near that border, longer sides of the box, must be so visible."""
PLAIN = 0.98
"""Score from which on a picture plainly shows a person. Of 60 empty scenes one had 0.968, others
less than 0.5; of 13 crops of people in photos, twelve had 0.988 and more."""
_BOTH_HIPS, _BOTH_SHOULDERS = ("L_Hip", "R_Hip"), ("L_Shoulder", "R_Shoulder")
POINTS_ROUND = {
    "Pelvis": _BOTH_HIPS,
    **{f"Spine{number}": (*_BOTH_HIPS, *_BOTH_SHOULDERS) for number in (1, 2, 3)},
    "Neck": _BOTH_SHOULDERS,
    "Head": tuple(FACE_IN_HEAD),
}
"""The landmarks round joints that have none of their own."""
_HIPS, _SHOULDERS = (
    [SMPL_NAMES.index(f"{side}_{part}") for side in "LR"] for part in ("Hip", "Shoulder")
)


@dataclass(frozen=True)
class SeenLandmarks:
    """What a detector says of some people; N landmarks."""

    names: tuple[str, ...]
    places: Float[Tensor, "b n 2"]
    """Crop coordinates, [-1, 1] from edge to edge."""
    visibility: Float[Tensor, "b n"]
    """How sure the detector is to see each, [0, 1]; 0 where it is outside the photo."""
    weights: Float[Tensor, "b n"]
    """How much each counts when a body is brought onto them, [0, 1]."""
    is_own: Float[Tensor, "b n"]
    """1; 0 where it may be another person's, and where nobody is recognised."""

    def named(self, names: Sequence[str]) -> "SeenLandmarks":
        """Return those of some names, in the order in which they are."""
        chosen = [number for number, name in enumerate(self.names) if name in names]
        return self._with(lambda x: x[:, chosen], tuple(self.names[number] for number in chosen))

    def with_swapped_sides(self, whose: Bool[Tensor, "b"]) -> "SeenLandmarks":
        """Return landmarks of which some people's left and right ones have changed places."""
        order = list(mirrored(self.names))
        return self._with(
            lambda x: torch.where(whose.view(-1, *[1] * (x.ndim - 1)), x[:, order], x), self.names
        )

    def _with(self, change: Callable[[Tensor], Tensor], names: tuple[str, ...]) -> "SeenLandmarks":
        parts = (self.places, self.visibility, self.weights, self.is_own)
        return SeenLandmarks(names, *map(change, parts))


@dataclass(frozen=True)
class Observation:
    """What is seen of some people."""

    landmarks: SeenLandmarks
    hidden: dict[int, int]
    """Who was taken for whom at the first look: by numbers, the one and the other. The other one's
    box was black at the second look."""
    presence: Float[Tensor, "b"]
    """How sure the detector is that somebody is there, [0, 1]; 0 where it recognises nobody."""

    @property
    def evidence(self) -> Evidence:
        """What the bodies can be fitted to: landmarks of `POINT_NAMES`."""
        followed = self.landmarks.named(POINT_NAMES)
        return Evidence(followed.names, followed.places, followed.weights)


def with_the_estimates_sides(seen: Observation, people: Placement) -> Observation:
    """Swap left and right landmarks of people whom the two networks see from opposite sides."""
    whose = are_swapped(people, seen.evidence)
    return replace(seen, landmarks=seen.landmarks.with_swapped_sides(whose))


def observe(
    estimate: Estimate,
    photo: UInt8[np.ndarray, "h w 3"],
    windows: Sequence[CropWindow],
    boxes: Sequence[Box],
    detector: LandmarkDetector,
    others: Sequence[Box] = (),
) -> Observation:
    """Look for the landmarks of people where they were estimated to be.

    Args:
        estimate: of the people.
        photo: RGB.
        windows: of the estimates' crops.
        boxes: of the people, photo pixels.
        detector: of the landmarks.
        others: boxes of further people, who are not looked for.
    """
    joints = [
        window.to_photo(joints.cpu().double().numpy())
        for window, joints in zip(windows, estimate.joints_2d, strict=True)
    ]

    def look(number: int, hidden: Sequence[Box] = ()) -> Landmarks | None:
        around = [box for other, box in enumerate(boxes) if other != number]
        part = isolated_part(photo, boxes[number], [*around, *others], hidden)
        return _look(part, boxes[number], joints[number], detector)

    found = [look(number) for number in range(len(windows))]
    followed = [_followed(landmarks, detector) for landmarks in found]
    hidden = _seen_twice(followed, boxes)
    for number, owner in hidden.items():
        # once more, without the one whose landmarks these are
        again = look(number, hidden=[boxes[owner]])
        is_owner = is_same_body(_followed(again, detector), followed[owner], boxes[number])
        found[number] = None if is_owner else again
    places = estimate.joints_2d.new_zeros(len(windows), len(detector.names), 2)
    visibility, weights, is_own = (places.new_zeros(places.shape[:2]) for _ in range(3))
    presence = places.new_zeros(len(windows))
    for number, (landmarks, window, box) in enumerate(zip(found, windows, boxes, strict=True)):
        if landmarks is None:
            continue
        pixels, visible = landmarks.keypoints, landmarks.visibility
        visible = visible * _inside(pixels, _whole(photo))
        needed = np.where(_at_a_cut(pixels, box, photo), CUT_VISIBILITY, MIN_VISIBILITY)
        own = _is_own(pixels, box, [*boxes[:number], *boxes[number + 1 :], *others])
        places[number] = torch.from_numpy(window.to_crop(pixels)).float()
        visibility[number] = torch.from_numpy(visible).float()
        weights[number] = torch.from_numpy(visible * ((visible >= needed) & own)).float()
        is_own[number] = torch.from_numpy(own).float()
        presence[number] = landmarks.score
    seen = SeenLandmarks(tuple(detector.names), places, visibility, weights, is_own)
    return Observation(seen, hidden, presence)


def _seen_twice(found: Sequence[Landmarks | None], boxes: Sequence[Box]) -> dict[int, int]:
    """Return who has another person's landmarks, and whose: those whose box they fill best."""
    fills = [_filled(landmarks, box) for landmarks, box in zip(found, boxes, strict=True)]
    rank = sorted(range(len(boxes)), key=lambda number: -fills[number])
    owners = {}
    for place, number in enumerate(rank):
        for owner in rank[:place]:
            smaller = min(boxes[number], boxes[owner], key=lambda box: max(box[2:]))
            if owner not in owners and is_same_body(found[number], found[owner], smaller):
                owners[number] = owner
                break
    return owners


def is_same_body(one: Landmarks | None, other: Landmarks | None, box: Box) -> bool:
    """Say whether two sets of landmarks are of one body, of the size of a box."""
    if one is None or other is None:
        return False
    shown = (one.visibility >= MIN_VISIBILITY) & (other.visibility >= MIN_VISIBILITY)
    if not shown.any():
        return False
    away = np.linalg.norm(one.keypoints[shown] - other.keypoints[shown], axis=1)
    return bool(away.mean() < SAME_BODY * max(box[2:]))


def _filled(landmarks: Landmarks | None, box: Box) -> float:
    """Return the intersection over union of a box with that of the visible landmarks."""
    if landmarks is None or not (landmarks.visibility >= MIN_VISIBILITY).any():
        return 0.0
    shown = landmarks.keypoints[landmarks.visibility >= MIN_VISIBILITY]
    (x, y), (width, height) = shown.min(axis=0).tolist(), np.ptp(shown, axis=0).tolist()
    return iou((x, y, width, height), box)


def shows_one_person(image: UInt8[np.ndarray, "h w 3"], detector: LandmarkDetector) -> float:
    """Return how sure a landmark detector is that a picture as a whole shows a person.

    0 unless that is plain: the score is at least PLAIN, and most landmarks are seen in the picture.
    """
    height, width = image.shape[:2]
    middle, up = np.array([width / 2, height / 2]), np.array([0.0, -1.0])
    found = _followed(detector.find(image, middle, up, max(width, height) / 2), detector)
    if found is None or found.score < PLAIN:
        return 0.0
    seen = (found.visibility >= MIN_VISIBILITY) & _inside(found.keypoints, _whole(image))
    return found.score if seen.mean() >= 0.5 else 0.0


def confidence(seen: Observation, names: Sequence[str]) -> Float[Tensor, "b n"]:
    """Return how sure the detector is to see joints, [0, 1].

    A joint that no landmark is at has the mean confidence of those round it, or 0 without any.

    Args:
        seen: of some people.
        names: of joints, SMPL's or of the evaluated keypoints.
    """
    followed = seen.landmarks.named(POINT_NAMES)
    known = followed.names
    columns = []
    for name in names:
        numbers = [known.index(x) for x in landmarks_round(name) if x in known]
        column = followed.visibility[:, numbers].mean(dim=1)
        columns.append(column if numbers else torch.zeros_like(seen.presence))
    return torch.stack(columns, dim=1)


def landmarks_round(name: str) -> tuple[str, ...]:
    """Return the landmarks at or round a joint."""
    side, _, part = name.rpartition("_")
    if name in POINTS_ROUND:
        return POINTS_ROUND[name]
    nearest = {"Foot": "Ankle", "Hand": "Wrist", "Collar": "Shoulder"}
    return (f"{side}_{nearest.get(part, part)}",)


def _followed(landmarks: Landmarks | None, detector: LandmarkDetector) -> Landmarks | None:
    """Return only those landmarks that the fit can follow."""
    if landmarks is None:
        return None
    known = [number for number, name in enumerate(detector.names) if name in POINT_NAMES]
    keypoints, visibility = landmarks.keypoints[known], landmarks.visibility[known]
    return Landmarks(keypoints, visibility, landmarks.score)


def _look(
    part: tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2"], float],
    box: Box,
    joints: Float[np.ndarray, "24 2"],
    detector: LandmarkDetector,
) -> Landmarks | None:
    """Look for one person's landmarks where they were estimated to be, else in the whole box.

    Args:
        part: of the photo, see `isolated_part`.
        box: of the person, photo pixels.
        joints: where the person's are estimated to be, photo pixels.
        detector: of the landmarks.
    """
    image, corner, zoom = part
    hip, shoulders = joints[_HIPS].mean(axis=0), joints[_SHOULDERS].mean(axis=0)
    radius = PERSON_PER_SKELETON * np.linalg.norm(joints - hip, axis=1).max()
    middle = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    for start, up, extent in (
        (hip, shoulders - hip, radius),
        (middle, np.array([0.0, -1.0]), max(box[2:]) / 2),
    ):
        found = detector.find(image, zoom * (start - corner), zoom * up, float(zoom * extent))
        if found is not None:
            return Landmarks(found.keypoints / zoom + corner, found.visibility, found.score)
    return None


def _is_own(
    points: Float[np.ndarray, "n 2"], box: Box, others: Sequence[Box]
) -> Bool[np.ndarray, "n"]:
    """Say which points are a person's by their place: not far away, and not another person's."""
    is_others = np.zeros(len(points), bool)
    for other in others:
        is_others |= _inside(points, other)
    near, far = (_inside(points, grown(box, margin)) for margin in (OWN_MARGIN, FAR_MARGIN))
    return near | (far & ~is_others)


def _at_a_cut(
    points: Float[np.ndarray, "n 2"], box: Box, photo: UInt8[np.ndarray, "h w 3"]
) -> Bool[np.ndarray, "n"]:
    """Say which points are near a border of the photo that a person's box reaches."""
    near = CUT_MARGIN * max(box[2:])
    x, y, width, height = box
    bottom, right = photo.shape[:2]
    edges = np.array([x, y, right - x - width, bottom - y - height])
    away = np.concatenate([points, [right, bottom] - points], axis=1)
    return np.any((edges < near / 5) & (away < near), axis=1)


def _whole(image: UInt8[np.ndarray, "h w 3"]) -> Box:
    return 0.0, 0.0, float(image.shape[1]), float(image.shape[0])


def _inside(points: Float[np.ndarray, "n 2"], box: Box) -> Bool[np.ndarray, "n"]:
    """Say which points lie in a box."""
    x, y, width, height = box
    return np.all((points >= [x, y]) & (points < [x + width, y + height]), axis=1)

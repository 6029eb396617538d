"""What a landmark detector sees of each person in a photo, and how far it is to be trusted.

What is seen far outside the person's box, or in another person's, counts nothing, nor does what is
hidden or outside the photo.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from smpler.models.detectors import LandmarkDetector, Landmarks
from smpler.models.detectors.search import Search, search
from smpler.models.fitting import (
    FACE_IN_HEAD,
    POINT_NAMES,
    Evidence,
    are_swapped,
)
from smpler.models.placement import Group, Placement
from smpler.models.smpl import Estimate
from smpler.utils.image import Box, iou
from smpler.utils.isolation import grown
from smpler.utils.joints import mirrored

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


def observe(estimate: Estimate, groups: Sequence[Group], detector: LandmarkDetector) -> Observation:
    """Look for the landmarks of people where they were estimated to be.

    Args:
        estimate: of the people of all groups, one after the other.
        groups: the people of each photo.
        detector: of the landmarks.
    """
    people = [(group, number) for group in groups for number in range(len(group))]
    joints = [
        group.windows[number].to_photo(joints.cpu().double().numpy())
        for (group, number), joints in zip(people, estimate.joints_2d, strict=True)
    ]

    def searched(rows: Sequence[int], hidden: Sequence[Sequence[Box]]) -> list[Landmarks | None]:
        searches = []
        for row, boxes in zip(rows, hidden, strict=True):
            group, number = people[row]
            box, around = group.boxes[number], group.around(number)
            searches.append(Search(group.image, box, around, boxes, joints[row]))
        return search(searches, detector)

    found = searched(range(len(people)), [()] * len(people))
    hidden = {}
    first = 0
    for group in groups:
        rows = range(first, first + len(group))
        followed = [_followed(found[row], detector) for row in rows]
        twice = _seen_twice(followed, group.boxes)
        hidden |= {first + number: first + owner for number, owner in twice.items()}
        first += len(group)
    # once more, without the one whose landmarks these are
    owners = [people[owner] for owner in hidden.values()]
    looks = searched(list(hidden), [[group.boxes[number]] for group, number in owners])
    before = list(found)
    for (row, owner), again in zip(hidden.items(), looks, strict=True):
        group, number = people[row]
        of_both = (_followed(x, detector) for x in (again, before[owner]))
        found[row] = None if is_same_body(*of_both, group.boxes[number]) else again
    return Observation(
        judged(found, people, detector.names, estimate.joints_2d),
        hidden,
        estimate.joints_2d.new_tensor([x.score if x is not None else 0.0 for x in found]),
    )


def judged(
    found: Sequence[Landmarks | None],
    people: Sequence[tuple[Group, int]],
    names: Sequence[str],
    like: Tensor,
) -> SeenLandmarks:
    """Return landmarks in the crops of their people, and how far each is to be trusted.

    Args:
        found: of each person.
        people: the group of each, and the number in it.
        names: of the landmarks.
        like: gives type and device.
    """
    places = like.new_zeros(len(people), len(names), 2)
    visibility, weights, is_own = (places.new_zeros(places.shape[:2]) for _ in range(3))
    for row, (landmarks, (group, number)) in enumerate(zip(found, people, strict=True)):
        if landmarks is None:
            continue
        photo, box = group.image, group.boxes[number]
        pixels, visible = landmarks.keypoints, landmarks.visibility
        visible = visible * _inside(pixels, _whole(photo))
        needed = np.where(_at_a_cut(pixels, box, photo), CUT_VISIBILITY, MIN_VISIBILITY)
        own = _is_own(pixels, box, group.around(number))
        places[row] = torch.from_numpy(group.windows[number].to_crop(pixels)).float()
        visibility[row] = torch.from_numpy(visible).float()
        weights[row] = torch.from_numpy(visible * ((visible >= needed) & own)).float()
        is_own[row] = torch.from_numpy(own).float()
    return SeenLandmarks(tuple(names), places, visibility, weights, is_own)


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

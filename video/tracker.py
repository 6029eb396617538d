"""Who is who in a clip: people are found now and then, and followed by their landmarks.

A person detector says where people are, in some frames only. Between these, the landmarks of the
frame before say where to look for each person's next ones (as Bazarevsky et al., "BlazePose",
arXiv 2006.10204, do for one person). Found boxes are given to the people who are followed by the
assignment of largest overlap (Kuhn's Hungarian method); who is found beside them is new, or someone
who was lost a moment ago, not too far away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment

from smpler.models.detectors import Detection, LandmarkDetector, Landmarks, Look, PersonDetector
from smpler.models.detectors.search import at_box, in_photo, look_in_part
from smpler.models.observation import MIN_VISIBILITY, is_same_body
from smpler.utils.image import Box, iou
from smpler.utils.isolation import isolated_part
from smpler.video.parallel import Beside

DETECTIONS_PER_SECOND = 5.0
CLOSE_UPS_PER_SECOND = 0.5
"""The detector of people near the camera takes longer, and they stay."""
MIN_OVERLAP = 0.2
"""Intersection over union from which on a found box may be of someone who is followed."""
MAX_GAP = 1.0
"""Seconds for which someone may be lost and found again."""
REACH, SPEED = 0.7, 2.0
"""Someone who is found again is so near to where they would be now: radii of the circle round the
person, and those times the seconds since."""
MAX_GROWTH = 1.6
"""Ratio of the radii, up to which someone is found again."""
MAX_UNCONFIRMED = 1.0
"""Seconds for which someone is followed whom the person detector does not find."""
MAX_JUMP = 0.5
"""How far hips can move from one look to where they were expected, radii."""
BOX_MARGIN = 0.1
"""What a box has around the visible landmarks until the detector says it, radii."""
MAX_MARGIN = 0.5
"""The most that it can have."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """Someone in a frame."""

    track: int
    """Number of the person, from 0, in order of appearance."""
    box: Box
    """Pixels of the frame."""
    box_score: float
    """The detector's confidence when it last found the person, [0, 1]."""
    confirmed: int
    """Number of the last used frame in which the detector found the person."""
    landmarks: Landmarks


@dataclass(frozen=True, eq=False)
class Followed:
    """Someone who is followed."""

    number: int
    landmarks: Landmarks
    """When last seen."""
    velocity: Float[np.ndarray, "2"]
    """Of the hips, pixels a frame."""
    seen: int
    """Number of the last used frame in which landmarks were seen."""
    confirmed: int
    """The same of the detector."""
    margins: Float[np.ndarray, "4"]
    """What the box has beyond the visible landmarks: left, top, right, bottom; radii."""
    score: float
    """The detector's."""

    def circle(self, frame: int) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"], float]:
        """Return where the person is expected: hips, direction upwards, radius; pixels."""
        hip, top = self.landmarks.hip, self.landmarks.top
        assert hip is not None and top is not None
        # where there was nobody at the last moment, one stays rather than flies on
        steps = min(frame - self.seen, 1)
        return hip + steps * self.velocity, top - hip, float(np.linalg.norm(top - hip))

    def box(self) -> Box:
        """Return the box of the visible body when last seen."""
        radius = self.circle(self.seen)[2]
        low, high = bounds(self.landmarks)
        low, high = low - radius * self.margins[:2], high + radius * self.margins[2:]
        width, height = np.maximum(high - low, 1.0).tolist()
        return float(low[0]), float(low[1]), width, height

    def with_box(self, detection: Detection, frame: int) -> "Followed":
        """Return the person, confirmed by a found box."""
        radius = self.circle(self.seen)[2]
        low, high = bounds(self.landmarks)
        corner, extent = np.split(np.array(detection.box), 2)
        margins = np.concatenate([low - corner, corner + extent - high]) / radius
        margins = np.clip(margins, -MAX_MARGIN, MAX_MARGIN)
        return replace(self, margins=margins, score=detection.score, confirmed=frame)


class Tracker:
    """Follows the people of a clip.

    Args:
        people: finds them.
        landmarks: sees their landmarks; must say where to look next.
        fps: of the frames that it gets.
    """

    def __init__(self, people: PersonDetector, landmarks: LandmarkDetector, fps: float):
        self.people, self.detector, self.fps = people, landmarks, fps
        self.everybody: list[Followed] = []
        self.count = 0
        self.frame = -1
        self.last_detection = -(10**9)
        self.beside = Beside(None)
        """Runs one half of the looks at people."""

    def step(self, image: UInt8[np.ndarray, "h w 3"]) -> list[Sighting]:
        """Return whom the next frame shows, RGB."""
        self.frame += 1
        self.everybody = [x for x in self.everybody if self._is_alive(x)]
        followed = [x for x in self.everybody if x.seen == self.frame - 1]
        boxes = [x.box() for x in followed]
        looks = [
            (box, [*boxes[:number], *boxes[number + 1 :]], person.circle(self.frame))
            for number, (person, box) in enumerate(zip(followed, boxes, strict=True))
        ]
        found = self._look(image, looks, followed=True)
        self._move(followed, found)
        self._find(image)
        return [
            Sighting(x.number, x.box(), x.score, x.confirmed, x.landmarks)
            for x in self.everybody
            if x.seen == self.frame
        ]

    def state(self) -> dict[str, np.ndarray]:
        """Return all that the next step depends on."""
        people = self.everybody
        state = {
            "clock": np.array([self.count, self.frame, self.last_detection]),
            "numbers": np.array([[x.number, x.seen, x.confirmed] for x in people], int),
            "scores": np.array([[x.score, x.landmarks.score] for x in people]),
        }
        for name, values in {
            "velocity": [x.velocity for x in people],
            "margins": [x.margins for x in people],
            "keypoints": [x.landmarks.keypoints for x in people],
            "visibility": [x.landmarks.visibility for x in people],
            "hip": [x.landmarks.hip for x in people],
            "top": [x.landmarks.top for x in people],
        }.items():
            state[name] = np.array(values)
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""
        self.count, self.frame, self.last_detection = state["clock"].tolist()
        self.everybody = []
        for row, (number, seen, confirmed) in enumerate(state["numbers"].tolist()):
            keypoints, visibility, hip, top, velocity, margins = (
                state[name][row]
                for name in ("keypoints", "visibility", "hip", "top", "velocity", "margins")
            )
            score, sight = state["scores"][row].tolist()
            landmarks = Landmarks(keypoints, visibility, sight, hip, top)
            self.everybody.append(
                Followed(number, landmarks, velocity, seen, confirmed, margins, score)
            )

    def _is_alive(self, person: Followed) -> bool:
        return (
            self.frame - person.seen <= MAX_GAP * self.fps + 1
            and self.frame - person.confirmed <= (MAX_UNCONFIRMED + MAX_GAP) * self.fps + 1
            and (
                person.seen < self.frame - 1
                or self.frame - person.confirmed <= MAX_UNCONFIRMED * self.fps + 1
            )
        )

    def _move(self, followed: Sequence[Followed], found: Sequence[Landmarks | None]) -> None:
        """Take note of whom the landmarks were seen; nobody's are seen twice."""
        plausible = [
            landmarks if landmarks is not None and self._can_be(person, landmarks) else None
            for person, landmarks in zip(followed, found, strict=True)
        ]
        for first in range(len(followed)):
            for second in range(first + 1, len(followed)):
                one, other = plausible[first], plausible[second]
                smaller = min(followed[first].box(), followed[second].box(), key=lambda b: b[3])
                if not is_same_body(one, other, smaller):
                    continue
                assert one is not None and other is not None
                away = [self._away(followed[n], x) for n, x in ((first, one), (second, other))]
                plausible[second if away[0] <= away[1] else first] = None
        for person, landmarks in zip(followed, plausible, strict=True):
            if landmarks is not None:
                self._put(self._seen(person, landmarks))

    def _can_be(self, person: Followed, landmarks: Landmarks) -> bool:
        """Say whether landmarks are near enough to where the person is expected."""
        return self._away(person, landmarks) <= MAX_JUMP and bool(
            (landmarks.visibility >= MIN_VISIBILITY).sum() >= 2
        )

    def _away(self, person: Followed, landmarks: Landmarks) -> float:
        hip, _, radius = person.circle(self.frame)
        assert landmarks.hip is not None
        return float(np.linalg.norm(landmarks.hip - hip)) / max(radius, 1.0)

    def _seen(self, person: Followed, landmarks: Landmarks) -> Followed:
        """Return a person with the landmarks of this frame."""
        assert landmarks.hip is not None and person.landmarks.hip is not None
        moved = (landmarks.hip - person.landmarks.hip) / (self.frame - person.seen)
        return replace(
            person, landmarks=landmarks, velocity=(person.velocity + moved) / 2, seen=self.frame
        )

    def _put(self, person: Followed) -> None:
        rest = [x for x in self.everybody if x.number != person.number]
        self.everybody = sorted([*rest, person], key=lambda x: x.number)

    def _find(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Let the detector look, if it is time, and find out whom it has found."""
        step = max(1, round(self.fps / DETECTIONS_PER_SECOND))
        if self.frame - self.last_detection < step:
            return
        self.last_detection = self.frame
        thorough = self.frame % (step * round(DETECTIONS_PER_SECOND / CLOSE_UPS_PER_SECOND)) == 0
        quick = getattr(self.people, "candidates", None)
        detections = list(self.people.detect(image) if quick is None else quick(image, thorough))
        present = [x for x in self.everybody if x.seen == self.frame]
        overlap = np.array([[iou(x.box(), d.box) for d in detections] for x in present])
        left = set(range(len(detections)))
        for row, column in assigned(1 - overlap.reshape(len(present), len(detections))):
            if overlap[row, column] >= MIN_OVERLAP:
                self._put(present[row].with_box(detections[column], self.frame))
                left.discard(column)
        self._add(image, [detections[number] for number in sorted(left)])

    def _add(self, image: UInt8[np.ndarray, "h w 3"], detections: Sequence[Detection]) -> None:
        """Follow those from now on whom the detector found beside the people who are followed."""
        present = [x.box() for x in self.everybody if x.seen == self.frame]
        own = [detection.box for detection in detections]
        looks = [
            (box, [*present, *own[:number], *own[number + 1 :]], at_box(box))
            for number, box in enumerate(own)
        ]
        new: list[tuple[Detection, Landmarks]] = []
        found = self._look(image, looks, followed=False)
        for detection, landmarks in zip(detections, found, strict=True):
            if landmarks is None or landmarks.hip is None or landmarks.top is None:
                continue
            known = [x.landmarks for x in self.everybody if x.seen == self.frame]
            known += [other for _, other in new]
            if not any(is_same_body(landmarks, other, detection.box) for other in known):
                new.append((detection, landmarks))
        lost = [x for x in self.everybody if x.seen < self.frame]
        costs = np.array([[self._cost(x, landmarks) for _, landmarks in new] for x in lost])
        again = {
            column: lost[row]
            for row, column in assigned(costs.reshape(len(lost), len(new)))
            if costs[row, column] <= 1
        }
        for number, (detection, landmarks) in enumerate(new):
            person = again.get(number)
            if person is None:
                zero = np.zeros(2)
                margins = np.full(4, BOX_MARGIN)
                at = (self.frame, self.frame)
                person = Followed(self.count, landmarks, zero, *at, margins, detection.score)
                self.count += 1
            person = (
                replace(self._seen(person, landmarks), velocity=np.zeros(2))
                if (person.seen < self.frame)
                else person
            )
            self._put(person.with_box(detection, self.frame))

    def _cost(self, person: Followed, landmarks: Landmarks) -> float:
        """Return how unlikely someone lost is found again here; above 1 it is someone else."""
        assert landmarks.hip is not None and landmarks.top is not None
        radii = person.circle(person.seen)[2], float(np.linalg.norm(landmarks.top - landmarks.hip))
        if max(radii) > MAX_GROWTH * min(radii):
            return 2.0
        reach = REACH + SPEED * (self.frame - person.seen) / self.fps
        return self._away(person, landmarks) / reach

    def _look(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        looks: Sequence[tuple[Box, list[Box], tuple]],
        followed: bool,
    ) -> list[Landmarks | None]:
        """Look for people's landmarks: box, boxes of others and circle of each."""
        if not looks:
            return []
        parts = [isolated_part(image, box, others) for box, others, _ in looks]
        views = [
            look_in_part(*part, circle) for part, (_, _, circle) in zip(parts, looks, strict=True)
        ]
        half = len(views) // 2
        some = self.beside.start(seen_by, self.detector, views[:half], followed)
        rest = seen_by(self.detector, views[half:], followed)
        found = [*some.result(), *rest]
        return [
            None if landmarks is None else in_photo(landmarks, *part[1:])
            for part, landmarks in zip(parts, found, strict=True)
        ]


def seen_by(
    detector: LandmarkDetector, looks: Sequence[Look], followed: bool
) -> list[Landmarks | None]:
    """Return landmarks, by one look at each person if the place is known well."""
    if not looks:
        return []
    name = "follow" if followed else "find_all"
    together = getattr(detector, name, None) or getattr(detector, "find_all", None)
    if together is not None:
        return together(looks)
    return [detector.find(x.image, x.hip, x.up, x.radius) for x in looks]


def bounds(landmarks: Landmarks) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Return the corners of the box round the visible landmarks; without any, round all."""
    shown = landmarks.visibility >= MIN_VISIBILITY
    points = landmarks.keypoints[shown if shown.any() else slice(None)]
    return points.min(axis=0), points.max(axis=0)


def assigned(costs: Float[np.ndarray, "n m"]) -> list[tuple[int, int]]:
    """Return the pairs of rows and columns of least cost in all."""
    if not costs.size:
        return []
    rows, columns = linear_sum_assignment(costs)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))

"""Everybody in a photo: NanoDet's boxes, and those whom BlazePose's detector alone sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8

from smpler.models.detectors import CERTAIN, Detection, LandmarkDetector, PersonDetector
from smpler.models.detectors.landmarks import BlazePoseLandmarkDetector
from smpler.models.detectors.nanodet import SCORE_THRESHOLD, NanoDetPersonDetector
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.utils.image import Box, common_area
from smpler.utils.isolation import isolated_part

MIN_LENGTH, PHOTO_SIDE = 64, 1280
"""Whose box is shorter than so many pixels, once the photo's longer side is at most PHOTO_SIDE, is
too small to be estimated."""
SAME_PERSON, LEAST_VISIBLE = 0.5, 0.4
"""A square of a whole body and a box of a visible one are of one person when so much of the smaller
one is in the other, and the box is so long by the square's side: a child before an adult is not."""


@dataclass(frozen=True)
class EverybodyDetector:
    """Finds everybody who is large enough to be estimated.

    Args:
        group: finds people in groups; its boxes are of the visible body.
        close_up: finds people near the camera, in any pose; its boxes are of the whole body.
        landmarks: returns what must recognise those of whom the group's detector is not certain.
    """

    group: PersonDetector
    close_up: PersonDetector
    landmarks: Callable[[], LandmarkDetector]

    @classmethod
    def load(
        cls,
        device: str | torch.device = "cpu",
        landmarks: Callable[[], LandmarkDetector] | None = None,
    ) -> "EverybodyDetector":
        """Return the detector with the shipped weights.

        Args:
            device: where the networks run.
            landmarks: returns a detector; None loads the shipped one when it is first needed.
        """
        return cls(
            NanoDetPersonDetector.load(device=device),
            BlazePosePersonDetector.load(device=device),
            landmarks or cache(lambda: BlazePoseLandmarkDetector.load(device=device)),
        )

    def detect(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        score_threshold: float = SCORE_THRESHOLD,
        max_people: int | None = None,
    ) -> list[Detection]:
        """Return the people in an RGB photo, best score first; nobody twice.

        Whom both detectors see has the group's box. Whom the first one doubts, or the second one
        alone sees, the landmark detector must recognise.

        Args:
            image: the photo.
            score_threshold: of the group's detector; the other one has its own.
            max_people: how many at most.
        """
        large = self._large(image, score_threshold)
        boxes = [person.box for person in large]
        people = [
            person
            for person in large
            if person.score >= CERTAIN or self._recognises(image, person.box, boxes)
        ]
        boxes = [person.box for person in people]
        people += [
            square
            for square in self._close_ups(image, people)
            if self._recognises(image, square.box, boxes)
        ]
        return sorted(people, key=lambda person: -person.score)[:max_people]

    def candidates(
        self, image: UInt8[np.ndarray, "h w 3"], close_ups: bool = True
    ) -> list[Detection]:
        """Return who may be in an RGB photo, whether the landmark detector recognises them or not.

        Args:
            image: the photo.
            close_ups: let the second detector look as well, which takes longer.
        """
        people = self._large(image, SCORE_THRESHOLD)
        return people + (self._close_ups(image, people) if close_ups else [])

    def _large(self, image: UInt8[np.ndarray, "h w 3"], score_threshold: float) -> list[Detection]:
        """Return whom the group's detector sees, if they are large enough."""
        found = self.group.detect(image, score_threshold)
        return [person for person in found if max(person.box[2:]) >= least_length(image)]

    def _close_ups(
        self, image: UInt8[np.ndarray, "h w 3"], people: Sequence[Detection]
    ) -> list[Detection]:
        """Return whom the second detector alone sees."""
        return [
            square
            for square in self.close_up.detect(image)
            if square.box[2] >= least_length(image)
            and not any(is_same(square, one) for one in people)
        ]

    def _recognises(
        self, image: UInt8[np.ndarray, "h w 3"], box: Box, others: Sequence[Box]
    ) -> bool:
        """Say whether the landmark detector sees somebody in a box."""
        others = [other for other in others if other is not box]
        part, corner, zoom = isolated_part(image, box, others)
        x, y, width, height = box
        middle = zoom * (np.array([x + width / 2, y + height / 2]) - corner)
        up, radius = np.array([0.0, -1.0]), zoom * max(width, height) / 2
        return self.landmarks().find(part, middle, up, radius) is not None


def least_length(image: UInt8[np.ndarray, "h w 3"]) -> float:
    """Return how long the box of someone must be to be estimated, pixels of a photo."""
    return MIN_LENGTH * max(1.0, max(image.shape[:2]) / PHOTO_SIDE)


def is_same(square: Detection, person: Detection) -> bool:
    """Say whether a square of a whole body is of the person in a box of the visible body."""
    (*_, side, _), (*_, width, height) = square.box, person.box
    common = common_area(square.box, person.box)
    is_large = max(width, height) >= LEAST_VISIBLE * side
    return is_large and common >= SAME_PERSON * min(side * side, width * height)

"""Detectors: what those of people and those of landmarks promise.

A new detector is one file in this folder; `shipped.py` says which ones a predictor uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from smpler.utils.image import Box


@dataclass(frozen=True)
class Detection:
    """One person found in a photo."""

    box: Box
    """Pixels; it may leave the photo."""
    score: float
    """Confidence in [0, 1]."""


CERTAIN = 0.5
"""Score from which on a detection is taken to be a person: a large one counts before a sure one."""


def prominence(detections: Sequence[Detection], image_size: tuple[int, int]) -> list[int]:
    """Return the numbers of the people of a photo, the most prominent first.

    Prominence is the area of the box within the photo, times closeness, times certainty. Closeness
    falls linearly from 1 in the middle of the photo to 0 in its corners; certainty is 1 for scores
    of CERTAIN and more, and proportional to the score below. Equals keep their order.

    Args:
        detections: of one photo.
        image_size: width and height of the photo, pixels.
    """
    size = np.array(image_size, float)

    def of(detection: Detection) -> float:
        corner, extent = np.split(np.array(detection.box, float), 2)
        low, high = np.clip([corner, corner + extent], 0, size)
        away = np.linalg.norm((low + high - size) / 2) / (np.linalg.norm(size) / 2)
        return float(np.prod(high - low) * (1 - away) * min(detection.score / CERTAIN, 1))

    values = [of(detection) for detection in detections]
    return sorted(range(len(values)), key=lambda number: -values[number])


@runtime_checkable
class PersonDetector(Protocol):
    """Finds the people in a photo."""

    def detect(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        score_threshold: float = 0.5,
        max_people: int | None = None,
    ) -> Sequence[Detection]:
        """Return the people in an RGB photo, best score first."""
        ...


@dataclass(frozen=True, eq=False)
class Look:
    """Where to look for one person; the arguments of `LandmarkDetector.find`."""

    image: UInt8[np.ndarray, "h w 3"]
    """RGB."""
    hip: Float[np.ndarray, "2"]
    """Middle of the hips, pixels."""
    up: Float[np.ndarray, "2"]
    """From there to the middle of the shoulders, of any length."""
    radius: float
    """Of the circle round the hips that holds the whole person, pixels."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Where a person's joints are in a photo."""

    keypoints: Float[np.ndarray, "n 2"]
    """Of the detector's `names`, pixels of the photo."""
    visibility: Float[np.ndarray, "n"]
    """How sure the detector is to see each of them, [0, 1]."""
    score: float
    """Confidence that there is a person, [0, 1]."""
    hip: Float[np.ndarray, "2"] | None = None
    """Middle of the hips, pixels; None if the detector does not say where to look next."""
    top: Float[np.ndarray, "2"] | None = None
    """Where the circle round the hips that holds the whole person ends, above the head, pixels."""


@runtime_checkable
class LandmarkDetector(Protocol):
    """Finds the joints of a person whose place is known."""

    names: tuple[str, ...]
    """What `find` gives, in its order; each L_ name has its R_ one. The fit follows SMPL's joints,
    Nose, L_Ear and R_Ear, and ignores other names."""

    def find(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        hip: Float[np.ndarray, "2"],
        up: Float[np.ndarray, "2"],
        radius: float,
    ) -> Landmarks | None:
        """Return the person's landmarks; None if nobody is there.

        Args:
            image: RGB.
            hip: middle of the hips, pixels.
            up: from there to the middle of the shoulders, of any length.
            radius: of the circle round the hips that holds the whole person, pixels.
        """
        ...


def find_all(detector: LandmarkDetector, looks: Sequence[Look]) -> list[Landmarks | None]:
    """Return the landmarks of several people, seen together by a detector that can do that."""
    together = getattr(detector, "find_all", None)
    if together is not None:
        return together(looks)
    return [detector.find(look.image, look.hip, look.up, look.radius) for look in looks]

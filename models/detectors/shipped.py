"""The detectors of a predictor: those it was given, or the shipped ones, loaded when needed."""

import torch

from smpler.models.detectors import LandmarkDetector, PersonDetector
from smpler.models.detectors.everybody import EverybodyDetector
from smpler.models.detectors.landmarks import BlazePoseLandmarkDetector, checked_size
from smpler.models.inference.backends import with_fast_looks

IN_PHOTOS, IN_CLIPS, FOR_SEARCH = "heavy", "full", "full"
"""Landmark networks: of people in photos and in clips, when none is chosen, and of those who may be
people. The larger one sees better and takes four times as long; clips are too long for that, and
the search was tuned with the smaller one."""


class Detectors:
    """Finds people and their landmarks.

    Args:
        device: where shipped networks run.
        people: finds people; None takes the shipped detector.
        landmarks: finds landmarks; None takes the shipped networks.
        size: of the shipped landmark network that looks at people, `full` or `heavy`; None: see
            `IN_PHOTOS`.

    Raises:
        ValueError: there is no such size.
    """

    def __init__(
        self,
        device: torch.device,
        people: PersonDetector | None = None,
        landmarks: LandmarkDetector | None = None,
        size: str | None = None,
    ):
        self.device, self.given, self.size = device, landmarks, size and checked_size(size)
        self.backend = "eager"
        """A name in `BACKENDS`, by which landmark networks run."""
        self._people = people
        self._shipped: dict[str, LandmarkDetector] = {}

    def people(self) -> PersonDetector:
        """Return what finds people."""
        if self._people is None:
            self._people = EverybodyDetector.load(self.device, self.for_search)
        return self._people

    def landmarks(self, is_clip: bool = False) -> LandmarkDetector:
        """Return what finds the landmarks of people in photos, or in clips."""
        return self._network(self.landmark_size(is_clip))

    def for_search(self) -> LandmarkDetector:
        """Return what says whether somebody is there at all."""
        return self._network(FOR_SEARCH)

    def landmark_size(self, is_clip: bool) -> str:
        """Return the size of the shipped landmark network for photos, or for clips."""
        return self.size or (IN_CLIPS if is_clip else IN_PHOTOS)

    def _network(self, size: str) -> LandmarkDetector:
        if self.given is not None:
            return self.given
        if size not in self._shipped:
            detector = BlazePoseLandmarkDetector.load(device=self.device, size=size)
            is_fast = self.backend == "onnxruntime" and self.device.type == "cpu"
            self._shipped[size] = with_fast_looks(detector) if is_fast else detector
        return self._shipped[size]

"""The detectors of a predictor: those it was given, or the shipped ones, loaded when needed."""

import torch

from smpler.models.detectors import LandmarkDetector, PersonDetector
from smpler.models.detectors.everybody import EverybodyDetector
from smpler.models.detectors.landmarks import BlazePoseLandmarkDetector, checked_size
from smpler.models.inference.backends import with_fast_looks

BEST, QUICK, FOR_SEARCH = "heavy", "full", "full"
"""Landmark networks: of people, when none is chosen, the better one and the one that takes a
quarter of its time; and of boxes that may hold a person, with which the search was tuned."""


class Detectors:
    """Finds people and their landmarks.

    Args:
        device: where shipped networks run.
        people: finds people; None takes the shipped detector.
        landmarks: finds landmarks; None takes the shipped networks.
        size: of the shipped landmark network that looks at people, `full` or `heavy`; None: BEST,
            or QUICK where that is asked for.
        backend: a name in `BACKENDS`, by which landmark networks look at people.

    Raises:
        ValueError: there is no such size.
    """

    def __init__(
        self,
        device: torch.device,
        people: PersonDetector | None = None,
        landmarks: LandmarkDetector | None = None,
        size: str | None = None,
        backend: str = "eager",
    ):
        self.device, self.given, self.backend = device, landmarks, backend
        self.size = None if size is None else checked_size(size)
        self._people = people
        self._shipped: dict[tuple[str, bool], LandmarkDetector] = {}

    def people(self) -> PersonDetector:
        """Return what finds people."""
        if self._people is None:
            self._people = EverybodyDetector.load(self.device, self.for_search)
        return self._people

    def landmarks(self, quick: bool = False) -> LandmarkDetector:
        """Return what finds the landmarks of people."""
        return self._network(self.landmark_size(quick))

    def for_search(self) -> LandmarkDetector:
        """Return what says whether somebody is there at all.

        It is asked too seldom to be made faster than it is, unless it also looks at people.
        """
        return self._network(FOR_SEARCH, backend="eager")

    def landmark_size(self, quick: bool) -> str:
        """Return the size of the shipped landmark network that looks at people."""
        return self.size or (QUICK if quick else BEST)

    def _network(self, size: str, backend: str | None = None) -> LandmarkDetector:
        if self.given is not None:
            return self.given
        is_fast = (backend or self.backend) == "onnxruntime" and self.device.type == "cpu"
        if not is_fast and (size, True) in self._shipped:
            return self._shipped[size, True]
        if (size, is_fast) not in self._shipped:
            detector = BlazePoseLandmarkDetector.load(device=self.device, size=size)
            self._shipped[size, is_fast] = with_fast_looks(detector) if is_fast else detector
        return self._shipped[size, is_fast]

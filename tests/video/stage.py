"""People on known ways through a picture, and detectors that see them there."""

import numpy as np

from smpler.models.detectors import Detection, Landmarks
from smpler.models.detectors.landmarks import LANDMARK_NAMES

WIDTH, HEIGHT, FPS = 900, 400, 30.0
BODY = np.random.default_rng(0).uniform([-30, -90], [30, 90], (33, 2))
"""Landmarks about the hips, pixels."""
RADIUS = 110.0


def picture() -> np.ndarray:
    """Pixels that say where they are."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x % 256, y % 256, 16 * (x // 256) + y // 256 + 1], axis=2).astype(np.uint8)


PICTURE = picture()


class Stage:
    """People on known ways; it detects them, and sees their landmarks where it is asked to.

    Args:
        ways: from the time, seconds, to the hips; None when nobody is there.
        hidden: who is detected but has no landmarks.
    """

    names = LANDMARK_NAMES

    def __init__(self, *ways, hidden=(), detects=lambda time: True):
        self.ways, self.hidden, self.detects, self.time = ways, hidden, detects, 0.0

    def hips(self):
        found = [way(self.time) for way in self.ways]
        return [None if x is None else np.array(x, float) for x in found]

    def detect(self, image, score_threshold=0.5, max_people=None):
        if not self.detects(self.time):
            return []
        boxes = [
            (*(x + BODY.min(axis=0)), *np.ptp(BODY, axis=0)) for x in self.hips() if x is not None
        ]
        return [Detection(tuple(map(float, box)), 0.9) for box in boxes]

    def find(self, image, hip, up, radius):
        row, column = np.clip(hip[::-1].round(), 0, np.array(image.shape[:2]) - 1).astype(int)
        r, g, b = image[row, column].astype(int).tolist()
        if (r, g, b) == (0, 0, 0):
            return None
        corner = np.array([r + 256 * (b // 16), g]) - [column, row]
        people = [
            (n, x) for n, x in enumerate(self.hips()) if x is not None and n not in self.hidden
        ]
        near = [(np.linalg.norm(x - corner - hip), n, x) for n, x in people]
        if not near or min(near)[0] > radius:
            return None
        place = min(near, key=lambda entry: entry[0])[2] - corner
        return Landmarks(place + BODY, np.ones(33), 0.95, place, place - [0, RADIUS])


def to_the_right(time):
    return 100 + 200 * time, 200


def to_the_left(time):
    return 800 - 200 * time, 230

"""Four cameras whose places are known, and what they see of points."""

import cv2
import numpy as np

from benchmarks.multiview.cameras import Camera
from benchmarks.multiview.views import View
from smpler.models.detectors.landmarks import SEEN
from smpler.utils.image import CropWindow

NUM = len(SEEN)
WINDOW = CropWindow(0, 0, 10, 10)
PHOTO = np.zeros((10, 10, 3), np.uint8)


def cameras() -> list[Camera]:
    """Four of them round the origin, three metres away, with a distorting lens."""
    found = []
    for number in range(4):
        turn = cv2.Rodrigues(np.array([0.1 * number, np.pi / 2 * number + 0.3, 0.05]))[0]
        intrinsics = np.array([[1600.0, 0, 540], [0, 1610, 960], [0, 0, 1]])
        distortion = np.array([-0.05, 0.1, 0.001, -0.001])
        found.append(Camera(f"cam{number}", intrinsics, distortion, turn, np.array([0, 0, 3.0])))
    return found


def joints(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (NUM, 3))


def view(camera: Camera, points: np.ndarray) -> View:
    vector = cv2.Rodrigues(camera.rotation)[0]
    lens = (camera.intrinsics, camera.distortion)
    pixels = cv2.projectPoints(points, vector, camera.translation, *lens)[0][:, 0]
    return View(PHOTO, WINDOW, camera.rays(pixels), np.ones(NUM))

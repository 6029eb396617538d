"""Where a person's joints are in a photo: BlazePose's landmark network, used as MediaPipe does.

Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", arXiv 2006.10204. It looks
at the person turned upright, and a second time round what it saw at first.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

from smpler.models.backbones.blazepose import INPUT_SIDE
from smpler.models.detectors import Landmarks
from smpler.models.detectors.blazepose import PersonLandmarks
from smpler.models.weights.files import read_arrays
from smpler.utils.initialisation import WithoutRandomInit
from smpler.utils.joints import KEYPOINT_NAMES
from smpler.utils.paths import PRETRAINED, require

VIEW_PER_RADIUS = 2.5
"""Side of the network's view in radii of the circle round the person, as MediaPipe cuts it."""
MAX_WARPED_SIDE = 2**15 - 2
"""OpenCV does not sample larger pictures."""
NUM_LOOKS = 2
"""The second view is cut by the first's landmarks, as MediaPipe does in videos."""
MIN_SCORE = 0.5
"""Below it nobody is seen."""
HIP_CENTER, CIRCLE = 33, 34
"""Auxiliary landmarks: what the next view is cut by."""
_LEFT = {"Shoulder": 11, "Elbow": 13, "Wrist": 15, "Hip": 23, "Knee": 25, "Ankle": 27}
"""The left one's number among the network's landmarks; the right one follows."""
SEEN = tuple(name for name in KEYPOINT_NAMES if name[2:] in _LEFT)
"""The 12 evaluated keypoints that BlazePose knows: all but neck and head."""
SEEN_KEYPOINTS = [KEYPOINT_NAMES.index(name) for name in SEEN]
FACE = ("Nose", "L_Ear", "R_Ear")
LANDMARK_NUMBERS = {name: _LEFT[name[2:]] + (name[0] == "R") for name in SEEN}
LANDMARK_NUMBERS |= {"Nose": 0, "L_Ear": 7, "R_Ear": 8}
"""Number of a named point among the network's landmarks."""

Network = Callable[[UInt8[np.ndarray, "256 256 3"]], tuple[Float[np.ndarray, "39 5"], float]]
"""From an RGB view to the landmarks (x, y in its pixels, z, logits of visibility and of being
inside), and the probability that it shows a person."""


def find_landmarks(
    network: Network,
    image: UInt8[np.ndarray, "h w 3"],
    hip: Float[np.ndarray, "2"],
    up: Float[np.ndarray, "2"],
    radius: float,
    names: Sequence[str],
) -> Landmarks | None:
    """Return where someone has what `names` lists, see `LandmarkDetector.find`."""
    for _ in range(NUM_LOOKS):
        view = view_matrix(hip, up, VIEW_PER_RADIUS * radius)
        values, score = network(cut(image, view))
        if score < MIN_SCORE:
            return None
        back = cv2.invertAffineTransform(view)
        places = values[:, :2] @ back[:, :2].T + back[:, 2]
        hip, up = places[HIP_CENTER], places[CIRCLE] - places[HIP_CENTER]
        radius = float(np.linalg.norm(up))
    chosen = [LANDMARK_NUMBERS[name] for name in names]
    visibility = 1 / (1 + np.exp(-values[chosen, 3]))
    return Landmarks(places[chosen], visibility, score)


def cut(
    image: UInt8[np.ndarray, "h w 3"], view: Float[np.ndarray, "2 3"]
) -> UInt8[np.ndarray, "256 256 3"]:
    """Return the view of a picture, black outside it; large ones are made smaller first.

    Bilinear sampling, which the network was trained with, would skip most of the pixels of a photo
    of a dozen megapixels. Half of each side is left to it: the network sees less in a softer view.
    """
    scale = np.linalg.norm(view[:, 0])
    if scale < 0.25:
        size = [max(1, round(2 * scale * side)) for side in image.shape[1::-1]]
        shrunk = np.array(size) / image.shape[1::-1]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        # pixel x of the small picture is (x + 0.5) / shrunk - 0.5 of the large one
        offset = view[:, 2] + view[:, :2] @ (0.5 / shrunk - 0.5)
        view = np.column_stack([view[:, :2] / shrunk, offset])
    if max(image.shape[:2]) > MAX_WARPED_SIDE:
        inverse = cv2.invertAffineTransform(view)
        corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * INPUT_SIDE
        places = corners @ inverse[:, :2].T + inverse[:, 2]
        first = np.clip(places.min(axis=0) - 2, 0, image.shape[1::-1]).astype(int)
        last = np.clip(places.max(axis=0) + 3, first + 1, image.shape[1::-1]).astype(int)
        first = np.minimum(first, last - 1)
        image = image[first[1] : last[1], first[0] : last[0]]
        view = np.column_stack([view[:, :2], view[:, 2] + view[:, :2] @ first])
    return cv2.warpAffine(image, view, (INPUT_SIDE, INPUT_SIDE), flags=cv2.INTER_LINEAR)


def view_matrix(
    center: Float[np.ndarray, "2"], up: Float[np.ndarray, "2"], side: float
) -> Float[np.ndarray, "2 3"]:
    """Return the map from picture to view: a square round the centre, `up` pointing up in it."""
    x, y = up / max(np.linalg.norm(up), 1e-6)
    turn = INPUT_SIDE / side * np.array([[-y, x], [-x, -y]])
    return np.column_stack([turn, INPUT_SIDE / 2 - turn @ center])


class BlazePoseLandmarkDetector(nn.Module):
    """The network with its weights; a view takes it some 20 ms on a CPU core.

    Its landmarks in metres are among the weights, but not used.
    """

    names: tuple[str, ...] = (*SEEN, *FACE)

    def __init__(self):
        super().__init__()
        self.network = PersonLandmarks()

    @classmethod
    def load(
        cls, path: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> "BlazePoseLandmarkDetector":
        """Return the detector with its weights, by default the shipped ones.

        Args:
            path: npz written by `scripts.build.blazepose`.
            device: where the network runs.
        """
        with WithoutRandomInit():
            detector = cls()
        weights = read_arrays(require(Path(path or PRETRAINED / "person_landmarks.npz")))
        detector.network.load_state_dict(weights)
        return detector.to(device).eval()

    def find(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        hip: Float[np.ndarray, "2"],
        up: Float[np.ndarray, "2"],
        radius: float,
    ) -> Landmarks | None:
        """Return the landmarks of someone whose place is known, see `LandmarkDetector.find`."""
        return find_landmarks(self._look, image, hip, up, radius, self.names)

    @torch.no_grad()
    def _look(
        self, view: UInt8[np.ndarray, "256 256 3"]
    ) -> tuple[Float[np.ndarray, "39 5"], float]:
        device = self.network.presence.weight.device
        images = torch.from_numpy(view).to(device).permute(2, 0, 1)[None].float() / 255
        values, presence = self.network(images)
        return values[0].cpu().double().numpy(), presence.sigmoid().item()

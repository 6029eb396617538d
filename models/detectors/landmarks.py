"""Where a person's joints are in a photo: BlazePose's landmark network, used as MediaPipe does.

Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", arXiv 2006.10204. It looks
at the person turned upright, and a second time round what it saw at first; unlike MediaPipe, there
also at the mirror image.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

from smpler.models.backbones.blazepose import (
    FULL,
    HEAVY,
    INPUT_SIDE,
    NUM_LANDMARKS,
    LandmarkSize,
)
from smpler.models.detectors import Landmarks, Look
from smpler.models.detectors.blazepose import PersonLandmarks
from smpler.models.weights.files import load_strictly, read_arrays
from smpler.utils.initialisation import WithoutRandomInit
from smpler.utils.joints import KEYPOINT_NAMES, mirrored
from smpler.utils.paths import PRETRAINED, display, require

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
LANDMARK_NAMES = (
    "Nose", "L_EyeInner", "L_Eye", "L_EyeOuter", "R_EyeInner", "R_Eye", "R_EyeOuter",
    "L_Ear", "R_Ear", "L_Mouth", "R_Mouth", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow",
    "L_Wrist", "R_Wrist", "L_Pinky", "R_Pinky", "L_Index", "R_Index", "L_Thumb", "R_Thumb",
    "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle", "L_Heel", "R_Heel",
    "L_FootIndex", "R_FootIndex",
)  # fmt: skip
"""The 33 landmarks of the body, in the network's order; L is the person's left."""
LANDMARK_NUMBERS = {name: number for number, name in enumerate(LANDMARK_NAMES)}
"""Number of a named point among the network's landmarks."""
SEEN = tuple(name for name in KEYPOINT_NAMES if name in LANDMARK_NUMBERS)
"""The 12 evaluated keypoints that BlazePose knows: all but neck and head."""
SEEN_KEYPOINTS = [KEYPOINT_NAMES.index(name) for name in SEEN]
FACE = ("Nose", "L_Ear", "R_Ear")
EXCHANGED = [*mirrored(LANDMARK_NAMES), *range(len(LANDMARK_NAMES), NUM_LANDMARKS)]
"""Numbers of the landmarks' mirror images; the auxiliary ones are their own."""
PARTS = (slice(0, 11), slice(11, 23), slice(23, 33))
"""Landmarks of the face, of shoulders, arms and hands, of hips, legs and feet."""
SIZES = {
    "full": (FULL, "person_landmarks.npz"),
    "heavy": (HEAVY, "person_landmarks_heavy.npz"),
}
"""Variants of the network, and their shipped weights."""

Network = Callable[
    [UInt8[np.ndarray, "b 256 256 3"]],
    tuple[Float[np.ndarray, "b 39 5"], Float[np.ndarray, "b"]],
]
"""From RGB views to the landmarks (x, y in their pixels, z, logits of visibility and of being
inside), and the probabilities that they show a person."""


def find_landmarks(
    network: Network,
    looks: Sequence[Look],
    names: Sequence[str],
    num_looks: int = NUM_LOOKS,
    mirror: bool = False,
) -> list[Landmarks | None]:
    """Return where people have what `names` lists; None for those whom the network does not see.

    Args:
        network: sees the views of all people together.
        looks: where each person is.
        names: of landmarks.
        num_looks: each but the first is cut by the landmarks of the one before.
        mirror: average the last look with that at its mirror image.
    """
    found: list[Landmarks | None] = [None] * len(looks)
    left = {number: (look.hip, look.up, look.radius) for number, look in enumerate(looks)}
    chosen = [LANDMARK_NUMBERS[name] for name in names]
    for round_ in range(num_looks):
        if not left:
            break
        maps = [view_matrix(hip, up, VIEW_PER_RADIUS * radius) for hip, up, radius in left.values()]
        images = [looks[number].image for number in left]
        views = [cut(image, view) for image, view in zip(images, maps, strict=True)]
        is_last = round_ == num_looks - 1
        if mirror and is_last:
            views += [cut(x, mirror_matrix(view)) for x, view in zip(images, maps, strict=True)]
        values, scores = network(np.stack(views))
        if mirror and is_last:
            pairs = zip(*np.split(values, 2), strict=True)
            values = np.stack([averaged(plain, of_mirror) for plain, of_mirror in pairs])
            scores = scores.reshape(2, -1).mean(axis=0)
        for (number, view), points, score in zip(
            zip(list(left), maps, strict=True), values, scores.tolist(), strict=True
        ):
            if score < MIN_SCORE:
                del left[number]
                continue
            back = cv2.invertAffineTransform(view)
            places = points[:, :2] @ back[:, :2].T + back[:, 2]
            hip, top = places[HIP_CENTER], places[CIRCLE]
            left[number] = hip, top - hip, float(np.linalg.norm(top - hip))
            if is_last:
                visibility = 1 / (1 + np.exp(-points[chosen, 3]))
                found[number] = Landmarks(places[chosen], visibility, score, hip, top)
    return found


def averaged(
    plain: Float[np.ndarray, "39 5"], of_mirror: Float[np.ndarray, "39 5"]
) -> Float[np.ndarray, "39 5"]:
    """Return the mean of what the network says of a view and of its mirror image.

    When it takes left for right in one of the two only, of the face, the arms or the legs, their
    sides are named as in the view: whichever naming brings the two answers nearer.
    """
    other = of_mirror[EXCHANGED]
    other[:, 0] = INPUT_SIDE - other[:, 0]
    exchanged = other[EXCHANGED]
    for part in PARTS:
        distance, exchanged_distance = (
            np.linalg.norm((x - plain)[part, :2], axis=1).mean() for x in (other, exchanged)
        )
        if exchanged_distance < distance:
            other[part] = exchanged[part]
    return (plain + other) / 2


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


def mirror_matrix(view: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """Return the map to a view's mirror image: x becomes `INPUT_SIDE` - x.

    The view's centre lies at `INPUT_SIDE` / 2, half a pixel off the middle of its array. Reversing
    the array would move the picture by one pixel, so that the mirror image is cut anew.
    """
    return np.array([[-1.0], [1.0]]) * view + [[0, 0, INPUT_SIDE], [0, 0, 0]]


class BlazePoseLandmarkDetector(nn.Module):
    """The network with its weights; a view takes the full one some 20 ms on a CPU core.

    Its landmarks in metres are among the weights, but not used.

    Args:
        size: of the network.
        two_looks: average the last look with that at its mirror image.
    """

    names: tuple[str, ...] = LANDMARK_NAMES

    def __init__(self, size: LandmarkSize = FULL, two_looks: bool = True):
        super().__init__()
        self.network: nn.Module = PersonLandmarks(size)
        self.two_looks = two_looks

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        device: str | torch.device = "cpu",
        size: str = "full",
        two_looks: bool = True,
    ) -> "BlazePoseLandmarkDetector":
        """Return the detector with its weights, by default the shipped ones.

        Args:
            path: npz written by `scripts.build.blazepose`, or `scripts.build.blazepose_heavy`.
            device: where the network runs.
            size: a name in `SIZES`.
            two_looks: average the last look with that at its mirror image.

        Raises:
            FileNotFoundError: the file is missing.
            ValueError: there is no such size.
        """
        network_size, file = SIZES[checked_size(size)]
        with WithoutRandomInit():
            detector = cls(network_size, two_looks)
        path = require(Path(path or PRETRAINED / file))
        load_strictly(detector.network, read_arrays(path), display(path))
        return detector.to(device).eval()

    def find(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        hip: Float[np.ndarray, "2"],
        up: Float[np.ndarray, "2"],
        radius: float,
    ) -> Landmarks | None:
        """Return the landmarks of someone whose place is known, see `LandmarkDetector.find`."""
        return self.find_all([Look(image, hip, up, radius)])[0]

    def find_all(self, looks: Sequence[Look]) -> list[Landmarks | None]:
        """Return the landmarks of several people; the network sees their views together."""
        return find_landmarks(self._look_at, looks, self.names, NUM_LOOKS, self.two_looks)

    def follow(self, looks: Sequence[Look]) -> list[Landmarks | None]:
        """Return the landmarks of people whose place is known well, by one look at each."""
        return find_landmarks(self._look_at, looks, self.names, 1, self.two_looks)

    @torch.no_grad()
    def _look_at(
        self, views: UInt8[np.ndarray, "b 256 256 3"]
    ) -> tuple[Float[np.ndarray, "b 39 5"], Float[np.ndarray, "b"]]:
        weight = next(self.parameters(), None)
        device = "cpu" if weight is None else weight.device  # a faster copy holds none
        images = torch.from_numpy(views).to(device).permute(0, 3, 1, 2).float() / 255
        values, presence = self.network(images)
        return values.cpu().double().numpy(), presence.sigmoid().cpu().double().numpy()


def checked_size(size: str) -> str:
    """Return the name of a variant of the network.

    Raises:
        ValueError: there is none of that name.
    """
    if size not in SIZES:
        raise ValueError(f"landmarks is {size!r}; choose one of {', '.join(SIZES)}.")
    return size

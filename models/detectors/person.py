"""Where the people in a photo are: BlazePose's detector (Bazarevsky et al., arXiv 2006.10204)."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from smpler.models.detectors import Detection
from smpler.models.detectors.blazepose import INPUT_SIDE, PersonNetwork, anchor_points
from smpler.models.weights.files import load_strictly, read_arrays
from smpler.utils.initialisation import WithoutRandomInit
from smpler.utils.paths import PRETRAINED, display, require

HIP, CIRCLE, SHOULDER = 0, 1, 2
"""Points: centre of the hips, a point of the circle round the body, centre of the shoulders."""

BOX_PER_RADIUS = 1.9
"""Side of a person's box in radii of the circle round the body; both are centred on the hips.

Measured on 46 views of seven people in five videos and six photos, against person masks: the longer
side of the tight box is 1.85 +- 0.16 radii (1.4 crouching, 2.0 upright, 2.2 at most), its centre
0.03 radii below the hips, +- 0.13 across and +- 0.07 down. A crop of 1.2 boxes is 2.28 radii: the
person fills 0.81 of it (0.63 to 0.96; the tight box would fill 1 / 1.2 = 0.83), and one person of
the 46, at the photo's edge, loses 1 % of the crop.
"""
VIEW_PER_RADIUS = 2.5
"""Side of a closer look's view in radii; at 3.5 box sizes scatter more and more people are lost."""
NUM_CLOSER_LOOKS = 2
"""The first brings the scatter of box sizes from 17 % to 8 %, as small people's circles are loose.
The second separates people whom the first look at the photo took for one."""
PROPOSAL_SCORE = 0.3
"""What earns a closer look when the whole photo is seen; tiles, being many, ask for more."""
TILE_SCORE = 0.5
SMALL = 1 / 3
"""If no box is larger than this part of the photo's longer side, tiles are searched too: a scene
that shows someone small often shows others whom the network cannot see from afar."""
MAX_OVERLAP = 0.5
"""Intersection over union above which two boxes are one person."""
MAX_VIEWS = 16
"""Views that go through the network at once, to bound memory."""


@dataclass(frozen=True)
class BlazePoseDetection(Detection):
    """One person found in a photo; the box is square and centred on the hips."""

    hip_center: tuple[float, float]
    """x, y of the middle between the hips, pixels."""
    shoulder_center: tuple[float, float]
    """x, y of the middle between the shoulders, pixels."""


class BlazePosePersonDetector(nn.Module):
    """Finds people by looking at the whole photo, then closer at each of them.

    A view takes the network 25 to 30 ms on one CPU core. A photo of one person needs three views,
    each further person two more; if everyone is small or nobody is seen, tiles add four to eight.
    """

    anchors: Float[Tensor, "2254 2"]

    def __init__(self):
        super().__init__()
        self.network = PersonNetwork()
        self.register_buffer("anchors", anchor_points(), persistent=False)

    @classmethod
    def load(
        cls, path: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> "BlazePosePersonDetector":
        """Return the detector with its weights, by default the shipped ones.

        Args:
            path: npz written by `scripts.build.person_detector`.
            device: where the network runs.
        """
        with WithoutRandomInit():
            detector = cls()
        path = require(Path(path or PRETRAINED / "person_detector.npz"))
        load_strictly(detector.network, read_arrays(path), display(path))
        return detector.to(device).eval()

    @torch.no_grad()
    def detect(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        score_threshold: float = 0.5,
        max_people: int | None = None,
    ) -> list[BlazePoseDetection]:
        """Return the people in an RGB photo of any size, best score first.

        Someone of whom only a part is in the photo gets the box of the whole body. People behind
        others or against the light are sometimes missed, and those below an eighth of the photo's
        shorter side mostly.
        """
        size = torch.tensor([image.shape[1], image.shape[0]])
        points, scores = self._search(
            image, _whole(size), min(PROPOSAL_SCORE, score_threshold), score_threshold
        )
        if (_radii(points) * BOX_PER_RADIUS < SMALL * size.max()).all():  # also if there is nobody
            more = self._search(image, _tiles(size), TILE_SCORE, score_threshold)
            points, scores = _suppress(torch.cat([points, more[0]]), torch.cat([scores, more[1]]))
        boxes = _boxes(points)
        boxes[:, 2:] -= boxes[:, :2]
        found = zip(boxes.tolist(), scores.tolist(), points.tolist(), strict=True)
        return [
            BlazePoseDetection(tuple(box), score, tuple(person[HIP]), tuple(person[SHOULDER]))
            for box, score, person in list(found)[:max_people]
        ]

    def _search(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        windows: Float[Tensor, "n 3"],
        proposal_score: float,
        min_score: float,
    ) -> tuple[Float[Tensor, "m 4 2"], Float[Tensor, "m"]]:
        """Look through the windows, then closer at each person seen there."""
        points, scores = self._look(image, windows, proposal_score)
        for _ in range(NUM_CLOSER_LOOKS):
            side = (VIEW_PER_RADIUS * _radii(points)[:, None]).round().clamp(min=1)
            corner = (points[:, HIP] - side / 2).round()
            points, scores = self._look(image, torch.cat([corner, side], dim=1), min_score)
        return points, scores

    def _look(
        self, image: UInt8[np.ndarray, "h w 3"], windows: Float[Tensor, "n 3"], min_score: float
    ) -> tuple[Float[Tensor, "m 4 2"], Float[Tensor, "m"]]:
        """Return the points and scores of the people seen in the windows, best first.

        Args:
            image: RGB.
            windows: squares of the photo: left, top, side in whole pixels.
            min_score: what a guess must exceed.
        """
        points, scores = [torch.zeros(0, 4, 2)], [torch.zeros(0)]
        for chunk in windows.split(MAX_VIEWS) if len(windows) else []:
            views = torch.stack([_view(image, *window) for window in chunk.int().tolist()])
            values, logits = self.network(views.to(self.anchors.device) / 127.5 - 1)
            score = logits.sigmoid()
            view, anchor = (score > min_score).nonzero().unbind(1)
            # face boxes are left out; points are relative to their anchor
            seen = values[view, anchor, 4:].unflatten(1, (4, 2)) + self.anchors[anchor, None]
            corner, side = chunk[view.cpu(), None].split([2, 1], dim=2)
            points.append(corner + seen.cpu() * side / INPUT_SIDE)
            scores.append(score[view, anchor].cpu())
        return _suppress(torch.cat(points), torch.cat(scores))


def _radii(points: Float[Tensor, "n 4 2"]) -> Float[Tensor, "n"]:
    return torch.linalg.vector_norm(points[:, CIRCLE] - points[:, HIP], dim=1)


def _boxes(points: Float[Tensor, "n 4 2"]) -> Float[Tensor, "n 4"]:
    """Corners of the people's boxes: left, top, right, bottom."""
    half = _radii(points)[:, None] * BOX_PER_RADIUS / 2
    return torch.cat([points[:, HIP] - half, points[:, HIP] + half], dim=1)


def _suppress(
    points: Float[Tensor, "n 4 2"], scores: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "m 4 2"], Float[Tensor, "m"]]:
    """Keep the best of the guesses that overlap, in the order of their scores."""
    boxes = _boxes(points)
    boxes[:, 2:] -= boxes[:, :2]
    keep = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, MAX_OVERLAP)
    keep = torch.as_tensor(keep, dtype=torch.long)
    return points[keep], scores[keep]


def _whole(size: Int[Tensor, "2"]) -> Float[Tensor, "1 3"]:
    """The window (left, top, side) that just holds a photo of this (width, height)."""
    side = size.max()
    return torch.cat([(size - side) // 2, side[None]])[None].float()


def _tiles(size: Int[Tensor, "2"]) -> Float[Tensor, "n 3"]:
    """Windows (left, top, side) of 0.6 of the shorter side, overlapping by a third or more."""
    side = max(0.6 * size.min().item(), size.max().item() / 4)
    starts = []
    for length in size.tolist():
        count = max(1, math.ceil(1.5 * length / side - 0.5))
        first = min(0, (length - side) / 2)  # a window wider than the photo is centred on it
        starts.append(torch.linspace(first, length - side - first, count))
    return F.pad(torch.cartesian_prod(*starts).round(), (0, 1), value=max(1, round(side)))


def _view(
    image: UInt8[np.ndarray, "h w 3"], left: int, top: int, side: int
) -> UInt8[Tensor, "3 224 224"]:
    """A square window of the photo at the network's size, black where it leaves the photo."""
    view = np.zeros((INPUT_SIDE, INPUT_SIDE, 3), np.uint8)
    inside = image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    if inside.size:
        zoom = INPUT_SIDE / side
        height, width = (max(1, round(length * zoom)) for length in inside.shape[:2])
        method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        y, x = (min(round(max(-start, 0) * zoom), INPUT_SIDE - 1) for start in (top, left))
        small = cv2.resize(inside, (width, height), interpolation=method)
        view[y : y + height, x : x + width] = small[: INPUT_SIDE - y, : INPUT_SIDE - x]
    return torch.from_numpy(view).permute(2, 0, 1)

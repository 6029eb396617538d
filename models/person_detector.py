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
from torchvision.ops import nms

from utils.paths import PRETRAINED, require

INPUT_SIDE = 224
"""Side of the network's square input in pixels."""
ANCHORS_PER_CELL = {8: 2, 16: 2, 32: 6}
"""Guesses per cell of the three grids, by the grid's stride in pixels of the input."""
NUM_VALUES = 12
"""Values of a guess: a face box (x, y, w, h), then four points (x, y)."""
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
class Detection:
    """One person found in a photo; all lengths in pixels, (0, 0) is the photo's top-left corner.

    Attributes:
        box: x, y, width, height; square, centred on the hips, may leave the photo.
        score: [0, 1].
        hip_center: x, y of the middle between the hips.
        shoulder_center: x, y of the middle between the shoulders.
    """

    box: tuple[float, float, float, float]
    score: float
    hip_center: tuple[float, float]
    shoulder_center: tuple[float, float]


class PersonDetector(nn.Module):
    """Finds people by looking at the whole photo, then closer at each of them.

    A view takes the network 25 to 30 ms on one CPU core. A photo of one person needs three views,
    each further person two more; if everyone is small or nobody is seen, tiles add four to eight.
    """

    def __init__(self):
        super().__init__()
        self.network = PersonNetwork()
        self.register_buffer("anchors", anchor_points(), persistent=False)

    @classmethod
    def load(
        cls, path: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> "PersonDetector":
        """Return the detector with its weights, by default the shipped ones.

        Args:
            path: npz written by `scripts.build_person_detector`.
            device: where the network runs.
        """
        detector = cls()
        with np.load(require(Path(path or PRETRAINED / "person_detector.npz"))) as arrays:
            weights = {name: torch.from_numpy(arrays[name]).float() for name in arrays}
        detector.network.load_state_dict(weights)
        return detector.to(device).eval()

    @torch.no_grad()
    def detect(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        score_threshold: float = 0.5,
        max_people: int | None = None,
    ) -> list[Detection]:
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
            Detection(tuple(box), score, tuple(person[HIP]), tuple(person[SHOULDER]))
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
    keep = nms(_boxes(points), scores, MAX_OVERLAP)
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


class Conv(nn.Conv2d):
    """Convolution that keeps the grid (stride 1) or halves it (stride 2), with ReLU6 if asked."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        relu: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups)
        self.relu = relu

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map."""
        return F.relu6(super().forward(x)) if self.relu else super().forward(x)


class Separable(nn.Sequential):
    """Depthwise 3 x 3, then pointwise convolution; with `residual`, the input is added."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        relu: bool = False,
        residual: bool = False,
    ):
        super().__init__(
            Conv(in_channels, in_channels, 3, stride, groups=in_channels),
            Conv(in_channels, out_channels, relu=relu),
        )
        self.residual = residual

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map."""
        return F.relu6(x + super().forward(x)) if self.residual else super().forward(x)


class InvertedResidual(nn.Sequential):
    """Widen, filter, narrow (Sandler et al., MobileNetV2, CVPR 2018)."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, kernel: int, stride: int):
        super().__init__(
            Conv(in_channels, hidden, relu=True),
            Conv(hidden, hidden, kernel, stride, groups=hidden, relu=True),
            Conv(hidden, out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map; the input is added where shapes agree."""
        return x + super().forward(x) if self.residual else super().forward(x)


class PersonNetwork(nn.Module):
    """The detector's network: a backbone, three maps from coarse to fine, a head on each."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 24, 3, 2, relu=True), Conv(24, 24, 3, groups=24, relu=True), Conv(24, 16)
        )
        self.stage8 = nn.Sequential(
            InvertedResidual(16, 64, 24, 3, 2),
            InvertedResidual(24, 144, 24, 3, 1),
            InvertedResidual(24, 144, 40, 5, 2),
            InvertedResidual(40, 240, 40, 5, 1),
        )
        self.stage16 = nn.Sequential(
            InvertedResidual(40, 240, 80, 3, 2),
            InvertedResidual(80, 480, 80, 3, 1),
            InvertedResidual(80, 480, 80, 3, 1),
            InvertedResidual(80, 480, 112, 5, 1),
            InvertedResidual(112, 672, 112, 5, 1),
            InvertedResidual(112, 672, 112, 5, 1),
        )
        self.stage32 = nn.Sequential(
            InvertedResidual(112, 672, 192, 5, 2),
            *[InvertedResidual(192, 1152, 192, 5, 1) for _ in range(3)],
            Conv(192, 1152, relu=True),
            Conv(1152, 1152, 3, groups=1152, relu=True),
        )
        self.lateral8 = Separable(40, 96, relu=True)
        self.lateral16 = Separable(112, 192, relu=True)
        self.upsample16 = UpsampleConv(1152, 192)
        self.upsample8 = UpsampleConv(192, 96)
        self.refine16 = nn.Sequential(*[Separable(192, 192, residual=True) for _ in range(2)])
        self.refine8 = nn.Sequential(*[Separable(96, 96, residual=True) for _ in range(2)])
        self.heads = nn.ModuleList(
            Head(channels // 4, num_anchors)
            for channels, num_anchors in zip(
                (96, 192, 1152), ANCHORS_PER_CELL.values(), strict=True
            )
        )

    def forward(
        self, images: Float[Tensor, "b 3 224 224"]
    ) -> tuple[Float[Tensor, "b 2254 12"], Float[Tensor, "b 2254"]]:
        """Return the guesses, in input pixels relative to their anchors, and their logits.

        Args:
            images: RGB, [-1, 1].
        """
        fine = self.stage8(self.stem(images))
        middle = self.stage16(fine)
        coarse = self.stage32(middle)
        middle = self.refine16(self.lateral16(middle) + self.upsample16(coarse))
        fine = self.refine8(self.lateral8(fine) + self.upsample8(middle))
        maps = (fine, middle, coarse)
        values, logits = zip(*[h(x) for h, x in zip(self.heads, maps, strict=True)], strict=True)
        return torch.cat(values, dim=1), torch.cat(logits, dim=1)


class UpsampleConv(Conv):
    """Pointwise convolution of a map brought to twice its size."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, relu=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Double the map's size."""
        return super().forward(F.interpolate(x, scale_factor=2, mode="bilinear"))


class Head(nn.Module):
    """Guesses and their logits on one grid."""

    def __init__(self, channels: int, num_anchors: int):
        super().__init__()
        self.logits = Separable(channels, num_anchors, stride=2)
        self.values = Separable(channels, num_anchors * NUM_VALUES, stride=2)

    def forward(
        self, x: Float[Tensor, "b c s s"]
    ) -> tuple[Float[Tensor, "b n 12"], Float[Tensor, "b n"]]:
        """Read the map at twice its size, and step by two."""
        # the published network keeps the four sub-pixels in front of the channels
        x = F.pixel_shuffle(x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2), 2)
        logits = self.logits(x).permute(0, 2, 3, 1).flatten(1)
        values = self.values(x).permute(0, 2, 3, 1).flatten(1)
        return values.unflatten(1, (-1, NUM_VALUES)), logits


def anchor_points() -> Float[Tensor, "2254 2"]:
    """Where the anchors are: their cells' centres, in input pixels, in the network's order."""
    points = []
    for stride, num_anchors in ANCHORS_PER_CELL.items():
        ticks = torch.arange(stride / 2, INPUT_SIDE, stride)
        grid = torch.cartesian_prod(ticks, ticks).flip(1)  # row by row, as (x, y)
        points.append(grid.repeat_interleave(num_anchors, dim=0))
    return torch.cat(points)

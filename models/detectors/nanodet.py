"""Where the people in a photo of a group are: NanoDet-g (RangiLyu, github.com/RangiLyu/nanodet).

The network sees the photo twice, once small and once large, as it takes large people apart in the
small picture and finds small people in the large one. What one picture shows is believed the more
if the other shows it too.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from smpler.models.detectors import Detection
from smpler.models.weights.files import load_strictly, read_arrays
from smpler.utils.initialisation import WithoutRandomInit
from smpler.utils.paths import PRETRAINED, display, require

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
"""Of blue, green and red, which is the network's order."""
LEAK = 0.1
"""Slope of the activation below 0."""
STRIDES = (8, 16, 32)
"""Pixels of the picture per cell of each grid."""
NUM_BINS = 11
"""A side of a box is 0 to 10 strides from the middle of its cell; the network weighs them."""

NEAR_SIDE, FAR_SIDE = 416, 640
"""Longer side of the two pictures, pixels; large people are taken from the first."""
LARGE = 0.45
"""A person is large if the longer side of the box is at least this part of the photo's."""
MIN_SCORE = 0.15
"""Score from which on a guess is considered."""
MIN_SUPPORT, SUPPORT_OVERLAP = 0.1, 0.45
"""Score and intersection over union by which a guess in one picture supports one in the other."""
SUPPORT = 0.5
"""Weight of the other picture's score; that of the picture which the box is from has weight 1."""
SCORE_THRESHOLD = 0.5 / (1 + SUPPORT)
"""A person who is seen in one picture only needs a score of 0.5 there."""
MAX_OVERLAP, MAX_FINAL_OVERLAP = 0.55, 0.4
"""Intersection over union of two people at most: within one picture, and in the answer.

These and the thresholds above were chosen on 13 photos of groups with 70 people; on 13 others, 77
of 85 people are found, with 7 wrong boxes.
"""
MAX_GUESSES = 1000
"""How many guesses of a picture are considered at most, to bound memory."""
MAX_SIDE = 4 * FAR_SIDE
"""A photo whose longer side exceeds this is made smaller once, then twice from that: saves time."""


class Conv3(nn.Conv2d):
    """3 x 3 convolution that keeps the grid (stride 1) or halves it (stride 2), and activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(in_channels, out_channels, 3, stride, padding=1)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map."""
        return F.leaky_relu(super().forward(input), LEAK, inplace=True)


class DenseBlock(nn.Module):
    """Two convolutions; the answer holds what both give."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = Conv3(in_channels, out_channels // 2)
        self.second = Conv3(out_channels // 2, out_channels // 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Filter the map."""
        first = self.first(x)
        return torch.cat([self.second(first), first], dim=1)


class Stage(nn.Module):
    """Blocks and a way past them (CSPNet: Wang et al., CVPR Workshops 2020)."""

    def __init__(self, in_channels: int, channels: int, num_blocks: int, stride: int = 2):
        super().__init__()
        self.enter = Conv3(in_channels, channels, stride)
        self.blocks = nn.Sequential(*[DenseBlock(channels, channels) for _ in range(num_blocks)])
        self.leave = Conv3(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map; it comes out with twice the stage's channels."""
        x = self.enter(x)
        return torch.cat([self.leave(self.blocks(x)), x], dim=1)


class NanoDet(nn.Module):
    """The network: four stages, three maps that inform each other both ways, a head on each.

    Of COCO's 80 classes only the first, person, is kept.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Conv3(3, 32, stride=2), nn.MaxPool2d(3, 2, padding=1))
        self.stage4 = Stage(32, 32, num_blocks=1, stride=1)
        self.stage8 = Stage(64, 64, num_blocks=2)
        self.stage16 = Stage(128, 128, num_blocks=2)
        self.stage32 = Stage(256, 256, num_blocks=3)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, 128, 1) for channels in (128, 256, 512))
        self.heads = nn.ModuleList(
            nn.Sequential(Conv3(128, 128), nn.Conv2d(128, 1 + 4 * NUM_BINS, 1)) for _ in STRIDES
        )
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n 45"]:
        """Return what each cell sees: the logit of a person, then weights of the box's sides.

        Args:
            images: RGB in [0, 255]; height and width are multiples of 32.

        Returns:
            Cells as `cells` lists them. The 44 logits are of left, top, right and bottom side, each
            of `NUM_BINS` distances.
        """
        x = (images.flip(1) - self.mean) / self.std
        fine = self.stage8(self.stage4(self.stem(x)))
        middle = self.stage16(fine)
        coarse = self.stage32(middle)
        fine, middle, coarse = (
            lateral(x) for lateral, x in zip(self.laterals, (fine, middle, coarse), strict=True)
        )
        middle = middle + F.interpolate(coarse, scale_factor=2, mode="bilinear")
        fine = fine + F.interpolate(middle, scale_factor=2, mode="bilinear")
        middle = middle + F.avg_pool2d(fine, 2)
        coarse = coarse + F.avg_pool2d(middle, 2)
        seen = [head(x) for head, x in zip(self.heads, (fine, middle, coarse), strict=True)]
        # (b, 45, h, w) -> (b, h * w, 45): one row per cell
        return torch.cat([x.flatten(2).transpose(1, 2) for x in seen], dim=1)


def cells(height: int, width: int) -> Float[Tensor, "n 3"]:
    """Return the middle (x, y) and the stride of each cell of a picture, in its pixels.

    The grids come from fine to coarse, the cells of each row by row.
    """
    grids = []
    for stride in STRIDES:
        y, x = (stride * (torch.arange(side // stride) + 0.5) for side in (height, width))
        middles = torch.cartesian_prod(y, x).flip(1)
        grids.append(F.pad(middles, (0, 1), value=stride))
    return torch.cat(grids)


def decode(sides: Float[Tensor, "n 44"], where: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """Return the boxes that cells see: left, top, right, bottom in pixels of the picture.

    Args:
        sides: the network's logits of the distances.
        where: these cells, as `cells` lists them.
    """
    middle, stride = where.split([2, 1], dim=1)
    bins = torch.arange(NUM_BINS, dtype=sides.dtype, device=sides.device)
    distance = sides.unflatten(1, (4, NUM_BINS)).softmax(-1) @ bins * stride
    return torch.cat([middle - distance[:, :2], middle + distance[:, 2:]], dim=1)


class NanoDetPersonDetector(nn.Module):
    """Finds people who stand together, overlap, or are small; a box holds the visible body.

    A photo takes about 0.15 s on one CPU core.
    """

    def __init__(self):
        super().__init__()
        self.network = NanoDet()

    @classmethod
    def load(
        cls, path: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> "NanoDetPersonDetector":
        """Return the detector with its weights, by default the shipped ones.

        Args:
            path: npz written by `scripts.build.nanodet`.
            device: where the network runs.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds other weights.
        """
        path = require(Path(path or PRETRAINED / "person_detector_groups.npz"))
        with WithoutRandomInit():
            detector = cls()
        load_strictly(detector.network, read_arrays(path), display(path))
        # channels last: a third faster on a CPU
        return detector.to(device).to(memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def detect(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        score_threshold: float = SCORE_THRESHOLD,
        max_people: int | None = None,
    ) -> list[Detection]:
        """Return the people in an RGB photo of any size, best score first; boxes lie in the photo.

        The score is the mean of what the two pictures say, where the one that the box is from
        counts twice. Nobody's is below 0.1.
        """
        height, width = image.shape[:2]
        size = torch.tensor([width, height], dtype=torch.float32)
        if max(image.shape[:2]) > MAX_SIDE:
            image = resized(image, MAX_SIDE)
        near, far = (self._look(image, side, size) for side in (NEAR_SIDE, FAR_SIDE))
        large, small = _likely(near, far), _likely(far, near)
        limit = LARGE * size.max()
        large, small = large.select(large.longer() >= limit), small.select(small.longer() < limit)
        people = Guesses(*map(torch.cat, zip(large, small, strict=True)))
        people = people.select(people.scores >= score_threshold)
        priority = people.scores + (people.longer() >= limit)  # the large ones come first
        people = people.select(_distinct(people, priority, MAX_FINAL_OVERLAP))
        people = people.select(people.scores.argsort(descending=True, stable=True)[:max_people])
        people.boxes[:, 2:] -= people.boxes[:, :2]
        found = zip(people.boxes.tolist(), people.scores.tolist(), strict=True)
        return [Detection(tuple(box), score) for box, score in found]

    def _look(
        self, image: UInt8[np.ndarray, "h w 3"], side: int, size: Float[Tensor, "2"]
    ) -> "Guesses":
        """Return what one picture of the photo shows, best first.

        Args:
            image: the photo, or a smaller copy.
            side: the picture's longer side, pixels.
            size: the photo's width and height.
        """
        picture, inside = make_picture(image, side)
        batch = torch.from_numpy(picture).to(self.network.mean.device).permute(2, 0, 1)[None]
        logits, sides = self.network(batch.float())[0].cpu().split([1, 4 * NUM_BINS], dim=1)
        scores, order = logits[:, 0].sigmoid().topk(min(MAX_GUESSES, len(logits)))
        boxes = decode(sides[order], cells(*picture.shape[:2])[order])
        # pixels of the picture -> pixels of the photo, and no farther
        corners = boxes.unflatten(1, (2, 2)) * (size / torch.tensor(inside))
        boxes = corners.clamp(min=torch.zeros(2), max=size).flatten(1)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        return Guesses(boxes, scores).select(visible & (scores >= MIN_SUPPORT))


class Guesses(NamedTuple):
    """People who may be there."""

    boxes: Float[Tensor, "n 4"]
    """Left, top, right, bottom; pixels of the photo."""
    scores: Float[Tensor, "n"]
    """[0, 1]."""

    def select(self, index: Tensor) -> "Guesses":
        """Return some of them, by a mask or by their numbers."""
        return Guesses(self.boxes[index], self.scores[index])

    def longer(self) -> Float[Tensor, "n"]:
        """Return the longer side of each box, pixels."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).amax(dim=1)


def make_picture(
    image: UInt8[np.ndarray, "h w 3"], side: int
) -> tuple[UInt8[np.ndarray, "i j 3"], tuple[int, int]]:
    """Bring a photo to a longer side, at the top left of a black picture that the network takes.

    Returns:
        The picture, and width and height of the photo in it.
    """
    photo = resized(image, side)
    height, width = photo.shape[:2]
    coarsest = STRIDES[-1]
    return np.pad(photo, ((0, -height % coarsest), (0, -width % coarsest), (0, 0))), (width, height)


def resized(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "i j 3"]:
    """Bring the longer side of a photo to a number of pixels."""
    zoom = side / max(image.shape[:2])
    height, width = (max(1, round(length * zoom)) for length in image.shape[:2])
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def _likely(own: Guesses, other: Guesses) -> Guesses:
    """Return whom a picture shows, with the score that both pictures give."""
    people = own.select(own.scores >= MIN_SCORE)
    people = people.select(_distinct(people, people.scores, MAX_OVERLAP))
    is_same = overlaps(people.boxes, other.boxes) >= SUPPORT_OVERLAP
    # a column of zeros: whom nothing supports
    support = F.pad(is_same * other.scores, (0, 1)).amax(dim=1)
    return Guesses(people.boxes, (people.scores + SUPPORT * support) / (1 + SUPPORT))


def overlaps(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the intersection over union of each two boxes (left, top, right, bottom)."""
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    opposite = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (opposite - corner).clamp(min=0).prod(dim=2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (a, b))
    return common / (area_a[:, None] + area_b - common)


def _distinct(
    people: Guesses, priority: Float[Tensor, "n"], max_overlap: float
) -> Int[Tensor, "m"]:
    """Return who is left when those that overlap someone of higher priority are removed."""
    sizes = people.boxes[:, 2:] - people.boxes[:, :2]
    places = torch.cat([people.boxes[:, :2], sizes], dim=1)
    keep = cv2.dnn.NMSBoxes(places.tolist(), priority.tolist(), 0.0, max_overlap)
    return torch.as_tensor(keep, dtype=torch.long)

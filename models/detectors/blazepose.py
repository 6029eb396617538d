"""BlazePose's person and landmark networks (Bazarevsky et al., arXiv 2006.10204), plain torch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.backbones.blazepose import (
    FULL,
    LANDMARK_VALUES,
    NUM_LANDMARKS,
    TOWER_CHANNELS,
    LandmarkNetwork,
    LandmarkSize,
)
from smpler.models.backbones.mobile import Conv, InvertedResidual

INPUT_SIDE = 224
"""Side of the network's square input in pixels."""
ANCHORS_PER_CELL = {8: 2, 16: 2, 32: 6}
"""Guesses per cell of the three grids, by the grid's stride in pixels of the input."""
NUM_VALUES = 12
"""Values of a guess: a face box (x, y, w, h), then four points (x, y)."""


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

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map."""
        filtered = super().forward(input)
        return F.relu6(input + filtered) if self.residual else filtered


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

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Double the map's size."""
        return super().forward(F.interpolate(input, scale_factor=2, mode="bilinear"))


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


class PersonLandmarks(LandmarkNetwork):
    """The network as MediaPipe uses it: where a person's joints are, and whether there is one."""

    def __init__(self, size: LandmarkSize = FULL):
        super().__init__(size)
        self.presence = nn.Conv2d(TOWER_CHANNELS, 1, 2)

    def forward(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 39 5"], Float[Tensor, "b"]]:
        """Return the landmarks' values and the logit that there is a person, of RGB in [0, 1]."""
        hidden = self.look(images)
        values = self.landmarks(hidden).unflatten(1, (NUM_LANDMARKS, LANDMARK_VALUES))
        return values.flatten(2), self.presence(hidden).flatten()


def anchor_points() -> Float[Tensor, "2254 2"]:
    """Where the anchors are: their cells' centres, in input pixels, in the network's order."""
    points = []
    for stride, num_anchors in ANCHORS_PER_CELL.items():
        ticks = torch.arange(stride / 2, INPUT_SIDE, stride)
        grid = torch.cartesian_prod(ticks, ticks).flip(1)  # row by row, as (x, y)
        points.append(grid.repeat_interleave(num_anchors, dim=0))
    return torch.cat(points)

"""BlazePose's landmark network (Bazarevsky et al., arXiv 2006.10204) in plain torch; as a backbone.

It was trained on photos of people: what its "full" variant knows of real images crosses over to a
body model that has seen rendered people only. The "heavy" variant finds landmarks only. The
segmentation branch is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.backbones.mobile import Conv, InvertedResidual

INPUT_SIDE = 256
"""Side of the network's square input in pixels; crops are brought to it."""
NUM_LANDMARKS = 39
"""33 of the body, two by which the next view is cut, four that MediaPipe leaves unused."""
LANDMARK_VALUES = 5
"""Of each: x, y, z in pixels of the input (z from the hips, negative towards the camera), then
logits of being visible and of being inside."""
LANDMARK_SCALE = (1 / 256, 1 / 256, 1 / 256, 1 / 8, 1 / 8)
"""Brings a landmark's values to about one."""
COARSEST_SCALE = 1 / 16
"""Brings the encoder's coarsest map, whose values go to 100, to the size of what is said of the
whole crop: what sums them both, as the Transformer's queries do, would else see the map alone."""
LATERAL_CHANNELS = 48
TOWER_CHANNELS = 288


class Blocks(NamedTuple):
    """A run of inverted residuals; the first of a stage halves the map."""

    channels: int
    kernel: int
    count: int
    widening: int = 6
    """Hidden channels of a block by those of its input."""


@dataclass(frozen=True)
class LandmarkSize:
    """How wide and deep a variant of the network is."""

    stem_channels: int
    stages: tuple[tuple[Blocks, ...], ...]
    """Those at 1/4, 1/8, 1/16 and 1/32 of the input's side."""
    refined: tuple[tuple[int, int], ...]
    """Channels, and blocks behind the first one, of the stages at 1/8, 1/16 and 1/32 that look at
    the decoded map a second time; empty for variants that lack them."""
    tower: tuple[int, int]
    """Blocks behind the two that halve the map."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps that a decoder reads: the stages', the last one widened."""
        *fine, coarsest = (stage[-1] for stage in self.stages)
        return *(blocks.channels for blocks in fine), coarsest.widening * coarsest.channels


FULL = LandmarkSize(
    stem_channels=16,
    stages=(
        (Blocks(24, 3, 1, widening=4), Blocks(24, 3, 1)),
        (Blocks(32, 5, 2),),
        (Blocks(64, 3, 3), Blocks(88, 5, 3)),
        (Blocks(144, 5, 4),),
    ),
    refined=(),
    tower=(4, 5),
)
HEAVY = LandmarkSize(
    stem_channels=24,
    stages=(
        (Blocks(32, 3, 2, widening=4), Blocks(32, 3, 2)),
        (Blocks(56, 5, 4),),
        (Blocks(112, 3, 6), Blocks(160, 5, 6)),
        (Blocks(272, 5, 8),),
    ),
    refined=((96, 6), (192, 7), (TOWER_CHANNELS, 7)),
    tower=(7, 7),
)


def inverted_residuals(in_channels: int, stage: Sequence[Blocks]) -> Iterator[InvertedResidual]:
    """Yield the blocks of a stage."""
    stride = 2
    for channels, kernel, count, widening in stage:
        for _ in range(count):
            hidden = widening * in_channels
            yield InvertedResidual(in_channels, hidden, channels, kernel, stride)
            in_channels, stride = channels, 1


class LandmarkNetwork(nn.Module):
    """The encoder, and what says where the landmarks are: in the image, and in metres."""

    def __init__(self, size: LandmarkSize = FULL):
        super().__init__()
        stem = size.stem_channels
        ends = [stage[-1].channels for stage in size.stages]
        stages = [
            nn.Sequential(*inverted_residuals(channels, stage))
            for channels, stage in zip((stem, *ends), size.stages, strict=False)
        ]
        self.stage4 = nn.Sequential(
            Conv(3, 24, 3, 2, relu=True),
            Conv(24, 24, 3, groups=24, relu=True),
            Conv(24, stem),
            *stages[0],
        )
        self.stage8, self.stage16, self.stage32 = stages[1:]
        wide = size.channels[-1]
        self.widen = nn.Sequential(
            Conv(ends[-1], wide, relu=True), Conv(wide, wide, 3, groups=wide, relu=True)
        )
        self.refinement = Refinement(size) if size.refined else None
        self.tower = nn.Sequential(
            Lateral(wide, TOWER_CHANNELS),
            *tower_blocks(TOWER_CHANNELS, TOWER_CHANNELS, size.tower[0]),
            *tower_blocks(TOWER_CHANNELS, TOWER_CHANNELS, size.tower[1]),
        )
        self.landmarks = nn.Conv2d(TOWER_CHANNELS, NUM_LANDMARKS * LANDMARK_VALUES, 2)
        self.world_landmarks = nn.Conv2d(TOWER_CHANNELS, NUM_LANDMARKS * 3, 2)

    def encode(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b _ 64 64"], Float[Tensor, "b _ 32 32"], Float[Tensor, "b _ 16 16"]]:
        """Return the encoder's maps but the coarsest: four fifths of all the work."""
        images = F.interpolate(images, (INPUT_SIDE, INPUT_SIDE), mode="bilinear")
        stage4 = self.stage4(images)
        stage8 = self.stage8(stage4)
        return stage4, stage8, self.stage16(stage8)

    def look(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 288 2 2"]:
        """Return the last hidden layer, which the landmarks are read from."""
        encoded = self.encode(images)
        wide = self.widen(self.stage32(encoded[-1]))
        lateral, *blocks = self.tower
        hidden = lateral(wide)
        if self.refinement is not None:
            hidden = hidden + self.refinement(*encoded, wide)
        for block in blocks:
            hidden = block(hidden)
        return hidden


class Decoder(nn.ModuleList):
    """Brings an encoder's maps, from the coarsest on, to `LATERAL_CHANNELS`, and adds them up."""

    def __init__(self, size: LandmarkSize = FULL):
        super().__init__(Lateral(channels) for channels in size.channels)

    def forward(self, *encoded: Float[Tensor, "b _ _ _"]) -> list[Float[Tensor, "b 48 _ _"]]:
        """Return the sums at 1/16, 1/8 and 1/4 of the input's side, of maps from fine to coarse."""
        (coarsest, wide), *rest = reversed(list(zip(self, encoded, strict=True)))
        decoded, x = [], coarsest(wide)
        for lateral, finer in rest:
            x = lateral(finer) + F.interpolate(x, scale_factor=2.0, mode="bilinear")
            decoded.append(x)
        return decoded


class Refinement(nn.Module):
    """The heavy variant's second look: it encodes the decoded map anew, beside the first maps."""

    def __init__(self, size: LandmarkSize):
        super().__init__()
        self.laterals = Decoder(size)
        ends = [channels for channels, _ in size.refined]
        self.stages = nn.ModuleList(
            nn.Sequential(*tower_blocks(before, channels, count))
            for before, (channels, count) in zip(
                (LATERAL_CHANNELS, *ends[:-1]), size.refined, strict=True
            )
        )
        self.shortcuts = nn.ModuleList(
            Lateral(channels, refined)
            for channels, refined in zip(size.channels[1:-1], ends[:-1], strict=True)
        )

    def forward(self, *encoded: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b 288 8 8"]:
        """Return what is added to the coarsest map, of the encoder's maps from fine to coarse."""
        x = self.laterals(*encoded)[-1]
        *stages, last = self.stages
        for stage, shortcut, first in zip(stages, self.shortcuts, encoded[1:-1], strict=True):
            x = stage(x) + shortcut(first)
        return last(x)


class BlazePoseBackbone(LandmarkNetwork):
    """Three feature maps of one crop, finest first: 32, 16 and 8 pixels wide.

    The first is what the network's heatmaps are made of, at half their size, which makes the
    Transformer four times as fast; the second the same at an earlier stage of the decoder. The last
    is the encoder's coarsest, and behind its channels, the same at every pixel, what the network
    says of the whole crop: its last hidden layer, then its landmarks in the image and in metres. So
    the pooled coarsest features, which the initial regressor and the queries see, hold them as they
    are.
    """

    landmark_scale: Float[Tensor, "k 1 1"]
    pixel_mean = (0.0,) * 3
    pixel_std = (1.0,) * 3
    finest_side = INPUT_SIDE // 8
    uniform_channels = 4 * TOWER_CHANNELS + NUM_LANDMARKS * (LANDMARK_VALUES + 3)
    """So many of the coarsest map's last channels are the same at every pixel."""
    channels = (*(LATERAL_CHANNELS,) * 2, 144 + uniform_channels)

    def __init__(self):
        super().__init__()
        self.laterals = Decoder()
        scale = torch.tensor(LANDMARK_SCALE * NUM_LANDMARKS)[:, None, None]
        self.register_buffer("landmark_scale", scale, persistent=False)

    def forward(self, images: Float[Tensor, "b 3 224 224"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps of RGB crops in [0, 1]."""
        return self.decode(*self.encode(images))

    def decode(
        self,
        stage4: Float[Tensor, "b 24 64 64"],
        stage8: Float[Tensor, "b 32 32 32"],
        stage16: Float[Tensor, "b 88 16 16"],
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps of what `encode` gave."""
        wide, coarsest = self.look_at_all(stage16)
        decoded = self.laterals(stage4, stage8, stage16, wide)
        return [F.avg_pool2d(decoded[2], 2), decoded[0], coarsest]

    def look_at_all(
        self, stage16: Float[Tensor, "b 88 16 16"]
    ) -> tuple[Float[Tensor, "b 864 8 8"], Float[Tensor, "b 1608 8 8"]]:
        """Return what the decoder begins with, and the coarsest map."""
        stage32 = self.stage32(stage16)
        wide = self.widen(stage32)
        hidden = self.tower(wide)
        landmarks = self.landmark_scale * self.landmarks(hidden)
        of_the_crop = [hidden.flatten(1)[:, :, None, None], landmarks, self.world_landmarks(hidden)]
        # (b, 1464, 1, 1) -> (b, 1464, 8, 8): the same at every pixel
        everywhere = torch.cat(of_the_crop, dim=1).expand(-1, -1, *stage32.shape[2:])
        return wide, torch.cat([COARSEST_SCALE * stage32, everywhere], dim=1)


class Lateral(nn.Sequential):
    """Depthwise 3 x 3, then pointwise convolution, each with ReLU6."""

    def __init__(self, in_channels: int, out_channels: int = LATERAL_CHANNELS):
        super().__init__(
            Conv(in_channels, in_channels, 3, groups=in_channels, relu=True),
            Conv(in_channels, out_channels, relu=True),
        )


class TowerBlock(nn.Module):
    """A separable convolution round a shortcut; with stride 2, the shortcut is max-pooled.

    Where there are more channels behind than before, the shortcut has zeros for the new ones.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.stride, self.new_channels = stride, out_channels - in_channels
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        """Refine the map."""
        shortcut = x if self.stride == 1 else F.max_pool2d(x, 2)
        if self.new_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        # TensorFlow pads an even side before a stride of 2 behind only
        padded = F.pad(x, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1))
        y = self.pointwise(F.relu6(self.depthwise(padded)))
        return F.relu6(shortcut + y)


def tower_blocks(in_channels: int, channels: int, count: int) -> Iterator[TowerBlock]:
    """Yield a block that halves the map, and so many behind it."""
    yield TowerBlock(in_channels, channels, stride=2)
    for _ in range(count):
        yield TowerBlock(channels, channels)

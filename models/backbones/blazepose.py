"""BlazePose's landmark network (Bazarevsky et al., arXiv 2006.10204) as a backbone, in plain torch.

Its "full" variant, trained on photos of people: what it knows of real images crosses over to a body
model that has seen rendered people only. The segmentation branch is left out.
"""

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


class LandmarkNetwork(nn.Module):
    """The encoder, and what says where the landmarks are: in the image, and in metres."""

    def __init__(self):
        super().__init__()
        self.stage4 = nn.Sequential(
            Conv(3, 24, 3, 2, relu=True),
            Conv(24, 24, 3, groups=24, relu=True),
            Conv(24, 16),
            InvertedResidual(16, 64, 24, 3, 2),
            InvertedResidual(24, 144, 24, 3, 1),
        )
        self.stage8 = nn.Sequential(
            InvertedResidual(24, 144, 32, 5, 2), InvertedResidual(32, 192, 32, 5, 1)
        )
        self.stage16 = nn.Sequential(
            InvertedResidual(32, 192, 64, 3, 2),
            InvertedResidual(64, 384, 64, 3, 1),
            InvertedResidual(64, 384, 64, 3, 1),
            InvertedResidual(64, 384, 88, 5, 1),
            InvertedResidual(88, 528, 88, 5, 1),
            InvertedResidual(88, 528, 88, 5, 1),
        )
        self.stage32 = nn.Sequential(
            InvertedResidual(88, 528, 144, 5, 2),
            *[InvertedResidual(144, 864, 144, 5, 1) for _ in range(3)],
        )
        self.widen = nn.Sequential(
            Conv(144, 864, relu=True), Conv(864, 864, 3, groups=864, relu=True)
        )
        self.tower = nn.Sequential(
            Lateral(864, TOWER_CHANNELS),
            TowerBlock(stride=2),
            *[TowerBlock() for _ in range(4)],
            TowerBlock(stride=2),
            *[TowerBlock() for _ in range(5)],
        )
        self.landmarks = nn.Conv2d(TOWER_CHANNELS, NUM_LANDMARKS * LANDMARK_VALUES, 2)
        self.world_landmarks = nn.Conv2d(TOWER_CHANNELS, NUM_LANDMARKS * 3, 2)

    def encode(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[
        Float[Tensor, "b 24 64 64"], Float[Tensor, "b 32 32 32"], Float[Tensor, "b 88 16 16"]
    ]:
        """Return the encoder's maps but the coarsest: four fifths of all the work."""
        images = F.interpolate(images, (INPUT_SIDE, INPUT_SIDE), mode="bilinear")
        stage4 = self.stage4(images)
        stage8 = self.stage8(stage4)
        return stage4, stage8, self.stage16(stage8)


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
    channels = (
        *(LATERAL_CHANNELS,) * 2,
        144 + 4 * TOWER_CHANNELS + NUM_LANDMARKS * (LANDMARK_VALUES + 3),
    )

    def __init__(self):
        super().__init__()
        self.laterals = nn.ModuleList(Lateral(channels) for channels in (24, 32, 88, 864))
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
        decoded, x = [], self.laterals[3](wide)
        for lateral, encoded in zip(self.laterals[2::-1], (stage16, stage8, stage4), strict=True):
            x = lateral(encoded) + F.interpolate(x, scale_factor=2.0, mode="bilinear")
            decoded.append(x)
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
    """A separable convolution round a shortcut; with stride 2, the shortcut is max-pooled."""

    def __init__(self, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(TOWER_CHANNELS, TOWER_CHANNELS, 3, stride, groups=TOWER_CHANNELS)
        self.pointwise = nn.Conv2d(TOWER_CHANNELS, TOWER_CHANNELS, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c _ _"]:
        """Refine the map."""
        shortcut = x if self.stride == 1 else F.max_pool2d(x, 2)
        # TensorFlow pads an even side before a stride of 2 behind only
        padded = F.pad(x, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1))
        y = self.pointwise(F.relu6(self.depthwise(padded)))
        return F.relu6(shortcut + y)

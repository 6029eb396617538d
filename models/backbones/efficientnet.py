"""EfficientNet-Lite (Tan and Le, ICML 2019; its Lite variants, Google 2020): a small backbone.

Lite is EfficientNet without squeeze-and-excitation, with ReLU6, and with a stem and a last stage
that do not grow. Same mathematics as timm's `tf_efficientnet_lite*`; `scripts/build/imagenet.py`
proves it.
"""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.backbones.recompute import normalise, recomputing, saves_memory

SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Variant -> factor of the channels, factor of the blocks."""
STEM_CHANNELS = 32
STAGES = (
    # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
OUTPUTS = (1, 2, 4, 6)
"""The last stage of each side: 1/4, 1/8, 1/16 and 1/32 of the image's."""


class EfficientNetLite(nn.Module):
    """Four feature maps of one image, finest first, as `HRNet` gives them.

    There is no classification head. Sides must be multiples of 32. `recompute` as of `HRNet`.

    Args:
        variant: a name in `SCALES`.
    """

    pixel_mean = (127 / 255,) * 3
    pixel_std = (128 / 255,) * 3
    finest_side = 56

    def __init__(self, variant: str = "lite0"):
        super().__init__()
        self.recompute = False
        width, depth = SCALES[variant]
        self.stem = ConvNorm(3, STEM_CHANNELS, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        in_channels, sizes = STEM_CHANNELS, []
        for number, (expansion, kernel, stride, channels, blocks) in enumerate(STAGES):
            if number not in (0, len(STAGES) - 1):
                blocks = math.ceil(depth * blocks)
            channels = _round_channels(width * channels)
            stage = nn.Sequential()
            for _ in range(blocks):
                stage.append(InvertedBottleneck(in_channels, channels, expansion, kernel, stride))
                in_channels, stride = channels, 1
            self.stages.append(stage)
            sizes.append(channels)
        self.channels = tuple(sizes[number] for number in OUTPUTS)
        self.apply(_init_weights)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the four maps of normalised images."""
        if saves_memory(self):
            with recomputing():
                return self._maps(images)
        return self._maps(images)

    def _maps(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        x = self.stem(images)
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in OUTPUTS:
                maps.append(x)
        return maps


class InvertedBottleneck(nn.Module):
    """1x1 to many channels, depthwise, 1x1 to few, round a shortcut (MobileNetV2, CVPR 2018)."""

    def __init__(self, in_channels: int, channels: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = in_channels * expansion
        self.expand = ConvNorm(in_channels, wide) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, channels, activation=False)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ _ _"]:
        """Refine a map."""
        y = self.depthwise(self.expand(x))
        return self.project(y, shortcut=x if self.has_shortcut else None)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless told otherwise, ReLU6."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ):
        super().__init__()
        # TensorFlow pads an even side before a stride of 2 by one less in front than behind
        self.padding = ((kernel - 2) // 2, (kernel - 1) // 2) * 2 if stride == 2 else None
        inside = 0 if self.padding else kernel // 2
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride, padding=inside, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(channels, eps=1e-3)
        self.activation = nn.ReLU6(inplace=True) if activation else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b c h w"], shortcut: Float[Tensor, "b _ _ _"] | None = None
    ) -> Float[Tensor, "b _ _ _"]:
        """Map channels; a shortcut is added before the activation."""
        if self.padding:
            x = F.pad(x, self.padding)
        return normalise(self.norm, self.conv(x), shortcut, self.activation)


def _round_channels(channels: float, divisor: int = 8) -> int:
    """Return the nearest multiple, at most a tenth below."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def _init_weights(module: nn.Module) -> None:
    """He et al.'s variance of the outputs' fan."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

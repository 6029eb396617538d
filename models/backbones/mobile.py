"""Blocks that BlazePose's networks share (MobileNetV2: Sandler et al., CVPR 2018), plain torch."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map."""
        return F.relu6(super().forward(input)) if self.relu else super().forward(input)


class InvertedResidual(nn.Sequential):
    """A block that widens, filters and narrows a map (Sandler et al., MobileNetV2, CVPR 2018)."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, kernel: int, stride: int):
        super().__init__(
            Conv(in_channels, hidden, relu=True),
            Conv(hidden, hidden, kernel, stride, groups=hidden, relu=True),
            Conv(hidden, out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Filter the map; the input is added where shapes agree."""
        return input + super().forward(input) if self.residual else super().forward(input)

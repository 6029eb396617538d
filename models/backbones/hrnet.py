"""HRNet-W32 / W48 (Sun et al., "Deep High-Resolution Representation Learning", CVPR 2019).

Submodule names are the ones under which HRNet's pose weights are published.
"""

from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.backbones.recompute import normalise, recomputing, saves_memory
from smpler.utils.initialisation import WithoutRandomInit

WIDTHS = {"w32": 32, "w48": 48}
NUM_MODULES = (1, 4, 3)
"""Exchange modules of stages 2, 3 and 4, which have 2, 3 and 4 branches."""
NUM_BLOCKS = 4
"""Residual blocks of a branch, and of `layer1`."""


class HRNet(nn.Module):
    """Four feature maps of one image, finest first.

    The last module keeps all four outputs: channels width * (1, 2, 4, 8), sides 1/4 to 1/32 of the
    image's. There is no classification or heatmap head.

    With `recompute` set, training keeps 84 instead of 148 MiB an image; the numbers are the same.
    """

    pixel_mean = (0.485, 0.456, 0.406)
    pixel_std = (0.229, 0.224, 0.225)
    finest_side = 56

    def __init__(self, width: int):
        super().__init__()
        self.recompute = False
        self.channels = tuple(width * 2**branch for branch in range(4))
        with WithoutRandomInit():
            self._build()
        self.apply(_init_weights)

    def _build(self) -> None:
        self.conv1 = _conv3x3(3, 64, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = _conv3x3(64, 64, stride=2)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        bottlenecks = [Bottleneck(64 if i == 0 else 256, 64) for i in range(NUM_BLOCKS)]
        self.layer1 = nn.Sequential(*bottlenecks)
        channels = (256,)
        for stage, num_modules in enumerate(NUM_MODULES, start=2):
            target = self.channels[:stage]
            self.add_module(f"transition{stage - 1}", _transition(channels, target))
            self.add_module(
                f"stage{stage}",
                nn.Sequential(*[ExchangeModule(target) for _ in range(num_modules)]),
            )
            channels = target

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the four maps of normalised images."""
        if saves_memory(self):
            with recomputing():
                return self._maps(images)
        return self._maps(images)

    def _maps(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        x = normalise(self.bn1, self.conv1(images), activation=self.relu)
        x = normalise(self.bn2, self.conv2(x), activation=self.relu)
        maps = [self.layer1(x)]
        for stage in range(2, 5):
            steps = self.get_submodule(f"transition{stage - 1}").children()
            # a new branch starts from the coarsest map so far
            maps = [step(maps[min(i, len(maps) - 1)]) for i, step in enumerate(steps)]
            maps = self.get_submodule(f"stage{stage}")(maps)
        return maps


class ExchangeModule(nn.Module):
    """Parallel branches of residual blocks, then every branch adds up all of them."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*[BasicBlock(width) for _ in range(NUM_BLOCKS)]) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_resample(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Exchange the information of all resolutions."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            first, *others = layers.children()
            total = first(maps[0])
            for layer, x in zip(others, maps[1:], strict=True):
                total = total + layer(x)
            fused.append(self.relu(total))
        return fused


class BasicBlock(nn.Module):
    """Two 3x3 convolutions round a shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = _conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Refine a map."""
        y = normalise(self.bn1, self.conv1(x), activation=self.relu)
        return normalise(self.bn2, self.conv2(y), x, self.relu)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions round a shortcut; four times as many channels come out."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        out_channels = 4 * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Identity()
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Refine a map."""
        y = normalise(self.bn1, self.conv1(x), activation=self.relu)
        y = normalise(self.bn2, self.conv2(y), activation=self.relu)
        return normalise(self.bn3, self.conv3(y), self.downsample(x), self.relu)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class Conv3x3Norm(nn.Sequential):
    """3x3 convolution, batch normalisation, and ReLU if asked."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, relu: bool):
        layers = [_conv3x3(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels)]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if relu else []))

    def forward(self, input: Tensor) -> Tensor:
        """Map channels."""
        conv, norm, *activation = self
        return normalise(norm, conv(input), activation=activation[0] if activation else None)


def _transition(channels: tuple[int, ...], target: tuple[int, ...]) -> nn.ModuleList:
    """Match the channels of existing branches; start the new one at half the coarsest side."""
    steps: list[nn.Module] = [
        nn.Identity() if old == new else Conv3x3Norm(old, new, stride=1, relu=True)
        for old, new in zip(channels, target, strict=False)
    ]
    steps.append(nn.Sequential(Conv3x3Norm(channels[-1], target[-1], stride=2, relu=True)))
    return nn.ModuleList(steps)


def _resample(channels: tuple[int, ...], source: int, target: int) -> nn.Module:
    """Bring one branch to another's channels and side: 1x1 and enlarge, or strided 3x3s."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(channels[source], channels[target], 1, bias=False),
            nn.BatchNorm2d(channels[target]),
            nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"),
        )
    steps = [
        Conv3x3Norm(channels[source], channels[source], stride=2, relu=True)
        for _ in range(target - source - 1)
    ]
    steps.append(Conv3x3Norm(channels[source], channels[target], stride=2, relu=False))
    return nn.Sequential(*steps)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.001)

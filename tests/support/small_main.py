"""main.py with a backbone of four convolutions, for quick steps; all else is real."""

import sys

from torch import nn

import main as program
from smpler.models.smpler import build_smpler
from smpler.training import assembly


class TinyBackbone(nn.Module):
    """The four maps of HRNet-W32, from one convolution each."""

    channels = (32, 64, 128, 256)

    def __init__(self):
        super().__init__()
        pairs = zip((3, *self.channels), self.channels, (4, 2, 2, 2), strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, step, step) for a, b, step in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in self.channels)

    def forward(self, images):
        maps = [images]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            maps.append(norm(layer(maps[-1])).relu())
        return maps[1:]


def build_tiny(config, body):
    """Return the configuration's model on a `TinyBackbone`."""
    model = build_smpler(config, body)
    model.backbone = TinyBackbone()
    return model


def main() -> int:
    """Run main.py's `main`."""
    assembly.build_smpler = build_tiny
    return program.main()


if __name__ == "__main__":
    sys.exit(main())

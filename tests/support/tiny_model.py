"""A whole SMPLer that runs and exports in a moment: few channels, a body of 20 vertices."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from smpler.models.backbones import BACKBONES, BackboneEntry
from smpler.models.body import body_from_arrays
from smpler.models.smpler import SMPLer, SMPLerConfig, build_smpler
from tests.conftest import tiny_arrays


class TinyBackbone(nn.Module):
    pixel_mean, pixel_std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    finest_side = 56
    channels = (8, 16, 24, 32)

    def __init__(self):
        super().__init__()
        sizes = [(3, 4), *zip((4, *self.channels), self.channels, strict=False)]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in sizes
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[-4:]


def tiny_model(monkeypatch: pytest.MonkeyPatch, num_blocks: int = 2) -> SMPLer:
    """Weights and batch statistics are drawn at a scale at which every part matters."""
    monkeypatch.setitem(BACKBONES, "tiny", BackboneEntry(TinyBackbone, Path("none")))
    rng = np.random.default_rng(1)
    regressor = rng.random((17, 20))
    body = body_from_arrays(tiny_arrays(), name="tiny")
    body = body.with_h36m_regressor(regressor / regressor.sum(1, keepdims=True))
    model = build_smpler(SMPLerConfig("tiny", num_blocks=num_blocks, num_units=1), body)
    generator = torch.Generator().manual_seed(0)

    def normal(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    for name, value in model.state_dict().items():
        if "mean_" in name or not value.is_floating_point():
            continue
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.ndim > 1:
            gain = 0.1 if "head" in name else 1.0
            value.copy_(gain * normal(value) / value[0].numel() ** 0.5)
        else:
            value.copy_(0.1 * normal(value) + ("norm" in name and name.endswith("weight")))
    for block in model.blocks:
        block.rot6d_head.bias.data[[0, 3]] += 1.0
    return model.eval()

"""Backbones: what they promise, and the table of those that there are.

A new backbone is one file in this folder and one row in `BACKBONES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.backbones.blazepose import BlazePoseBackbone
from smpler.models.backbones.efficientnet import SCALES, EfficientNetLite
from smpler.models.backbones.hrnet import WIDTHS, HRNet
from smpler.utils.paths import USER_PRETRAINED


@runtime_checkable
class Backbone(Protocol):
    """A module from normalised crops to feature maps, finest first, each half as wide as the last.

    It may have an attribute `recompute`; set to True, training keeps fewer activations, see
    `smpler.models.backbones.recompute`; and `uniform_channels`: how many of the coarsest map's last
    channels are the same at every pixel.
    """

    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    """RGB in [0, 1] is normalised by them before it is given to the backbone."""
    finest_side: int
    """Side of the first map of a crop of 224 pixels."""
    channels: tuple[int, ...]
    """Of each map."""

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps of normalised images."""
        ...


@dataclass(frozen=True)
class BackboneEntry:
    """A row of the table."""

    make: Callable[[], nn.Module]
    """Returns a `Backbone` at its initialisation."""
    weights_file: Path
    """What it starts from, if the file is there: weights of pose estimation or of ImageNet."""
    preset: str | None = None
    """Name of the model on it (PRESETS); with `-backbone` appended, of its stage-1 model."""


BACKBONES = {
    # HRNet's published pose weights: W32 trained on MPII, W48 on COCO
    "hrnet-w32": BackboneEntry(
        partial(HRNet, WIDTHS["w32"]),
        USER_PRETRAINED / "hrnet" / "pose_hrnet_w32_256x256.pth",
        preset="smpler",
    ),
    "hrnet-w48": BackboneEntry(
        partial(HRNet, WIDTHS["w48"]),
        USER_PRETRAINED / "hrnet" / "pose_hrnet_w48_256x192.pth",
        preset="smpler-l",
    ),
    # written by `python -m scripts.build.imagenet`
    **{
        f"efficientnet-{variant}": BackboneEntry(
            partial(EfficientNetLite, variant),
            USER_PRETRAINED / f"efficientnet_{variant}.pt",
            preset="smpler-lite" if variant == "lite0" else None,
        )
        for variant in SCALES
    },
    # written by `python -m scripts.build.blazepose`
    "blazepose-full": BackboneEntry(
        BlazePoseBackbone, USER_PRETRAINED / "blazepose_full.pt", preset="smpler-blaze"
    ),
}
"""Name, as in `SMPLerConfig.backbone` and `--backbone`, -> backbone."""

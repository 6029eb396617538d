"""SMPLer (Xu, Liu, Yan, TPAMI 2024): one image in; a posed body out, refined in stages."""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.attention import MultiHeadAttention
from smpler.models.backbones import BACKBONES, Backbone
from smpler.models.body import Body, mean_parameters
from smpler.models.regressor import IterativeRegressor
from smpler.models.smpl import SMPL, Estimate
from smpler.models.transformer import QueryEmbedding, TransformerBlock
from smpler.utils.geometry import rot6d_to_rotmat

IMAGE_SIZE = 224


@dataclass(frozen=True)
class SMPLerConfig:
    """Every number that shapes the network; saved in each checkpoint."""

    backbone: str = "hrnet-w32"
    """A name in `BACKBONES`."""
    num_blocks: int = 3
    """Transformer blocks; with none, the model is the stage-1 baseline."""
    num_units: int = 2
    dim: int = 128
    num_heads: int = 4
    mlp_dim: int = 256
    dropout: float = 0.1

    def __post_init__(self):
        if self.backbone not in BACKBONES:
            known = ", ".join(BACKBONES)
            raise ValueError(f"backbone is {self.backbone!r}; choose one of {known}.")
        if self.num_blocks < 0:
            raise ValueError(f"num_blocks is {self.num_blocks}; it cannot be negative.")
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}.")

    def to_dict(self) -> dict:
        """Return plain values, as checkpoints store them."""
        return asdict(self)


PRESETS = {
    row.preset + suffix: SMPLerConfig(backbone, num_blocks=num_blocks)
    for suffix, num_blocks in (("", 3), ("-backbone", 0))
    for backbone, row in BACKBONES.items()
    if row.preset
}
"""The paper's SMPLer and SMPLer-L, the same on other backbones, and their stage-1 models."""


def build_smpler(config: SMPLerConfig, body: Body) -> "SMPLer":
    """Return the model of a configuration and a body, at its initialisation."""
    pose, betas = (torch.from_numpy(x).to(torch.get_default_dtype()) for x in mean_parameters(body))
    return SMPLer(config, SMPL(body), mean_rot6d=pose, mean_betas=betas)


class SMPLer(nn.Module):
    """Backbone features, an initial estimate, then Transformer blocks that refine it.

    Args:
        config: the network's numbers.
        smpl: the body layer.
        mean_rot6d: (144,) pose from which the initial regressor starts.
        mean_betas: (10,) shape from which it starts.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        config: SMPLerConfig,
        smpl: SMPL,
        mean_rot6d: Float[Tensor, "144"],
        mean_betas: Float[Tensor, "10"],
    ):
        super().__init__()
        self.config = config
        self.backbone = backbone = BACKBONES[config.backbone].make()
        assert isinstance(backbone, Backbone)
        mean, std = (torch.tensor(x) for x in (backbone.pixel_mean, backbone.pixel_std))
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)
        channels = backbone.channels
        self.regressor = IterativeRegressor(channels[-1], mean_rot6d, mean_betas)
        if config.num_blocks:
            self.query_embedding = QueryEmbedding(channels[-1], config.dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                channels,
                side=backbone.finest_side,
                dim=config.dim,
                num_units=config.num_units,
                num_heads=config.num_heads,
                mlp_dim=config.mlp_dim,
                dropout=config.dropout,
            )
            for _ in range(config.num_blocks)
        )
        self.smpl = smpl

    def forward(
        self,
        images: Float[Tensor, "b 3 224 224"] | list[Float[Tensor, "b _ _ _"]],
        all_stages: bool = False,
        with_vertices: bool = True,
    ) -> list[Estimate]:
        """Estimate the person in each crop.

        Args:
            images: RGB in [0, 1]; mean and deviation are the model's own business. Or what
                `encode` returns of them.
            all_stages: pose the whole body at every stage; otherwise the stages before the last
                hold only the skeleton, which is all that the next block needs.
            with_vertices: False leaves the vertices out where the body would be posed; keypoints
                are there all the same.

        Returns:
            One estimate per stage: the initial one, then one per block; the last is the answer.
        """
        features = images if isinstance(images, list) else self.encode(images)
        return self.estimate(features, all_stages, with_vertices)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the backbone's maps, finest first, of RGB in [0, 1]."""
        return self.backbone((images - self.mean) / self.std)

    def estimate(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        all_stages: bool = False,
        with_vertices: bool = True,
    ) -> list[Estimate]:
        """Do all that follows the backbone; `forward` says what is returned."""
        body = "mesh" if with_vertices else "keypoints"
        before_last = body if all_stages else "skeleton"
        pooled = features[-1].to(self.mean.dtype).mean(dim=(2, 3))
        with full_precision(pooled):  # what all else builds upon, and costs next to nothing
            rot6d, betas, cam = self.regressor(pooled)
            rotmat = rot6d_to_rotmat(rot6d)
            parts = before_last if self.blocks else body
            estimates = [self.smpl.estimate(rotmat, betas, cam, parts)]
        queries = self.query_embedding(rotmat, betas, cam, pooled) if self.blocks else None

        for number, block in enumerate(self.blocks, start=1):
            queries, d_rot6d, d_betas, d_cam = block(queries, features, estimates[-1].joints_2d)
            with full_precision(pooled):
                rotmat = rotmat @ rot6d_to_rotmat(d_rot6d.to(rotmat.dtype))
                betas, cam = betas + d_betas, cam + d_cam
                parts = before_last if number < len(self.blocks) else body
                estimates.append(self.smpl.estimate(rotmat, betas, cam, parts))
        return estimates


def set_dropout(model: SMPLer, probability: float) -> None:
    """Set all dropout: a short training needs less of it than the published one."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        elif isinstance(module, MultiHeadAttention):
            module.dropout = probability


def full_precision(like: Tensor) -> torch.autocast:
    """Leave autocast: rotations, the body and cameras are computed as precisely as stored."""
    return torch.autocast(like.device.type, enabled=False)

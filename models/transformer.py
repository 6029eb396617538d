"""Decoupled attention with an SMPL-based target (Xu, Liu, Yan: SMPLer, TPAMI 2024, Sec. 3).

Every query attends to full-resolution maps, and only the few queries attend to each other: the
cost is linear in the number of pixels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.attention import LAYER_NORM_EPS, PreNormLayer
from smpler.utils.joints import NUM_JOINTS

NUM_QUERIES = NUM_JOINTS + 1 + 1
"""One query a joint, one for betas, one for the camera."""
WINDOW_RADIUS = 4
"""A joint's window holds the 8 x 8 pixels round it: offsets -3 to +4 from the one it lies in."""


class QueryEmbedding(nn.Module):
    """Initial queries from the initial estimate and the pooled coarsest features (Sec. 3.2)."""

    def __init__(self, num_features: int, dim: int):
        super().__init__()
        self.rotmat = nn.Linear(9, dim)
        self.betas = nn.Linear(10, dim)
        self.cam = nn.Linear(3, dim)
        self.feature = nn.Linear(num_features, dim)

    def forward(
        self,
        rotmat: Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
        cam: Float[Tensor, "b 3"],
        feature: Float[Tensor, "b c"],
    ) -> Float[Tensor, "b 26 d"]:
        """Embed joints, betas and camera; the image feature is added to all of them."""
        tokens = [
            self.rotmat(rotmat.flatten(2)),
            self.betas(betas)[:, None],
            self.cam(cam)[:, None],
        ]
        return torch.cat(tokens, dim=1) + self.feature(feature)[:, None]


class MultiScaleAttention(nn.Module):
    """All queries attend to every position of each map; the layers' outputs are averaged."""

    def __init__(self, num_scales: int, dim: int, num_heads: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(
            PreNormLayer(dim, num_heads, mlp_dim, dropout) for _ in range(num_scales)
        )

    def forward(
        self, queries: Float[Tensor, "b q d"], maps: list[Float[Tensor, "b _ d"]]
    ) -> Float[Tensor, "b q d"]:
        """Attend to the flattened maps, one layer a scale (Sec. 3.4)."""
        answers = [layer(queries, x) for layer, x in zip(self.layers, maps, strict=True)]
        return torch.stack(answers).mean(dim=0)


class JointAwareAttention(nn.Module):
    """Each joint's query attends to the pixels round the joint's projection only (Sec. 3.5)."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, dropout: float):
        super().__init__()
        side = 2 * WINDOW_RADIUS + 1
        self.bias_table = nn.Parameter(torch.zeros(1, num_heads, side, side))
        self.layer = PreNormLayer(dim, num_heads, mlp_dim, dropout)

    def forward(
        self,
        queries: Float[Tensor, "b 24 d"],
        windows: Float[Tensor, "b 24 n d"],
        offsets: Float[Tensor, "b 24 n 2"],
    ) -> Float[Tensor, "b 24 d"]:
        """Attend from each joint to its own window.

        Args:
            queries: of the joints.
            windows: features of each joint's window.
            offsets: window pixel minus joint (x, y), in pixels; chooses the relative position bias.
        """
        batch, num_joints = queries.shape[:2]
        # (b, 24, n, d) -> (b * 24, n, d): one query a joint, and its own context
        answer = self.layer(
            queries.flatten(0, 1)[:, None], windows.flatten(0, 1), self._bias(offsets.flatten(0, 1))
        )
        return answer.unflatten(0, (batch, num_joints))[:, :, 0]

    def _bias(self, offsets: Float[Tensor, "m n 2"]) -> Float[Tensor, "m h 1 n"]:
        """Read the table between its entries; (0, 0) is its middle, zeros outside."""
        # one table as a (1, h, 9, 9) image, m x n places in it
        bias = F.grid_sample(self.bias_table, offsets[None] / WINDOW_RADIUS, align_corners=True)
        return bias[0].transpose(0, 1)[:, :, None]  # (h, m, n) -> (m, h, 1, n)


class TransformerUnit(nn.Module):
    """Multi-scale and joint-aware attention side by side, then self-attention (Sec. 3.3)."""

    def __init__(self, num_scales: int, dim: int, num_heads: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.multi_scale = MultiScaleAttention(num_scales, dim, num_heads, mlp_dim, dropout)
        self.joint_aware = JointAwareAttention(dim, num_heads, mlp_dim, dropout)
        self.self_attention = PreNormLayer(dim, num_heads, mlp_dim, dropout)

    def forward(
        self,
        queries: Float[Tensor, "b 26 d"],
        maps: list[Float[Tensor, "b _ d"]],
        windows: Float[Tensor, "b 24 n d"],
        offsets: Float[Tensor, "b 24 n 2"],
    ) -> Float[Tensor, "b 26 d"]:
        """Gather what the image says, then let the queries talk to each other."""
        seen = self.multi_scale(queries, maps)
        near = self.joint_aware(queries[:, :NUM_JOINTS], windows, offsets)
        joints = 0.5 * (seen[:, :NUM_JOINTS] + near)
        return self.self_attention(torch.cat([joints, seen[:, NUM_JOINTS:]], dim=1))


class TransformerBlock(nn.Module):
    """Refines an estimate once: looks at the image round the posed joints, then updates.

    Args:
        channels: of the backbone's maps, finest first.
        side: of the finest map, pixels.
        num_units: Transformer units in sequence.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        side: int,
        dim: int,
        num_units: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float,
    ):
        super().__init__()
        self.map_projections = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in channels)
        self.map_norms = nn.ModuleList(nn.LayerNorm(dim, eps=LAYER_NORM_EPS) for _ in channels)
        self.map_position = nn.Parameter(torch.empty(1, dim, side, side))
        self.joint_feature = nn.Linear(dim, dim)
        self.embedding = nn.Linear(dim, dim)
        self.query_position = nn.Embedding(NUM_QUERIES, dim)
        self.dropout = nn.Dropout(dropout)
        self.units = nn.ModuleList(
            TransformerUnit(len(channels), dim, num_heads, mlp_dim, dropout)
            for _ in range(num_units)
        )
        self.out = nn.Linear(dim, dim)
        self.residual = nn.Linear(dim, dim)
        self.rot6d_head = nn.Linear(dim, 6)
        self.betas_head = nn.Linear(dim, 10)
        self.cam_head = nn.Linear(dim, 3)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.map_position, std=0.1)
        for head in (self.rot6d_head, self.betas_head, self.cam_head):
            nn.init.normal_(head.weight, std=0.001)
        # the update starts as the identity rotation, in 6D at a tenth of unit length
        self.rot6d_head.bias.data[[0, 3]] = 0.1

    def forward(
        self,
        queries: Float[Tensor, "b 26 d"],
        features: list[Float[Tensor, "b _ _ _"]],
        joints_2d: Float[Tensor, "b 24 2"],
    ) -> tuple[
        Float[Tensor, "b 26 d"],
        Float[Tensor, "b 24 6"],
        Float[Tensor, "b 10"],
        Float[Tensor, "b 3"],
    ]:
        """Look and update.

        Args:
            queries: of the block before.
            features: the backbone's maps, finest first.
            joints_2d: the current estimate's joints, crop coordinates in [-1, 1].

        Returns:
            The new queries, then the updates: a 6D rotation of each joint (multiplied from the
            right), and what is added to betas and camera.
        """
        maps = self._project_maps(features)
        at_joint, windows, offsets = sample_joints(maps[0], joints_2d)
        joint_feature = self.joint_feature(at_joint)
        everyone = joint_feature.mean(dim=1, keepdim=True).expand(-1, 2, -1)
        queries = queries + torch.cat([joint_feature, everyone], dim=1)

        positioned = self._add_positions(maps)
        tokens = self.dropout(self.embedding(queries) + self.query_position.weight)
        for unit in self.units:
            tokens = unit(tokens, positioned, windows, offsets)
        queries = self.out(tokens) + self.residual(queries)

        joints, betas, cam = queries.split([NUM_JOINTS, 1, 1], dim=1)
        rot6d = self.rot6d_head(joints)
        return queries, rot6d, self.betas_head(betas)[:, 0], self.cam_head(cam)[:, 0]

    def _project_maps(
        self, features: list[Float[Tensor, "b _ _ _"]]
    ) -> list[Float[Tensor, "b _ _ d"]]:
        """Bring every map to the queries' width and normalise it over its channels."""
        return [
            norm(project(feature).permute(0, 2, 3, 1))  # (b, d, s, s) -> (b, s, s, d)
            for project, norm, feature in zip(
                self.map_projections, self.map_norms, features, strict=True
            )
        ]

    def _add_positions(self, maps: list[Float[Tensor, "b _ _ d"]]) -> list[Float[Tensor, "b _ d"]]:
        """Add the learned position, pooled to each map's side, and flatten the maps."""
        positioned, position = [], self.map_position
        for x in maps:
            rows = position.permute(0, 2, 3, 1).contiguous()  # adding it as it lies is slow
            positioned.append((x + rows).flatten(1, 2))
            position = F.avg_pool2d(position, 2)
        return positioned


def sample_joints(
    features: Float[Tensor, "b s s d"], joints_2d: Float[Tensor, "b 24 2"]
) -> tuple[Float[Tensor, "b 24 d"], Float[Tensor, "b 24 n d"], Float[Tensor, "b 24 n 2"]]:
    """Read a map at each joint and in the window round it.

    Args:
        features: the finest map, channels last.
        joints_2d: crop coordinates in [-1, 1]; -1 and 1 are the centres of the border pixels.

    Returns:
        The bilinear sample at each joint (zeros outside the map), the features of its window's
        n = 64 pixels (clamped to the border), and their offsets from the joint in pixels.
    """
    batch, num_joints = joints_2d.shape[:2]
    last = features.shape[1] - 1
    at_joint = F.grid_sample(features.permute(0, 3, 1, 2), joints_2d[:, None], align_corners=True)
    joint_px = (joints_2d + 1) / 2 * last
    steps = torch.arange(1 - WINDOW_RADIUS, WINDOW_RADIUS + 1, device=joints_2d.device)
    window = torch.cartesian_prod(steps, steps)  # (n, 2)
    pixels = (joint_px.detach().floor()[:, :, None] + window).clamp(0, last)
    pixels = pixels.nan_to_num()  # a diverged training must reach its loss, not a bad index
    x, y = pixels.long().unbind(-1)
    image = torch.arange(batch, device=joints_2d.device)[:, None, None]
    row = ((image * (last + 1) + y) * (last + 1) + x).flatten()  # among all pixels of the batch
    windows = features.flatten(0, 2).index_select(0, row).unflatten(0, (batch, num_joints, -1))
    return at_joint[:, :, 0].transpose(1, 2), windows, pixels - joint_px[:, :, None]

"""The published formulation in plain PyTorch: what `benchmarks` measures our model against.

It shares the modules, hence the parameters and the state dict, of one of our models, and computes
the same numbers the way the paper states them: keys and values of every position are projected and
stored, the whole body is posed and its keypoints are regressed at every stage, nothing is fused.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.attention import MultiHeadAttention, PreNormLayer
from smpler.models.backbones.hrnet import BasicBlock, Bottleneck, ExchangeModule, HRNet
from smpler.models.smpl import SMPL, Estimate
from smpler.models.smpler import SMPLer
from smpler.models.transformer import (
    NUM_JOINTS,
    WINDOW_RADIUS,
    JointAwareAttention,
    TransformerBlock,
    TransformerUnit,
)
from smpler.utils.geometry import project, rot6d_to_rotmat
from smpler.utils.joints import KEYPOINTS_FROM_H36M, SMPL_PARENTS


class PublishedSMPLer(nn.Module):
    """The plain counterpart of a model: same parameters, same answers, published arithmetic."""

    def __init__(self, model: SMPLer):
        super().__init__()
        self.register_buffer("mean", model.mean, persistent=False)
        self.register_buffer("std", model.std, persistent=False)
        self.backbone = model.backbone
        self.regressor = model.regressor
        if model.blocks:
            self.query_embedding = model.query_embedding
        self.blocks = model.blocks
        self.smpl = PublishedSMPL(model.smpl)

    def forward(self, images: Float[Tensor, "b 3 224 224"]) -> list[Estimate]:
        """Return the whole estimate of every stage."""
        features = hrnet(self.backbone, (images - self.mean) / self.std)
        return self.refine(features)

    def refine(self, features: list[Float[Tensor, "b _ _ _"]]) -> list[Estimate]:
        """Do everything that follows the backbone."""
        pooled = features[-1].mean(dim=(2, 3))
        rot6d, betas, cam = self.regressor(pooled)
        rotmat = rot6d_to_rotmat(rot6d)
        estimates = [self.smpl(rotmat, betas, cam)]
        if self.blocks:
            queries = self.query_embedding(rotmat, betas, cam, pooled)
        for module in self.blocks:
            joints_2d = estimates[-1].joints_2d
            queries, d_rot6d, d_betas, d_cam = block(module, queries, features, joints_2d)
            rotmat = rotmat @ rot6d_to_rotmat(d_rot6d)
            betas, cam = betas + d_betas, cam + d_cam
            estimates.append(self.smpl(rotmat, betas, cam))
        return estimates


class PublishedSMPL(nn.Module):
    """SMPL with every vertex at every stage and 4 x 4 transforms (Loper et al., 2015, eq. 2-9)."""

    def __init__(self, smpl: SMPL):
        super().__init__()
        body, like = smpl.body, smpl.v_template
        arrays = {
            "v_template": body.v_template,
            "shapedirs": body.shapedirs,
            "posedirs": body.posedirs.reshape(-1, body.posedirs.shape[-1]).T,
            "J_regressor": body.J_regressor,
            "lbs_weights": body.lbs_weights,
            "h36m_regressor": body.h36m_regressor,
        }
        for name, value in arrays.items():
            value = torch.from_numpy(value.copy()).to(like)
            self.register_buffer(name, value, persistent=False)

    def forward(
        self,
        rotmat: Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
        cam: Float[Tensor, "b 3"],
    ) -> Estimate:
        """Pose the body, regress its keypoints, project."""
        shaped = self.v_template + torch.einsum("bk,vck->bvc", betas, self.shapedirs)
        rest_joints = torch.einsum("jv,bvc->bjc", self.J_regressor, shaped)
        identity = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)
        pose_feature = (rotmat[:, 1:] - identity).flatten(1)
        rest = shaped + (pose_feature @ self.posedirs).unflatten(1, (-1, 3))

        joints, transforms = rigid_transforms(rotmat, rest_joints)
        blended = (self.lbs_weights @ transforms.flatten(2)).unflatten(2, (4, 4))
        vertices = (blended @ F.pad(rest, (0, 1), value=1.0)[..., None])[..., :3, 0]
        h36m = torch.einsum("jv,bvc->bjc", self.h36m_regressor, vertices)
        keypoints = h36m[:, KEYPOINTS_FROM_H36M]
        return Estimate(
            rotmat,
            betas,
            cam,
            project(joints, cam),
            joints,
            vertices,
            keypoints,
            project(keypoints, cam),
            h36m[:, 0],
        )


def rigid_transforms(
    rotmat: Float[Tensor, "b 24 3 3"], rest: Float[Tensor, "b 24 3"]
) -> tuple[Float[Tensor, "b 24 3"], Float[Tensor, "b 24 4 4"]]:
    """Chain the joints' 4 x 4 transforms; return posed joints, and rest pose to posed body."""
    bones = rest.clone()
    bones[:, 1:] = rest[:, 1:] - rest[:, list(SMPL_PARENTS[1:])]
    local = torch.cat([F.pad(rotmat, (0, 0, 0, 1)), F.pad(bones, (0, 1), value=1.0)[..., None]], -1)
    chain = [local[:, 0]]
    for joint in range(1, NUM_JOINTS):
        chain.append(chain[SMPL_PARENTS[joint]] @ local[:, joint])
    posed = torch.stack(chain, dim=1)
    moved_rest = posed @ F.pad(rest, (0, 1))[..., None]
    return posed[..., :3, 3], posed - F.pad(moved_rest, (3, 0))


def hrnet(backbone: HRNet, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
    """HRNet, one kernel after the other."""
    x = torch.relu(backbone.bn1(backbone.conv1(images)))
    x = torch.relu(backbone.bn2(backbone.conv2(x)))
    for bottleneck in backbone.layer1:
        x = residual_block(bottleneck, x)
    maps = [x]
    for stage in range(2, 5):
        transition = backbone.get_submodule(f"transition{stage - 1}")
        maps = [step(maps[min(i, len(maps) - 1)]) for i, step in enumerate(transition)]
        for module in backbone.get_submodule(f"stage{stage}"):
            maps = exchange(module, maps)
    return maps


def residual_block(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    """Two or three convolutions round a shortcut."""
    y = torch.relu_(block.bn1(block.conv1(x)))
    y = block.bn2(block.conv2(y))
    shortcut = x
    if isinstance(block, Bottleneck):
        y = block.bn3(block.conv3(torch.relu_(y)))
        shortcut = block.downsample(x)
    return torch.relu_(y + shortcut)


def exchange(module: ExchangeModule, maps: list[Tensor]) -> list[Tensor]:
    """Branches, then every branch adds up all of them."""
    refined = []
    for blocks, x in zip(module.branches, maps, strict=True):
        for basic in blocks:
            x = residual_block(basic, x)
        refined.append(x)
    fused = []
    for layers in module.fuse_layers:
        total = layers[0](refined[0])
        for layer, x in zip(layers[1:], refined[1:], strict=True):
            total = total + layer(x)
        fused.append(torch.relu(total))
    return fused


def block(
    module: TransformerBlock, queries: Tensor, features: list[Tensor], joints_2d: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One Transformer block (SMPLer, Sec. 3)."""
    maps = [
        norm(projection(x).permute(0, 2, 3, 1))
        for projection, norm, x in zip(
            module.map_projections, module.map_norms, features, strict=True
        )
    ]
    at_joint, windows, offsets = sample_joints(maps[0], joints_2d)
    joint_feature = module.joint_feature(at_joint)
    mean = joint_feature.mean(dim=1, keepdim=True)
    queries = queries + torch.cat([joint_feature, mean, mean], dim=1)
    position, positioned = module.map_position, []
    for x in maps:
        positioned.append((x + position.permute(0, 2, 3, 1)).flatten(1, 2))
        position = F.avg_pool2d(position, 2)
    tokens = module.dropout(module.embedding(queries) + module.query_position.weight)
    for one in module.units:
        tokens = unit(one, tokens, positioned, windows, offsets)
    queries = module.out(tokens) + module.residual(queries)
    rot6d = module.rot6d_head(queries[:, :NUM_JOINTS])
    betas = module.betas_head(queries[:, NUM_JOINTS])
    return queries, rot6d, betas, module.cam_head(queries[:, NUM_JOINTS + 1])


def sample_joints(features: Tensor, joints_2d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bilinear samples at the joints; the 64 pixels round each, and their offsets from it."""
    last = features.shape[1] - 1
    at_joint = F.grid_sample(features.permute(0, 3, 1, 2), joints_2d[:, None], align_corners=True)
    joint_px = (joints_2d + 1) / 2 * last
    steps = torch.arange(1 - WINDOW_RADIUS, WINDOW_RADIUS + 1, device=joints_2d.device)
    window = torch.cartesian_prod(steps, steps)
    pixels = (joint_px.detach().floor()[:, :, None] + window).clamp(0, last)
    x, y = pixels.long().unbind(-1)
    batch = torch.arange(len(features), device=features.device)[:, None, None]
    return at_joint[:, :, 0].mT, features[batch, y, x], pixels - joint_px[:, :, None]


def unit(
    module: TransformerUnit,
    queries: Tensor,
    maps: list[Tensor],
    windows: Tensor,
    offsets: Tensor,
) -> Tensor:
    """Multi-scale and joint-aware attention side by side, then self-attention."""
    layers = zip(module.multi_scale.layers, maps, strict=True)
    seen = torch.stack([pre_norm_layer(layer, queries, x) for layer, x in layers]).mean(dim=0)
    near = joint_aware(module.joint_aware, queries[:, :NUM_JOINTS], windows, offsets)
    joints = 0.5 * (seen[:, :NUM_JOINTS] + near)
    tokens = torch.cat([joints, seen[:, NUM_JOINTS:]], dim=1)
    return pre_norm_layer(module.self_attention, tokens, None)


def joint_aware(
    module: JointAwareAttention, queries: Tensor, windows: Tensor, offsets: Tensor
) -> Tensor:
    """Each joint attends to its own window, with a relative position bias."""
    places = offsets.flatten(0, 1)[None] / WINDOW_RADIUS
    bias = F.grid_sample(module.bias_table, places, align_corners=True)
    bias = bias[0].transpose(0, 1)[:, :, None]
    rows = queries.flatten(0, 1)[:, None]
    answer = pre_norm_layer(module.layer, rows, windows.flatten(0, 1), bias)
    return answer[:, 0].unflatten(0, (-1, NUM_JOINTS))


def pre_norm_layer(
    layer: PreNormLayer, queries: Tensor, context: Tensor | None, bias: Tensor | None = None
) -> Tensor:
    """Attention and MLP, each with a shortcut."""
    normed = layer.norm(queries)
    context = normed if context is None else context
    queries = queries + layer.dropout(layer.out(attend(layer.attention, normed, context, bias)))
    return queries + layer.mlp(queries)


def attend(
    attention: MultiHeadAttention, queries: Tensor, context: Tensor, bias: Tensor | None
) -> Tensor:
    """Scaled dot-product attention with keys and values of every position (Vaswani et al.)."""
    heads = (attention.num_heads, -1)
    query = attention.query(queries).unflatten(2, heads).transpose(1, 2)
    key = attention.key(context).unflatten(2, heads).transpose(1, 2)
    value = attention.value(context).unflatten(2, heads).transpose(1, 2)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if bias is not None:
        scores = scores + bias
    probability = F.dropout(scores.softmax(dim=-1), attention.dropout, attention.training)
    return (probability @ value).transpose(1, 2).flatten(2)

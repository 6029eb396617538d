"""The Transformer's blocks for inference: same numbers, far fewer and larger operations.

The five attention layers of a unit, one a map and one for the joints' windows, read the same
queries: their weights are stacked and they run side by side. What does not depend on the image
(positions, scaling, products of biases) is computed once.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.attention import LAYER_NORM_EPS, PreNormLayer
from smpler.models.transformer import TransformerBlock, TransformerUnit
from smpler.utils.joints import NUM_JOINTS


class FastBlock(TransformerBlock):
    """A `TransformerBlock` in eval mode; it holds copies of the weights and cannot be trained."""

    def __init__(self, block: TransformerBlock):
        nn.Module.__init__(self)  # the parts are the other block's
        self.map_projections = nn.ModuleList(
            _as_linear(conv) for conv in cast(list[nn.Conv2d], block.map_projections)
        )
        self.map_norms = block.map_norms
        position = block.map_position.detach()
        for number in range(len(self.map_norms)):
            rows = position[0].permute(1, 2, 0).flatten(0, 1).contiguous()  # (s * s, d)
            self.register_buffer(f"position{number}", rows, persistent=False)
            position = F.avg_pool2d(position, 2)
        self.joint_feature, self.embedding = block.joint_feature, block.embedding
        self.query_position, self.dropout = block.query_position, block.dropout
        self.units = nn.ModuleList(
            FastUnit(unit) for unit in cast(list[TransformerUnit], block.units)
        )
        self.out, self.residual = block.out, block.residual
        self.rot6d_head, self.betas_head = block.rot6d_head, block.betas_head
        self.cam_head = block.cam_head

    def _project_maps(
        self, features: list[Float[Tensor, "b _ _ _"]]
    ) -> list[Float[Tensor, "b _ _ d"]]:
        return [
            norm(project(x.permute(0, 2, 3, 1)))  # (b, c, s, s) -> (b, s, s, d)
            for project, norm, x in zip(self.map_projections, self.map_norms, features, strict=True)
        ]

    def _add_positions(self, maps: list[Float[Tensor, "b _ _ d"]]) -> list[Float[Tensor, "b _ d"]]:
        return [
            x.flatten(1, 2).add_(self.get_buffer(f"position{number}"))
            for number, x in enumerate(maps)
        ]


class FastUnit(nn.Module):
    """A `TransformerUnit` whose multi-scale and joint-aware layers run as one stack."""

    # `_fold_layer` describes them; l layers, h heads
    query_weight: Float[Tensor, "l d d"]
    query_bias: Float[Tensor, "l d"]
    key_weight: Float[Tensor, "l h c d"]
    value_weight: Float[Tensor, "l h d c"]
    out_weight: Float[Tensor, "l d d"]
    out_bias: Float[Tensor, "l 1 d"]
    up_weight: Float[Tensor, "l d m"]
    up_bias: Float[Tensor, "l 1 m"]
    down_weight: Float[Tensor, "l m d"]
    down_bias: Float[Tensor, "l 1 d"]

    def __init__(self, unit: TransformerUnit):
        super().__init__()
        self.joint_aware, self.self_attention = unit.joint_aware, unit.self_attention
        layers = [*cast(list[PreNormLayer], unit.multi_scale.layers), unit.joint_aware.layer]
        self.num_heads = layers[0].attention.num_heads
        stacks = [_fold_layer(layer) for layer in layers]
        for name in stacks[0]:
            value = torch.stack([stack[name] for stack in stacks])
            self.register_buffer(name, value.to(layers[0].out.weight.dtype), persistent=False)

    def forward(
        self,
        tokens: Float[Tensor, "b 26 d"],
        maps: list[Float[Tensor, "b _ d"]],
        windows: Float[Tensor, "b 24 n d"],
        offsets: Float[Tensor, "b 24 n 2"],
    ) -> Float[Tensor, "b 26 d"]:
        """Gather what the image says, then let the queries talk to each other."""
        batch, num_queries, dim = tokens.shape
        windows, offsets = windows.flatten(0, 1), offsets.flatten(0, 1)  # one joint a row
        normed = _normalise(tokens).flatten(0, 1)
        query = torch.addmm(self.query_bias.flatten(), normed, self.query_weight.flatten(0, 1).T)
        # (b * q, l * h * c) -> (l * h, b * q, c): layers and heads beside each other
        query = query.unflatten(1, (-1, dim // self.num_heads)).transpose(0, 1)
        query = query @ self.key_weight.flatten(0, 1)
        query = query.unflatten(1, (batch, -1)).unflatten(0, (-1, self.num_heads))
        seen = [self._see(asked, x) for asked, x in zip(query[:-1], maps, strict=True)]
        near = self._see_windows(query[-1][:, :, :NUM_JOINTS], windows, offsets)
        # betas and camera have no window; their rows of the last layer are not used
        seen.append(F.pad(near, (0, 0, 0, num_queries - NUM_JOINTS)))
        answer = torch.stack(seen).flatten(0, 1).flatten(1, 2) @ self.value_weight.flatten(0, 1)
        # (l * h, b * q, c) -> (l, b * q, h * c)
        answer = answer.unflatten(0, (-1, self.num_heads)).transpose(1, 2).flatten(2)
        middle = torch.baddbmm(self.out_bias, answer, self.out_weight) + tokens.flatten(0, 1)
        hidden = F.gelu(torch.baddbmm(self.up_bias, _normalise(middle), self.up_weight))
        new = torch.baddbmm(self.down_bias, hidden, self.down_weight) + middle
        new = new.unflatten(1, (batch, num_queries))
        far = new[:-1].mean(dim=0)
        joints = 0.5 * (far[:, :NUM_JOINTS] + new[-1][:, :NUM_JOINTS])
        return self.self_attention(torch.cat([joints, far[:, NUM_JOINTS:]], dim=1))

    def _see(
        self, query: Float[Tensor, "h b q d"], tokens: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "h b q d"]:
        """Sum a map's tokens by the softmax of their scores."""
        asked = query.transpose(0, 1).flatten(1, 2)  # (b, h * q, d)
        if tokens.is_cpu and tokens.dtype != torch.float32:
            # so few queries' scores are small; torch's fused attention takes four times as long
            seen = (asked @ tokens.mT).softmax(dim=-1) @ tokens
        else:
            one = tokens[:, None]
            seen = F.scaled_dot_product_attention(asked[:, None], one, one, scale=1.0)[:, 0]
        return seen.unflatten(1, (self.num_heads, -1)).transpose(0, 1)

    def _see_windows(
        self,
        query: Float[Tensor, "h b 24 d"],
        windows: Float[Tensor, "m n d"],
        offsets: Float[Tensor, "m n 2"],
    ) -> Float[Tensor, "h b 24 d"]:
        """Sum each joint's window by the softmax of its scores."""
        asked = query.permute(1, 2, 0, 3).flatten(0, 1)  # (b * 24, h, d)
        bias = self.joint_aware._bias(offsets)[:, :, 0]
        probability = torch.baddbmm(bias, asked, windows.mT).softmax(dim=-1)
        seen = (probability @ windows).unflatten(0, (-1, NUM_JOINTS))
        return seen.permute(2, 0, 1, 3)


def _normalise(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Apply the LayerNorm whose scale and shift are part of the next weights."""
    return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)


def _as_linear(conv: nn.Conv2d) -> nn.Linear:
    """Return a 1 x 1 convolution as a linear layer on the channels."""
    assert conv.bias is not None
    linear = nn.Linear(conv.in_channels, conv.out_channels)
    linear.weight = nn.Parameter(conv.weight[:, :, 0, 0])
    linear.bias = nn.Parameter(conv.bias)
    return linear.to(conv.weight.dtype)


@torch.no_grad()
def _fold_layer(layer: PreNormLayer) -> dict[str, Tensor]:
    """Return a layer's weights in float64, its norms and value bias folded in."""
    attention, norm = layer.attention, layer.norm
    heads = (attention.num_heads, -1)
    query, key, value, out = (
        linear.weight.double()
        for linear in (attention.query, attention.key, attention.value, layer.out)
    )
    mlp_norm, up, _, down, _ = layer.mlp
    assert isinstance(mlp_norm, nn.LayerNorm)
    assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
    scale = 1 / math.sqrt(len(key) // attention.num_heads)
    query_bias = attention.query.bias.double() + query @ norm.bias.double()
    return {
        "query_weight": scale * query * norm.weight.double(),  # (h * c, d)
        "query_bias": scale * query_bias,
        "key_weight": key.unflatten(0, heads),  # (h, c, d)
        "value_weight": value.unflatten(0, heads).mT,  # (h, d, c)
        "out_weight": out.T,
        # probabilities sum to one, so that the value's bias is one more bias of `out`
        "out_bias": (layer.out.bias.double() + out @ attention.value.bias.double())[None],
        "up_weight": (up.weight.double() * mlp_norm.weight.double()).T,
        "up_bias": (up.bias.double() + up.weight.double() @ mlp_norm.bias.double())[None],
        "down_weight": down.weight.double().T,
        "down_bias": down.bias.double()[None],
    }

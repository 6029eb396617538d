"""Multi-head attention with an additive score bias, and the pre-norm layer round it."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-12


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., NeurIPS 2017) from queries to other tokens."""

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        context: Float[Tensor, "b k d"],
        bias: Float[Tensor, "b h #q k"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Attend from each query to all tokens of its context.

        Args:
            queries: what asks.
            context: what keys and values are made of.
            bias: added to the scores of each head.
        """
        query, key, value = (
            # (b, n, h * c) -> (b, h, n, c): heads beside the batch
            project(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project, x in ((self.query, queries), (self.key, context), (self.value, context))
        )
        dropout = self.dropout if self.training else 0.0
        answer = F.scaled_dot_product_attention(query, key, value, bias, dropout)
        return answer.transpose(1, 2).flatten(2)


class PreNormLayer(nn.Module):
    """Attention and MLP, each after a LayerNorm and with a shortcut.

    Only the query is normalised before the attention; the context is taken as it comes.
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = MultiHeadAttention(dim, num_heads, dropout)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim, eps=LAYER_NORM_EPS),
            nn.Linear(dim, mlp_dim),
            nn.GELU(),
            nn.Linear(mlp_dim, dim),
            nn.Dropout(dropout),
        )

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        context: Float[Tensor, "b k d"] | None = None,
        bias: Float[Tensor, "b h #q k"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Attend to the context; without one, the normalised queries attend to each other."""
        normed = self.norm(queries)
        answer = self.attention(normed, normed if context is None else context, bias)
        queries = queries + self.dropout(self.out(answer))
        return queries + self.mlp(queries)

"""Multi-head attention with an additive score bias, and the pre-norm layer round it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-12


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., NeurIPS 2017) from few queries to many tokens.

    Keys and values are never made: with key = Wk f + bk and value = Wv f + bv of a token f,
    q . key = (Wk^T q) . f + q . bk, and q . bk is the same for all tokens, so that the softmax
    cancels it; and the answer is Wv (sum of p f) + (sum of p) bv, p being the probabilities. The
    key's bias therefore changes nothing and gets no gradient; it is kept for published weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.key.bias.requires_grad_(False)
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
            context: what keys and values would be made of.
            bias: added to the scores of each head.
        """
        key, value = (
            # (h * c, d) -> (h, c, d): the rows of each head
            linear.weight.unflatten(0, (self.num_heads, -1))
            for linear in (self.key, self.value)
        )
        query = self.query(queries).unflatten(2, (self.num_heads, -1)) / math.sqrt(key.shape[1])
        query = torch.einsum("bqhc,hcd->bhqd", query, key)
        dropout = self.dropout if self.training else 0.0
        if dropout and torch.is_grad_enabled():  # scores are many and cheap: made twice, not kept
            seen, mass = checkpoint(
                sum_by_scores, query, context, bias, dropout, use_reentrant=False
            )
        else:
            seen, mass = sum_by_scores(query, context, bias, dropout)
        answer = torch.einsum("bhqd,hcd->bqhc", seen, value)
        value_bias = self.value.bias.unflatten(0, (self.num_heads, -1))
        return (answer + mass.transpose(1, 2) * value_bias).flatten(2)


def sum_by_scores(
    query: Float[Tensor, "b h q d"],
    context: Float[Tensor, "b k d"],
    bias: Float[Tensor, "b h #q k"] | None,
    dropout: float,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "#b #h #q 1"]]:
    """Sum the tokens of the context by the softmax of query . token + bias.

    Returns:
        The sums, and the sum of the probabilities that dropout left: 1 without dropout.
    """
    num_heads, num_queries = query.shape[1:3]
    if bias is not None:
        bias = bias.expand(-1, -1, num_queries, -1).flatten(1, 2)
    query = query.flatten(1, 2)  # (b, h, q, d) -> (b, h * q, d): heads ask the same tokens
    if dropout:
        scores = query @ context.mT
        scores = scores if bias is None else scores + bias
        probability = F.dropout(scores.softmax(dim=-1), dropout)
        mass = probability.sum(dim=-1, keepdim=True).unflatten(1, (num_heads, -1))
        seen = probability @ context
    else:
        mass = query.new_ones(1, 1, 1, 1)
        mask = None if bias is None else bias[:, None]
        one = context[:, None]
        seen = F.scaled_dot_product_attention(query[:, None], one, one, mask, scale=1.0)[:, 0]
    return seen.unflatten(1, (num_heads, -1)), mass


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

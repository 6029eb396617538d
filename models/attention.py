"""Multi-head attention with an additive score bias, and the pre-norm layer round it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
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
        if dropout:
            # drawn here, for scores are many and cheap: they are made twice, not kept
            kept = draw_kept(query, context, dropout)
            seen, mass = checkpoint(
                sum_by_kept_scores,
                query,
                context,
                bias,
                kept,
                1 / (1 - dropout),
                use_reentrant=False,
                preserve_rng_state=False,  # nothing is drawn in it; a CUDA graph could not keep it
            )
        else:
            seen, mass = sum_by_scores(query, context, bias)
        answer = torch.einsum("bhqd,hcd->bqhc", seen, value)
        value_bias = self.value.bias.unflatten(0, (self.num_heads, -1))
        return (answer + mass.transpose(1, 2) * value_bias).flatten(2)


def sum_by_scores(
    query: Float[Tensor, "b h q d"],
    context: Float[Tensor, "b k d"],
    bias: Float[Tensor, "b h #q k"] | None,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "1 1 1 1"]]:
    """Sum the tokens of the context by the softmax of query . token + bias.

    Returns:
        The sums, and the sum of the probabilities, which is 1.
    """
    num_heads = query.shape[1]
    mask = None if bias is None else _of_all_heads(bias, query)[:, None]
    query = query.flatten(1, 2)  # (b, h, q, d) -> (b, h * q, d): heads ask the same tokens
    one = context[:, None]
    seen = F.scaled_dot_product_attention(query[:, None], one, one, mask, scale=1.0)[:, 0]
    return seen.unflatten(1, (num_heads, -1)), query.new_ones(1, 1, 1, 1)


def draw_kept(
    query: Float[Tensor, "b h q d"], context: Float[Tensor, "b k d"], dropout: float
) -> Bool[Tensor, "b n k"]:
    """Draw which of the n = h * q probabilities of each token dropout leaves."""
    batch, num_heads, num_queries = query.shape[:3]
    shape = batch, num_heads * num_queries, context.shape[1]
    return torch.empty(shape, dtype=torch.bool, device=query.device).bernoulli_(1 - dropout)


def sum_by_kept_scores(
    query: Float[Tensor, "b h q d"],
    context: Float[Tensor, "b k d"],
    bias: Float[Tensor, "b h #q k"] | None,
    kept: Bool[Tensor, "b n k"],
    gain: float,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h q 1"]]:
    """Do as `sum_by_scores`, with dropout of the probabilities.

    Args:
        query: see `sum_by_scores`, also for context and bias.
        kept: see `draw_kept`; the other probabilities become 0.
        gain: what is kept grows by it.

    Returns:
        The sums, and the sums of the probabilities that are left.
    """
    num_heads = query.shape[1]
    scores = query.flatten(1, 2) @ context.mT
    scores = scores if bias is None else scores + _of_all_heads(bias, query)
    probability = torch.where(kept, gain * scores.softmax(dim=-1), 0)
    mass = probability.sum(dim=-1, keepdim=True).unflatten(1, (num_heads, -1))
    return (probability @ context).unflatten(1, (num_heads, -1)), mass


def _of_all_heads(
    bias: Float[Tensor, "b h #q k"], query: Float[Tensor, "b h q d"]
) -> Float[Tensor, "b n k"]:
    """Return the bias of each of the n = h * q queries of all heads."""
    return bias.expand(-1, -1, query.shape[2], -1).flatten(1, 2)


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

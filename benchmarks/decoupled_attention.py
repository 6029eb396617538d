"""Decoupled against full attention: python -m benchmarks.decoupled_attention --json FILE.

The paper's argument (SMPLer, Sec. 3.1): in full attention, pixels and queries all attend to each
other, which is quadratic in the number of pixels; in decoupled attention, the queries attend to the
pixels and to each other, which is linear. Both are timed in layers of the model's size, on maps of
growing sides; full attention gets torch's fused kernel, which keeps no scores. The main numbers are
those of the last side.
"""

import sys

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from benchmarks.harness import (
    Clock,
    add_clock_flags,
    add_flags,
    describe,
    parse,
    set_up,
    take_turns,
    write,
)
from smpler.models.attention import PreNormLayer
from smpler.models.smpler import SMPLerConfig
from smpler.models.transformer import NUM_QUERIES
from smpler.utils.flags import Parser, positive, program

SIDES = (7, 14, 28, 56, 112)


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write the numbers."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_flags(parser, batch=1)
    add_clock_flags(parser)
    sides = "sides of the maps, pixels"
    parser.add_argument("--sides", type=positive, nargs="+", default=SIDES, help=sides)
    arguments = parse(parser, argv)
    device, clock = set_up(arguments)
    config = SMPLerConfig()
    torch.manual_seed(0)
    layers = [
        PreNormLayer(config.dim, config.num_heads, config.mlp_dim, dropout=0.0).to(device).eval()
        for _ in range(2)
    ]
    rows = []
    print(f"{'side':>5}{'pixels':>8}{'decoupled ms':>14}{'full ms':>12}{'ratio':>8}")
    for side in arguments.sides:
        rows.append(measure(side, layers, arguments.batch, arguments.rounds, device, clock))
        print(
            f"{side:5}{side * side:8}{rows[-1]['ours_ms']:14.2f}"
            f"{rows[-1]['baseline_ms']:12.2f}{rows[-1]['throughput_ratio']:8.1f}",
            flush=True,
        )
    write(arguments.json, rows[-1] | {"sides": rows} | describe(arguments))
    return 0


@torch.inference_mode()
def measure(
    side: int,
    layers: list[PreNormLayer],
    batch: int,
    rounds: int,
    device: torch.device,
    clock: Clock,
) -> dict[str, float]:
    """Time both kinds of attention on one random map."""
    cross, among = layers
    dim = cross.out.in_features
    queries = torch.randn(batch, NUM_QUERIES, dim, device=device)
    tokens = torch.randn(batch, side * side, dim, device=device)
    everything = torch.cat([queries, tokens], dim=1)
    ways = {"ours": lambda: among(cross(queries, tokens)), "full": lambda: full(among, everything)}
    milliseconds = take_turns(ways, rounds, device, clock)
    return {
        "side": side,
        "baseline_ms": milliseconds["full"],
        "ours_ms": milliseconds["ours"],
        "throughput_ratio": milliseconds["full"] / milliseconds["ours"],
    }


def full(layer: PreNormLayer, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Let all tokens attend to each other, with keys and values of every one."""
    normed, attention = layer.norm(tokens), layer.attention
    query, key, value = (
        # (b, n, h * c) -> (b, h, n, c)
        linear(normed).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for linear in (attention.query, attention.key, attention.value)
    )
    answer = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    tokens = tokens + layer.out(answer)
    return tokens + layer.mlp(tokens)


if __name__ == "__main__":
    sys.exit(main())

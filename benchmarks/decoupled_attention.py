"""Decoupled against full attention: python -m benchmarks.decoupled_attention --json FILE.

The paper's argument (SMPLer, Sec. 3.1): full attention lets pixels and queries all attend to each
other, which is quadratic in the number of pixels; decoupled, the queries attend to the pixels and
to each other, which is linear. Layers of the model's size on maps of growing sides; full attention
gets torch's fused kernel, which keeps no scores. The main numbers are those of the last side.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from benchmarks.timing import machine, take_turns, write
from models.attention import PreNormLayer
from models.smpler import SMPLerConfig
from models.transformer import NUM_QUERIES
from utils.flags import positive

SIDES = (7, 14, 28, 56, 112)


def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--batch", type=positive, default=1)
    add("--rounds", type=positive, default=5, help="how often each side runs; medians are told")
    add("--sides", type=positive, nargs="+", default=SIDES, help="of the map, pixels")
    add("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    config = SMPLerConfig()
    torch.manual_seed(0)
    layers = [
        PreNormLayer(config.dim, config.num_heads, config.mlp_dim, dropout=0.0).to(device).eval()
        for _ in range(2)
    ]
    rows = []
    print(f"{'side':>5}{'pixels':>8}{'decoupled ms':>14}{'full ms':>12}{'ratio':>8}")
    for side in arguments.sides:
        rows.append(measure(side, layers, arguments.batch, arguments.rounds, device))
        print(
            f"{side:5}{side * side:8}{rows[-1]['ours_ms']:14.2f}"
            f"{rows[-1]['baseline_ms']:12.2f}{rows[-1]['throughput_ratio']:8.1f}",
            flush=True,
        )
    about = {"batch": arguments.batch, "rounds": arguments.rounds, "sides": rows}
    write(arguments.json, rows[-1] | about | machine(device))


@torch.inference_mode()
def measure(
    side: int, layers: list[PreNormLayer], batch: int, rounds: int, device: torch.device
) -> dict[str, float]:
    """Time both kinds of attention on one random map."""
    cross, among = layers
    dim = cross.out.in_features
    queries = torch.randn(batch, NUM_QUERIES, dim, device=device)
    tokens = torch.randn(batch, side * side, dim, device=device)
    everything = torch.cat([queries, tokens], dim=1)
    ways = {"ours": lambda: among(cross(queries, tokens)), "full": lambda: full(among, everything)}
    milliseconds = take_turns(ways, rounds, device)
    return {
        "side": side,
        "baseline_ms": milliseconds["full"],
        "ours_ms": milliseconds["ours"],
        "throughput_ratio": milliseconds["full"] / milliseconds["ours"],
    }


def full(layer: PreNormLayer, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Let all tokens attend to each other, keys and values of every one being made."""
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
    main()

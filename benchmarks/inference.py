"""Inference speed: python -m benchmarks.inference --device cpu --batch 8 --json FILE.

Ours and the published formulation (`benchmarks.published.model`: float32, eager, contiguous) take
turns on the same weights: the whole model, and the part behind the backbone alone. `ours_ms` is the
fastest of our ways, `ours` its name.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn

from benchmarks.harness import (
    add_clock_flags,
    add_flags,
    describe,
    parse,
    print_table,
    set_up,
    take_turns,
    write,
)
from benchmarks.published.model import PublishedSMPLer
from smpler.models.body import open_body
from smpler.models.inference.optimize import optimize_for_inference
from smpler.models.smpler import IMAGE_SIZE, PRESETS, SMPLer, build_smpler
from smpler.utils.flags import Parser, program

BASELINE = "published"


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print two tables, write the numbers."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_flags(parser, batch=8)
    add_clock_flags(parser)
    add = parser.add_argument
    add("--preset", choices=["smpler", "smpler-l"], default="smpler")
    add("--compile", action="store_true", help="also torch.compile, which takes minutes")
    add("--bf16", action="store_true", help="also bfloat16, for hardware that has it")
    arguments = parse(parser, argv)
    device, clock = set_up(arguments)
    model = calibrated_model(arguments.preset, device)
    ways = our_ways(model, arguments.compile, arguments.bf16)
    images = torch.rand(arguments.batch, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    with torch.inference_mode():
        whole = take_turns(whole_ways(model, ways, images), arguments.rounds, device, clock)
        head = take_turns(head_ways(model, ways, images), arguments.rounds, device, clock)
    print_table(f"{arguments.preset}, batch {arguments.batch}", whole, BASELINE, arguments.batch)
    print_table("Transformer and body alone", head, BASELINE, arguments.batch)
    numbers = summary(whole) | {f"head_{key}": value for key, value in summary(head).items()}
    write(arguments.json, numbers | {"preset": arguments.preset} | describe(arguments))
    return 0


def calibrated_model(preset: str, device: torch.device) -> SMPLer:
    """Return a model with random weights at the scale of a trained one's.

    At its initialisation HRNet's maps shrink to denormal numbers, which CPUs compute slowly.
    """
    torch.manual_seed(0)
    model = build_smpler(PRESETS[preset], open_body())
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of one batch, as they are
    with torch.no_grad():
        model.backbone.train()(torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE))
    return model.to(device).eval()


def our_ways(model: SMPLer, compile: bool, bf16: bool) -> dict[str, nn.Module]:
    """Return the ways to run one model on its device, by name."""
    ways = {"plain": model, "fused": optimize_for_inference(model)}
    if compile:
        ways["fused, compiled"] = optimize_for_inference(model, compile=True)
    if bf16:
        ways["fused, bf16"] = optimize_for_inference(model, dtype=torch.bfloat16)
    if bf16 and compile:
        ways["fused, bf16, compiled"] = optimize_for_inference(
            model, dtype=torch.bfloat16, compile=True
        )
    if model.mean.device.type == "cpu" and find_spec("onnxruntime") and find_spec("onnxscript"):
        ways["onnxruntime"] = optimize_for_inference(model, backend="onnxruntime")
    return ways


def whole_ways(
    model: SMPLer, ways: dict[str, nn.Module], images: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Return what takes crops to bodies; the baseline poses the body at every stage."""
    published = PublishedSMPLer(model)
    runs = {BASELINE: lambda: published(images)}
    return runs | {name: lambda way=way: way(images) for name, way in ways.items()}


def head_ways(
    model: SMPLer, ways: dict[str, nn.Module], images: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Return what takes the backbone's maps to bodies, without CUDA graphs."""
    features = model.backbone((images - model.mean) / model.std)
    published = PublishedSMPLer(model)
    runs = {BASELINE: lambda: published.refine(features)}
    for name, way in ways.items():
        if name.startswith("fused, bf16"):  # the same as `fused`, after the backbone
            continue
        estimate = getattr(way, "head", None) or getattr(way, "model", way).estimate
        runs[name] = lambda estimate=estimate: estimate(features)
    return runs


def summary(milliseconds: dict[str, float]) -> dict:
    """Return the times of the baseline and of the fastest of ours, their ratio, and all times."""
    ours = min((name for name in milliseconds if name != BASELINE), key=milliseconds.get)
    return {
        "baseline_ms": milliseconds[BASELINE],
        "ours_ms": milliseconds[ours],
        "throughput_ratio": milliseconds[BASELINE] / milliseconds[ours],
        "ours": ours,
        "ms": milliseconds,
    }


if __name__ == "__main__":
    sys.exit(main())

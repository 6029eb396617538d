"""Speed and memory of a training step: python -m benchmarks.training.

The time of forward pass, loss, backward pass and Adam, and the memory that the forward pass keeps
for the backward pass. Three ways take turns on the same data: the published formulation (float32,
eager, contiguous), ours, and ours with --recompute; on a GPU, also ours recorded as a CUDA graph
(`main.py --cuda_graph`). Memory is compared in one precision. Images are noise and labels are zero,
which changes neither time nor memory.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import add_flags, machine, parse, take_turns, write
from benchmarks.published.model import PublishedSMPLer
from smpler.models.body import open_body
from smpler.models.losses import SMPLLoss
from smpler.models.smpler import PRESETS, SMPLer, build_smpler
from smpler.training.engine import Precision
from smpler.training.steps.optimizer import optimizer_for, parameter_groups
from smpler.training.steps.step import PLAIN_STEPS, RecordedStep, Recorder, record_cuda_graph
from smpler.utils.flags import Parser, program

LEARNING_RATE = 1e-6
HRNET_PRESETS = [name for name, config in PRESETS.items() if config.backbone.startswith("hrnet")]
"""The published formulation has no other backbone."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write the numbers."""
    arguments = parse_arguments(argv)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    model = build_smpler(PRESETS[arguments.preset], open_body()).to(device).train()
    result = measure(model, random_batch(arguments.batch, device), arguments)
    result |= {name: getattr(arguments, name) for name in ("batch", "preset", "bf16", "compile")}
    result |= machine(device)
    print(f"{'':24}{'ms a step':>12}{'images/s':>10}{'MiB an image':>14}")
    for name in ("baseline", "ours", "recompute", "recorded"):
        if f"{name}_ms" in result:
            speed = f"{result[f'{name}_ms']:12.0f}{result[f'{name}_images_per_second']:10.2f}"
            kept = result.get(f"{name}_mib_per_image")
            print(f"{name:24}{speed}" + (f"{kept:14.1f}" if kept else ""))
    ratio, memory = result["throughput_ratio"], result["recompute_memory_ratio"]
    print(f"ours / baseline: speed {ratio:.2f}, memory {result['memory_ratio']:.2f} ({memory:.2f})")
    if "recorded_ms" in result:
        gain = result["baseline_ms"] / result["recorded_ms"]
        print(f"recorded / baseline: speed {gain:.2f}, peak {result['recorded_peak_gib']:.1f} GiB")
    write(arguments.json, result)
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_flags(parser, batch=8)
    parser.add_argument("--preset", choices=HRNET_PRESETS, default="smpler")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile")
    parser.add_argument("--channels_last", action="store_true", help="memory layout of ours")
    return parse(parser, argv)


def measure(model: SMPLer, batch: dict[str, Tensor], arguments: argparse.Namespace) -> dict:
    """Time the three ways in turns (medians), and measure the memory that each keeps."""
    size, device = len(batch["image"]), batch["image"].device
    ours = Precision(device, arguments.bf16)
    twin = copy.deepcopy(model)
    published = PublishedSMPLer(twin).train()
    own_batch = batch
    if arguments.channels_last:
        model.to(memory_format=torch.channels_last)
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        own_batch = batch | {"image": image}
    if arguments.compile:
        for part in (model.backbone, *model.blocks):
            part.compile()
    runs = {
        "baseline": Run(published, twin, batch, Precision(device)),
        "ours": Run(model, model, own_batch, ours),
        "recompute": Run(model, model, own_batch, ours, recompute=True),
    }
    ways: dict[str, Callable[[], None]] = {name: run.step for name, run in runs.items()}
    result = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        ways["recorded"] = recorded(model, own_batch, ours)
        result["recorded_peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    times = take_turns(ways, arguments.rounds, device)
    if "recorded" in ways:
        result["recorded_ms"] = times["recorded"]
        result["recorded_images_per_second"] = 1000 * size / times["recorded"]
    for name, run in runs.items():
        result[f"{name}_ms"] = times[name]
        result[f"{name}_images_per_second"] = 1000 * size / times[name]
        if name == "baseline":
            run = Run(published, twin, batch, ours)
        run.prepare()
        result[f"{name}_mib_per_image"] = kept_bytes(run.loss, device)[0] / size / 2**20
        if device.type == "cuda":
            result[f"{name}_peak_gib"] = peak_bytes(run.step, device) / 2**30
    for name, prefix in (("ours", ""), ("recompute", "recompute_")):
        memory = result[f"{name}_mib_per_image"] / result["baseline_mib_per_image"]
        result[f"{prefix}throughput_ratio"] = result["baseline_ms"] / result[f"{name}_ms"]
        result[f"{prefix}memory_ratio"] = memory
    return result


class Run:
    """Training steps in one formulation.

    Args:
        network: what is trained: `model`, or the published formulation round its parts.
        model: has the body that the loss poses.
        batch: images and labels.
        precision: what the network computes in.
        recompute: whether the backbone keeps fewer activations and computes them again.
    """

    def __init__(
        self,
        network: nn.Module,
        model: SMPLer,
        batch: dict[str, Tensor],
        precision: Precision,
        recompute: bool = False,
    ):
        self.network, self.model, self.precision = network, model, precision
        self.batch, self.recompute = batch, recompute
        self.criterion = SMPLLoss(model.smpl)
        fused = True if network is model else None  # None: the library's default
        self.optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=fused)

    def prepare(self) -> None:
        """Free the gradients, and put the model into this run's state."""
        self.model.backbone.recompute = self.recompute
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> Tensor:
        """Forward pass and loss."""
        with self.precision.autocast():
            estimate = self.network(self.batch["image"])[-1]
        return sum(self.criterion(estimate, self.batch).values())

    def step(self) -> None:
        """Do a whole step."""
        self.prepare()
        self.loss().backward()
        self.optimizer.step()


def recorded(
    model: SMPLer, batch: dict[str, Tensor], precision: Precision, record: Recorder | None = None
) -> Callable[[], None]:
    """Return steps of ours that are recorded, as the trainer does them.

    Args:
        model: in train mode.
        batch: images and labels.
        precision: what the network computes in.
        record: takes the recording; a CUDA graph by default.
    """
    Run(model, model, batch, precision).prepare()  # without --recompute
    groups = parameter_groups(model)
    optimizer = optimizer_for(groups, LEARNING_RATE, recorded=precision.device.type == "cuda")
    criterion = SMPLLoss(model.smpl)
    step = RecordedStep(model, criterion, optimizer, precision, record=record or record_cuda_graph)

    def take() -> None:
        step(batch, LEARNING_RATE, lambda terms: None)

    for _ in range(PLAIN_STEPS + 1):
        take()
    return take


def random_batch(size: int, device: torch.device) -> dict[str, Tensor]:
    """Return images of noise, with all labels annotated and zero."""
    generator = torch.Generator().manual_seed(0)
    zeros = {"pose": (72,), "betas": (10,), "keypoints_3d": (14, 4), "keypoints_2d": (14, 3)}
    batch = {name: torch.zeros(size, *shape) for name, shape in zeros.items()}
    for name in ("has_smpl", "has_keypoints_3d"):
        batch[name] = torch.ones(size, dtype=torch.bool)
    batch["image"] = torch.rand(size, 3, 224, 224, generator=generator)
    return {name: value.to(device) for name, value in batch.items()}


def kept_bytes(function: Callable[[], Any], device: torch.device | None = None) -> tuple[int, Any]:
    """Return how much more memory is held after a function has returned, and what it returned.

    On the CPU it is counted by the allocator's own record.
    """
    if device is not None and device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        answer = function()
        return torch.cuda.memory_allocated(device) - before, answer
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as record:
        answer = function()
    return sum(event.self_cpu_memory_usage for event in record.key_averages()), answer


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Return the most memory that is held while a function runs."""
    torch.cuda.reset_peak_memory_stats(device)
    function()
    return torch.cuda.max_memory_allocated(device)


if __name__ == "__main__":
    sys.exit(main())

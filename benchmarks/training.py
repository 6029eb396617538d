"""A training step, ours against the published formulation: python -m benchmarks.training.

Time of forward pass, loss, backward pass and Adam, and the memory that the forward pass leaves
behind for the backward pass; three in turns on the same data and parameters: the published
formulation (float32, eager, contiguous), ours, and ours with --recompute. Memory is compared in
one precision. Images are noise and labels are zero, which changes neither.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.loader import cpu_name
from benchmarks.published_model import PublishedSMPLer
from models.body import open_body
from models.losses import SMPLLoss
from models.smpler import PRESETS, SMPLer, build_smpler
from utils.engine import Precision

LEARNING_RATE = 1e-6


def main(argv: list[str] | None = None) -> dict:
    """Measure, print a table, write the numbers."""
    arguments = parse(argv)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    model = build_smpler(PRESETS[arguments.preset], open_body()).to(device).train()
    if arguments.compile:
        for part in (model.backbone, *model.blocks):  # the published formulation passes them by
            part.compile()
    result = measure(model, random_batch(arguments.batch, device), arguments)
    result |= {name: getattr(arguments, name) for name in ("batch", "preset", "bf16", "compile")}
    result |= {"device": device.type, "threads": torch.get_num_threads(), "cpu": cpu_name()}
    result["torch"] = torch.__version__
    if device.type == "cuda":
        result["gpu"] = torch.cuda.get_device_name(device)
    print(f"{'':24}{'ms a step':>12}{'images/s':>10}{'MiB an image':>14}")
    for name in ("baseline", "ours", "recompute"):
        row = [result[f"{name}_{what}"] for what in ("ms", "images_per_second", "mib_per_image")]
        print(f"{name:24}{row[0]:12.0f}{row[1]:10.2f}{row[2]:14.1f}")
    ratio, memory = result["throughput_ratio"], result["recompute_memory_ratio"]
    print(f"ours / baseline: speed {ratio:.2f}, memory {result['memory_ratio']:.2f} ({memory:.2f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", choices=list(PRESETS), default="smpler")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile")
    parser.add_argument("--channels_last", action="store_true", help="memory layout of ours")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args(argv)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"no GPU answers to {arguments.device}; use --device cpu")
    return arguments


def measure(model: SMPLer, batch: dict[str, Tensor], arguments: argparse.Namespace) -> dict:
    """Time the three in turns (medians), and weigh what each keeps."""
    size, device = len(batch["image"]), batch["image"].device
    ours = Precision(device, arguments.bf16)
    published = PublishedSMPLer(model).train()
    runs = {
        "baseline": Run(published, model, batch, Precision(device)),
        "ours": Run(model, model, batch, ours, arguments.channels_last),
        "recompute": Run(model, model, batch, ours, arguments.channels_last, recompute=True),
    }
    times = {name: [] for name in runs}
    for number in range(arguments.rounds + 1):
        for name, run in runs.items():
            run.prepare()
            seconds = run.step()
            if number:  # in the first, everything is loaded, allocated and compiled
                times[name].append(seconds)
    result = {}
    for name, run in runs.items():
        median = float(np.median(times[name]))
        result |= {f"{name}_ms": 1000 * median, f"{name}_images_per_second": size / median}
        if name == "baseline":
            run = Run(published, model, batch, ours)
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
        model: whose backbone is prepared, and whose body makes the loss's targets.
    """

    def __init__(
        self,
        network: nn.Module,
        model: SMPLer,
        batch: dict[str, Tensor],
        precision: Precision,
        channels_last: bool = False,
        recompute: bool = False,
    ):
        self.network, self.model, self.precision = network, model, precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.batch = batch | {"image": batch["image"].contiguous(memory_format=self.layout)}
        self.recompute = recompute
        self.criterion = SMPLLoss(model.smpl)
        fused = True if network is model else None  # None: the library's default
        self.optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=fused)

    def prepare(self) -> None:
        """Put the shared model into this run's state."""
        self.model.to(memory_format=self.layout)
        self.model.backbone.recompute = self.recompute
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> Tensor:
        """Forward pass and loss."""
        with self.precision.autocast():
            estimate = self.network(self.batch["image"])[-1]
        return sum(self.criterion(estimate, self.batch).values())

    def step(self) -> float:
        """Do a whole step; return its seconds."""
        synchronize(self.precision.device)
        start = time.perf_counter()
        self.loss().backward()
        self.optimizer.step()
        synchronize(self.precision.device)
        return time.perf_counter() - start


def random_batch(size: int, device: torch.device) -> dict[str, Tensor]:
    """Images of noise, every label annotated and zero."""
    generator = torch.Generator().manual_seed(0)
    zeros = {"pose": (72,), "betas": (10,), "keypoints_3d": (14, 4), "keypoints_2d": (14, 3)}
    batch = {name: torch.zeros(size, *shape) for name, shape in zeros.items()}
    for name in ("has_smpl", "has_keypoints_3d"):
        batch[name] = torch.ones(size, dtype=torch.bool)
    batch["image"] = torch.rand(size, 3, 224, 224, generator=generator)
    return {name: value.to(device) for name, value in batch.items()}


def kept_bytes(function: Callable[[], Any], device: torch.device | None = None) -> tuple[int, Any]:
    """Return how much more memory is held when a function has returned, and what it returned.

    On the CPU by the allocator's own record, so that nothing is counted twice or forgotten.
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


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()

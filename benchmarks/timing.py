"""What the benchmarks share: ways that take turns, medians, one JSON object."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.loader import cpu_name


def take_turns(
    ways: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Run every way once for warming up, then in turns; return the median milliseconds of each."""
    seconds = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


def print_table(title: str, milliseconds: dict[str, float], baseline: str, batch: int) -> None:
    """Print each way's time, items a second and how many times as fast as the baseline it is."""
    print(f"{title:36}{'ms':>10}{'a second':>10}{'ratio':>8}")
    for name, value in milliseconds.items():
        ratio = milliseconds[baseline] / value
        print(f"{name:36}{value:10.1f}{1000 * batch / value:10.1f}{ratio:8.2f}")


def machine(device: torch.device) -> dict[str, str | int]:
    """Return what the numbers were measured on."""
    about = {"device": str(device), "cpu": cpu_name(), "torch": torch.__version__}
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name(device)
    return about | {"threads": torch.get_num_threads()}


def write(path: Path | None, numbers: dict) -> None:
    """Write the numbers as one JSON object, when a file is given."""
    if path:
        path.write_text(json.dumps(numbers, indent=2) + "\n")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

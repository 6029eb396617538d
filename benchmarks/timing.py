"""What the benchmarks share: ways that take turns, medians, one JSON object."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.loader import cpu_name
from smpler.utils.flags import positive


def add_flags(parser: argparse.ArgumentParser, batch: int) -> None:
    """Add the flags that all these benchmarks have."""
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--batch", type=positive, default=batch)
    add("--rounds", type=positive, default=5, help="how often each way runs; medians are told")
    add("--threads", type=positive, help="of torch on the CPU; default: its own choice")
    add("--cpu_time", action="store_true", help="seconds of this process, not of the wall clock")
    add("--json", type=Path, help="file for the numbers")


def set_up(arguments: argparse.Namespace) -> tuple[torch.device, Callable[[], float]]:
    """Set the number of threads; return the device and the clock.

    CPU seconds say more than the wall clock on a machine that others use as well; for one thread,
    both are the same on a quiet one.

    Raises:
        SystemExit: CPU time is asked for on a GPU, which it does not count.
    """
    if arguments.cpu_time and arguments.device != "cpu":
        raise SystemExit("Error: --cpu_time does not count a GPU's work; leave it away.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    return torch.device(arguments.device), clock


def take_turns(
    ways: dict[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Run every way once for warming up, then in turns; return the median milliseconds of each."""
    seconds = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            _wait(device)
            start = clock()
            run()
            _wait(device)
            if number:
                seconds[name].append(clock() - start)
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


def describe(arguments: argparse.Namespace) -> dict[str, str | int]:
    """Return how and on what the numbers were measured."""
    clock = "CPU time" if arguments.cpu_time else "wall"
    how = {"batch": arguments.batch, "rounds": arguments.rounds, "clock": clock}
    return how | machine(torch.device(arguments.device))


def write(path: Path | None, numbers: dict) -> None:
    """Write the numbers as one JSON object, when a file is given."""
    if path:
        path.write_text(json.dumps(numbers, indent=2) + "\n")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""What the benchmarks share: flags, weights, ways that take turns, tables, one JSON object."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from smpler.models.weights.checkpoint import released_weights
from smpler.utils.files.whole import write_bytes_whole
from smpler.utils.flags import device_name, output_file, positive

Clock = Callable[[], float]


def add_flags(parser: argparse.ArgumentParser, batch: int, rounds: int = 5) -> None:
    """Add the flags of benchmarks in which several ways take turns, with their defaults."""
    add = parser.add_argument
    add("--device", type=device_name, default="cpu", help="cpu, cuda or cuda:1")
    add("--batch", type=positive, default=batch, help="items that a way computes at once")
    add("--rounds", type=positive, default=rounds, help="how often each way runs")
    add("--json", type=output_file, help="file for the numbers")


def add_clock_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `set_up` reads."""
    add = parser.add_argument
    add("--threads", type=positive, help="of torch on the CPU; default: its own choice")
    add("--cpu_time", action="store_true", help="seconds of this process, not of the wall clock")


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; stop with one sentence where --device cannot be timed."""
    arguments = parser.parse_args(argv)
    kind = torch.device(arguments.device).type
    if kind not in ("cpu", "cuda"):
        parser.error(f"--device {arguments.device} cannot be timed; use cpu or cuda")
    if kind == "cuda" and getattr(arguments, "cpu_time", False):
        parser.error("--cpu_time does not count a GPU's work; leave it away")
    return arguments


def set_up(arguments: argparse.Namespace) -> tuple[torch.device, Clock]:
    """Set the number of threads; return the device and the clock.

    CPU seconds say more than the wall clock on a machine that others use as well; for one thread,
    both are the same on a quiet one.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    return torch.device(arguments.device), clock


def trained_weights(checkpoint: Path | None) -> Path:
    """Return the weights to be measured: those that were given, else the released ones.

    Raises:
        FileNotFoundError: there are neither.
    """
    checkpoint = checkpoint or released_weights()
    if checkpoint is None:
        raise FileNotFoundError("No released weights are in pretrained/; give --checkpoint.")
    return checkpoint


def take_turns(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    clock: Clock = time.perf_counter,
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
    """Print each way's time, items a second, and how many times as fast as the baseline it is."""
    print(f"{title:36}{'ms':>10}{'a second':>10}{'ratio':>8}")
    for name, value in milliseconds.items():
        ratio = milliseconds[baseline] / value
        print(f"{name:36}{value:10.1f}{1000 * batch / value:10.1f}{ratio:8.2f}")


def print_markdown(numbers: dict) -> None:
    """Print names and values as a table that a model card can take."""
    print("| measure | value |\n|---|---|")
    for name, value in numbers.items():
        print(f"| {name} | {value:.2f} |" if isinstance(value, float) else f"| {name} | {value} |")


def machine(device: torch.device) -> dict[str, str | int]:
    """Return what the numbers were measured on."""
    about = {"device": str(device), "cpu": cpu_name(), "torch": torch.__version__}
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name(device)
    return about | {"threads": torch.get_num_threads()}


def cpu_name() -> str:
    """Return what the CPU calls itself, and how many there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def describe(arguments: argparse.Namespace) -> dict[str, str | int]:
    """Return how and on what the numbers were measured."""
    clock = "CPU time" if arguments.cpu_time else "wall"
    how = {"batch": arguments.batch, "rounds": arguments.rounds, "clock": clock}
    return how | machine(torch.device(arguments.device))


def write(path: Path | None, numbers: dict) -> None:
    """Write the numbers as one JSON object, when a file is given."""
    if path:
        write_bytes_whole(path, f"{json.dumps(numbers, indent=2)}\n".encode())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

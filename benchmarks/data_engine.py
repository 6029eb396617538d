"""Speed of the open data engine: python -m benchmarks.data_engine --device cpu.

On the CPU: finished training crops (drawn, rendered, developed, labelled) of one process on one
core, in wall-clock time and in CPU time, which tells the speed on a machine that others use too. On
a GPU: batches that are rendered and stay there, with the memory that they take; worker processes
draw the scenes. The first crops, a quarter as many as are measured, load compiled code and are not
counted.

Also where a batch's time goes: how many scenes the processes alone draw and hand over, what the
transfer and each part of the rendering take on the device, with its waits for the CPU, and how
often the CPU waits for the device. On a GPU also what its operations alone take, and how many they
are. On the CPU the parts are the torch renderer's, with a batch of BATCH_ON_CPU.

The baseline of a core is the same crop through the torch renderer, which runs where numba is not
installed; the two take turns, one crop of the baseline for many of ours. The baseline of a GPU is a
core.
"""

import copy
import statistics
import sys
import time
import warnings
from collections import defaultdict
from itertools import islice

import cv2
import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness import machine, parse, write
from smpler.datasets.engine import stream as engine_stream
from smpler.datasets.engine.gpu_stream import SyntheticBatches, draw_scenes
from smpler.datasets.engine.render.scene_batch import PackedScenes
from smpler.datasets.engine.render.torch_renderer import TorchSceneRenderer
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.models.body import open_body
from smpler.utils.flags import Parser, device_name, output_file, positive, program, whole

CROPS_PER_BASELINE = 40
"""Crops of ours for each crop of the baseline."""
BATCH_ON_CPU = 2
ROUNDS = {"cpu": 1, "cuda": 10}
"""How often the parts of a batch are timed."""
NUM_SLOWEST = 16
"""Kinds of operations that are printed."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print, write the numbers."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--crops", type=positive, help="how many; default: 200, on a GPU 8192")
    parser.add_argument("--batch", type=positive, default=64, help="crops at a time on a GPU")
    parser.add_argument("--num_workers", type=whole, default=8, help="draw scenes for a GPU")
    parser.add_argument("--json", type=output_file, help="file for the numbers")
    arguments = parse(parser, argv)
    device = torch.device(arguments.device)
    stream = SyntheticPeople(open_body())
    if device.type == "cuda":
        crops = arguments.crops or 8192
        core = measure_crops(stream, 50)
        result = measure_batches(stream, device, crops, arguments.batch, arguments.num_workers)
        result |= {"baseline_ms": core["ours_ms"], "ours_ms": 1000 / result["crops_per_second"]}
        result |= measure_parts(stream, device, arguments.batch, arguments.num_workers)
    else:
        result = measure_crops(stream, arguments.crops or 200)
        result |= measure_parts(stream, device, BATCH_ON_CPU, num_workers=0)
    result["throughput_ratio"] = result["baseline_ms"] / result["ours_ms"]
    result |= machine(device)
    for name, value in result.items():
        print(f"{name:32}{value:.2f}" if isinstance(value, float) else f"{name:32}{value}")
    write(arguments.json, result)
    return 0


def measure_crops(stream: SyntheticPeople, crops: int) -> dict:
    """Time crops on one core, one after the other, and a few by the torch renderer between them."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    plain = copy.copy(stream)
    panoramas = engine_stream.load_wardrobe().split(stream.split).panoramas
    plain.renderer = TorchSceneRenderer(stream.people, panoramas)
    ahead = max(crops // 4, 1)
    for index in range(ahead):
        stream.sample(index)
    plain.sample(0)
    wall, cpu, baseline = [], [], []
    for index in range(ahead, ahead + crops):
        if (index - ahead) % CROPS_PER_BASELINE == 0:
            start = time.perf_counter()
            plain.sample(index)
            baseline.append(time.perf_counter() - start)
        start = time.perf_counter(), time.process_time()
        stream.sample(index)
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {
        "crops": crops,
        "crops_per_second_per_core": crops / sum(wall),
        "crops_per_second_of_cpu_time": crops / sum(cpu),
        "ours_ms": 1000 * float(np.median(wall)),
        "baseline_ms": 1000 * float(np.median(baseline)),
    }


def measure_batches(
    stream: SyntheticPeople, device: torch.device, crops: int, batch: int, num_workers: int
) -> dict:
    """Time batches on a GPU, with scenes that workers draw, and with scenes drawn before."""
    batches = SyntheticBatches(stream, batch, device, num_workers)
    iterator, count = iter(batches), max(crops // batch, 1)
    for _ in range(max(count // 4, 1)):
        next(iterator)
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        next(iterator)
    torch.cuda.synchronize(device)
    whole = time.perf_counter() - start
    scenes = draw_scenes(stream, range(batch))
    batches.render(range(batch), scenes)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        batches.render(range(batch), scenes)
    torch.cuda.synchronize(device)
    rendering = time.perf_counter() - start
    return {
        "crops": count * batch,
        "batch": batch,
        "num_workers": num_workers,
        "crops_per_second": count * batch / whole,
        "crops_per_second_scenes_ready": count * batch / rendering,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30,
    }


def measure_parts(
    stream: SyntheticPeople, device: torch.device, batch: int, num_workers: int
) -> dict:
    """Time what happens to a batch, part by part, and count how often the CPU waits for it."""
    batches = SyntheticBatches(stream, batch, device, num_workers)
    rounds = ROUNDS[device.type]
    ahead, count = (3 * num_workers, 4 * num_workers) if num_workers else (1, 1)
    drawn = batches.drawn()
    # as many as the processes draw ahead of the consumer, and more, do not count
    for _ in islice(drawn, ahead):
        pass
    start = time.perf_counter()
    indices, scenes = list(islice(drawn, count))[-1]
    scenes_per_second = count * batch / (time.perf_counter() - start)
    del drawn  # ends the processes
    milliseconds = defaultdict(list)
    for number in range(rounds + 1):
        laps = Laps(device)
        batches.render(indices, scenes, laps)
        if number:
            for part, value in laps.milliseconds().items():
                milliseconds[part].append(value)
    result = {
        "scenes_per_second_drawn": scenes_per_second,
        "kilobytes_per_scene": scenes.block.nbytes / batch / 1000,
        "batch_of_parts": batch,
        **{f"ms_{part}": statistics.median(values) for part, values in milliseconds.items()},
        "host_waits_per_batch": count_waits(batches, indices, scenes),
    }
    if device.type == "cuda":
        result |= measure_operations(batches, indices, scenes)
    return result


class Laps:
    """Times the parts of some work on a device; see `Lap`."""

    def __init__(self, device: torch.device):
        self.device, self.names, self.times = device, [], []
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.times.append(self._now())

    def __call__(self, part: str) -> None:
        """Note the end of a part."""
        self.names.append(part)
        self.times.append(self._now())

    def milliseconds(self) -> dict[str, float]:
        """Return what each part took."""
        pairs = zip(self.times, self.times[1:], strict=False)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            passed = [start.elapsed_time(stop) for start, stop in pairs]
        else:
            passed = [1000 * (stop - start) for start, stop in pairs]
        return dict(zip(self.names, passed, strict=True))

    def _now(self):
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def measure_operations(batches: SyntheticBatches, indices: list[int], scenes: PackedScenes) -> dict:
    """Time what a device does for a batch, without its waits for the CPU; print the slowest."""
    on_gpu = batches.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        batches.render(indices, scenes)
        if on_gpu:
            torch.cuda.synchronize(batches.device)
    microseconds = {}
    for row in found.key_averages():
        if not on_gpu:
            microseconds[row.key] = row.self_cpu_time_total, row.count
        elif row.device_type == DeviceType.CUDA:
            microseconds[row.key] = row.self_device_time_total, row.count
    slowest = sorted(microseconds.items(), key=lambda item: -item[1][0])[:NUM_SLOWEST]
    for name, (value, count) in slowest:
        print(f"{value / 1000:10.2f} ms {count:6} x {name[:80]}")
    return {
        "ms_operations": sum(value for value, _ in microseconds.values()) / 1000,
        "operations_per_batch": sum(count for _, count in microseconds.values()),
    }


def count_waits(batches: SyntheticBatches, indices: list[int], scenes: PackedScenes) -> int:
    """Count how often the CPU waits for the device while a batch is rendered.

    On the CPU, where nothing waits, operations are counted that would wait for a GPU.
    """
    if batches.device.type != "cuda":
        with _Waits() as waits:
            batches.render(indices, scenes)
        return waits.count
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            batches.render(indices, scenes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in found)


class _Waits(TorchDispatchMode):
    """Counts operations whose result the CPU needs: its numbers, or how many they are."""

    NAMES = ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "bincount")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name.removeprefix("aten::") in self.NAMES
        return func(*args, **(kwargs or {}))


if __name__ == "__main__":
    sys.exit(main())

"""Speed of the open data engine: python -m benchmarks.data_engine --device cpu.

On the CPU: finished training crops (drawn, rendered, developed, labelled) of one process on one
core, in wall-clock time and in CPU time, which tells the speed on a machine that others use too. On
a GPU: batches that are rendered and stay there, with the memory that they take; worker processes
draw the scenes. The first crops, a quarter as many as are measured, load compiled code and are not
counted.

The baseline of a core is the same crop through the torch renderer, which runs where numba is not
installed; the two take turns, one crop of the baseline for many of ours. The baseline of a GPU is a
core.
"""

import copy
import sys
import time

import cv2
import numpy as np
import torch

from benchmarks.harness import machine, parse, write
from smpler.datasets.engine import stream as engine_stream
from smpler.datasets.engine.gpu_stream import SyntheticBatches, draw_scenes
from smpler.datasets.engine.render.torch_renderer import TorchSceneRenderer
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.models.body import open_body
from smpler.utils.flags import Parser, device_name, output_file, positive, program, whole

CROPS_PER_BASELINE = 40
"""Crops of ours for each crop of the baseline."""


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
    else:
        result = measure_crops(stream, arguments.crops or 200)
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


if __name__ == "__main__":
    sys.exit(main())

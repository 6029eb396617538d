"""Speed at which one worker loads training samples: python -m benchmarks.loader --json FILE.

Ours and the published pipeline (`benchmarks.published.loader`) take turns: on photos of several
sizes, as training sets mix them (those of the golden data set), and on photos of 1000 x 1000 pixels
alone, as in Human3.6M. First it is checked that both give the same labels, and the same image where
neither decodes at reduced size.
"""

import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks.harness import cpu_name, write
from benchmarks.published.loader import PublishedLoader
from smpler.datasets.augment import Augmentation
from smpler.datasets.human_mesh import HumanMesh
from smpler.datasets.tsv import TsvWriter
from smpler.utils.flags import Parser, output_file, positive, program

SIZES = {
    "mixed": ((1002, 1000), (480, 640), (300, 200), (720, 405)),
    "large": ((1000, 1000),),
}
"""Heights and widths of the photos in the two sets."""
QUALITY = 91
"""Of the photos, as JPEG."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write the numbers."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="loading is CPU work")
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--photos", type=positive, default=64, help="loaded in a round")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--json", type=output_file, help="file for the numbers")
    arguments = parser.parse_args(argv)
    result = {}
    for name, sizes in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.yaml"
            write_photos(path, arguments.photos, sizes)
            numbers = measure(path, arguments.batch, arguments.rounds)
        print_table(f"{name} photos", numbers)
        result |= numbers if name == "mixed" else {f"{name}_{k}": v for k, v in numbers.items()}
    result |= {"batch": arguments.batch, "photos": arguments.photos, "rounds": arguments.rounds}
    result |= {"torch": torch.__version__, "opencv": cv2.__version__, "cpu": cpu_name()}
    write(arguments.json, result)
    return 0


def print_table(title: str, result: dict) -> None:
    """Print milliseconds a sample of both pipelines and their ratio."""
    print(f"{title + ', ms a sample':32}{'published':>10}{'ours':>10}{'ratio':>8}")
    for what in ("training, one worker", "training, no worker", "evaluation, no worker"):
        for clock in ("", "_cpu"):
            name = what.replace(", ", "_").replace(" ", "_")
            baseline, ours = (result[f"{name}_{who}{clock}_ms"] for who in ("baseline", "ours"))
            row = what + (" (CPU time)" if clock else "")
            print(f"{row:32}{baseline:10.2f}{ours:10.2f}{baseline / ours:8.2f}")


def write_photos(path: Path, num: int, sizes: tuple[tuple[int, int], ...], seed: int = 0) -> None:
    """Write photos of gradients, clouds, shapes and noise, and labels for a person in each."""
    with TsvWriter(path) as writer:
        for number in range(num):
            rng = np.random.default_rng([seed, number])
            height, width = sizes[number % len(sizes)]
            data = encode(photo(height, width, rng))
            side = rng.uniform(0.6, 1.5) * min(height, width)
            center = rng.uniform(0.35, 0.65, 2) * [width, height]
            joints = center + rng.uniform(-0.4, 0.4, (24, 2)) * side
            label = {
                "center": center,
                "scale": side / 200,
                "2d_joints": np.column_stack([joints, np.ones(24)]),
                "has_2d_joints": 1,
                "3d_joints": np.column_stack([rng.normal(0, 0.3, (24, 3)), np.ones(24)]),
                "has_3d_joints": 1,
                "pose": rng.normal(0, 0.3, 72),
                "betas": rng.normal(0, 1, 10),
                "has_smpl": 1,
            }
            writer.add(f"photo/{number}.jpg", data, (height, width), label)


def encode(image: np.ndarray) -> bytes:
    """Compress to a photo's usual size, about 0.31 bytes a pixel."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def photo(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a picture that compresses no better than photos do."""
    image = np.linspace(0.2, 0.8, height)[:, None, None] * rng.uniform(0.5, 1.2, 3)
    image = np.broadcast_to(image, (height, width, 3)).copy()
    for pixels, strength in ((60, 0.2), (15, 0.1), (4, 0.05)):
        clouds = rng.normal(0, strength, (height // pixels, width // pixels, 3))
        image += cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(30):
        corners = rng.uniform(0, 0.3, (1, 3, 2)) + rng.uniform(0, 0.8, 2)
        color = rng.uniform(0, 1, 3).tolist()
        cv2.fillPoly(image, (corners * [width, height]).astype(np.int32), color)
    return (255 * np.clip(image + rng.normal(0, 0.01, image.shape), 0, 1)).astype(np.uint8)


def measure(path: Path, batch: int, rounds: int) -> dict:
    """Time both pipelines in turns; milliseconds a sample, medians over the rounds."""
    baseline, ours = PublishedLoader(path), HumanMesh(path, training=True)
    exact = HumanMesh(path, training=False)
    check_equal(baseline, exact, ours)
    pipelines = {
        "training_one_worker_baseline": (baseline, 1),
        "training_one_worker_ours": (ours, 1),
        "training_no_worker_baseline": (baseline, 0),
        "training_no_worker_ours": (ours, 0),
        "evaluation_no_worker_baseline": (Upright(baseline), 0),
        "evaluation_no_worker_ours": (exact, 0),
    }
    times = {name: [] for name in pipelines}
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for dataset, _ in pipelines.values():  # opens files, fills caches
        dataset[0]
    for epoch in range(rounds):  # each with its own augmentations, the same for both
        baseline.epoch = epoch
        ours.set_epoch(epoch)
        for name, (dataset, workers) in pipelines.items():
            times[name].append(seconds_a_sample(dataset, batch, workers))
    result = {}
    for name, values in times.items():
        clock, cpu = np.median(values, axis=0) * 1000
        result |= {f"{name}_ms": clock, f"{name}_cpu_ms": cpu}
    for clock in ("", "cpu_"):
        baseline, ours = (
            result[f"training_one_worker_{who}_{clock}ms"] for who in ("baseline", "ours")
        )
        result |= {f"baseline_{clock}ms": baseline, f"ours_{clock}ms": ours}
        result[f"{clock}throughput_ratio"] = baseline / ours
    return result


class Upright(Dataset):
    """The baseline without augmentation, as in evaluation."""

    def __init__(self, baseline: PublishedLoader):
        self.baseline = baseline

    def __len__(self) -> int:
        return len(self.baseline)

    def __getitem__(self, index: int) -> dict:
        return self.baseline.load(index, Augmentation())


def seconds_a_sample(dataset: Dataset, batch: int, workers: int) -> tuple[float, float]:
    """Load everything once; return the seconds a sample, by the clock and of the worker's CPU.

    The worker has loaded a batch before the clock starts. Where other programs share the CPU, its
    own time is the steadier number.
    """
    order = [*range(batch), *range(len(dataset))]
    loader = DataLoader(
        dataset, batch_size=batch, sampler=order, num_workers=workers, collate_fn=stamped
    )
    batches = iter(loader)
    cpu = next(batches)["cpu_s"]
    begin = time.perf_counter()
    stamps = [item["cpu_s"] for item in batches]
    clock = time.perf_counter() - begin
    return clock / len(dataset), (stamps[-1] - cpu) / len(dataset)


def stamped(items: list[dict]) -> dict:
    """Make a batch that holds the CPU time its process has spent."""
    return default_collate(items) | {"cpu_s": time.process_time()}


def check_equal(baseline: PublishedLoader, exact: HumanMesh, ours: HumanMesh) -> None:
    """Fail unless both pipelines give the same samples.

    warpAffine reads at 1/32 of a pixel, and the two rotate about points that differ by whole
    pixels: at a sharp edge one pixel in a thousand is some grey levels off.
    """
    for index in range(min(8, len(ours))):
        expected, found = baseline[index], exact.load(index, ours.augmentation(index))
        for name in ("keypoints_2d", "keypoints_3d", "pose", "betas"):
            worst = (expected[name] - found[name]).abs().max().item()
            assert worst < 1e-4, f"{name} of sample {index} differs by {worst:.2g}"
        error = 255 * (expected["ori_img"] - found["image"]).abs()
        assert error.mean() < 0.3 and error.max() < 8, f"image {index}: {error.max():.1f} levels"


if __name__ == "__main__":
    sys.exit(main())

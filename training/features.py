"""Training on what a frozen backbone sees: crops are encoded once, and kept on the device.

What follows the backbone is small: from kept features it trains at many times the speed. A crop is
kept as it is and mirrored, with its labels; the features are half-precision numbers.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from smpler.datasets.mirroring import mirrored_batch
from smpler.models.smpler import SMPLer
from smpler.training.distributed import TrainSampler
from smpler.training.engine import Batch, on_device
from smpler.training.waiting.waits import end_with_parent

log = logging.getLogger(__name__)

BATCH_SIZE = 64
"""Crops that are encoded at a time."""
LABELS = ("keypoints_2d", "keypoints_3d", "pose", "betas")
FLAGS = ("has_smpl", "has_keypoints_2d", "has_keypoints_3d")
ROOM = 0.8
"""Share of the free memory that features may take."""


class KeptMaps:
    """One map of a backbone, of many crops, each plain and mirrored, in half precision.

    Args:
        like: that map of a batch, (b, c, h, w).
        count: number of crops.
        num_uniform: so many of the last channels are the same at every pixel and kept once.
    """

    def __init__(self, like: Float[Tensor, "b c h w"], count: int, num_uniform: int):
        channels, *side = like.shape[1:]
        self.varied = like.new_empty(2, count, channels - num_uniform, *side, dtype=torch.half)
        self.uniform = like.new_empty(2, count, num_uniform, dtype=torch.half)

    def put(self, first: int, side: int, x: Float[Tensor, "b c h w"]) -> None:
        """Keep a batch of crops, the first of which has that number; side 1 is mirrored."""
        split = self.varied.shape[2]
        self.varied[side, first : first + len(x)] = x[:, :split]
        self.uniform[side, first : first + len(x)] = x[:, split:, 0, 0]

    def get(self, side: Int[Tensor, "b"], index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """Return the map of crops, in single precision."""
        varied = self.varied[side, index].float()
        uniform = self.uniform[side, index].float()[..., None, None]
        return torch.cat([varied, uniform.expand(-1, -1, *varied.shape[2:])], dim=1)


class EncodedCrops(Dataset):
    """Crops as a frozen backbone sees them, with labels; `image` holds the maps, finest first.

    Args:
        maps: of the backbone, finest first.
        labels: (2, n, ...), plain and mirrored.
        names: key and index of each crop.
    """

    def __init__(self, maps: list[KeptMaps], labels: dict[str, Tensor], names: dict[str, list]):
        self.maps, self.labels, self.names = maps, labels, names

    def __len__(self) -> int:
        return self.labels["pose"].shape[1]

    def __getitem__(self, index: int) -> dict:
        one = torch.tensor([index], device=self.labels["pose"].device)
        sample = self.batch(torch.zeros_like(one), one)
        sample = {name: value[0] for name, value in sample.items() if name != "image"} | {
            "image": [x[0] for x in sample["image"]]
        }
        return sample | {name: values[index] for name, values in self.names.items()}

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the crops stay."""

    def batch(self, side: Int[Tensor, "b"], index: Int[Tensor, "b"]) -> Batch:
        """Return crops, plain (side 0) or mirrored (1), as a training batch."""
        labels = {name: value[side, index] for name, value in self.labels.items()}
        return labels | {"image": [maps.get(side, index) for maps in self.maps]}


@torch.no_grad()
def encode_crops(
    model: SMPLer, batches: Iterable[Batch], count: int, device: torch.device, title: str
) -> EncodedCrops:
    """Let the backbone see crops, plain and mirrored.

    Args:
        model: its backbone is put into eval mode.
        batches: as `smpler.datasets.human_mesh` documents them.
        count: number of crops in all batches.
        device: of the model; the features stay there.
        title: what the progress bar shows.

    Raises:
        ValueError: there is no room for the features, or crops are missing.
    """
    model.eval()
    kept: list[KeptMaps] = []
    labels: dict[str, Tensor] = {}
    names: dict[str, list] = {"key": [], "index": []}
    first = 0
    for batch in tqdm(on_device(batches, device), title, -(-count // BATCH_SIZE), disable=None):
        batch = batch | {"image": batch["image"].to(model.mean.dtype)}
        everyone = torch.ones(len(batch["image"]), dtype=torch.bool, device=device)
        for side, seen in enumerate((batch, mirrored_batch(batch, everyone))):
            maps = model.encode(seen["image"])
            if not kept:
                kept = _room(maps, count, model, device)
                shapes = {name: batch[name] for name in (*LABELS, *FLAGS) if name in batch}
                labels = {n: x.new_empty(2, count, *x.shape[1:]) for n, x in shapes.items()}
            for place, x in zip(kept, maps, strict=True):
                place.put(first, side, x)
            for name, value in labels.items():
                value[side, first : first + len(everyone)] = seen[name]
        numbers = range(first, first + len(everyone))
        for name, values in names.items():
            given = batch.get(name, numbers)
            values += given.tolist() if isinstance(given, Tensor) else list(given)
        first += len(everyone)
    if first != count:
        raise ValueError(f"Of {count} crops, {first} came.")
    return EncodedCrops(kept, labels, names)


def _room(
    maps: list[Float[Tensor, "b _ _ _"]], count: int, model: SMPLer, device: torch.device
) -> list[KeptMaps]:
    """Take the memory for the features of all crops.

    Raises:
        ValueError: there is not so much.
    """
    uniform = [0] * (len(maps) - 1) + [getattr(model.backbone, "uniform_channels", 0)]
    each = sum(
        4 * (x[0, : x.shape[1] - num].numel() + num) for x, num in zip(maps, uniform, strict=True)
    )
    free = free_bytes(device)
    if free is not None and count * each > ROOM * free:
        raise ValueError(
            f"The features of {count} crops take {count * each / 2**30:.1f} GiB, and {device} has "
            f"{free / 2**30:.1f} GiB free: use --cache_features {int(ROOM * free / each)} or less."
        )
    log.info("Features of %d crops: %.2f GiB on %s.", count, count * each / 2**30, device)
    return [KeptMaps(x, count, num) for x, num in zip(maps, uniform, strict=True)]


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def crops_in_order(count: int) -> list[list[int]]:
    """Return the numbers of crops, in the batches in which they are encoded."""
    return [list(range(i, min(i + BATCH_SIZE, count))) for i in range(0, count, BATCH_SIZE)]


class EncodedBatches:
    """An epoch's batches of encoded crops: in a sampler's order, half of them mirrored.

    Args:
        crops: to train on.
        seed: of the sides, which depend on it, the epoch and the crop alone.
    """

    def __init__(self, crops: EncodedCrops, seed: int):
        self.crops, self.seed = crops, seed

    def __call__(self, sampler: TrainSampler) -> Iterator[Batch]:
        """Yield a batch for each list of numbers that the sampler yields."""
        device = self.crops.labels["pose"].device
        mirrored = self._sides(sampler.epoch).to(device)
        for numbers in sampler:
            index = torch.tensor(numbers)
            index = (index.pin_memory() if device.type == "cuda" else index).to(
                device, non_blocking=True
            )
            yield self.crops.batch(mirrored[index].long(), index)

    def _sides(self, epoch: int) -> Bool[Tensor, "n"]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        return torch.rand(len(self.crops), generator=generator) < 0.5


def reading(dataset: Dataset, count: int, num_workers: int) -> DataLoader:
    """Return what reads or renders the first crops of a data set by loading processes."""
    return DataLoader(
        dataset,
        batch_sampler=crops_in_order(count),
        num_workers=num_workers,
        generator=torch.Generator(),  # leaves the global generator to training
        worker_init_fn=end_with_parent,
    )

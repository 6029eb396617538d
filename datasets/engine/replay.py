"""Training batches that are rendered on a GPU, in part replayed from a pool of earlier crops.

A GPU trains on crops faster than it renders them. A share of each batch can therefore come from a
pool of crops rendered before: some are mirrored, all are recoloured, some are covered by a patch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smpler.datasets.engine.gpu_stream import SyntheticBatches, draw_scenes, one_ahead
from smpler.datasets.engine.render.scene_batch import PackedScenes
from smpler.datasets.engine.stream import SyntheticSamples
from smpler.datasets.mirroring import mirrored_batch

COLOR_RANGE = (0.88, 1.14)
"""Range of the factor on each colour channel of a crop from the pool."""
PATCH_SHARE, PATCH_SIDES = 0.3, (0.1, 0.4)
"""How often a patch covers a part of a crop from the pool, and the range of the patch's sides, as
shares of the crop's side (Cutout: DeVries and Taylor, arXiv 1708.04552)."""
POOLED = ("keypoints_2d", "keypoints_3d", "pose", "betas")
"""Labels that a crop in the pool keeps."""


class DeviceBatches:
    """An epoch of a stream's samples, rendered on a device in the order of a sampler.

    Args:
        samples: the training set.
        device: where to render.
        num_workers: processes that draw the scenes.
        fresh: share of each batch that is rendered for it, from the first of the batch's indices.
            The rest is drawn from the pool. Checkpoints do not hold the pool: with less than 1, a
            resumed run is no exact continuation.
        pool_size: crops that the pool holds, 150 KB each; the oldest make room for new ones.
        seed: of the draws from the pool.
        worker_init_fn: called in each of the processes, with its number.
    """

    def __init__(
        self,
        samples: SyntheticSamples,
        device: torch.device,
        num_workers: int,
        fresh: float = 1.0,
        pool_size: int = 20_000,
        seed: int = 0,
        worker_init_fn: Callable[[int], None] | None = None,
    ):
        self.samples, self.num_workers, self.fresh = samples, num_workers, fresh
        self.worker_init_fn = worker_init_fn
        self.batches = SyntheticBatches(samples.stream, 1, device)
        self.pool = Pool(pool_size, device, seed) if fresh < 1 else None

    def __call__(self, sampler: Iterable[list[int]]) -> Iterator[dict]:
        """Yield a batch for each list of indices that a sampler yields."""
        loader = DataLoader(
            _Scenes(self.samples, sampler, self.fresh),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.batches.device.type == "cuda",
            worker_init_fn=self.worker_init_fn,
        )
        for size, rendered in one_ahead(self._rendered, loader, self.batches.device):
            if self.pool is None:
                yield rendered
                continue
            self.pool.add(rendered)
            again = self.pool.draw(size - len(rendered["key"]))
            yield {name: torch.cat([rendered[name], value]) for name, value in again.items()}

    def _rendered(self, drawn: tuple[int, list[int], PackedScenes]) -> tuple[int, dict]:
        size, indices, scenes = drawn
        return size, self.batches.render(indices, scenes)


class _Scenes(Dataset):
    """For each batch of a sampler: its size, the numbers of its new samples, their scenes."""

    def __init__(self, samples: SyntheticSamples, sampler: Iterable[list[int]], fresh: float):
        self.stream, first = samples.stream, samples.first_of_epoch
        self.batches = [
            (len(batch), [first + index for index in batch[: max(1, round(fresh * len(batch)))]])
            for batch in sampler
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[int, list[int], PackedScenes]:
        size, indices = self.batches[number]
        return size, indices, draw_scenes(self.stream, indices)


class Pool:
    """Crops on a device that are trained on again.

    Args:
        size: how many are kept.
        seed: of the draws.
    """

    def __init__(self, size: int, device: torch.device, seed: int):
        self.size, self.device = size, device
        self.random = torch.Generator(device).manual_seed(seed)
        self.kept: dict[str, Tensor] = {}
        self.num_added = 0

    def __len__(self) -> int:
        return min(self.num_added, self.size)

    def add(self, batch: dict) -> None:
        """Add a batch's crops; when the pool is full, they replace the oldest ones."""
        values = {"image": (255 * batch["image"]).round().byte()}
        values |= {name: batch[name] for name in POOLED}
        values = {name: value[-self.size :] for name, value in values.items()}
        count = len(values["image"])
        if not self.kept:
            for name, value in values.items():
                self.kept[name] = value.new_empty(self.size, *value.shape[1:])
        place = (self.num_added + torch.arange(count, device=self.device)) % self.size
        for name, value in values.items():
            self.kept[name][place] = value
        self.num_added += count

    def draw(self, count: int) -> dict:
        """Return crops drawn at random, as a training batch."""
        index = torch.randint(len(self), (count,), generator=self.random, device=self.device)
        batch = {name: value[index] for name, value in self.kept.items()}
        batch["image"] = batch["image"].float() / 255
        batch = mirrored_batch(batch, self._uniform(count, 0, 1) < 0.5)
        gains = self._uniform((count, 3, 1, 1), *COLOR_RANGE)
        batch["image"] = self._patched((batch["image"] * gains).clamp(max=1))
        all_true = torch.ones(count, dtype=torch.bool, device=self.device)
        flags = ("has_smpl", "has_keypoints_2d", "has_keypoints_3d")
        return batch | {name: all_true for name in flags}

    def _patched(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        """Cover a rectangle of some crops with one colour."""
        count, side = len(images), images.shape[-1]
        size = side * self._uniform((count, 2), *PATCH_SIDES)
        size = size * (self._uniform((count, 1), 0, 1) < PATCH_SHARE)
        start = self._uniform((count, 2), 0, 1) * (side - size)
        pixel = torch.arange(side, device=self.device) + 0.5
        within = (pixel > start[..., None]) & (pixel < (start + size)[..., None])  # (b, 2, s): x, y
        covered = within[:, :1, :, None] & within[:, 1:, None, :]
        return torch.where(covered, self._uniform((count, 3, 1, 1), 0, 1), images)

    def _uniform(self, shape: int | Sequence[int], low: float, high: float) -> Tensor:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        value = torch.rand(shape, generator=self.random, device=self.device)
        return low + (high - low) * value

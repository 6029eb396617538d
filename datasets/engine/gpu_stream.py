"""Batches of the open data engine that are rendered, and stay, on a device."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from smpler.datasets.engine.render.labels import SAME_FOR_ALL, inside_pixels, labelled
from smpler.datasets.engine.render.scene_batch import SceneBatch, pack_scenes
from smpler.datasets.engine.render.torch_photo import develop
from smpler.datasets.engine.render.torch_renderer import TorchRenderer
from smpler.datasets.engine.stream import SyntheticPeople


class SyntheticBatches:
    """The samples of a stream in batches on a device, with the same keys.

    Scenes are drawn on the CPU, by worker processes if there are any; only their numbers go to the
    device. The pictures agree with `stream.sample(i)` within rounding and the JPEG coder's own
    tolerance (below one grey level in the mean); they are not the same bytes.

    Args:
        stream: whose samples to render: those of its rank.
        batch_size: samples in a batch.
        device: where to render.
        num_workers: processes that draw scenes.
        first: number of the first sample.
    """

    def __init__(
        self,
        stream: SyntheticPeople,
        batch_size: int,
        device: torch.device | str,
        num_workers: int = 0,
        first: int = 0,
    ):
        self.stream, self.batch_size, self.device = stream, batch_size, torch.device(device)
        self.num_workers, self.first = num_workers, first
        self.renderer = TorchRenderer(stream.people, stream.panoramas, self.device)
        self.noise = torch.from_numpy(stream.noise).to(self.device)
        self.regressor = torch.from_numpy(stream.people.body.h36m_regressor).to(self.device)

    def __iter__(self) -> Iterator[dict]:
        scenes = _Scenes(self.stream, self.batch_size, self.first)
        pin = self.device.type == "cuda"
        for indices, batch in DataLoader(
            scenes, batch_size=None, num_workers=self.num_workers, pin_memory=pin
        ):
            yield self.render(indices, batch)

    def batch(self, indices: Sequence[int]) -> dict:
        """Return the samples of these numbers."""
        return self.render(indices, draw_scenes(self.stream, indices))

    @torch.no_grad()
    def render(self, indices: Sequence[int], scenes: SceneBatch) -> dict:
        """Render scenes, which may be on any device, and return the samples of these numbers."""
        scenes = {name: x.to(self.device, non_blocking=True) for name, x in scenes.items()}
        rendered = self.renderer.render(scenes)
        image = develop(rendered.light, rendered.mask, scenes, self.noise)
        joints = self.regressor @ rendered.vertices  # (17, v) @ (b, v, 3) -> (b, 17, 3)
        options = self.stream.options
        batch = labelled(image, rendered, inside_pixels(scenes), joints, scenes, options)
        for name, value in SAME_FOR_ALL.items():
            batch[name] = torch.full((len(image),), value, device=self.device)
        return batch | {
            "index": torch.tensor(list(indices), device=self.device),
            "key": [self.stream.key(index) for index in indices],
        }


def draw_scenes(stream: SyntheticPeople, indices: Sequence[int]) -> SceneBatch:
    """Return what samples of a stream show, not yet rendered."""
    scenes = [stream.scene(index) for index in indices]
    return pack_scenes(scenes, len(stream.people.hidden_faces))


class _Scenes(IterableDataset):
    """Indices and scenes of a stream's rank, a batch at a time; workers take turns."""

    def __init__(self, stream: SyntheticPeople, batch_size: int, first: int):
        self.stream, self.batch_size, self.first = stream, batch_size, first

    def __iter__(self) -> Iterator[tuple[list[int], SceneBatch]]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        stride = self.stream.world_size
        while True:
            start = self.first + stride * number * self.batch_size + self.stream.rank
            indices = range(start, start + stride * self.batch_size, stride)
            yield list(indices), draw_scenes(self.stream, indices)
            number += step

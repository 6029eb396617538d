"""Batches of the open data engine that are rendered, and stay, on a device."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from smpler.datasets.engine.render.labels import SAME_FOR_ALL, inside_pixels, labelled
from smpler.datasets.engine.render.scene_batch import PackedScenes, mesh_sizes, pack_scenes
from smpler.datasets.engine.render.torch_photo import develop
from smpler.datasets.engine.render.torch_renderer import Lap, TorchRenderer, no_lap
from smpler.datasets.engine.stream import SyntheticPeople


class SyntheticBatches:
    """The samples of a stream in batches on a device, with the same keys.

    Scenes are drawn on the CPU, by worker processes if there are any; only their numbers go to the
    device. The pictures agree with `stream.sample(i)` within rounding and the JPEG coder's own
    tolerance (below one grey level in the mean); they are not the same bytes. A GPU renders the
    next batch, on a stream of its own, while the present one is used.

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
        return one_ahead(lambda drawn: self.render(*drawn), self.drawn(), self.device)

    def drawn(self) -> Iterator[tuple[list[int], PackedScenes]]:
        """Yield the numbers and the scenes of each batch as the processes hand them over."""
        scenes = _Scenes(self.stream, self.batch_size, self.first)
        pin = self.device.type == "cuda"
        return iter(
            DataLoader(scenes, batch_size=None, num_workers=self.num_workers, pin_memory=pin)
        )

    def batch(self, indices: Sequence[int]) -> dict:
        """Return the samples of these numbers."""
        return self.render(indices, draw_scenes(self.stream, indices))

    @torch.no_grad()
    def render(self, indices: Sequence[int], scenes: PackedScenes, lap: Lap = no_lap) -> dict:
        """Render scenes, which may be on any device, and return the samples of these numbers.

        Args:
            indices: what `scenes` was drawn for.
            lap: called after each part of the work.
        """
        numbers = scenes.to(self.device).arrays()
        lap("transfer")
        rendered = self.renderer.render(numbers, sizes=scenes.sizes, lap=lap)
        image = develop(rendered.light, rendered.mask, numbers, self.noise)
        lap("develop")
        joints = self.regressor @ rendered.vertices  # (17, v) @ (b, v, 3) -> (b, 17, 3)
        options = self.stream.options
        batch = labelled(image, rendered, inside_pixels(numbers), joints, numbers, options)
        for name, value in SAME_FOR_ALL.items():
            batch[name] = torch.full((len(image),), value, device=self.device)
        lap("labels")
        return batch | {
            "index": numbers["index"],
            "key": [self.stream.key(index) for index in indices],
        }


def draw_scenes(stream: SyntheticPeople, indices: Sequence[int]) -> PackedScenes:
    """Return what samples of a stream show, not yet rendered."""
    scenes = [stream.scene(index) for index in indices]
    numbers = pack_scenes(scenes, len(stream.people.hidden_faces))
    numbers["index"] = torch.tensor(list(indices))
    return PackedScenes.of(numbers, mesh_sizes(scenes, stream.people))


def one_ahead(
    work: Callable[[Any], Any], items: Iterable[Any], device: torch.device, cuda: Any = torch.cuda
) -> Iterator[Any]:
    """Yield what some work makes of each item, in their order.

    On a GPU the work for the next item is queued, on a stream of its own, before a result is
    yielded: it goes on while the result is used.

    Args:
        work: returns tensors, also in dicts and lists; it may wait for its own stream.
        cuda: has torch.cuda's streams.
    """
    if device.type != "cuda":
        yield from map(work, items)
        return
    stream = cuda.Stream(device)
    stream.wait_stream(cuda.current_stream(device))  # what the work needs may still be made there
    ahead = None
    for item in items:
        with cuda.stream(stream):
            result = work(item)
            queued = result, stream.record_event()
        if ahead is not None:
            yield _received(*ahead, cuda.current_stream(device))
        ahead = queued
    if ahead is not None:
        yield _received(*ahead, cuda.current_stream(device))


def _received(result: Any, done: Any, stream: Any) -> Any:
    """Make a stream wait for a result; its memory is kept until that stream has used it."""
    stream.wait_event(done)
    for tensor in _tensors(result):
        tensor.record_stream(stream)
    return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


class _Scenes(IterableDataset):
    """Indices and scenes of a stream's rank, a batch at a time; workers take turns."""

    def __init__(self, stream: SyntheticPeople, batch_size: int, first: int):
        self.stream, self.batch_size, self.first = stream, batch_size, first

    def __iter__(self) -> Iterator[tuple[list[int], PackedScenes]]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        stride = self.stream.world_size
        while True:
            start = self.first + stride * number * self.batch_size + self.stream.rank
            indices = range(start, start + stride * self.batch_size, stride)
            yield list(indices), draw_scenes(self.stream, indices)
            number += step

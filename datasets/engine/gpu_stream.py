"""Batches of the open data engine that are rendered, and stay, on a device."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from smpler.datasets.engine.render.scene_batch import SceneBatch, pack_scenes
from smpler.datasets.engine.render.torch_photo import develop
from smpler.datasets.engine.render.torch_renderer import RenderedBatch, TorchRenderer
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import H36M_NAMES, KEYPOINT_NAMES, KEYPOINTS_FROM_H36M


class SyntheticBatches:
    """The samples of a stream, in batches on a device; the keys are those of the stream's samples.

    The scenes are drawn on the CPU, by worker processes if there are some; their numbers alone go
    to the device. The pictures agree with `stream.sample(i)` within rounding and the JPEG coder's
    own tolerance (below one grey level in the mean); they are not the same bytes.

    Args:
        stream: what to render: of its rank, from sample `first` on.
        batch_size: scenes at a time.
        device: where to render.
        num_workers: processes that draw scenes.
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
        """Return some samples of the stream."""
        return self.render(indices, draw_scenes(self.stream, indices))

    @torch.no_grad()
    def render(self, indices: Sequence[int], scenes: SceneBatch) -> dict:
        """Return the samples that some scenes, anywhere, are."""
        scenes = {name: x.to(self.device, non_blocking=True) for name, x in scenes.items()}
        rendered = self.renderer.render(scenes)
        inside = self._inside(scenes)
        image = develop(rendered.light, rendered.mask, scenes, self.noise)
        keypoints_2d, keypoints_3d = self._keypoints(scenes, rendered.vertices)
        yes = torch.ones(len(image), dtype=torch.bool, device=self.device)
        mask = rendered.mask * inside
        return {
            "image": image * inside[:, None],
            "keypoints_2d": keypoints_2d,
            "keypoints_3d": keypoints_3d,
            "pose": scenes["pose"],
            "betas": scenes["subject_betas"],
            "center": scenes["box_center"],
            "scale": scenes["scale"],
            "index": torch.tensor(list(indices), device=self.device),
            "key": [self.stream.key(index) for index in indices],
            "has_smpl": yes,
            "has_keypoints_2d": yes,
            "has_keypoints_3d": yes,
            "gender": torch.zeros(len(image), dtype=torch.int64, device=self.device),
            **self._options(rendered, mask, keypoints_2d),
        }

    def _options(self, rendered: RenderedBatch, mask: Tensor, keypoints_2d: Tensor) -> dict:
        shown = mask > 0
        every = {
            "mask": lambda: mask,
            "depth": lambda: torch.where(shown, rendered.depth, 0),
            "parts": lambda: torch.where(shown, rendered.parts, 0),
            "visible": lambda: _shows(mask, keypoints_2d[..., :2]),
        }
        return {name: every[name]() for name in self.stream.options}

    def _inside(self, scenes: SceneBatch) -> Bool[Tensor, "b s s"]:
        """Say which pixels lie in the photo."""
        pixel = torch.arange(CROP_SIZE, device=self.device) + 0.5
        x, y = torch.meshgrid(pixel, pixel, indexing="xy")
        return _in_photo(torch.stack([x, y], dim=-1)[None], scenes)

    def _keypoints(
        self, scenes: SceneBatch, vertices: Float[Tensor, "b v 3"]
    ) -> tuple[Float[Tensor, "b 14 3"], Float[Tensor, "b 14 4"]]:
        joints = self.regressor @ vertices
        points = joints[:, list(KEYPOINTS_FROM_H36M)]
        focal = scenes["focal"][:, :1, None]
        places = scenes["center"][:, None] + focal * points[..., :2] / points[..., 2:]
        seen = _in_photo(places, scenes)[..., None]
        centered = points - joints[:, [H36M_NAMES.index("Pelvis")]]
        sure = torch.ones(len(points), len(KEYPOINT_NAMES), 1, device=self.device)
        return (
            torch.cat([places / CROP_SIZE * 2 - 1, seen], dim=2),
            torch.cat([centered, sure], dim=2),
        )


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


def _in_photo(places: Float[Tensor, "b *n 2"], scenes: SceneBatch) -> Bool[Tensor, "b *n"]:
    """Do what `smpler.datasets.engine.framing.Framing.inside` does."""
    shape = (-1, *[1] * (places.ndim - 2))
    angle = scenes["rotation"].view(shape)
    left, top, right, bottom = scenes["borders"].T.reshape(4, *shape)
    x, y = (places - CROP_SIZE / 2).unbind(-1)
    x, y = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def _shows(mask: Float[Tensor, "b s s"], places: Float[Tensor, "b k 2"]) -> Bool[Tensor, "b k"]:
    """Say at which crop coordinates masks are not empty."""
    column, row = ((places + 1) / 2 * CROP_SIZE).floor().long().unbind(-1)
    within = (column >= 0) & (row >= 0) & (column < CROP_SIZE) & (row < CROP_SIZE)
    item = torch.arange(len(mask), device=mask.device)[:, None]
    return within & (mask[item, row.clamp(0, CROP_SIZE - 1), column.clamp(0, CROP_SIZE - 1)] > 0)

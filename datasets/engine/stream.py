"""The open data engine's stream: any number of rendered people with exact labels.

A sample has the keys of `smpler.datasets.human_mesh`, with these differences: `keypoints_2d` are
exact (nothing is rounded to pixels), and their confidence is 1 within the photo, whether they are
seen or hidden, and 0 beyond its borders; `keypoints_3d` are the body's own regressed keypoints,
relative to its regressed pelvis; `gender` is 0, as the open body has none; `center` and `scale` are
those of a photo that is never rendered as a whole. On request also:

| key | shape, type | meaning |
|---|---|---|
| `mask` | (224, 224) float32 | share of a pixel that shows the person |
| `depth` | (224, 224) float32 | metres along the optical axis to the person; 0 where `mask` is |
| `parts` | (224, 224) int64 | 1 + the SMPL joint that moves what is seen; 0 where `mask` is |
| `visible` | (14,) bool | whether the keypoint's place shows the person |
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from smpler.datasets.engine.layers import BodyArrays
from smpler.datasets.engine.people import People
from smpler.datasets.engine.photo import develop, noise_bank
from smpler.datasets.engine.render import make_renderer
from smpler.datasets.engine.render.labels import OPTIONS, SAME_FOR_ALL, JointRegressor, labelled
from smpler.datasets.engine.render.scene_batch import pack_subjects
from smpler.datasets.engine.scenes import Scene, sample_scene
from smpler.datasets.engine.wardrobe import Wardrobe, load_wardrobe

SPLITS = ("train", "val")
POSE_VERSIONS = {"train": 2, "val": 1}
"""Split -> version of the poses, if none are given, see `PoseSampler`."""
VALIDATION_SEED, VALIDATION_SIZE = 2024, 2000
"""The fixed validation sets: these samples of the split `val`. Its set open/1 has version 1 of the
poses, open/2 has version 2."""


class SyntheticPeople(IterableDataset):
    """An endless stream of samples; sample i depends on seed, split and i alone.

    On one kind of CPU, sample i has the same bytes whatever the batch size and the number of
    workers or ranks. `sample(i)` returns any sample; `first(n)` returns the first n as a data set.

    Args:
        body: the open body.
        wardrobe: what people wear; by default the shipped one. Only the split's part is used.
        poses: its `sample(rng)` returns (24, 3) axis-angle, y up, z forward; by default a
            `smpler.datasets.engine.poses.sampler.PoseSampler` of the version in POSE_VERSIONS.
        split: `train`, or `val` with clothes, hair, skins and places that training never sees.
        options: further keys, from OPTIONS.
        augment: apply the published augmentation; by default in the split `train` alone.
        rank: number of this process; each process iterates over its own samples.
        world_size: how many processes there are.

    Raises:
        ValueError: an argument is none of its choices.
    """

    def __init__(
        self,
        body: BodyArrays,
        wardrobe: Wardrobe | None = None,
        poses=None,
        split: str = "train",
        seed: int = 0,
        options: Sequence[str] = (),
        augment: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}, but {' or '.join(SPLITS)} was expected.")
        if unknown := set(options) - set(OPTIONS):
            raise ValueError(
                f"{sorted(unknown)[0]!r} is no option; there are {', '.join(OPTIONS)}."
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, but 0 to {world_size - 1} was expected.")
        if poses is None:
            from smpler.datasets.engine.poses.sampler import PoseSampler

            poses = PoseSampler(version=POSE_VERSIONS[split])
        wardrobe = (wardrobe or load_wardrobe()).split(split)
        self.split, self.seed, self.options = split, seed, tuple(options)
        self.augment = split == "train" if augment is None else augment
        self.rank, self.world_size = rank, world_size
        self.poses, self.panoramas = poses, wardrobe.panoramas
        self.people = People(body, wardrobe)
        self.renderer = make_renderer(self.people, wardrobe.panoramas)
        self.noise = noise_bank()
        self._regress_joints = JointRegressor(body.h36m_regressor)

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.rank + self.world_size * number
        while True:
            yield self.sample(index)
            index += self.world_size * count

    def first(self, count: int) -> "SyntheticSamples":
        """Return the first samples as a data set with random access."""
        return SyntheticSamples(self, count)

    def key(self, index: int) -> str:
        """Return a sample's name."""
        return f"{self.split}/{self.seed}/{index}"

    def scene(self, index: int) -> Scene:
        """Return what sample `index` shows, not yet rendered."""
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        return sample_scene(rng, self.people, self.panoramas, self.poses.sample, self.augment)

    def sample(self, index: int) -> dict:
        """Return one sample."""
        if get_worker_info() is not None and cv2.getNumThreads() > 1:
            cv2.setNumThreads(0)  # workers share the cores among themselves
        scene = self.scene(index)
        rendering = self.renderer.render(scene)
        image = develop(rendering.light, rendering.mask, scene.photo, self.noise)
        image = np.minimum(image * np.float32(scene.photo.gains), 1)
        batch = labelled(
            image=torch.from_numpy(image).permute(2, 0, 1)[None],
            rendered=rendering.as_batch(),
            inside=torch.from_numpy(scene.framing.inside_pixels())[None],
            joints=torch.from_numpy(self._regress_joints(rendering.vertices))[None],
            scenes=pack_subjects([scene], np.float64),
            options=self.options,
        )
        sample = {name: value[0].contiguous() for name, value in batch.items()}
        return sample | SAME_FOR_ALL | {"index": index, "key": self.key(index)}


class SyntheticSamples(Dataset):
    """The first samples of a stream; each epoch continues where the last one ended.

    Args:
        stream: where the samples come from.
        count: how many there are in an epoch.
    """

    def __init__(self, stream: SyntheticPeople, count: int):
        self.stream, self.count = stream, count
        # shared with workers, also with those that live through several epochs
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.count:
            raise IndexError(f"Sample {index} of {self.count}.")
        return self.stream.sample(self.first_of_epoch + index)

    @property
    def first_of_epoch(self) -> int:
        """Number of the epoch's first sample in the stream."""
        return int(self._epoch) * self.count

    def set_epoch(self, epoch: int) -> None:
        """Switch to the samples of an epoch; no two epochs share a sample."""
        self._epoch.fill_(epoch)


def validation_set(body: BodyArrays, **arguments) -> SyntheticSamples:
    """Return the fixed validation set: open/1, or open/2 with `poses=PoseSampler(version=2)`.

    Args:
        body: the open body.
        arguments: of `SyntheticPeople`, without seed and split.
    """
    stream = SyntheticPeople(body, split="val", seed=VALIDATION_SEED, **arguments)
    return stream.first(VALIDATION_SIZE)

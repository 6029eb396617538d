"""The open data engine's stream: rendered people with exact labels, without end.

A sample has the keys of `smpler.datasets.human_mesh`, with these differences: `keypoints_2d` are
exact (nothing is rounded to pixels), their confidence is 1 in the photo, seen or hidden, and 0
beyond its borders; `keypoints_3d` are the body's own regressed keypoints, relative to its regressed
pelvis; `gender` is 0, as the open body has none; `center` and `scale` are those of a photo that is
never rendered as a whole. On request also:

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
from jaxtyping import Float
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from smpler.datasets.engine.layers import BodyArrays
from smpler.datasets.engine.people import People
from smpler.datasets.engine.photo import develop, noise_bank
from smpler.datasets.engine.render.result import make_renderer
from smpler.datasets.engine.scenes import Scene, sample_scene
from smpler.datasets.engine.wardrobe import Wardrobe, load_wardrobe
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import H36M_NAMES, KEYPOINT_NAMES, KEYPOINTS_FROM_H36M

SPLITS = ("train", "val")
OPTIONS = ("mask", "depth", "parts", "visible")
VALIDATION_SEED, VALIDATION_SIZE = 2024, 2000
"""The fixed validation set: these samples of the split `val`."""


class SyntheticPeople(IterableDataset):
    """Samples 0, 1, 2, ... without end; sample i depends on seed, split and i alone.

    On one kind of CPU, sample i has the same bytes whatever the batch size and the number of
    workers or ranks. `sample(i)` gives any of them; `first(n)` is a data set of n.

    Args:
        body: the open body.
        wardrobe: default: the shipped one; it is cut down to the split.
        poses: `sample(rng)` returns (24, 3) axis-angle, y up, z forward; default:
            `smpler.datasets.engine.poses.sampler.PoseSampler`.
        split: `train`: with the published augmentation; `val`: without, and with clothes, hair,
            skins and places that training never sees.
        options: further keys, of OPTIONS.
        augment: with the published augmentation or without; default: in training.
        rank, world_size: which process of how many iterates; each gets its own samples.

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

            poses = PoseSampler()
        wardrobe = (wardrobe or load_wardrobe()).split(split)
        self.split, self.seed, self.options = split, seed, tuple(options)
        self.augment = split == "train" if augment is None else augment
        self.rank, self.world_size = rank, world_size
        self.poses, self.panoramas = poses, wardrobe.panoramas
        self.people = People(body, wardrobe)
        self.renderer = make_renderer(self.people, wardrobe.panoramas)
        self.noise = noise_bank()
        used = np.flatnonzero(body.h36m_regressor.any(axis=0))
        self._regressor = (used, body.h36m_regressor[:, used].astype(np.float64))

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
        inside = scene.framing.inside_pixels()
        image = np.ascontiguousarray((image * inside[..., None]).transpose(2, 0, 1))
        keypoints_2d, keypoints_3d = self.keypoints(scene, rendering.vertices)
        subject = scene.actors[0]
        result = {
            "image": image,
            "keypoints_2d": keypoints_2d,
            "keypoints_3d": keypoints_3d,
            "pose": subject.pose().ravel(),
            "betas": subject.betas,
            "center": scene.framing.box_center,
        }
        mask = rendering.mask * inside
        if "mask" in self.options:
            result["mask"] = mask
        if "depth" in self.options:
            result["depth"] = np.where(mask > 0, rendering.depth, 0)
        result = {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in result.items()}
        if "parts" in self.options:
            result["parts"] = torch.from_numpy((rendering.parts * inside).astype(np.int64))
        if "visible" in self.options:
            result["visible"] = torch.from_numpy(_shows(mask, keypoints_2d[:, :2]))
        return result | {
            "index": index,
            "key": self.key(index),
            "has_smpl": True,
            "has_keypoints_2d": True,
            "has_keypoints_3d": True,
            "gender": 0,
            "scale": torch.tensor(scene.framing.scale, dtype=torch.float32),
        }

    def keypoints(
        self, scene: Scene, vertices: Float[np.ndarray, "v 3"]
    ) -> tuple[Float[np.ndarray, "14 3"], Float[np.ndarray, "14 4"]]:
        """Return the subject's keypoints in the crop and in space, with confidence."""
        used, regressor = self._regressor
        joints = regressor @ vertices[used].astype(np.float64)
        points = joints[list(KEYPOINTS_FROM_H36M)]
        places = scene.framing.project(points)
        seen = scene.framing.inside(places)
        centered = points - joints[H36M_NAMES.index("Pelvis")]
        return (
            np.column_stack([places / CROP_SIZE * 2 - 1, seen]),
            np.column_stack([centered, np.ones(len(KEYPOINT_NAMES))]),
        )


class SyntheticSamples(Dataset):
    """The first samples of a stream; an epoch of training goes on where the last one ended.

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
        """Number in the stream of the epoch's first sample."""
        return int(self._epoch) * self.count

    def set_epoch(self, epoch: int) -> None:
        """Go on to the samples of an epoch: no two epochs share one."""
        self._epoch.fill_(epoch)


def validation_set(body: BodyArrays, **arguments) -> SyntheticSamples:
    """Return the fixed validation set; arguments as of `SyntheticPeople`, but seed and split."""
    stream = SyntheticPeople(body, split="val", seed=VALIDATION_SEED, **arguments)
    return stream.first(VALIDATION_SIZE)


def _shows(mask: Float[np.ndarray, "s s"], places: Float[np.ndarray, "k 2"]) -> np.ndarray:
    """Say at which crop coordinates the mask is not empty."""
    column, row = np.floor((places + 1) / 2 * CROP_SIZE).astype(int).T
    within = (column >= 0) & (row >= 0) & (column < CROP_SIZE) & (row < CROP_SIZE)
    return within & (mask[row.clip(0, CROP_SIZE - 1), column.clip(0, CROP_SIZE - 1)] > 0)

"""One annotated person per item: the batch that training and evaluation see.

The contract of an item (a batch stacks them; `key` becomes a list):

| key | shape, type | meaning |
|---|---|---|
| `image` | (3, 224, 224) float32 | RGB in [0, 1]; the model owns mean and std |
| `index` | int64 | the sample's place in the data set |
| `key` | str | its name in the image table |
| `keypoints_2d` | (14, 3) float32 | x right, y down, [-1, 1] from edge to edge; confidence |
| `keypoints_3d` | (14, 4) float32 | metres, camera frame, from the label's pelvis; confidence |
| `pose` | (72,) float32 | axis-angle, radians; the first is the rotation to the camera frame |
| `betas` | (10,) float32 | shape coefficients |
| `has_smpl`, `has_keypoints_2d`, `has_keypoints_3d` | bool | whether the label vouches for them |
| `gender` | int64 | 0 neutral or unknown, 1 male, 2 female |
| `center` | (2,) float32 | middle of the person's box, photo pixels |
| `scale` | float32 | side of the crop / 200, photo pixels, augmentation included |

Camera frame: x right, y down, z away. Keypoints: `smpler.utils.joints.KEYPOINT_NAMES`.
"""

import logging

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.utils.data import Dataset, get_worker_info

from smpler.datasets.augment import (
    Augmentation,
    augment_joints_2d,
    augment_joints_3d,
    augment_pose,
    crop_image,
    crop_reduced_image,
    sample_augmentation,
)
from smpler.datasets.labels import LARGEST, Label
from smpler.datasets.tsv import TsvDataset
from smpler.datasets.tsv_file import BadSampleError
from smpler.utils.image import CROP_SIZE, CropWindow
from smpler.utils.joints import KEYPOINTS_FROM_ANNOTATION

log = logging.getLogger(__name__)

REDUCTIONS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
MAX_SKIPPED_AT_ONCE = 100
MAX_WORKERS = 256


class HumanMesh(Dataset):
    """People with annotations, from METRO's TSV layout.

    Augmentation depends on seed, epoch and index alone: neither on workers nor on processes, and a
    resumed epoch repeats it.

    Args:
        path: the yaml file.
        training: augment, and decode large photos at reduced size.
        seed: of the augmentation.
        on_bad_sample: `raise`; in training also `skip`, which replaces a bad row by the next good
            one and counts it.

    Raises:
        FileNotFoundError: the yaml or one of its tables is missing.
        BadSampleError: on access, a row cannot be used.
    """

    def __init__(self, path, training: bool, seed: int = 0, on_bad_sample: str = "raise"):
        if on_bad_sample not in ("raise", "skip"):
            raise ValueError(f"on_bad_sample is {on_bad_sample!r}, but raise or skip was expected.")
        if on_bad_sample == "skip" and not training:
            raise ValueError("Evaluation skips no sample: on_bad_sample must be raise.")
        self.samples = TsvDataset(path)
        self.training, self.seed, self.on_bad_sample = training, seed, on_bad_sample
        # shared with workers, also with those that live through several epochs
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._skipped = torch.zeros(MAX_WORKERS, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):  # also what ends a plain `for item in dataset`
            raise IndexError(f"sample {index} of {len(self)}")
        worker = get_worker_info()
        if worker is not None and cv2.getNumThreads() > 1:
            cv2.setNumThreads(0)  # workers share the cores among themselves
        augmentation = self.augmentation(index)
        for candidate in range(index, index + MAX_SKIPPED_AT_ONCE):
            try:
                return self.load(candidate % len(self), augmentation)
            except BadSampleError as error:
                if self.on_bad_sample == "raise":
                    raise
                log.warning("Skipped: %s", error)
                self._skipped[worker.id % MAX_WORKERS if worker else 0] += 1
        raise BadSampleError(
            f"{self.samples.where(index)} and the {MAX_SKIPPED_AT_ONCE} rows after it are bad; "
            "`python -m scripts.check_dataset` names what is wrong with each."
        )

    def set_epoch(self, epoch: int) -> None:
        """Change the augmentation to that of an epoch."""
        self._epoch.fill_(epoch)

    @property
    def num_skipped(self) -> int:
        """Number of bad rows skipped so far in all workers of this process."""
        return int(self._skipped.sum())

    def augmentation(self, index: int) -> Augmentation:
        """Return what is done to a sample in this epoch."""
        if not self.training:
            return Augmentation()
        return sample_augmentation(np.random.default_rng([self.seed, int(self._epoch), index]))

    def load(self, index: int, augmentation: Augmentation) -> dict:
        """Return a sample under a given augmentation.

        Raises:
            BadSampleError: its rows cannot be used.
        """
        label = Label.parse(self.samples.label(index), self.samples.where(index))
        key, data = self.samples.image_bytes(index)
        scale = label.scale * augmentation.scale
        window = CropWindow.around(tuple(label.center.tolist()), scale)
        image = self._crop(index, data, window, augmentation)
        joints_2d = augment_joints_2d(label.joints_2d, label.center, label.scale, augmentation)
        joints_3d = augment_joints_3d(label.joints_3d, augmentation)
        chosen = list(KEYPOINTS_FROM_ANNOTATION)
        arrays = {
            "keypoints_2d": joints_2d[chosen],
            "keypoints_3d": joints_3d[chosen],
            "pose": augment_pose(label.pose, augmentation),
            "betas": label.betas,
            "center": label.center,
        }
        return {
            "image": torch.from_numpy(image),
            "index": index,
            "key": key,
            "has_smpl": label.has_smpl,
            "has_keypoints_2d": label.has_2d,
            "has_keypoints_3d": label.has_3d,
            "gender": label.gender,
            "scale": torch.tensor(scale, dtype=torch.float32),
            **{name: self._float32(index, name, values) for name, values in arrays.items()},
        }

    def _float32(self, index: int, name: str, values: np.ndarray) -> torch.Tensor:
        """Return a batch's entry; what does not fit into float32 must not become infinite there."""
        if not (np.abs(values) <= LARGEST).all():
            raise BadSampleError(
                f"{self.samples.where(index)}: {name} becomes {np.abs(values).max():g}, which "
                "float32 cannot hold."
            )
        return torch.from_numpy(values.astype(np.float32))

    def _crop(
        self, index: int, data: bytes, window: CropWindow, augmentation: Augmentation
    ) -> Float[np.ndarray, "3 {CROP_SIZE} {CROP_SIZE}"]:
        reduction = 1
        if self.training:  # the largest that leaves the window at least CROP_SIZE pixels
            side = min(window.width, window.height)
            reduction = max(r for r in REDUCTIONS if r == 1 or side >= r * CROP_SIZE)
        image = decode(data, reduction)
        if image is None:
            source, row = self.samples.locate(index)
            where = self.samples.images[source].where(row)
            raise BadSampleError(f"{where}: {len(data)} bytes that are no image.")
        if reduction == 1:
            return crop_image(image, window, augmentation)
        return crop_reduced_image(image, reduction, window, augmentation)


def decode(data: bytes, reduction: int = 1) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode an image to RGB, upright, at 1 / reduction of its size; None if that is impossible."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), REDUCTIONS[reduction])
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)

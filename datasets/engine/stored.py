"""Samples of the open data engine as photos with METRO's labels, ready to be stored.

A photo is the crop with a margin on every side, so that training can still rotate and enlarge it.
Beyond the borders of the engine's photo it is black. In labels, the centre of the first pixel is
(0, 0).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from torch.utils.data import Dataset

from smpler.datasets.engine.photo import develop, jpeg_bytes
from smpler.datasets.engine.render.labels import JointRegressor
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.utils.image import CROP_SIZE

MARGIN = 56
"""Pixels round the crop: a quarter of its side, as much as the published augmentation may need."""
PHOTO_SIZE = CROP_SIZE + 2 * MARGIN
JPEG_QUALITY = 95
"""High: the picture already shows the JPEG artefacts of its simulated camera."""

_CENTERS = np.stack(np.meshgrid(*[np.arange(PHOTO_SIZE) + 0.5] * 2), axis=-1) - MARGIN
"""(PHOTO_SIZE, PHOTO_SIZE, 2): the photo's pixel centres, in crop pixels."""


@dataclass(frozen=True, eq=False)
class RenderedPhoto:
    """The arguments of `smpler.datasets.tsv.TsvWriter.add`."""

    key: str
    image: bytes
    """JPEG."""
    size: tuple[int, int]
    """Height, width."""
    label: dict
    """See `smpler.datasets.labels`."""


class RenderedPhotos(Dataset):
    """Samples of a stream as photos.

    Args:
        stream: made with `augment=False`, as training augments what it reads.
        annotation_regressor: of the body; a row is an annotated joint.
        first: number of the first sample.
        count: how many.
    """

    def __init__(
        self,
        stream: SyntheticPeople,
        annotation_regressor: Float[np.ndarray, "24 v"],
        first: int,
        count: int,
    ):
        if stream.augment:
            raise ValueError(
                "The stream augments its samples, and training would augment them again; make the "
                "stream with augment=False."
            )
        self.stream, self.first, self.count = stream, first, count
        self._regress_joints = JointRegressor(annotation_regressor)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> RenderedPhoto:
        if not 0 <= number < self.count:
            raise IndexError(f"Photo {number} of {self.count}.")
        cv2.setNumThreads(0)
        index = self.first + number
        scene = self.stream.scene(index)
        rendering = self.stream.renderer.render(scene, MARGIN)
        image = develop(rendering.light, rendering.mask, scene.photo, self.stream.noise)
        image = np.rint(255 * image * scene.framing.inside(_CENTERS)[..., None]).astype(np.uint8)
        subject = scene.actors[0]
        joints = self._regress_joints(rendering.vertices)
        places = scene.framing.project(joints)
        confidence = scene.framing.inside(places)
        label = {
            "center": [PHOTO_SIZE / 2, PHOTO_SIZE / 2],
            "scale": CROP_SIZE / 200,
            "2d_joints": np.column_stack([places + MARGIN - 0.5, confidence]),
            "3d_joints": np.column_stack([joints, np.ones(len(joints))]),
            "pose": np.asarray(subject.pose(), np.float64).ravel(),
            "betas": np.asarray(subject.betas, np.float64),
            **{f"has_{name}": 1 for name in ("2d_joints", "3d_joints", "smpl")},
        }
        data = jpeg_bytes(image, JPEG_QUALITY)
        return RenderedPhoto(self.stream.key(index), data, (PHOTO_SIZE, PHOTO_SIZE), label)

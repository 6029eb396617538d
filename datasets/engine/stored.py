"""Samples of the open data engine as photos with METRO's labels, to be stored and read again.

A photo is the crop with a margin on every side, so that training can still rotate and enlarge it;
where the engine's photo ends, it is black. Labels count pixels from the centre of the first one.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch.utils.data import Dataset

from smpler.datasets.engine.photo import develop
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.utils.image import CROP_SIZE

MARGIN = 56
"""Pixels round the crop: a quarter of its side, what the published augmentation may ask for."""
PHOTO_SIZE = CROP_SIZE + 2 * MARGIN
JPEG_QUALITY = 95
"""Of the file; the engine's own JPEG artefacts are in the picture already."""

_CENTERS = np.stack(np.meshgrid(*[np.arange(PHOTO_SIZE) + 0.5] * 2), axis=-1) - MARGIN
"""(PHOTO_SIZE, PHOTO_SIZE, 2) each pixel's centre in crop pixels."""


@dataclass(frozen=True, eq=False)
class RenderedPhoto:
    """What `smpler.datasets.tsv.TsvWriter.add` takes."""

    key: str
    image: bytes
    """JPEG."""
    size: tuple[int, int]
    label: dict
    """See `smpler.datasets.labels`."""


class RenderedPhotos(Dataset):
    """Samples of a stream as photos.

    Args:
        stream: made with `augment=False`, as training augments what it reads.
        annotation_regressor: of the body, rows of the 24 annotated joints.
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
            raise ValueError("The stream augments, and so will training; make it augment=False.")
        self.stream, self.first, self.count = stream, first, count
        self._used = np.flatnonzero(annotation_regressor.any(axis=0))
        self._regressor = annotation_regressor[:, self._used].astype(np.float64)

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
        joints = self._regressor @ rendering.vertices[self._used].astype(np.float64)
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
        key = f"{self.stream.split}/{self.stream.seed}/{index}"
        data = jpeg_bytes(image, JPEG_QUALITY)
        return RenderedPhoto(key, data, (PHOTO_SIZE, PHOTO_SIZE), label)


def jpeg_bytes(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """Encode RGB."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()

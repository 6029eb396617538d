"""Samples from what a renderer shows: the image within the photo's borders, and its labels.

Both renderers' samples are labelled here. Every function takes batches of tensors and keeps their
dtype and device: `SyntheticBatches` passes float32 on its device; `SyntheticPeople` passes batches
of one in float64, so that its labels are rounded once, at the end.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smpler.datasets.engine.framing import in_photo, project
from smpler.datasets.engine.render.constants import Constant
from smpler.datasets.engine.render.result import RenderedBatch
from smpler.datasets.engine.render.scene_batch import SceneBatch
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import H36M_PELVIS, KEYPOINTS_FROM_H36M

OPTIONS = ("mask", "depth", "parts", "visible")
"""Keys that a sample has on request."""
SAME_FOR_ALL = {
    "has_smpl": True,
    "has_keypoints_2d": True,
    "has_keypoints_3d": True,
    "gender": 0,
}
"""Labels that do not differ among samples; the open body has no gender."""
_KEYPOINTS = Constant(KEYPOINTS_FROM_H36M)


class JointRegressor:
    """Regresses joints in float64 from the few vertices that have a weight.

    Args:
        weights: one row per joint.
    """

    def __init__(self, weights: Float[np.ndarray, "j v"]):
        self._used = np.flatnonzero(weights.any(axis=0))
        self._weights = weights[:, self._used].astype(np.float64)

    def __call__(self, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "j 3"]:
        """Return the joints of a body."""
        return self._weights @ vertices[self._used].astype(np.float64)


def labelled(
    image: Float[Tensor, "b 3 s s"],
    rendered: RenderedBatch,
    inside: Bool[Tensor, "b s s"],
    joints: Float[Tensor, "b 17 3"],
    scenes: SceneBatch,
    options: Sequence[str],
) -> dict[str, Tensor]:
    """Return what differs among samples, but for their index and key.

    Args:
        image: developed crops.
        inside: which pixels lie in the photo.
        joints: Human3.6M's, of the subjects' bodies in the camera frame.
        scenes: what `scene_batch.pack_subjects` returns is enough.
        options: which of OPTIONS to add.
    """
    keypoints_2d, keypoints_3d = keypoints(joints, scenes)
    mask = rendered.mask * inside
    on_request = {
        "mask": lambda: mask,
        "depth": lambda: torch.where(mask > 0, rendered.depth, 0),
        "parts": lambda: torch.where(mask > 0, rendered.parts, 0).long(),
        "visible": lambda: _shows_subject(mask, keypoints_2d[..., :2]),
    }
    numbers = {
        "image": image * inside[:, None],
        "keypoints_2d": keypoints_2d,
        "keypoints_3d": keypoints_3d,
        "pose": scenes["pose"],
        "betas": scenes["subject_betas"],
        "center": scenes["box_center"],
        "scale": scenes["scale"],
    }
    result = {name: value.float() for name, value in numbers.items()}
    return result | {name: on_request[name]() for name in options}


def keypoints(
    joints: Float[Tensor, "b 17 3"], scenes: SceneBatch
) -> tuple[Float[Tensor, "b 14 3"], Float[Tensor, "b 14 4"]]:
    """Return the subjects' keypoints in the crop and in space, each with its confidence."""
    points = joints[:, _KEYPOINTS.on(joints.device)]
    places = project(points, scenes["focal"][:, :1, None], scenes["center"][:, None])
    seen = _in_photo(places, scenes)[..., None]
    centered = points - joints[:, H36M_PELVIS, None]
    return (
        torch.cat([places / CROP_SIZE * 2 - 1, seen], dim=2),
        torch.cat([centered, torch.ones_like(centered[..., :1])], dim=2),
    )


def inside_pixels(scenes: SceneBatch) -> Bool[Tensor, "b s s"]:
    """Say which of the crops' pixels have their centre in the photo."""
    pixel = torch.arange(CROP_SIZE, device=scenes["focal"].device) + 0.5
    x, y = torch.meshgrid(pixel, pixel, indexing="xy")
    return _in_photo(torch.stack([x, y], dim=-1)[None], scenes)


def _in_photo(places: Float[Tensor, "#b *n 2"], scenes: SceneBatch) -> Bool[Tensor, "b *n"]:
    """Say which crop pixels lie in the photo."""
    shape = (-1, *[1] * (places.ndim - 2))  # one number a scene, beside (b, *n)
    angle = scenes["rotation"].view(shape)
    borders = scenes["borders"].T.reshape(4, *shape)
    return in_photo(places, angle.cos(), angle.sin(), borders)


def _shows_subject(
    mask: Float[Tensor, "b s s"], places: Float[Tensor, "b k 2"]
) -> Bool[Tensor, "b k"]:
    """Say at which crop coordinates, [-1, 1] from edge to edge, the masks are not empty."""
    column, row = ((places + 1) / 2 * CROP_SIZE).floor().long().unbind(-1)
    within = (column >= 0) & (row >= 0) & (column < CROP_SIZE) & (row < CROP_SIZE)
    item = torch.arange(len(mask), device=mask.device)[:, None]
    return within & (mask[item, row.clamp(0, CROP_SIZE - 1), column.clamp(0, CROP_SIZE - 1)] > 0)

"""Mirrored training samples: left and right change sides."""

import torch
from jaxtyping import Bool
from torch import Tensor

from smpler.datasets.augment import MIRRORED_SMPL
from smpler.utils.joints import KEYPOINT_NAMES, NUM_JOINTS, mirrored

_KEYPOINTS = list(mirrored(KEYPOINT_NAMES))
_CHANGES = {
    "keypoints_2d": (_KEYPOINTS, (-1.0, 1.0, 1.0)),
    "keypoints_3d": (_KEYPOINTS, (-1.0, 1.0, 1.0, 1.0)),
    "pose": (list(MIRRORED_SMPL), (1.0, -1.0, -1.0)),
}
"""Label -> the row that each row becomes a copy of, and the sign of each coordinate."""


def mirrored_batch(batch: dict[str, Tensor], flip: Bool[Tensor, "b"]) -> dict[str, Tensor]:
    """Return a batch of `smpler.datasets.human_mesh` with some samples mirrored: crop and labels.

    Keys that a mirror does not change, and those that are not there, stay as they are.
    """
    batch = dict(batch)
    if "image" in batch:
        image = batch["image"]
        batch["image"] = torch.where(flip[:, None, None, None], image.flip(-1), image)
    for name, (order, signs) in _CHANGES.items():
        if name in batch:
            # pose: (b, 72) -> (b, 24, 3), and back below
            value = batch[name].unflatten(1, (NUM_JOINTS, 3)) if name == "pose" else batch[name]
            other = value[:, order] * torch.tensor(signs, device=value.device)
            value = torch.where(flip[:, None, None], other, value)
            batch[name] = value.flatten(1) if name == "pose" else value
    return batch

"""Crops beside the bodies estimated on them: for TensorBoard, and of the worst samples."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from smpler.training.engine import Batch
from smpler.utils.drawing.visualize import Color, overlay
from smpler.utils.geometry import project

NUM_DRAWN = 4
"""Crops of a batch in TensorBoard's picture."""
CAPTION_HEIGHT = 16
"""Pixels."""
SHEET_COLUMNS = 4


@torch.no_grad()
def beside_overlays(
    images: Float[Tensor, "b 3 s s"],
    estimate,
    faces: Int[np.ndarray, "f 3"],
    color: Color,
    limit: int,
) -> list[UInt8[np.ndarray, "s _ 3"]]:
    """Return the first crops of a batch, each beside itself with the estimated body over it.

    Args:
        images: RGB in [0, 1].
        estimate: a `smpler.models.smpl.Estimate` of the batch.
        faces: the body's triangles.
        color: of the body.
        limit: the largest number of pictures.
    """
    pictures = []
    for number in range(min(limit, len(images))):
        image = images[number].permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        vertices = vertices_in_crop(estimate, number, image.shape[0])
        pictures.append(np.concatenate([image, overlay(image, [vertices], faces, [color])], axis=1))
    return pictures


def draw_batch(
    batch: Batch, estimate, faces: Int[np.ndarray, "f 3"], color: Color
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return a batch's first crops beside their overlays, one below the other."""
    return np.concatenate(beside_overlays(batch["image"], estimate, faces, color, NUM_DRAWN))


def vertices_in_crop(estimate, number: int, size: int) -> Float[np.ndarray, "v 3"]:
    """Return the pixels of a person's vertices in the crop, and depth in the same unit."""
    vertices, cam = (x[number].float().cpu() for x in (estimate.vertices, estimate.cam))
    places = (project(vertices[None], cam[None])[0] + 1) / 2 * size
    return torch.cat([places, vertices[:, 2:] * cam[0] * size / 2], dim=1).numpy()


def captioned_sheet(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]], captions: Sequence[str]
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Put pictures of one size into a grid, each under its caption."""
    framed = []
    for picture, caption in zip(pictures, captions, strict=True):
        line = np.zeros((CAPTION_HEIGHT, picture.shape[1], 3), np.uint8)
        place = (3, CAPTION_HEIGHT - 4)
        cv2.putText(
            line, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255,) * 3, 1, cv2.LINE_AA
        )
        framed.append(np.concatenate([line, picture]))
    framed += [np.zeros_like(framed[0])] * (-len(framed) % SHEET_COLUMNS)
    rows = (framed[i : i + SHEET_COLUMNS] for i in range(0, len(framed), SHEET_COLUMNS))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])

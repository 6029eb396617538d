"""One person alone: other people in a picture are made black.

Networks that look for one person answer with a mixture of two when both are in the picture. Boxes
are x, y, width, height in photo pixels, (0, 0) the photo's top-left corner.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from smpler.utils.image import CROP_SIZE, Box, CropWindow, crop

OWN_MARGIN = OTHER_MARGIN = 0.03
"""What is added on each side of a person's own box, which stays, and of the boxes of others; in
longer sides of the box."""
VIEW_MARGIN = 0.3
"""The same of the part of a photo that is looked at, a square."""
MAX_SIDE = 2048
"""Pixels of the longer side of a copy of that part."""


def isolated_crop(
    photo: UInt8[np.ndarray, "h w 3"],
    window: CropWindow,
    box: Box,
    others: Sequence[Box],
    hidden: Sequence[Box] = (),
) -> Float[np.ndarray, "224 224 3"]:
    """Return a network's crop, RGB in [0, 1], in which a person is alone.

    Args:
        photo: RGB.
        window: of the crop.
        box: of the person.
        others: boxes of other people.
        hidden: boxes that are black even in the person's own box.
    """
    zoom = CROP_SIZE / np.array([window.width, window.height])
    corner = np.array([window.x, window.y])
    return isolated(crop(photo, window), box, others, hidden, corner, zoom)


def isolated_part(
    photo: UInt8[np.ndarray, "h w 3"], box: Box, others: Sequence[Box], hidden: Sequence[Box] = ()
) -> tuple[UInt8[np.ndarray, "i j 3"], Float[np.ndarray, "2"], float]:
    """Return the part of a photo round a person, who is alone in it.

    Args:
        photo: RGB.
        box: of the person.
        others: boxes of other people.
        hidden: boxes that are black even in the person's own box.

    Returns:
        The part, its top-left corner in photo pixels, and its pixels by those of the photo.
    """
    x, y, width, height = box
    half = (0.5 + VIEW_MARGIN) * max(width, height)
    middle = np.array([x + width / 2, y + height / 2])
    limit = np.array(photo.shape[1::-1])
    first = np.clip(np.floor(middle - half), 0, limit - 1).astype(int)
    last = np.clip(np.ceil(middle + half), first + 1, limit).astype(int)
    part = photo[first[1] : last[1], first[0] : last[0]]
    zoom = min(1.0, MAX_SIDE / max(part.shape[:2]))
    if zoom < 1:
        size = [max(1, round(zoom * side)) for side in part.shape[1::-1]]
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    part = isolated(part, box, others, hidden, first, np.full(2, zoom))
    return part, first.astype(float), zoom


def isolated(
    image: np.ndarray,
    box: Box,
    others: Sequence[Box],
    hidden: Sequence[Box],
    corner: np.ndarray,
    zoom: Float[np.ndarray, "2"],
) -> np.ndarray:
    """Return a picture in which pixels of others are black, but for those in the person's own box.

    Args:
        image: (h, w, 3), a part of a photo; it comes back as it is when there is nothing to do.
        box: of the person.
        others: boxes of other people.
        hidden: boxes that are black even in the person's own box.
        corner: of the picture, photo pixels.
        zoom: its pixels by those of the photo, across and down.
    """
    is_other = np.zeros(image.shape[:2], bool)
    for other in others:
        is_other[_inside(other, OTHER_MARGIN, corner, zoom)] = True
    is_other[_inside(box, OWN_MARGIN, corner, zoom)] = False
    for other in hidden:
        is_other[_inside(other, 0.0, corner, zoom)] = True
    if not is_other.any():
        return image
    image = image.copy()
    image[is_other] = 0
    return image


def grown(box: Box, margin: float) -> Box:
    """Return a box with a margin on each side, given in longer sides of the box."""
    x, y, width, height = box
    margin *= max(width, height)
    return x - margin, y - margin, width + 2 * margin, height + 2 * margin


def _inside(
    box: Box, margin: float, corner: np.ndarray, zoom: Float[np.ndarray, "2"]
) -> tuple[slice, slice]:
    """Return the rows and columns of a picture whose middles lie in a box; see `isolated`."""
    x, y, width, height = grown(box, margin)
    first = np.ceil((np.array([x, y]) - corner) * zoom - 0.5).clip(min=0).astype(int)
    last = np.ceil((np.array([x + width, y + height]) - corner) * zoom - 0.5).clip(min=0)
    return slice(first[1], int(last[1])), slice(first[0], int(last[0]))

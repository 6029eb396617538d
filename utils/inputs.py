"""What a user gives, photos, boxes and focal lengths: read and checked."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from smpler.utils.camera import default_focal_length
from smpler.utils.files.exif import MAX_DIAGONALS, MIN_DIAGONALS
from smpler.utils.image import Box, Photo, iou, read_photo

SAME_BOX = 0.8
"""Intersection over union from which on two boxes are of one person."""


def as_photo(photo: str | Path | np.ndarray | Photo, name: str | None) -> Photo:
    """Return a photo by another name; read it, or see that it is RGB."""
    if isinstance(photo, str | Path):
        photo = read_photo(photo)
    elif not isinstance(photo, Photo):
        photo = Photo(_as_rgb(photo), "", None)
    return photo if name is None else replace(photo, name=name)


def _as_rgb(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Return pixels, which must be RGB."""
    is_rgb = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if not (is_rgb and image.shape[2] == 3 and image.size):
        what = f"{image.dtype} {image.shape}" if hasattr(image, "dtype") else type(image).__name__
        raise ValueError(f"The photo is {what}; give a path, or RGB as uint8 (height, width, 3).")
    return np.ascontiguousarray(image)


def focal_length_of(photo: Photo, given: float | None) -> tuple[float, str]:
    """Return the focal length of a photo in pixels, and who says so."""
    height, width = photo.image.shape[:2]
    diagonal = default_focal_length((width, height))
    if given is not None:
        least, most = MIN_DIAGONALS * diagonal, MAX_DIAGONALS * diagonal
        is_number = isinstance(given, int | float | np.number) and not isinstance(given, bool)
        if not is_number or not least <= given <= most:
            raise ValueError(
                f"focal_length is {given!r}; of {photo.name or 'the photo'} it is a number of "
                f"pixels between {least:.0f} and {most:.0f}."
            )
        return float(given), "given"
    if photo.focal_length is not None:
        return photo.focal_length, "exif"
    return diagonal, "diagonal"


def checked_count(max_people: int) -> int:
    """Return a given number of people."""
    is_whole = isinstance(max_people, int | np.integer) and not isinstance(max_people, bool)
    if not is_whole or max_people < 1:
        raise ValueError(f"max_people is {max_people!r}; it is a whole number, at least 1.")
    return int(max_people)


def checked_boxes(
    boxes: Sequence[Sequence[float] | np.ndarray] | np.ndarray, photo: Photo
) -> list[Box]:
    """Return given boxes, each of another person."""
    if any(isinstance(box, int | float | np.number) for box in boxes):
        raise ValueError("boxes is one box; give a list of boxes, each x, y, width, height.")
    checked = [checked_box(box, photo) for box in boxes]
    if not checked:
        raise ValueError("boxes is empty; leave it away to let the detector find people.")
    for first, second in combinations(checked, 2):
        if iou(first, second) > SAME_BOX:
            values = " and ".join(",".join(f"{x:g}" for x in box) for box in (first, second))
            raise ValueError(f"The boxes {values} are nearly the same; give each person once.")
    return checked


def checked_box(box: Sequence[float] | np.ndarray, photo: Photo) -> Box:
    """Return a given box, x, y, width, height in pixels, which must show something of the photo."""
    try:
        x, y, width, height = (float(number) for number in box)
    except (TypeError, ValueError):
        raise ValueError(f"The box {box!r} is not x, y, width, height.") from None
    values = f"{x:g},{y:g},{width:g},{height:g}"
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise ValueError(f"The box {values} has no positive width and height.")
    rows, columns = photo.image.shape[:2]
    inside = x < columns and y < rows and x + width > 0 and y + height > 0
    if not inside or max(width, height) > 4 * max(rows, columns):
        raise ValueError(
            f"The box {values} does not fit {photo.name or 'the photo'}, which is {columns} x "
            f"{rows} pixels."
        )
    return x, y, width, height

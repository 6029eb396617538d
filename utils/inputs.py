"""What a user gives, photos, boxes and focal lengths: read and checked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from smpler.utils.camera import default_focal_length
from smpler.utils.image import Box, Photo, read_photo


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
    if given is not None:
        return given, "given"
    if photo.focal_length is not None:
        return photo.focal_length, "exif"
    height, width = photo.image.shape[:2]
    return default_focal_length((width, height)), "diagonal"


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

"""What a photo's EXIF data say of its camera; their values can be anything, and are not trusted."""

import math
import threading
import warnings
from collections.abc import Mapping
from numbers import Real

import PIL.Image
from PIL.ExifTags import IFD, Base

FULL_FRAME_DIAGONAL = math.hypot(36, 24)
"""Of the 35 mm film's frame, mm: it defines the equivalent focal length (CIPA DCG-001)."""
MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""FocalPlaneResolutionUnit -> mm: inch, cm, and beyond the standard, as in ExifTool, mm and um."""
INCH = 2
"""The unit when none is given."""
MIN_DIAGONALS, MAX_DIAGONALS = 0.2, 50
"""Range of a credible focal length, in diagonals of the photo: views of 136 to 1.1 degrees."""
SAME_ASPECT = 0.01
"""Relative difference up to which two aspect ratios are the same; whole pixels make some."""

_QUIET = threading.Lock()


def read_exif(image: PIL.Image.Image) -> PIL.Image.Exif:
    """Return an open image's EXIF data; empty when they are damaged."""
    try:
        return image.getexif()
    except Exception:  # damaged data can raise anything
        return PIL.Image.Exif()


def orientation(exif: PIL.Image.Exif) -> int:
    """Return how a photo lies in its file: 1 to 8, or any other number when that is unknown."""
    return int(_positive(exif.get(Base.Orientation)))


def focal_length_pixels(exif: PIL.Image.Exif, size: tuple[int, int]) -> float | None:
    """Return a photo's focal length in pixels; None when its EXIF data give no credible one.

    The 35 mm equivalent counts first, then the lens's focal length with the sensor's resolution.
    Both describe the photo as it was taken; see `_as_taken` for a photo that was changed since.

    Args:
        exif: of the photo.
        size: width and height of the photo, pixels; either may be the longer one.
    """
    tags = _camera_tags(exif)
    diagonal, scale = _as_taken(tags, size)
    equivalent = _positive(tags.get(Base.FocalLengthIn35mmFilm))  # mm
    focal_length = _positive(tags.get(Base.FocalLength))  # mm
    for pixels in (
        equivalent / FULL_FRAME_DIAGONAL * diagonal,
        focal_length * _pixels_per_mm(tags) * scale,
    ):
        if MIN_DIAGONALS <= pixels / math.hypot(*size) <= MAX_DIAGONALS:
            return pixels
    return None


def _camera_tags(exif: PIL.Image.Exif) -> Mapping[int, object]:
    """Return the tags that a camera writes, without Pillow's warnings; none when damaged."""
    try:
        with _QUIET, warnings.catch_warnings(action="ignore"):
            return exif.get_ifd(IFD.Exif)
    except Exception:  # damaged data can raise anything
        return {}


def _as_taken(tags: Mapping[int, object], size: tuple[int, int]) -> tuple[float, float]:
    """Compare a photo with the size that the camera noted, whichever way either is turned.

    Another size of the same aspect: the photo was resized. Another aspect, and no side longer than
    before: it was cropped, and its pixels are the camera's. Anything else is no size of this photo,
    which then counts as unchanged.

    Returns:
        The diagonal of what the camera took, in the photo's pixels; and how many of the photo's
        pixels make one of the camera's.
    """
    short, long = sorted(size)
    sides = (tags.get(Base.ExifImageWidth), tags.get(Base.ExifImageHeight))
    taken_short, taken_long = sorted(_positive(side) for side in sides)
    diagonal, taken_diagonal = math.hypot(short, long), math.hypot(taken_short, taken_long)
    if abs(short * taken_long - long * taken_short) < SAME_ASPECT * long * taken_short:
        return diagonal, diagonal / taken_diagonal
    if taken_short >= short and taken_long >= long:
        return taken_diagonal, 1.0
    return diagonal, 1.0


def _pixels_per_mm(tags: Mapping[int, object]) -> float:
    """Return the sensor's resolution, the geometric mean of both directions; 0 when unknown."""
    x = _positive(tags.get(Base.FocalPlaneXResolution))
    y = _positive(tags.get(Base.FocalPlaneYResolution))
    unit = _positive(tags.get(Base.FocalPlaneResolutionUnit, INCH))
    return math.sqrt((x or y) * (y or x)) / MM_PER_UNIT.get(int(unit), math.inf)


def _positive(value: object) -> float:
    """Return a tag's value as a number; 0 when it is no positive, finite number."""
    try:
        number = float(value) if isinstance(value, Real) else 0.0
    except ArithmeticError:  # it divides by 0, or has too many digits
        return 0.0
    return number if 0 < number < math.inf else 0.0

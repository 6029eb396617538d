"""Reading photos, cropping a person, and the way back from the crop to the photo.

Photo pixels: x right, y down, (0, 0) is the photo's top-left corner, so that the first pixel's
centre is (0.5, 0.5).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8

from smpler.utils.files.arrays import unreadable
from smpler.utils.files.exif import focal_length_pixels, orientation, read_exif
from smpler.utils.files.photos import ADVICE, is_readable, open_photo, photo_kind
from smpler.utils.files.pickled_calls import Refused
from smpler.utils.files.whole import not_written, replacing, write_bytes_whole
from smpler.utils.paths import display

MAX_PIXELS, MAX_SIDE = 200_000_000, 65_535
"""Of a photo that is read: what the largest cameras give, and the longest side of a JPEG."""
STRIP_PIXELS = 2**20
"""Pixels of a strip, the part of a large picture that is worked on at a time."""
CROP_SIZE = 224
MAX_CANVAS = 2**24
"""Pixels of a window up to which a crop copies the whole window."""
BOX_MARGIN = 1.2
"""The crop's side is 1.2 times the longer side of the person's box (METRO's and SPIN's rule)."""

Box = tuple[float, float, float, float]
"""x, y of the top-left corner, width, height; photo pixels."""


def common_area(a: Box, b: Box) -> float:
    """Return the area of the intersection of two boxes, square pixels."""
    width, height = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(width, 0.0) * max(height, 0.0)


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes; 0 where both are empty."""
    common = common_area(a, b)
    union = a[2] * a[3] + b[2] * b[3] - common
    return common / union if union > 0 else 0.0


@dataclass(frozen=True)
class CropWindow:
    """The part of a photo that a crop shows: whole photo pixels; it may leave the photo."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def around(cls, center: tuple[float, float], scale: float) -> "CropWindow":
        """Return the square of side 200 * scale round a centre, corners truncated towards zero."""
        left, top = (int(c - 100 * scale) for c in center)
        right, bottom = (int(c + 100 * scale) for c in center)
        return cls(left, top, max(right - left, 1), max(bottom - top, 1))

    @classmethod
    def for_box(cls, box: Box) -> "CropWindow":
        """Return the crop of a person's box: same centre, 1.2 times its longer side."""
        x, y, width, height = box
        scale = BOX_MARGIN * max(width, height) / 200
        return cls.around((x + width / 2, y + height / 2), scale)

    def box(self) -> Box:
        """Return the square box whose crop this is, but for the rounding."""
        margin = (1 - 1 / BOX_MARGIN) / 2
        shift = (margin * self.width, margin * self.height)
        extent = (self.width / BOX_MARGIN, self.height / BOX_MARGIN)
        return self.x + shift[0], self.y + shift[1], *extent

    def to_photo(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Take crop coordinates, [-1, 1] from edge to edge, to photo pixels."""
        size = np.array([self.width, self.height])
        return np.array([self.x, self.y]) + (points + 1) / 2 * size

    def to_crop(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Take photo pixels to crop coordinates; the inverse of `to_photo`."""
        size = np.array([self.width, self.height])
        return (points - np.array([self.x, self.y])) / size * 2 - 1


def crop(
    image: UInt8[np.ndarray, "h w 3"], window: CropWindow, size: int = CROP_SIZE
) -> Float[np.ndarray, "{size} {size} 3"]:
    """Cut a window out of a photo and bring it to size x size pixels; black outside the photo.

    Bilinear, as the published evaluation does it; a window of more than twice the size is averaged
    over pixel areas instead, because bilinear sampling would skip most of its pixels.

    Returns:
        RGB in [0, 1], float32.
    """
    height, width = image.shape[:2]
    x0, x1 = np.clip([window.x, window.x + window.width], 0, width)
    y0, y1 = np.clip([window.y, window.y + window.height], 0, height)
    seen = image[y0:y1, x0:x1]
    if window.width * window.height > MAX_CANVAS:
        return _area_average(seen, (int(x0) - window.x, int(y0) - window.y), window, size)
    canvas = np.zeros((window.height, window.width, 3), np.uint8)
    canvas[y0 - window.y : y1 - window.y, x0 - window.x : x1 - window.x] = seen
    if min(window.width, window.height) > 2 * size:
        canvas = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    resized = cv2.resize(canvas.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return resized / 255


def _area_average(
    seen: UInt8[np.ndarray, "h w 3"], corner: tuple[int, int], window: CropWindow, size: int
) -> Float[np.ndarray, "{size} {size} 3"]:
    """Average a large window over pixel areas without a copy of it; see `crop`.

    Args:
        seen: the part of the photo that lies in the window.
        corner: x, y of that part in the window.
        window: what is averaged.
        size: of the result.
    """
    result = np.zeros((size, size, 3), np.float32)
    height, width = seen.shape[:2]
    row_edges, column_edges = (
        np.clip(np.linspace(0, length, size + 1) - start, 0, extent)
        for length, start, extent in (
            (window.height, corner[1], height),
            (window.width, corner[0], width),
        )
    )
    columns = np.arange(width + 1)
    for row, (top, bottom) in enumerate(zip(row_edges, row_edges[1:], strict=False)):
        if top >= bottom:
            continue
        first, last = int(top), int(np.ceil(bottom))
        rows = np.arange(first, last)
        shares = np.minimum(rows + 1, bottom) - np.maximum(rows, top)  # of each pixel row
        total = np.zeros((width + 1, 3))
        for share, line in zip(shares, seen[first:last], strict=True):
            total[1:] += share * line
        total = total.cumsum(axis=0)
        for channel in range(3):
            result[row, :, channel] = np.diff(np.interp(column_edges, columns, total[:, channel]))
    # whole levels, as of the 8-bit picture that smaller windows go through
    return np.rint(result * (size * size / (window.width * window.height))) / np.float32(255)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as it was read from its file."""

    image: UInt8[np.ndarray, "h w 3"]
    """RGB, EXIF rotation applied."""
    name: str
    """The file's name as it can be printed; without folders."""
    focal_length: float | None
    """Pixels, from the EXIF data; None when they do not give it."""


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read the pixels of any photo; see `read_photo`."""
    return read_photo(path).image


def read_photo(path: str | Path) -> Photo:
    """Read any photo as RGB: EXIF rotation applied, grey, palette, CMYK and 16 bits converted.

    Transparent pixels are laid over white.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, cut off, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{display(path)} is missing; give the path of a photo.")
    if path.stat().st_size == 0:
        raise ValueError(f"{display(path)} is empty (0 bytes); give another photo.")
    kind = photo_kind(path)
    if not is_readable(kind):
        raise ValueError(f"{display(path)} is a {kind} photo: {ADVICE[kind]}.")
    try:
        with open_photo(path) as file:
            _check_size(file)
            file.load()
            exif = read_exif(file)  # of the whole file: a PNG's EXIF data may follow the pixels
            rgb = _to_rgb(file, orientation(exif))
            return Photo(rgb, display(path.name), focal_length_pixels(exif, file.size))
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{display(path)} is not an image that can be read.") from error
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, ValueError | OSError | SyntaxError) and not getattr(error, "errno", 0):
            error = Refused(error)  # in Pillow's words or ours, which users understand
        elif isinstance(error, MemoryError):
            error = Refused("it needs more memory than there is")
        raise unreadable(path, "was not read", error, "give another photo") from error


def _check_size(image: PIL.Image.Image) -> None:
    """Raise a ValueError when a photo is larger than what is read."""
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(
            f"it is {width} x {height} pixels, but at most {MAX_PIXELS // 10**6} megapixels and "
            f"{MAX_SIDE} pixels a side are read"
        )


def _to_rgb(image: PIL.Image.Image, orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image's pixels, turned by an EXIF orientation; by strips, to bound memory."""
    width, height = image.size
    rgb = np.empty(
        (width, height, 3) if orientation in (5, 6, 7, 8) else (height, width, 3), np.uint8
    )
    stored = _as_stored(rgb, orientation)
    white = 1.0 if image.mode == "F" and _maximum(image) <= 1 else 65535.0
    for top, strip in _strips(image):
        stored[top : top + strip.height] = _strip_to_rgb(strip, white)
    return rgb


def _as_stored(turned: UInt8[np.ndarray, "_ _ 3"], orientation: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the view of a photo's pixels in which they lie as in a file of an EXIF orientation."""
    flips = {2: np.s_[:, ::-1], 3: np.s_[::-1, ::-1], 4: np.s_[::-1], 7: np.s_[::-1, ::-1]}
    if orientation in (6, 8):
        return np.rot90(turned, 1 if orientation == 6 else -1)
    flipped = turned[flips.get(orientation, np.s_[:])]
    return flipped.transpose(1, 0, 2) if orientation in (5, 7) else flipped


def _strips(image: PIL.Image.Image) -> Iterator[tuple[int, PIL.Image.Image]]:
    """Cut an image into strips; return the first row of each, and the strip."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _maximum(image: PIL.Image.Image) -> float:
    """Return the largest value of an image of floats.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    largest = -np.inf
    for _, strip in _strips(image):
        values = np.asarray(strip)
        if not np.isfinite(values).all():
            raise ValueError("some of its values are NaN or infinite")
        largest = max(largest, float(values.max()))
    return largest


def _strip_to_rgb(image: PIL.Image.Image, white: float) -> UInt8[np.ndarray, "h w 3"]:
    """Convert a part of an image; `white` is the largest value of 16 or 32 bits a pixel."""
    if image.mode.startswith("I") or image.mode == "F":  # one channel
        values = np.asarray(image, dtype=np.float64)
        grey = np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(background, image)
    return np.array(image.convert("RGB"))


def write_image(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write RGB as PNG.

    Raises:
        OSError: it could not be written; the message names it.
    """
    done, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done, f"{image.shape} {image.dtype}"
    write_bytes_whole(path, data.tobytes())


class PngWriter:
    """Writes a large RGB picture as PNG, strip by strip from its top: it is never held whole."""

    def __init__(self, path: Path, width: int, height: int):
        self._path, self._size = path, (width, height)
        self._compressor = zlib.compressobj(1)
        self._opened = ExitStack()

    def __enter__(self) -> "PngWriter":
        """Open the file, whose place is taken at the end."""
        with ExitStack() as opened:
            part = opened.enter_context(replacing(self._path))
            self._file = opened.enter_context(part.open("wb"))
            self._file.write(b"\x89PNG\r\n\x1a\n")
            self._chunk(b"IHDR", struct.pack(">IIBBBBB", *self._size, 8, 2, 0, 0, 0))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, error: type[BaseException] | None, *details: Any) -> None:
        """Finish the file; after an error, only close it."""
        with self._opened:
            if error is None:
                self._chunk(b"IDAT", self._compressor.flush())
                self._chunk(b"IEND", b"")
                self._file.flush()
                os.fsync(self._file.fileno())
            else:
                self._opened.pop_all().__exit__(error, *details)

    def write(self, strip: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append rows."""
        height, width = strip.shape[:2]
        filtered = np.empty((height, 1 + 3 * width), np.uint8)
        filtered[:, 0] = 1  # each value is stored as the difference from the pixel on its left
        filtered[:, 1:4] = strip[:, 0]
        np.subtract(strip[:, 1:], strip[:, :-1], out=filtered[:, 4:].reshape(height, -1, 3))
        self._chunk(b"IDAT", self._compressor.compress(filtered.data))

    def _chunk(self, kind: bytes, data: bytes) -> None:
        if data or kind != b"IDAT":
            checksum = struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
            try:
                self._file.write(struct.pack(">I", len(data)) + kind + data + checksum)
            except OSError as error:  # here, as several pictures may be written at a time
                raise not_written(self._path, error.strerror) from error

"""Reading photos, cropping a person, and the way back from the crop to the photo.

Photo pixels: x right, y down, (0, 0) is the photo's top-left corner, so that the first pixel's
centre is (0.5, 0.5).
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import Float, UInt8

from smpler.utils.paths import display

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
CROP_SIZE = 224
BOX_MARGIN = 1.2
"""The crop's side is 1.2 times the longer side of the person's box (METRO's and SPIN's rule)."""

Box = tuple[float, float, float, float]
"""x, y of the top-left corner, width, height; photo pixels."""


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
    canvas = np.zeros((window.height, window.width, 3), np.uint8)
    x0, x1 = np.clip([window.x, window.x + window.width], 0, width)
    y0, y1 = np.clip([window.y, window.y + window.height], 0, height)
    seen = image[y0:y1, x0:x1]
    canvas[y0 - window.y : y1 - window.y, x0 - window.x : x1 - window.x] = seen
    if min(window.width, window.height) > 2 * size:
        canvas = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    resized = cv2.resize(canvas.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return resized / 255


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
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
    try:
        with PIL.Image.open(path) as file:
            return _to_rgb(PIL.ImageOps.exif_transpose(file))
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{display(path)} is not an image that can be read.") from error
    except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{display(path)} was not read: {reason}; give another photo.") from error


def _to_rgb(image: PIL.Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode.startswith("I") or image.mode == "F":  # 16 or 32 bits a pixel, one channel
        values = np.asarray(image, dtype=np.float64)
        most = 65535 if image.mode != "F" or values.max() > 1 else 1
        grey = np.rint(np.clip(values / most, 0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def write_image(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write RGB as PNG."""
    done, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done, f"{image.shape} {image.dtype}"
    path.write_bytes(data.tobytes())

"""How a photo is framed and the subject cropped out of it, cut off at borders as in real photos.

Crop pixels: x right, y down, (0, 0) is the crop's top-left corner, CROP_SIZE from edge to edge.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from smpler.datasets.augment import ROTATION_SPREAD, SCALE_SPREAD, UPRIGHT_PROBABILITY
from smpler.utils.image import BOX_MARGIN, CROP_SIZE

_PIXELS = np.stack(np.meshgrid(*[np.arange(CROP_SIZE) + 0.5] * 2), axis=-1)
_CORNERS = _PIXELS[:: CROP_SIZE - 1, :: CROP_SIZE - 1]


@dataclass(frozen=True, eq=False)
class Framing:
    """The pinhole camera of a crop, and the photo's borders in it."""

    focal: float
    """Pixels of the crop."""
    center: Float[np.ndarray, "2"]
    """Principal point, pixels of the crop; it is the photo's, and may lie outside the crop."""
    rotation: float
    """Radians that training turns the picture by, about the crop's middle, clockwise as seen."""
    borders: Float[np.ndarray, "4"]
    """Left, top, right and bottom of the photo: pixels from the crop's middle, before turning."""
    box_center: Float[np.ndarray, "2"]
    """Middle of the person's box, photo pixels."""
    scale: float
    """Side of the crop / 200, photo pixels."""

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Return the crop pixels of points in the camera frame."""
        return project(points, self.focal, self.center)

    def inside_pixels(self) -> Bool[np.ndarray, "{CROP_SIZE} {CROP_SIZE}"]:
        """Say which of the crop's pixels have their centre in the photo."""
        if self.inside(_CORNERS).all():  # the photo is convex
            return np.ones((CROP_SIZE, CROP_SIZE), bool)
        return self.inside(_PIXELS)

    def inside(self, points: Float[np.ndarray, "*n 2"]) -> Bool[np.ndarray, "*n"]:
        """Say which points of the crop lie in the photo."""
        return in_photo(points, np.cos(self.rotation), np.sin(self.rotation), self.borders)

    def moved(self, shift: Float[np.ndarray, "2"], scale: float) -> "Framing":
        """Return another crop of the same photo.

        Args:
            shift: of the crop's middle, pixels of this crop.
            scale: factor of the crop's side; above 1 shows more of the photo.
        """
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        before_turning = np.array([[cos, sin], [-sin, cos]]) @ shift
        photo_pixel = 200 * self.scale / CROP_SIZE
        return Framing(
            focal=self.focal / scale,
            center=CROP_SIZE / 2 + (self.center - CROP_SIZE / 2 - shift) / scale,
            rotation=self.rotation,
            borders=(self.borders - np.tile(before_turning, 2)) / scale,
            box_center=self.box_center + photo_pixel * before_turning,
            scale=self.scale * scale,
        )


def project(points, focal, center):
    """Return the crop pixels of points in the camera frame.

    This and `in_photo` take numpy arrays as well as tensors, which broadcast: (..., 3) points,
    focal lengths, (..., 2) principal points.
    """
    return center + focal * points[..., :2] / points[..., 2:]


def in_photo(points, cos, sin, borders):
    """Say which crop pixels (..., 2) lie in the photo.

    Args:
        cos: cosine of `Framing.rotation`.
        sin: its sine.
        borders: `Framing.borders`, the four of them along the first axis.
    """
    x, y = points[..., 0] - CROP_SIZE / 2, points[..., 1] - CROP_SIZE / 2
    x, y = cos * x + sin * y, cos * y - sin * x  # as it was before training turned the crop
    left, top, right, bottom = borders
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def sample_framing(
    rng: np.random.Generator, points: Float[np.ndarray, "p 3"], training: bool
) -> Framing:
    """Draw a crop.

    Args:
        points: of the subject's body, camera frame before training's turn.
        training: scale and turn the crop as the published augmentation does, and shift it, as
            detectors' boxes are off.
    """
    places = points[:, :2] / points[:, 2:]  # (p, 2): at focal length 1
    low, high = places.min(axis=0), places.max(axis=0)
    borders = _photo_borders(rng, low, high)
    seen_low, seen_high = np.maximum(low, borders[:2]), np.minimum(high, borders[2:])
    if rng.random() < WHOLE_BOX_SHARE:
        seen_low, seen_high = low, high
    side = (seen_high - seen_low).max() * BOX_MARGIN
    middle = (seen_low + seen_high) / 2 + rng.normal(0, 0.025, 2) * side
    side *= np.exp(rng.normal(0, 0.06))
    rotation = 0.0
    if training:
        middle = middle + rng.normal(0, TRAINING_SHIFT, 2) * side
        side *= 1 + SCALE_SPREAD * np.clip(rng.standard_normal(), -1, 1)
        if rng.random() < 1 - UPRIGHT_PROBABILITY:
            rotation = np.deg2rad(ROTATION_SPREAD * np.clip(rng.standard_normal(), -2, 2))
    focal = CROP_SIZE / side
    cos, sin = np.cos(rotation), np.sin(rotation)
    turned = np.array([[cos, -sin], [sin, cos]]) @ middle
    photo_side = np.clip(np.exp(rng.normal(np.log(330), 0.55)), 70, 1600)
    return Framing(
        focal=float(focal),
        center=CROP_SIZE / 2 - focal * turned,
        rotation=float(rotation),
        borders=(borders - np.tile(middle, 2)) * focal,
        box_center=(middle - borders[:2]) / side * photo_side,
        scale=float(photo_side / 200),
    )


TRAINING_SHIFT = 0.04
"""Standard deviation of training's shift of the crop, as a share of the crop's side."""
WHOLE_BOX_SHARE = 0.15
"""How often a box spans the whole person although the photo's border cuts the person off."""
CUT_SHARES = {"none": 0.8, "bottom": 0.11, "left": 0.035, "right": 0.035, "top": 0.02}
"""Which border of the photo cuts the person off."""
NEAR_SHARE = 0.055
"""How often a border that does not cut the person runs through the margin round it."""


def _photo_borders(
    rng: np.random.Generator, low: Float[np.ndarray, "2"], high: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "4"]:
    """Draw left, top, right and bottom of the photo in the units of the person's box."""
    size = (high - low).max()
    near = rng.random(4) < NEAR_SHARE
    margin = np.where(near, rng.uniform(0, 0.15, 4), rng.uniform(0.3, 3.0, 4)) * size
    borders = np.concatenate([low, high]) + margin * [-1, -1, 1, 1]
    cut = rng.choice(list(CUT_SHARES), p=list(CUT_SHARES.values()))
    if cut != "none":
        side = ("left", "top", "right", "bottom").index(cut)
        most = 0.55 if cut == "bottom" else 0.35
        axis, share = side % 2, rng.uniform(0.05, most)
        extent = (high - low)[axis]
        borders[side] = low[axis] + share * extent if side < 2 else high[axis] - share * extent
    return borders

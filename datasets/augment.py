"""Flip, rotate, scale and colour an image together with its keypoints and pose.

This is the augmentation of the published training (SMPLer, Sec. 4.1), step by step:
`tests/golden/augment.npz` holds its results. Photo pixels are those of the labels: x right, y down,
(0, 0) is the centre of the first pixel.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from smpler.utils.image import CROP_SIZE, CropWindow
from smpler.utils.joints import ANNOTATION_NAMES, ANNOTATION_PELVIS, SMPL_NAMES, mirrored

MIRRORED_ANNOTATION = list(mirrored(ANNOTATION_NAMES))
MIRRORED_SMPL = list(mirrored(SMPL_NAMES))

FLIP_PROBABILITY = 0.5
GAIN_SPREAD = 0.4
"""Largest distance of a colour's gain from 1."""
ROTATION_SPREAD = 30.0
"""Standard deviation [degrees]; clipped at two of them."""
UPRIGHT_PROBABILITY = 0.6
"""How often a crop is not rotated."""
SCALE_SPREAD = 0.25
"""Standard deviation; clipped at one of them."""


@dataclass(frozen=True)
class Augmentation:
    """One augmentation; the default changes nothing, as in evaluation."""

    flip: bool = False
    """Mirror left and right, after everything else."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of red, green and blue; the product is clipped to [0, 255]."""
    rotation: float = 0.0
    """Degrees, counter-clockwise as seen."""
    scale: float = 1.0
    """Factor of the crop's side: above 1 the person becomes smaller."""


def sample_augmentation(rng: np.random.Generator) -> Augmentation:
    """Draw an augmentation from the published distribution.

    Rotation is N(0, 30) clipped to +-60 degrees in 40 % of the cases; scale is N(1, 0.25) clipped
    to [0.75, 1.25]; gains are uniform in [0.6, 1.4], each channel its own.
    """
    flip = rng.random() < FLIP_PROBABILITY
    gains = rng.uniform(1 - GAIN_SPREAD, 1 + GAIN_SPREAD, 3)
    rotation = ROTATION_SPREAD * np.clip(rng.standard_normal(), -2, 2)
    scale = 1 + SCALE_SPREAD * np.clip(rng.standard_normal(), -1, 1)
    upright = rng.random() < UPRIGHT_PROBABILITY
    return Augmentation(
        bool(flip), tuple(gains.tolist()), 0.0 if upright else float(rotation), float(scale)
    )


def crop_image(
    image: UInt8[np.ndarray, "h w 3"], window: CropWindow, augmentation: Augmentation
) -> Float[np.ndarray, "3 {CROP_SIZE} {CROP_SIZE}"]:
    """Cut the window out of a photo, rotated, resized, mirrored and coloured; black outside.

    All steps are in float: nothing is rounded.

    Args:
        image: RGB.
        window: round the label's centre, at its scale times the augmentation's.

    Returns:
        RGB in [0, 1], float32.
    """
    canvas = _cut(image, window, augmentation.rotation)
    crop = cv2.resize(canvas, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR)
    if augmentation.flip:
        crop = crop[:, ::-1]
    planes = np.empty((3, CROP_SIZE, CROP_SIZE), np.float32)
    for channel, gain in enumerate(augmentation.gains):
        np.multiply(crop[..., channel], np.float32(gain / 255), out=planes[channel])
    return np.minimum(planes, 1, out=planes)


def _cut(
    image: UInt8[np.ndarray, "h w 3"], window: CropWindow, rotation: float
) -> Float[np.ndarray, "height width 3"]:
    """Return the window's pixels, rotated about its middle.

    The rotation sees `pad` more pixels on every side, so that the corners are filled.
    """
    width, height = window.width, window.height
    pad = max(int(np.hypot(width, height) / 2 - height / 2), 0) if rotation else 0
    left, top = window.x - pad, window.y - pad
    x0, x1 = np.clip([left, left + width + 2 * pad], 0, image.shape[1])
    y0, y1 = np.clip([top, top + height + 2 * pad], 0, image.shape[0])
    seen = image[y0:y1, x0:x1].astype(np.float32)
    if rotation and seen.size:
        middle = ((width - 1) / 2 + window.x - x0, (height - 1) / 2 + window.y - y0)
        matrix = cv2.getRotationMatrix2D(middle, rotation, 1.0)
        matrix[:, 2] += [x0 - window.x, y0 - window.y]  # from the seen part to the window
        return cv2.warpAffine(seen, matrix, (width, height), flags=cv2.INTER_LINEAR)
    if seen.shape[:2] == (height, width):
        return seen
    canvas = np.zeros((height, width, 3), np.float32)
    if not rotation:  # a rotated window that misses the photo stays black
        canvas[y0 - top : y1 - top, x0 - left : x1 - left] = seen
    return canvas


def crop_reduced_image(
    image: UInt8[np.ndarray, "h w 3"],
    reduction: int,
    window: CropWindow,
    augmentation: Augmentation,
) -> Float[np.ndarray, "3 {CROP_SIZE} {CROP_SIZE}"]:
    """Do as `crop_image` with a photo decoded at 1 / reduction of its size.

    For training: the smaller photo averages the pixels that `crop_image` would skip. It is cut out
    by one affine map, in 8 bits.

    Args:
        window: in pixels of the full photo.
    """
    inverse = _photo_from_crop(window, augmentation)
    inverse[:, 2] += inverse[:, :2].sum(axis=1) * 0.5 + 0.5  # pixel centres at halves ...
    inverse /= reduction
    inverse[:, 2] -= 0.5  # ... and back
    crop = cv2.warpAffine(
        image,
        inverse,
        (CROP_SIZE, CROP_SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    levels = np.arange(256) / 255
    planes = np.empty((3, CROP_SIZE, CROP_SIZE), np.float32)
    for channel, gain in enumerate(augmentation.gains):
        table = np.minimum(gain * levels, 1).astype(np.float32)
        cv2.LUT(cv2.extractChannel(crop, channel), table, dst=planes[channel])
    return planes


def _photo_from_crop(window: CropWindow, augmentation: Augmentation) -> Float[np.ndarray, "2 3"]:
    """Return the affine map from continuous crop coordinates to pixel centres of the photo.

    Crop coordinates go from 0 to 224 edge to edge; the last term is that of the photo's pixel
    whose centre is (0, 0).
    """
    size = np.array([window.width, window.height]) / CROP_SIZE
    stretch = np.diag([-size[0] if augmentation.flip else size[0], size[1]])
    angle = np.deg2rad(augmentation.rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ stretch
    middle = np.array([window.x, window.y]) + (np.array([window.width, window.height]) - 1) / 2
    return np.column_stack([linear, middle - linear @ [CROP_SIZE / 2, CROP_SIZE / 2]])


def augment_joints_2d(
    joints: Float[np.ndarray, "24 3"],
    center: Float[np.ndarray, "2"],
    scale: float,
    augmentation: Augmentation,
) -> Float[np.ndarray, "24 3"]:
    """Take annotated joints from photo pixels to the augmented crop.

    Positions become whole pixels of the crop, truncated towards zero, plus one: the published
    rounding.

    Args:
        joints: x, y in photo pixels, confidence.
        scale: side of the box / 200, before the augmentation.

    Returns:
        x, y in crop coordinates, [-1, 1] from edge to edge, confidence.
    """
    side = 200 * scale * augmentation.scale
    angle = np.deg2rad(augmentation.rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    offset = (joints[:, :2] - center) * (CROP_SIZE / side)
    pixel = np.trunc(offset @ np.array([[cos, -sin], [sin, cos]]) + CROP_SIZE / 2) + 1
    position = 2 * pixel / CROP_SIZE - 1
    result = np.column_stack([position, joints[:, 2]])
    if augmentation.flip:
        result = result[MIRRORED_ANNOTATION] * [-1, 1, 1]
    return result


def augment_joints_3d(
    joints: Float[np.ndarray, "24 4"], augmentation: Augmentation
) -> Float[np.ndarray, "24 4"]:
    """Rotate and mirror annotated joints with the image.

    Args:
        joints: metres in the camera's frame, confidence.

    Returns:
        The same, relative to the annotated pelvis.
    """
    position = joints[:, :3] - joints[ANNOTATION_PELVIS, :3]
    result = np.column_stack([position @ _image_rotation(augmentation).T, joints[:, 3]])
    if augmentation.flip:
        result = result[MIRRORED_ANNOTATION] * [-1, 1, 1, 1]
    return result


def augment_pose(
    pose: Float[np.ndarray, "72"], augmentation: Augmentation
) -> Float[np.ndarray, "72"]:
    """Rotate and mirror a pose (axis-angle, radians, camera's frame) with the image."""
    result = pose.reshape(-1, 3).copy()
    if augmentation.rotation:
        rotmat = _image_rotation(augmentation) @ cv2.Rodrigues(result[0])[0]
        result[0] = cv2.Rodrigues(rotmat)[0][:, 0]
    if augmentation.flip:
        result = result[MIRRORED_SMPL] * [1, -1, -1]
    return result.reshape(-1)


def _image_rotation(augmentation: Augmentation) -> Float[np.ndarray, "3 3"]:
    """Return the turn of the camera's frame about z (away) that the image's rotation means."""
    angle = -np.deg2rad(augmentation.rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

"""From light to a photo: exposure, lens, tone curve, noise, JPEG."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from smpler.datasets.engine.surfaces import linear_to_srgb

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
MIDDLE = 0.2
"""Linear light that the mean of a correctly exposed photo has (of square roots, squared)."""
MAX_METERING = 0.9
SHOULDER = 0.8
"""Linear light from which on the tone curve bends."""
NOISE_SIZE = 512
_NUM_TONES = 4096


@dataclass(frozen=True)
class Photo:
    """What the camera does to the light; spreads and levels are of 255."""

    exposure: float = 1.0
    """Factor on the automatic exposure."""
    metering: float = 0.0
    """How far the automatic exposure is that of the subject, not of the whole crop, [0, 1]."""
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: tuple[float, float] = (0.0, 0.0)
    """Standard deviations of the lens's and motion's blur along x and y, pixels."""
    contrast: float = 1.0
    noise: float = 0.0
    noise_offset: tuple[int, int] = (0, 0)
    """Where in the noise bank this photo's noise starts."""
    quality: int = 100
    """Of the JPEG, 1 to 100."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Training's factors of red, green and blue, on the finished photo."""


def sample_photo(rng: np.random.Generator, side: float, training: bool) -> Photo:
    """Draw how a photo was taken.

    Args:
        side: of the crop in photo pixels: a small one is enlarged, hence blurred.
        training: colour it as the published augmentation does.
    """
    enlarged = 0.4 * max(224 / side - 1, 0)
    lens = rng.uniform(0, 0.9) if rng.random() < 0.6 else 0.0
    moved = rng.exponential(0.8, 2) if rng.random() < 0.12 else np.zeros(2)
    blur = np.minimum(np.sqrt(enlarged**2 + lens**2 + moved**2), MAX_BLUR)
    gains = rng.uniform(0.6, 1.4, 3) if training else np.ones(3)
    return Photo(
        exposure=float(np.exp(rng.normal(0, 0.3))),
        white_balance=tuple(np.exp(rng.normal(0, 0.06, 3)).tolist()),
        blur=tuple(blur.tolist()),
        contrast=float(rng.uniform(0.8, 1.15)),
        noise=float(rng.exponential(2.5) if rng.random() < 0.7 else 0.0),
        noise_offset=tuple(rng.integers(NOISE_SIZE, size=2).tolist()),
        quality=int(rng.integers(40, 98)),
        gains=tuple(gains.tolist()),
        metering=float(rng.uniform(0, MAX_METERING)),
    )


SUBJECT_PART = 0.05
"""Part of the crop from which on the subject counts in full for the exposure."""
MAX_BLUR = 2.5
BLUR_RADIUS = 6
"""Pixels on either side that a blur sees."""


def noise_bank() -> Float[np.ndarray, "{NOISE_SIZE} {NOISE_SIZE} 3"]:
    """Return normal noise from which every photo takes its part: the same on every device."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((NOISE_SIZE, NOISE_SIZE, 3), dtype=np.float32)


def blur_kernel(sigma: float) -> Float[np.ndarray, "{2*BLUR_RADIUS+1}"]:
    """Weights of a normal distribution at whole pixels, sum 1; sigma 0 is one pixel alone."""
    place = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    weight = np.exp(-0.5 * (place / max(sigma, 1e-3)) ** 2)
    return (weight / weight.sum()).astype(np.float32)


_TONES = linear_to_srgb((np.arange(_NUM_TONES) / (_NUM_TONES - 1)) ** 2).astype(np.float32)
"""sRGB of squares: the square root's steps are about as even as the eye's."""


def develop(
    light: Float[np.ndarray, "h w 3"],
    mask: Float[np.ndarray, "h w"],
    photo: Photo,
    bank: Float[np.ndarray, "n n 3"],
) -> Float[np.ndarray, "h w 3"]:
    """Return the photo of linear light: sRGB in [0, 1], not coloured by `gains` yet.

    Args:
        mask: the subject's share of each pixel.
    """
    if max(photo.blur) > 0:
        kernels = (blur_kernel(sigma) for sigma in photo.blur)
        light = cv2.sepFilter2D(light, -1, *kernels, borderType=cv2.BORDER_REPLICATE)
    root = np.sqrt(light @ LUMINANCE)
    seen = min(float(mask.mean()) / SUBJECT_PART, 1)  # who is hardly seen is not exposed for
    subject = float((root * mask).sum()) / max(float(mask.sum()), 1e-6)
    weight = photo.metering * seen
    root = (1 - weight) * float(root.mean()) + weight * subject
    gain = photo.exposure * MIDDLE / max(root**2, 1e-6)
    light = light * (np.float32(photo.white_balance) * np.float32(gain))
    light /= 1 + np.float32(SHOULDER) * np.maximum(light - np.float32(SHOULDER), 0)
    tone = np.sqrt(np.clip(light, 0, 1)) * (_NUM_TONES - 1) + 0.5
    level = _TONES[tone.astype(np.int32)]
    level = (level - 0.5) * np.float32(255 * photo.contrast) + np.float32(127.5)
    if photo.noise > 0:
        level += np.float32(photo.noise) * _window(bank, photo.noise_offset, level.shape)
    return jpeg(np.rint(np.clip(level, 0, 255)).astype(np.uint8), photo.quality)


def _window(bank: np.ndarray, offset: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = ((o + np.arange(n)) % NOISE_SIZE for o, n in zip(offset, shape, strict=False))
    return bank[np.ix_(rows, columns)]


def jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> Float[np.ndarray, "h w 3"]:
    """Compress and decode; in [0, 1]."""
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1] * np.float32(1 / 255)
